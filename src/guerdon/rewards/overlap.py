"""How much of a reference text an answer shares: ROUGE, BLEU, chrF, edit similarity. Needs the extra `text`.

All grade the whole text meant as the answer (the inside of the last `<answer>` tag, else all that follows the thinking), in 0..1, and of
several references (a list) take the best, or all together where the measure is defined so (BLEU, chrF). No answer is 0.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.reading import extra, packages, references, said
from guerdon.samples import Verdict

LONGEST = 100_000
"""Characters of an answer, and of a reference, that are compared; the reason says when an answer was cut."""
_WORD = re.compile(r"\w+")


@reward(check=packages("rapidfuzz"))
def rouge(text: str, reference: Any, variant: Literal["1", "2", "L"] = "L") -> Verdict:
    """ROUGE F1 = 2 s / (a + r): of a n-grams of the answer and r of the reference, s shared, repeats counted (variant 1, 2), or words with
    the longest common subsequence s (L). Words are runs of letters, digits and _ in lower case, without stemming: on plain English the
    numbers of Google's rouge_score. Source: Lin 2004 (aclanthology W04-1013)."""
    if variant not in ("1", "2", "L"):
        raise Refused(f"`variant` of rouge is '1', '2' or 'L', not {variant!r}.")
    lcs = extra("rapidfuzz.distance").LCSseq.similarity if variant == "L" else None

    def f1(answer: str, target: str) -> float:
        a, r = _WORD.findall(answer.lower()), _WORD.findall(target.lower())
        if lcs is not None:
            return _ratio(lcs(a, r), len(a), len(r))
        a, r = (list(zip(*(words[i:] for i in range(int(variant))), strict=False)) for words in (a, r))
        return _ratio((Counter(a) & Counter(r)).total(), len(a), len(r))

    return _graded(text, reference, lambda answer, targets: max(f1(answer, target) for target in targets))


@reward(check=packages("sacrebleu"))
def bleu(text: str, reference: Any) -> Verdict:
    """sacrebleu's sentence BLEU / 100: brevity penalty times the geometric mean of the 1- to 4-gram precisions, no longer n-grams than
    the answer has, zero counts smoothed by 1/2, 1/4 ... (13a tokens). Several references are used together. Source: arXiv:1804.08771."""
    sacrebleu = extra("sacrebleu")
    return _graded(text, reference, lambda answer, targets: sacrebleu.sentence_bleu(answer, targets).score / 100)


@reward(check=packages("sacrebleu"))
def chrf(text: str, reference: Any, word_order: int = 0) -> Verdict:
    """sacrebleu's sentence chrF / 100: F2 of character n-grams (n = 1 to 6, white space aside); word_order 2 adds words and pairs of them
    (chrF++). Of several references the best. Source: Popovic 2015 (aclanthology W15-3049)."""
    sacrebleu = extra("sacrebleu")
    return _graded(text, reference, lambda answer, targets: sacrebleu.sentence_chrf(answer, targets, word_order=word_order).score / 100)


@reward(check=packages("rapidfuzz"))
def edit_similarity(text: str, reference: Any) -> Verdict:
    """1 - d / max(a, r): d the Levenshtein distance in characters between an answer of a and a reference of r characters, white space at
    the ends aside; 1 where both are empty."""
    similarity = extra("rapidfuzz.distance").Levenshtein.normalized_similarity
    return _graded(text, reference, lambda answer, targets: max(similarity(answer.strip(), target.strip()) for target in targets))


def _graded(text: str, reference: Any, measure: Callable[[str, list[str]], float]) -> Verdict:
    targets = [target[:LONGEST] for target in references(reference)]
    answer = said(text)
    if answer is None:
        return Verdict(0.0, "no answer found")
    cut = f"only the first {LONGEST} of {len(answer)} characters are compared" if len(answer) > LONGEST else ""
    return Verdict(min(1.0, max(0.0, measure(answer[:LONGEST], targets))), cut)


def _ratio(shared: int, a: int, b: int) -> float:
    return 2 * shared / (a + b) if a + b else 0.0

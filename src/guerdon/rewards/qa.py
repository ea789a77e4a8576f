"""Rewards of question answering: multiple choice, exact match, token F1."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping
from typing import Any

from guerdon.rewards.core import reward
from guerdon.rewards.reading import references
from guerdon.samples import Verdict

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")

_WRAP = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s?\{|[*_`$}]")
_ONE = re.compile(r"(?:option|choice|answer)?\s?[(\[]?([A-Za-z])[)\].:,]{0,2}", re.I)
_LED = re.compile(r"[(\[]?([A-Za-z])(?:[)\]:]|[.:](?=\s))\s*")
_LETTER = r"[(\[]?\b[A-Z]\b[)\]]?"
_NEGATED = re.compile(
    rf"(?:\b(?i:not|never|nor|neither|cannot|except|unlike|rather than|instead of|anything but|far from|other than)|n't)"
    r"\s(?:be\s)?(?:(?i:option|choice)\s)?"
    rf"{_LETTER}(?:(?:,\s?(?:or\s|nor\s|and\s)?|\s(?:or|nor|and)\s){_LETTER})*+"
)
_REFUTED = re.compile(
    rf"{_LETTER}(?:,?\s(?:and\s)?{_LETTER}){{0,5}}+(?:,?\s(?:but|yet|though)\s(?:that|this|it)|,?\swhich)?\s(?:is|are|was|would\sbe)\s"
    r"(?:wrong|incorrect|false|mistaken|a\smistake|not\s(?:right|correct|true|it|the\sanswer))\b"
)
_NOT_APPLICABLE = re.compile(r"\b[Nn]\s?/\s?[Aa]\b")
_STATED = re.compile(
    r"(?:[(\[](?P<bracket>[A-Za-z])[)\]]|(?<![\w'’])(?P<marked>[A-Z])(?=[).:\],;!?]|$)"
    r"|(?<![A-Za-z])(?i:is|option|choice|answer|or|and|either|pick|choose|select|be),?\s(?P<led>[A-Z])(?![\w'’])"
    r"|(?<![\w'’])(?P<before>[B-HJ-Z]|A(?=\s(?i:or|and|is)\b))(?![\w'’]))"
)
_SINGLE = re.compile(r"\b[A-Za-z]\b")
_LIST = re.compile(r"\(?[A-Za-z]\)?(?:(?:\s?[,;/&]|\sand\b)+\s?\(?[A-Za-z]\)?)*\.?")
"""Letters beside each other, and nothing else."""


@reward(inline=True)
def choice(answer: str | None, reference: Any, meta: Mapping[str, Any]) -> Verdict:
    """1 where the final answer states the letter of the right option and no other one; else 0, with what it states.

    Read as a letter: `B`, `(B)`, `B.`, `**B**`, `b)`, `B) its text`, `option B`, `so it must be (B)`; and the full text of an option where
    `meta.options` (or `meta.choices`) gives them, as a list (A, B, ...) or by letter. Refused: several letters ("A or B"), a letter
    beside the text of another option, a letter that is only denied ("not B"). The reference is a letter, `B) text`, the text of an
    option, or, where the options are a list, its position from 0; one that names no option makes the reward abstain.
    """
    options = _options(meta)
    right = _right(reference, options)
    if right is None:
        return Verdict.abstain("the reference names no option")
    if answer is None:
        return Verdict(0.0, "no answer found")
    letters = _letters(answer, options)
    if len(letters) != 1:
        return Verdict(0.0, f"several letters: {', '.join(sorted(letters))}" if letters else "no letter stated")
    return Verdict(float(letters == {right}), f"states {min(letters)}")


@reward(inline=True)
def choices(answer: str | None, reference: Any, meta: Mapping[str, Any]) -> Verdict:
    """|S| / |K| where the letters S that the final answer states are right options, K being all of them; 0 with one wrong letter or none.

    Letters are read as by `choice`, and lists of them: `A, C`, `A and C`. The reference is a list, or a text with commas (`A,C`), of what
    `choice` takes; one that names no option makes the reward abstain. `choices >= 1` wants all of them. Stating the one letter that is sure
    always earns 1 / |K|. Source: arXiv:2505.24718 (soft multiple choice).
    """
    options = _options(meta)
    listed = reference.split(",") if isinstance(reference, str) else reference if isinstance(reference, (list, tuple)) else [reference]
    right = {_right(one, options) for one in listed}
    if None in right and isinstance(reference, str):
        right = {_right(reference, options)}  # one option, with a comma in its text
    if not right or None in right:
        return Verdict.abstain("the reference names no option")
    if answer is None:
        return Verdict(0.0, "no answer found")
    text = " ".join(_WRAP.sub("", answer).split())
    letters = {letter.upper() for letter in _SINGLE.findall(text)} if _LIST.fullmatch(text) else _letters(answer, options)
    return Verdict(len(letters) / len(right) if letters <= right else 0.0, f"states {', '.join(sorted(letters)) or 'no letter'}")


def _options(meta: Mapping[str, Any]) -> dict[str, str]:
    """The options by letter; {} where the task states none."""
    given = meta.get("options", meta.get("choices"))
    if isinstance(given, Mapping):
        return {str(letter).strip().upper(): _bare(str(text)) for letter, text in given.items()}
    if isinstance(given, (list, tuple)) and 0 < len(given) <= 26:
        return {letter: _bare(_unlettered(str(text), letter)) for letter, text in zip(string.ascii_uppercase, given, strict=False)}
    return {}


def _unlettered(text: str, letter: str) -> str:
    """An option's text without its own letter in front, which some data sets write."""
    led = _LED.match(text.strip())
    return text.strip()[led.end() :] if led and led[1].upper() == letter and led.end() < len(text.strip()) else text


def _bare(text: str) -> str:
    return " ".join(_WRAP.sub("", text).lower().split()).rstrip(".")


def _right(reference: Any, options: Mapping[str, str]) -> str | None:
    if isinstance(reference, int) and not isinstance(reference, bool):
        return list(options)[reference] if 0 <= reference < len(options) else None
    text = str(reference).strip()
    by_text = [letter for letter, option in options.items() if option == _bare(text)]
    if (one := _ONE.fullmatch(text)) and (not options or one[1].upper() in options):
        return one[1].upper()
    if len(by_text) == 1:
        return by_text[0]
    led = _LED.match(text)
    return led[1].upper() if led and (not options or led[1].upper() in options) else None


def _letters(answer: str, options: Mapping[str, str]) -> set[str]:
    """The letters that an answer states; those that it denies, and letters that are no option, are left out."""
    text = _NOT_APPLICABLE.sub(" ", " ".join(_WRAP.sub("", answer).split()))
    if one := _ONE.fullmatch(text):
        return {one[1].upper()} if not options or one[1].upper() in options else set()
    by_text = {letter for letter, option in options.items() if option == _bare(text)}
    if by_text:
        return by_text
    if (led := _LED.match(text)) and options.get(led[1].upper()) == _bare(text[led.end() :]):
        return {led[1].upper()}
    found = {
        (m["bracket"] or m["marked"] or m["led"] or m["before"]).upper()
        for m in _STATED.finditer(_REFUTED.sub(" ", _NEGATED.sub(" ", text)))
    }
    beside = _bare(text[led.end() :]) if led else ""
    found |= {letter for letter, option in options.items() if option and option == beside}
    return found & options.keys() if options else found


@reward(inline=True)
def qa_exact(answer: str | None, reference: Any) -> Verdict:
    """1 where the final answer equals a reference after SQuAD's normalisation: lower case, no punctuation, no articles (a, an, the), single
    spaces; else 0. Several references (a list, or SQuAD's `{"text": [...]}`): the best. Source: arXiv:1606.05250."""
    if answer is None:
        return Verdict(0.0, "no answer found")
    own = normalise(answer)
    return Verdict(float(any(own == normalise(text) for text in references(reference))))


@reward(inline=True)
def qa_f1(answer: str | None, reference: Any) -> Verdict:
    """F1 of the words that final answer and reference share, after SQuAD's normalisation; of several references the best.

    F1 = 2 s / (a + r) for a and r words, s of them shared, repeats counted. Where one side has no words left: 1 if both, else 0
    (SQuAD 2.0). Source: arXiv:1606.05250, arXiv:1806.03822.
    """
    if answer is None:
        return Verdict(0.0, "no answer found")
    own = normalise(answer).split()
    return Verdict(max(_f1(own, normalise(text).split()) for text in references(reference)))


def normalise(text: str) -> str:
    """SQuAD's normalisation of an answer."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _f1(a: list[str], b: list[str]) -> float:
    if not a or not b:
        return float(a == b)
    return 2 * (Counter(a) & Counter(b)).total() / (len(a) + len(b))

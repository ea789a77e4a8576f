"""Short answers with refusals, and the facts of a thought: KnowRL is `2 * format - 1 + graded + fact_share.when(graded < 0)`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.judge import GUARD, Message, Said, ask, attack, quoted, read_json, read_word
from guerdon.rewards.nuggets import asked, unanswered
from guerdon.rewards.reading import references, said
from guerdon.samples import Sample, Verdict

GRADES: tuple[str, ...] = ("CORRECT", "INCORRECT", "NOT_ATTEMPTED")

_GRADE = """Grade the answer against the accepted answer.
CORRECT: it states what the accepted answer states, in whatever words, and nothing against it; more is allowed.
INCORRECT: it contradicts it, leaves an essential part of it out, or names several of which one is wrong; hedging does not help.
NOT_ATTEMPTED: it says that it does not know, or gives no answer, and nothing wrong.

{texts}

Write one word: CORRECT, INCORRECT or NOT_ATTEMPTED."""


@reward(batch=True, wrong=-1.0)
def graded(
    sample: list[Sample], reference: list[Any], model: Any = "judge", correct: float = 2.0, refused: float = 1.0, incorrect: float = -1.0,
    votes: int = 1, max_tokens: int = 512,
) -> list[Verdict]:  # fmt: skip
    """`correct`, `refused` or `incorrect`, as a judge grades the answer against the reference; an empty answer is incorrect.

    The answer is the inside of the last answer tag, else what follows the thinking. A list of references is several accepted answers. Of
    several votes the most frequent grade; a tie is the one that pays less. A judge without a readable grade: failed. Evidence `grade`.
    With p the chance to be right, refusing is the better policy where p * correct + (1 - p) * incorrect < refused: at the defaults for
    p < 2/3, and for p < (2 - f) / (3 - f) where `fact_share` f softens wrong answers. Source: arXiv:2506.19807 (KnowRL), its released
    code, which passes refusals through a global of its module, gives 0 for an unreadable judge and -1 for an answer outside tags.
    """
    out: list[Verdict | list[Message]] = [_grading(model, s, r, incorrect) for s, r in zip(sample, reference, strict=True)]
    asking = [x for x in out if not isinstance(x, Verdict)]
    found = iter(ask(model, asking, lambda text: read_word(text, GRADES), votes=votes, max_tokens=max_tokens))
    value = dict(zip(GRADES, (correct, incorrect, refused), strict=True))
    return [x if isinstance(x, Verdict) else _grade(next(found), value) for x in out]


def _grading(model: Any, sample: Sample, reference: Any, incorrect: float) -> Verdict | list[Message]:
    answer = said(sample.text)
    if answer is None or not answer.strip():
        return Verdict(incorrect, "no answer found")
    if why := attack(model, answer):
        return Verdict(incorrect, why)
    try:
        gold = " / ".join(references(reference))
    except Refused as error:
        return Verdict.fail(str(error))
    return _conversation(_GRADE, quoted(question=asked(sample.task.prompt), accepted=gold, answer=answer))


def _grade(found: Said[str], value: dict[str, float]) -> Verdict:
    if not found.values:
        return unanswered(found)
    count = Counter(found.values)
    grade = min(count, key=lambda word: (-count[word], value[word]))
    return Verdict(value[grade], evidence={"grade": grade})


MOST = 50
"""Facts of one thought that are looked at."""

_SPLIT = """Break the text below into atomic facts: short sentences that state one thing each and can be checked alone, with names in the
place of pronouns. Leave out plans, questions, doubts and what is no claim about the world.

{texts}

Write a JSON array of texts, [] where there is no fact, and nothing else."""
_FACTS = {"type": "array", "items": {"type": "string", "minLength": 1}}
_ENTAILS = """Does the passage entail the statement?
ENTAILMENT: whoever believes the passage must believe the statement.
CONTRADICTION: the passage says that it is false.
NEUTRAL: neither.

{texts}

Write one word: ENTAILMENT, CONTRADICTION or NEUTRAL."""
_WORDS = ("ENTAILMENT", "CONTRADICTION", "NEUTRAL")


@reward(batch=True)
def fact_share(
    sample: list[Sample], retrieve: Callable[[list[str], int], Sequence[Sequence[str]]], model: Any = "judge", nli_model: Any = "judge",
    gamma: float = 10.0, threshold: float = 0.3, k: int = 5, votes: int = 1, max_tokens: int = 2048,
) -> list[Verdict]:  # fmt: skip
    """f = (supported / n) * min(1, exp(1 - gamma / n)) over the n atomic facts of the thought, which `model` splits; 0 without any.

    The factor keeps one safe fact from being a whole thought. A fact is supported where p >= threshold for one of the k passages that the
    service `retrieve` gives for it, p the share of the votes of `nli_model` that call the passage an ENTAILMENT of the fact.
    retrieve(queries, k) -> for each query at most k texts; a query is the task's `meta.title`, where it has one, and the fact. In a recipe
    it stands under `models`, with a backend of one's own that returns the function. Facts count once however often they are repeated,
    the first 50 of them. A thought that cannot be split is failed, and so is one with a fact that
    no passage supports while a verdict on it is missing. Evidence `facts`: fact -> whether it is supported.
    Source: arXiv:2506.19807 (KnowRL), its released code: a classifier's entailment probability stands there in the place of votes, a text
    without think tags is a thought as a whole, and repeated facts count again.
    """
    out: list[Verdict | list[Message]] = [_splitting(model, s) for s in sample]
    asking = [x for x in out if not isinstance(x, Verdict)]
    found = iter(ask(model, asking, lambda text: read_json(text, _FACTS), max_tokens=max_tokens))
    facts = [x if isinstance(x, Verdict) else _facts(next(found)) for x in out]
    queries = {(_title(s), fact): None for s, several in zip(sample, facts, strict=True) if isinstance(several, list) for fact in several}
    passages = retrieve([f"{title} {fact}".strip() for title, fact in queries], k) if queries else []
    if len(passages) != len(queries):
        raise ValueError(f"`retrieve` gave {len(passages)} lists of passages for {len(queries)} queries")
    pairs = {(fact, text): None for (_, fact), texts in zip(queries, passages, strict=True) for text in texts[:k]}
    verdicts = ask(nli_model, [_pair(*pair) for pair in pairs], lambda text: read_word(text, _WORDS), votes=votes)
    entailed = {pair: said.values.count("ENTAILMENT") / len(said.values) if said.values else None
                for pair, said in zip(pairs, verdicts, strict=True)}  # fmt: skip
    chances = {key: [entailed[key[1], text] for text in texts[:k]] for key, texts in zip(queries, passages, strict=True)}
    supported = {key: any(p is not None and p >= threshold for p in ps) or (None if None in ps else False) for key, ps in chances.items()}
    return [
        _share({fact: supported[_title(s), fact] for fact in several}, gamma) if isinstance(several, list) else several
        for s, several in zip(sample, facts, strict=True)
    ]


def _splitting(model: Any, sample: Sample) -> Verdict | list[Message]:
    thought = sample.thinking.strip()
    if not thought:
        return Verdict(0.0, "no thought")
    if why := attack(model, thought):
        return Verdict(0.0, why)
    return _conversation(_SPLIT, quoted(text=thought))


def _facts(found: Said[list[str]]) -> Verdict | list[str]:
    """Each fact once, capitals and white space aside."""
    if not found.values:
        return unanswered(found)
    once: dict[str, str] = {}
    for fact in (" ".join(x.split()) for x in found.values[0]):
        once.setdefault(fact.casefold(), fact)
    return [fact for fact in once.values() if fact][:MOST]


def _title(sample: Sample) -> str:
    return str({**sample.task.meta, **sample.meta}.get("title") or "")


def _pair(fact: str, passage: str) -> list[Message]:
    return _conversation(_ENTAILS, quoted(passage=passage, statement=fact))


def _share(supported: dict[str, bool | None], gamma: float) -> Verdict:
    if None in supported.values():
        return Verdict.fail("no verdict that could be read on whether a passage entails a fact")
    n = len(supported)
    if not n:
        return Verdict(0.0, "no facts in the thought", evidence={"facts": {}})
    return Verdict(sum(map(bool, supported.values())) / n * math.exp(min(0.0, 1 - gamma / n)), evidence={"facts": supported})


def _conversation(task: str, texts: str) -> list[Message]:
    return [{"role": "system", "content": GUARD}, {"role": "user", "content": task.format(texts=texts)}]

"""Whether the final answer of a text equals a reference: numbers, fractions, percentages, units, currencies, tuples, sets, intervals,
equations, matrices, in LaTeX and in plain text.

    extract   `spans.answers` finds the places that state a final answer
    read      `math_read` turns answer and reference into exact values; plain ones are compared here, at once (`math_same`)
    slow      what takes algebra goes to math-verify and sympy in worker processes that are killed at the deadline (`math_slow`)

A right value is still wrong where training would be cheated: different final answers, a negated answer, a hedge, a list where one value
is asked for, an answer that the text behind it takes back. The reason names the path that decided (fast, slow, hostile) and why.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from guerdon.rewards.core import reward
from guerdon.rewards.math_read import LONGEST, Clock, Formula, Many, Number, Ratio, Value, Words, read, squeezed, tidy, words
from guerdon.rewards.math_same import same
from guerdon.rewards.math_slow import slow, warm
from guerdon.samples import Verdict
from guerdon.spans import Answer, answers
from guerdon.workers import Pool, shared

DEADLINE = 2.0
"""Seconds for the slow comparison of one answer."""

_NEGATED = re.compile(
    r"\b(?:not|never|neither|nor|cannot|can't|isn't|aren't|wasn't|doesn't|don't|won't|excluding|except|"
    r"incorrect|wrong|false|rul(?:e|es|ed|ing) out|instead of|anything but|far from|nowhere near|hardly|unequal|"
    r"(?:other|rather|less|more|fewer|greater|larger|smaller) than)\b"
    r"|\\neq?\b|≠",
    re.I,
)
_HEDGED = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|might|could be|may be|can be|either|unsure|not sure|unclear|guess|guessing|around|roughly|"
    r"nearly|almost|somewhere|between|at least|at most|up to|or so|give or take|one of|any of|unknown|unless|otherwise)\b|\?",
    re.I,
)
_RETRACTED = re.compile(
    r"\b(?:wait|kidding|scratch that|on second thought|correction|oops|sorry|(?:I|we) made an? (?:\w+ )?(?:mistake|error)|"
    r"(?:that|this|it|which)(?:'s| is| was| looks| seems) (?:wrong|incorrect|not (?:right|correct|the answer))|no, (?:it|the|that)|"
    r"actually,? (?:it|the|that|this|no|[-$\d])|not (?:right|correct) after all)\b",
    re.I,
)
_ALTERNATIVE = re.compile(
    r"(?:^[\s.,;*$}\\)\]]*(?:or\b|and\b|then\b|,)"
    r"|\b(?:or|alternatively|otherwise|maybe|perhaps|possibly|if not|another (?:answer|possibility|option))\b)"
    r"[^.\n\d]{0,40}(?P<number>-?\d[\d,]*(?:\.\d+)?)",
    re.I,
)
_BARE_LINE = re.compile(r"^[ \t]*(-?\d[\d,.]*)[ \t]*$", re.M)
_BEFORE = 60  # characters before a box in which a negation or a hedge of its sentence is looked for
_ABOUT = re.compile(
    r"^\s*(?:approx(?:imately|\.)?|about|exactly|simply|just|precisely|equals?(?: to)?|:|=|\\approx|(?:the )?(?:number|value)|"
    r"option|choice)\s*",
    re.I,
)
_CLAUSE = re.compile(
    r",?\s+(?:because|since|as|so|for|which|that|given|when|where|in total|altogether|in all|each|left|after|I hope)\b"
    r"|\s\(|\s-\s|\.\s|[!?](?=\s|$)"
)
_MATHS = re.compile(r"\$\$(.+?)\$\$|(?<![\\\w])\$(?!\d[\d,.]*[\s)])([^$\n]+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]|\*\*(.+?)\*\*", re.S)
_FIGURE = re.compile(
    r"(?<![\w.])[-−]?\s?(?:[$€£¥]\s?)?[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:\s?/\s?\d+)?(?:\s?\\?%)?(?![\w/])"
)
_VERB = re.compile(
    r"=|\b(?:is|are|was|were|be|equals?|makes?|made|earns?|earned|has|have|had|gets?|got|costs?|needs?|gives?|leaves?|spends?|spent|pays?|"
    r"obtains?|obtained|finds?|found|yields?|comes? to|arrives? at|total(?: of)?)\b:?"
)
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}(?:['’][a-z]+)?[\s,.:;]+\S")
_CHOICE = re.compile(r"\(?([A-Z])[).:]\s")
_UNIT_BEHIND = re.compile(r"\$[^$]+\$\s+[A-Za-z]+|\*\*[^*]+\*\*\s+[A-Za-z]+|\\\([^$]+\\\)\s+[A-Za-z]+")
_MINUS = re.compile(r"^(?:negative|minus)\s+(?=\d)", re.I)
_ASIDE = re.compile(r"\s\([A-Za-z][^()]*\)$")
_LITERAL = re.compile(r"\s*-?[\d.,]+\s*")
_VARIABLE = re.compile(r"(?<![A-Za-z])[a-z](?![A-Za-z])")
_BROKEN_OFF = re.compile(r"(?<!\^)[-+*/=<>]\s*$")
_LOOKS_LIKE_MATHS = re.compile(r"[\d\\=+*/^<>|]|(?<![A-Za-z])[A-Za-z](?![A-Za-z])|\bsqrt\b|\bpi\b")


class Gold(NamedTuple):
    """A reference, read once."""

    text: str
    value: Value
    negated: bool
    """It holds a word of negation itself ("not prime"), which an answer may then use."""
    hedged: bool


class Pending(NamedTuple):
    """What only the slow path can settle."""

    answer: str
    gold: str


@reward(batch=True, version="2")
def math(text: Sequence[str], reference: Sequence[Any], workers: Pool, deadline: float = DEADLINE) -> list[Verdict]:
    """1 where the final answer equals the reference in value, else 0; see the module's docstring. deadline: seconds of a slow one."""
    return judge_many(zip(text, reference, strict=True), deadline, workers)


def judge(text: str, reference: Any, deadline: float = DEADLINE) -> Verdict:
    """1 where the final answer of `text` equals `reference` (text or a number), else 0, with the reason; failed where it is None."""
    return judge_many([(text, reference)], deadline)[0]


def judge_many(pairs: Iterable[tuple[str, Any]], deadline: float = DEADLINE, pool: Pool | None = None) -> list[Verdict]:
    """A verdict a pair (text, reference), in order. Plain answers are settled in this process, in linear time; the others, equal ones
    once, in `pool` (the shared one by default), each within `deadline` seconds; who does not come back in time is wrong, as hostile."""
    verdicts: list[Verdict] = []
    waiting: dict[Pending, list[int]] = {}
    for i, (text, reference) in enumerate(pairs):
        told = fast(text, reference)
        if isinstance(told, Pending):
            waiting.setdefault(told, []).append(i)
            told = Verdict(0.0)
        verdicts.append(told)
    if waiting:
        warm()
        outcomes = (pool or shared()).run(slow, [tuple(pair) for pair in waiting], deadline)
        for rows, outcome in zip(waiting.values(), outcomes, strict=True):
            if outcome.hostile:
                verdict = Verdict(0.0, outcome.hostile)
            elif outcome.failed:
                verdict = Verdict.fail(f"slow: {outcome.failed}")
            else:
                verdict = Verdict(1.0, "slow: equal") if outcome.value else Verdict(0.0, "slow: different")
            for i in rows:
                verdicts[i] = verdict
    return verdicts


def fast(text: str, reference: Any) -> Verdict | Pending:
    """The verdict on a plain answer, without sympy and in linear time; Pending where it takes algebra."""
    if reference is None:
        return Verdict.fail("the task has no reference")
    gold = _gold(reference if isinstance(reference, str) else str(reference))
    if not gold.text:
        return Verdict.fail("the reference is empty")
    found = answers(text)
    if not found:
        return NO_ANSWER
    chosen = _strongest(found)
    piece = text[chosen.start : chosen.end]
    several = _several(text, found, chosen, gold)
    if isinstance(several, Verdict):
        return several
    if several is not None:
        piece, told = "", same(several, gold.value)
        if told is None:
            piece = ", ".join(dict.fromkeys(text[a.start : a.end] for a in found if a.kind == chosen.kind))
    elif len(piece) > max(LONGEST, 2 * len(gold.text)):
        return TOO_LONG
    elif not piece:
        return NO_ANSWER
    elif len(piece) > LONGEST:
        told = squeezed(tidy(piece)) == squeezed(gold.text)
    else:
        piece, told = _compare(piece, gold, chosen.kind)
    if told is False:
        return DIFFERENT if piece else NO_ANSWER
    refused = _refused(text, chosen, gold)
    if refused is not None:
        return refused
    return EQUAL if told else Pending(tidy(piece), gold.text)


NO_ANSWER = Verdict(0.0, "fast: no answer found")
TOO_LONG = Verdict(0.0, "fast: the answer is too long")
SEVERAL = Verdict(0.0, "fast: several different answers")
NEGATED = Verdict(0.0, "fast: the answer is negated")
HEDGED = Verdict(0.0, "fast: the answer is hedged")
RETRACTED = Verdict(0.0, "fast: the answer is taken back")
DIFFERENT = Verdict(0.0, "fast: different")
EQUAL = Verdict(1.0, "fast: equal")


@lru_cache(maxsize=1 << 16)
def _gold(reference: str) -> Gold:
    found = [a for a in answers(reference) if a.kind in ("boxed", "tag", "hashes")]
    text = tidy(reference[found[-1].start : found[-1].end] if found else reference)
    return Gold(text, read(text), bool(_NEGATED.search(text)), bool(_HEDGED.search(text)))


def _strongest(found: Sequence[Answer]) -> Answer:
    """The last place of the strongest convention."""
    if len(found) == 1:
        return found[0]
    order = ("tag", "boxed", "hashes", "phrase", "line")
    best = min(order.index(a.kind) for a in found)
    return next(a for a in reversed(found) if a.kind == order[best])


def _several(text: str, found: Sequence[Answer], chosen: Answer, gold: Gold) -> Verdict | Value | None:
    """Wrong where places of the chosen convention, or later ones of a weaker one, differ; earlier ones of a weaker convention are working.

    Different boxes are a list where the reference is one (Many); None for one answer."""
    if len(found) == 1:
        return None
    rivals = [a for a in found if a is not chosen and (a.kind == chosen.kind or a.start > chosen.end)]
    if not rivals:
        return None
    if len(rivals) > 20 or any(a.end - a.start > LONGEST for a in (chosen, *rivals)):
        return SEVERAL if len({text[a.start : a.end] for a in (chosen, *rivals)}) > 1 else None
    mine = read(_core(text[chosen.start : chosen.end], gold))
    pieces = [_core(text[a.start : a.end], gold) for a in rivals]
    if all(squeezed(tidy(piece)) == squeezed(tidy(text[chosen.start : chosen.end])) or same(read(piece), mine) for piece in pieces):
        return None
    if isinstance(gold.value, Many) and chosen.kind == "boxed" and all(a.kind == "boxed" for a in rivals):
        boxes = dict.fromkeys(tidy(text[a.start : a.end]) for a in found if a.kind == "boxed")
        if len(boxes) == len(gold.value.items):
            return Many(tuple(read(box) for box in boxes), "")
    return SEVERAL


def _compare(piece: str, gold: Gold, kind: str) -> tuple[str, bool | None]:
    """What was compared in the end ("" for nothing found), and whether it equals the gold."""
    if isinstance(gold.value, Words) and len(gold.value.text) == 1 and (choice := _CHOICE.match(tidy(piece))):
        piece = choice[1]
    value = read(piece)
    told = same(value, gold.value)
    if told or (told is False and not (isinstance(value, Words) or _PROSE.search(piece))):
        return piece, told
    core = _core(piece, gold, kind == "line")
    if core != piece:
        piece = core
        if not piece:
            return "", False
        value = read(piece)
        told = same(value, gold.value)
    if told is None and not _worth_algebra(value, gold.value):
        told = words(piece) == words(gold.text)
    return piece, told


def _worth_algebra(value: Value, gold: Value) -> bool:
    """Prose is not parsed: a formula has a figure, an operator, a command or a letter by itself, few words, and does not break off."""
    for side in (value, gold):
        if isinstance(side, Formula) and (
            not _LOOKS_LIKE_MATHS.search(side.text) or _BROKEN_OFF.search(side.text) or len(_PROSE.findall(side.text)) > 4
        ):
            return False
    return True


def _core(piece: str, gold: Gold, prose: bool = False) -> str:
    """The value inside what was said: `approximately 42 apples because ...` -> `42 apples`; the one formula or figure of a sentence; the
    last side of `3 + 4 = 7`. "" where a sentence has several figures and none of them is said to be the answer."""
    piece = _MINUS.sub("-", piece.strip())
    lead = _ABOUT.match(piece)
    if lead and lead.end():
        piece = piece[lead.end() :]
    if same(read(piece), gold.value) is not None and not _PROSE.search(piece):
        return piece
    if _PROSE.search(piece) or _UNIT_BEHIND.fullmatch(piece):
        marked = [next(g for g in found.groups() if g is not None) for found in _MATHS.finditer(piece)]
        if len({squeezed(tidy(m)) for m in marked}) > 1:  # "the value of $x$ is $3$"
            verb = [found.end() for found in _VERB.finditer(piece)]
            marked = [m for m in marked if verb and piece.rfind(m) > verb[-1]]
            return marked[0] if len(marked) == 1 else ""
        if marked:
            return marked[0]
        clause = _CLAUSE.search(piece)
        short = piece[: clause.start()] if clause else piece
        if clause and isinstance(read(short), Number if prose else (Number, Many)):
            return short
        if isinstance(gold.value, (Words, Formula)) and not prose:
            return short
        if isinstance(gold.value, Words):
            said = _VERB.split(piece)
            return said[-1].strip() if len(said) > 1 else piece
        if isinstance(read(_VERB.split(piece)[-1]), (Number, Ratio, Clock, Many)):
            return _VERB.split(piece)[-1]
        figures = list(_FIGURE.finditer(piece))
        if len(figures) > 1:
            verbs = list(_VERB.finditer(piece))
            figures = [f for f in figures if verbs and f.start() >= verbs[-1].end()]
        if len(figures) != 1:
            return ""
        tail = piece[figures[0].start() :]
        tail = tail[: cut.start()] if (cut := _CLAUSE.search(tail)) else tail
        return tail if isinstance(read(tail), Number) else figures[0][0]
    aside = _ASIDE.search(piece)
    if aside and isinstance(gold.value, Number):
        return piece[: aside.start()]
    sides = piece.split("=")
    if len(sides) > 1 and isinstance(gold.value, Number) and isinstance(read(sides[-1]), Number) and not any(c in piece for c in "<>,"):
        if any(_VARIABLE.search(side) for side in sides[:-1]) and len(sides) > 2:
            return piece
        told = [same(read(side), read(sides[-1])) for side in sides[:-1] if _LITERAL.fullmatch(side)]
        return piece if _VARIABLE.search(sides[0]) else sides[-1] if all(told) else ""
    return piece


def _refused(text: str, chosen: Answer, gold: Gold) -> Verdict | None:
    """Why an answer of the right value counts as wrong, or None."""
    piece = text[chosen.start : chosen.end]
    sentence = text[max(0, chosen.start - _BEFORE) : chosen.start]
    sentence = re.split(r"[.;!?\n](?=\s)|\n", sentence)[-1].rpartition(",")[2]
    around = sentence + " " + piece
    if not gold.negated and _NEGATED.search(around):
        return NEGATED
    if not gold.hedged and not gold.negated and _HEDGED.search(around):
        return HEDGED
    tail = text[chosen.end : chosen.end + 20_000]
    if not tail or tail.isspace():
        return None
    if _RETRACTED.search(tail):
        return RETRACTED
    for other in (*_ALTERNATIVE.finditer(tail[:2_000]), *_BARE_LINE.finditer(tail)):
        number = other["number"] if "number" in other.re.groupindex else other[1]
        if same(read(number), gold.value) is False:
            return SEVERAL
    return None

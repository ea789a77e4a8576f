"""Rewards without a ground truth: the form of the answer, and its length.

Both can be had by any constant that parses, so watch the true accuracy on a small labelled slice: `eval: {tasks: ..., gold: math}` in a
recipe measures it, and tells when the reward rises while the gold falls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.math_read import LONGEST, Assigned, Formula, Many, Value, Words, read
from guerdon.rewards.math_slow import parsed, warm
from guerdon.samples import HOSTILE, Verdict
from guerdon.workers import Pool

DEADLINE = 2.0
"""Seconds for parsing one formula."""


class Form(NamedTuple):
    thinks: bool
    """F_t: a <think> is closed."""
    answers: bool
    """F_a: a final answer is found and reads as mathematics."""
    reason: str

    @property
    def value(self) -> float:
        return 0.5 * (self.thinks + self.answers)


def forms(text: Sequence[str], answer: Sequence[str | None], pool: Pool) -> list[Form]:
    """F_t and F_a of each sample. Plain answers are read in this process, in linear time; what is left, equal ones once, is parsed in
    `pool`, each within `DEADLINE` seconds. A formula that does not come back in time is hostile, and no answer."""
    values = [read(a) if a and a.strip() and len(a) <= LONGEST else Words("") for a in answer]
    formulas = [_formulas(value) for value in values]
    todo = sorted({f for found in formulas for f in found or ()})
    told = {}
    if todo:
        warm()
        told = dict(zip(todo, pool.run(_parses, todo, DEADLINE), strict=True))
    out = []
    for t, found in zip(text, formulas, strict=True):
        start = t.find("<think>")
        thinks = start >= 0 and t.find("</think>", start) >= 0
        answers = found is not None and all(told[f].value for f in found)
        missing = ["<think>...</think>"] * (not thinks) + ["final answer that reads as mathematics"] * (not answers)
        hostile = next((told[f].hostile for f in found or () if told[f].hostile), "")
        out.append(Form(thinks, answers, hostile or (f"no {' and no '.join(missing)}" if missing else "")))
    return out


def _formulas(value: Value) -> list[str] | None:
    """The texts that only sympy can read inside a value; None where it is, or holds, words or nothing at all."""
    if isinstance(value, Words):
        return None
    if isinstance(value, Assigned):
        return _formulas(value.value)
    if isinstance(value, Many):
        inside = [_formulas(item) for item in value.items]
        return None if None in inside else [f for found in inside for f in found or ()]
    return [value.text] if isinstance(value, Formula) else []


def _parses(formula: str) -> bool:
    return parsed(formula) is not None


def bump(x: float, turn: float) -> float:
    """1 - (1 - x/p)^2 up to the turning point p, then 1 - 2 ((x - p) / (1 - p))^2: 0 at 0, 1 at p, -1 at 1. Past 1 it stays at -1."""
    if x <= turn:
        return 1 - (1 - x / turn) ** 2
    return 1 - 2 * ((min(x, 1.0) - turn) / (1 - turn)) ** 2


@reward(batch=True, version="1")
def format_only(text: list[str], answer: list[str | None], workers: Pool) -> list[Verdict]:
    """(F_t + F_a) / 2: half for a closed <think>, half for a final answer that reads as mathematics, right or wrong. No ground truth.

    A formula that takes over 2 s to parse is hostile and loses all. Source: arXiv:2505.19439.
    """
    return [Verdict(0.0 if f.reason.startswith(HOSTILE) else f.value, f.reason) for f in forms(text, answer, workers)]


def _bounds(l_max: int = 4096, turn: float = 0.5, **others: Any) -> None:
    if not 0 < turn < 1 or l_max < 1:
        raise Refused(f"surrogate(l_max={l_max}, turn={turn}): l_max is at least 1 and turn between 0 and 1.")


@reward(batch=True, wrong=-1.0, version="1", check=_bounds)
def surrogate(
    text: list[str],
    answer: list[str | None],
    ids: list[np.ndarray | None],
    workers: Pool,
    l_max: int = 4096,
    turn: float = 0.5,
    unit: Literal["tokens", "characters"] = "tokens",
) -> list[Verdict]:
    """Form and length: (F_t + F_a) / 2 + len(x) where F_a, else min(0, len(x)), with x = length / l_max. In [-1, 2]. No ground truth.

    len(x) rises from 0 to 1 at x = turn and falls to -1 at x = 1 (`bump`): a long text without an answer is punished, a short one gets 0.
    A formula that takes over 2 s to parse is hostile: -1.
    unit tokens: of the sample's ids; a sample without ids (a file row) abstains. unit characters: of its text.
    Raises Refused for a turn outside (0, 1) and an l_max below 1. Source: arXiv:2505.19439, github.com/insightLLM/rl-without-gt
    (math_reward.py: turn 0.5 and l_max 3072 in its runs; there len(x) goes on falling past x = 1).
    """
    out = []
    for f, t, i in zip(forms(text, answer, workers), text, ids, strict=True):
        if unit == "tokens" and i is None:
            out.append(Verdict.abstain("no tokens in this sample; use surrogate(unit='characters')"))
            continue
        length = bump((len(t) if i is None or unit == "characters" else len(i)) / l_max, turn)
        value = f.value + length if f.answers else min(0.0, length)
        out.append(Verdict(-1.0 if f.reason.startswith(HOSTILE) else value, f.reason))
    return out

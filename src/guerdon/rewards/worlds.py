"""Verifiers of the worlds of several turns. A sample that its tool broke off by itself is failed; one that attacked its tool is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from guerdon.envs.guess import answer_guess, left_after
from guerdon.envs.lookup import verify_lookup
from guerdon.envs.tools import Turn
from guerdon.rewards.core import reward
from guerdon.samples import HOSTILE, Sample, Verdict


def broken_off(meta: Mapping[str, Any]) -> Verdict | None:
    """The verdict of a sample whose tool gave no reply; None for the others."""
    why = meta.get("tool_error")
    if not why:
        return None
    return Verdict(0.0, str(why)) if str(why).startswith(HOSTILE) else Verdict.fail(f"the tool: {why}")


@reward(inline=True)
def lookup(text: str, reference: str, meta: Mapping[str, Any]) -> Verdict:
    """1 where the first ANSWER is the end of the chain, else 0."""
    right = verify_lookup(text, reference)
    return broken_off(meta) or (Verdict(0.0, "no answer") if right is None else Verdict(float(right)))


@reward(inline=True)
def guess(sample: Sample) -> Verdict:
    """1 where the last turn is the number, else 0."""
    turns = sample.cut("turn")
    return broken_off(sample.meta) or Verdict(float(bool(turns) and answer_guess(turns[-1], sample.task, ()).done))


@reward(inline=True, grain="step")
def guess_bits(sample: Sample) -> list[float] | Verdict:
    """The information of each question: log2 of the numbers left before it, less log2 of those left after it, over log2 of all.

    They add up to 1 for who finds the number. Abstained for a task of another world.
    """
    high = sample.task.meta.get("high")
    if high is None:
        return Verdict.abstain("the task is no number to guess")
    values, history = [], []
    low, top = 1, int(high)
    for text in sample.cut("turn"):
        history.append(Turn(text, answer_guess(text, sample.task, ()).text))
        now = left_after(history, int(high))
        values.append((math.log2(top - low + 1) - math.log2(now[1] - now[0] + 1)) / math.log2(int(high)))
        low, top = now
    return values

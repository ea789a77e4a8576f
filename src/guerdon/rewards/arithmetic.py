"""Verifiers of the chain-arithmetic world as rewards: the answer, how close it is, each written step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guerdon.envs.arithmetic import answer_of, verify_answer, verify_steps
from guerdon.envs.arithmetic import closeness as measure
from guerdon.rewards.core import reward
from guerdon.samples import Task, Verdict


@reward(inline=True)
def arithmetic(text: str, reference: str) -> Verdict:
    """1 where the answer line states the reference's value, exactly; else 0. Source: arXiv:2507.10532."""
    if answer_of(text) is None:
        return Verdict(0.0, "no answer line")
    return Verdict(float(verify_answer(text, reference)))


@reward(inline=True)
def closeness(text: str, reference: str) -> float:
    """1 - min(|a - b|, 1) / 2 - min(|a - b| / |b|, 1) / 2 for an answer a, the truth b; 0 without an answer. Source: arXiv:2507.10532."""
    return measure(text, reference)


@reward(inline=True, grain="step")
def arithmetic_steps(steps: list[str], meta: Mapping[str, Any]) -> list[float] | Verdict:
    """1 for each right step, 0 for each wrong one: its own calculation is right and follows from the expression and the steps before it."""
    if "expression" not in meta:
        return Verdict.abstain("the task is no arithmetic expression")
    return [float(right) for right in verify_steps(steps, Task("", "", None, meta))]

"""The first wrong step by binary search over rollouts, against rollouts behind every step, in chains of 12 to 16 steps.

A simulated solver (`_chain_solver`) works chain arithmetic and slips once in twenty steps, so that about half of the answers are wrong; one
answer a task, so that no beginning is shared and each search asks its own prompt. The truth is `verify_steps`.
"""

from __future__ import annotations

import sys
from typing import Any

from _chain_solver import answered, first_error, truth

from guerdon.annotation import monte_carlo, omegaprm

CLAIM = (
    "of 300 answers the first-error F1 of omegaprm's labels is at most 0.02 below that of plain Monte Carlo with 8 rollouts a step, and "
    "0.95 of the wrong answers' first errors or more are found, with at most 40% of its rollouts, also of those behind wrong answers alone "
    "(every seed)"
)
BASELINE = "monte_carlo: 8 rollouts behind every step, a step is wrong where none comes right"
METHOD = "omegaprm(k=8); without its key term, the halving: it asks one step after the other, until none comes right"
SEEDS = (0, 1, 2)


def measure(variant: str, seed: int) -> dict[str, Any]:
    samples, context = answered(300, 1, seed)
    real = truth(samples)
    if variant == "baseline":
        labels = monte_carlo(samples, context, k=8, soft=False, max_tokens=2000)
        behind_wrong = int(sum(labels.count[i, : n - 1].sum() for i, n in enumerate(labels.steps) if real[i] >= 0))
    else:
        if variant == "ablated":
            vars(sys.modules[omegaprm.__module__])["middle"] = lambda low, high: low + 1
        labels = omegaprm(samples, context, k=8, max_tokens=2000)
        behind_wrong = labels.cost.rollouts  # a right answer costs none
    found = first_error(labels, real)
    return {"value": found["f1"], **found, "rollouts": labels.cost.rollouts, "behind_wrong": behind_wrong}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return all(
        m["value"] >= b["value"] - 0.02
        and m["wrong"] >= 0.95
        and m["rollouts"] <= 0.4 * b["rollouts"]
        and m["behind_wrong"] <= 0.4 * b["behind_wrong"]
        for b, m in zip(baseline, method, strict=True)
    )

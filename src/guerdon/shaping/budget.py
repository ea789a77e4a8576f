"""A reward for answers that were given a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Context, Rewards, Sample
from guerdon.shaping.core import shape
from guerdon.shaping.length import reshaped


@shape(scope="sample", grains=("outcome",), changes_state=True)
def hbpo(rewards: Rewards, samples: Sequence[Sample], context: Context, limit: int = 4096, beta: float = 4.0) -> Rewards:
    """R(L | b) of a right answer of L tokens within the limit, b its budget (`meta["budget"]`); 0 for any other answer.

    With f(x) = beta cos(pi x / (2 limit)): R = f(b) where L <= b, else f(L) - (L - b) / limit. At b both are equal. A sample without a
    budget gets f(L). L counts what the policy wrote, not the hint; a sample without tokens abstains. This is the paper's form; the released
    code takes min(f(L) - |L - b| / limit, f(b)), which is lower far below a small budget (by 0.05 at most for 512 of 4096).
    Raises Refused for a budget that is no number of 1 or more. Source: arXiv:2507.15844, eq. 2 to 4.
    """
    if limit < 1:
        raise Refused(f"hbpo(limit={limit}): the limit is a number of tokens, 1 or more.")
    budget = np.array([_budget(sample) for sample in samples], dtype=float)

    def f(x: np.ndarray) -> np.ndarray:
        return beta * np.cos(np.pi * x / (2 * limit))

    def value(old: np.ndarray, right: np.ndarray, length: np.ndarray, known: np.ndarray) -> np.ndarray:
        b = np.where(np.isnan(budget), length, budget)
        paid = np.where(length <= b, f(b), f(length) - (length - b) / limit)
        return paid * (right & (length <= limit))

    return reshaped(rewards, samples, "tokens", value)


def _budget(sample: Sample) -> float:
    found = sample.meta.get("budget", np.nan)
    if isinstance(found, bool) or not isinstance(found, (int, float)) or found < 1:
        raise Refused(
            f"hbpo: the budget {found!r} of a sample of task {sample.task.id!r} is no number of tokens; the rollout `budgets` sets it."
        )
    return found

"""Shapes that believe a judge as far as it agrees with what can be verified."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample
from guerdon.shaping.core import shape
from guerdon.shaping.normalise import group_rows


@shape(scope="group", grains=("outcome",), example={"outcome": "exact"})
def trust(rewards: Rewards, samples: Sequence[Sample], context: Context, outcome: Rewards) -> Rewards:
    """gamma * t, gamma one number a group: 1 where the right answers of the group (outcome >= 0.5) have a mean t at or above that of the
    wrong ones, else exp(mean of the right - mean of the wrong); 1 where there are none of either.

    0 in groups whose outcomes are all at or above 0.9, or all at or below 0.1, where t alone would decide. For t and outcomes in [0, 1].
    Trust-GRPO is `math + (judge | trust(math) | fade(0.3, 0, until=12000, form="exponential"))`. Means are over answers with both values;
    t must score the wrong answers too (the released code scores them 0 unasked, and its gamma is then always 1 for outcomes of 0 and 1).
    Raises Refused for an outcome of steps or tokens. Source: arXiv:2505.17018, its released code.
    """
    if outcome.outcome is None:
        raise Refused("trust(outcome): the outcome must be a reward of whole answers; write trust(math).")
    right = outcome.outcome
    return rewards.map(lambda t: _weights(t, right, group_rows(samples)) * t.value)


def _weights(t: Grain, right: Grain, groups: Sequence[np.ndarray]) -> np.ndarray:
    out = np.zeros_like(t.value)
    for rows in groups:
        known = right.value[rows][right.scored[rows]]
        if not ((known >= 0.9).all() or (known <= 0.1).all()):
            both = rows[t.scored[rows] & right.scored[rows]]
            good, bad = (t.value[both[side]] for side in (right.value[both] >= 0.5, right.value[both] < 0.5))
            out[rows] = np.exp(min(0.0, good.mean() - bad.mean())) if len(good) and len(bad) else 1.0
    return out

"""Shapes of step rewards: a learned process reward as a dense signal that cannot be farmed by adding steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.samples import Context, Grain, Rewards, Sample
from guerdon.shaping.core import shape


@shape(scope="sample", grains=("step",))
def step_clip(rewards: Rewards, samples: Sequence[Sample], context: Context, threshold: float = 0.5) -> Rewards:
    """min(p_k - threshold, 0): a step is neutral or punished, never paid. Source: arXiv:2410.15115 (Clip)."""
    return rewards.map(lambda g: np.minimum(g.value - threshold, 0.0))


@shape(scope="sample", grains=("step",))
def step_delta(rewards: Rewards, samples: Sequence[Sample], context: Context) -> Rewards:
    """p_k - p_(k+1) for the steps k = 1 .. K-2, p_(K-1) for the last but one, 0 for the last, which the outcome pays.

    From step k on these add up to p_k, and over the answer to p_1, however many steps follow: repeating steps earns nothing. Only with a
    discount of 1. Steps that abstained are passed over. `prm | step_clip | step_delta` is the paper's best. Source: arXiv:2410.15115.
    """
    return rewards.map(_delta)


def _delta(g: Grain) -> np.ndarray:
    out = np.zeros_like(g.value)
    for row, scored in enumerate(g.scored):
        at = np.flatnonzero(scored)
        p = g.value[row, at[:-1]]
        out[row, at[:-1]] = p - np.append(p[1:], 0.0)
    return out

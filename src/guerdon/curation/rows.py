"""Which rows are trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.curation.core import keep
from guerdon.samples import Context, Kept, Rewards, Sample


@keep
def dynamic_sampling(samples: Sequence[Sample], rewards: Rewards, context: Context) -> Kept:
    """Leaves out groups whose living rewards are all equal, or of which fewer than two live: they carry no gradient.

    The loop refills the batch with fresh groups, `train.max_refills` times. Source: arXiv:2503.14476.
    """
    group = np.array([s.group for s in samples])
    value, alive = rewards.total(), rewards.alive
    varied = [g for g in np.unique(group) if len(np.unique(value[(group == g) & alive])) > 1]
    return Kept(np.flatnonzero(np.isin(group, varied)), np.ones(len(samples)))


@keep
def accuracy_band(samples: Sequence[Sample], rewards: Rewards, context: Context, low: float = 0.2, high: float = 0.8) -> Kept:
    """Leaves out groups whose share of passing samples (reward above 0.5), of those that live, is outside [low, high], and dead groups.

    Source: arXiv:2502.01456 (online prompt filter of PRIME).
    """
    group, alive = np.array([s.group for s in samples], dtype=np.int64), rewards.alive
    right = rewards.total() > 0.5
    shares = {g: right[(group == g) & alive].mean() for g in np.unique(group[alive])}
    kept = [g for g, share in shares.items() if low <= share <= high]
    return Kept(np.flatnonzero(np.isin(group, kept)), np.ones(len(samples)))


@keep
def one_each(samples: Sequence[Sample], rewards: Rewards, context: Context) -> Kept:
    """Leaves out groups that do not hold both a right (reward above 0.5) and a wrong living sample; in the others each side weighs 1.

    A right sample weighs 1 / (right ones of its group), a wrong one likewise, so that a group counts as one of each, and all stay in the
    baseline: in expectation what the source does, which draws one of each at random. Source: arXiv:2502.06781 (trajectory filter).
    """
    group, alive, right = np.array([s.group for s in samples], dtype=np.int64), rewards.alive, rewards.total() > 0.5
    weights, kept = np.zeros(len(samples)), np.zeros(len(samples), dtype=bool)
    for g in np.unique(group[alive]):
        sides = [(group == g) & alive & (right == good) for good in (True, False)]
        if sides[0].any() and sides[1].any():
            kept |= group == g
            for side in sides:
                weights[side] = 1 / side.sum()
    return Kept(np.flatnonzero(kept), weights)


@keep
def overlong_filter(samples: Sequence[Sample], rewards: Rewards, context: Context) -> Kept:
    """Leaves out answers that ran out of tokens: they count in no baseline either. Stricter than the paper's filter, `overlong_mask`."""
    return Kept(np.flatnonzero([s.stop != "length" for s in samples]), np.ones(len(samples)))


@keep
def overlong_mask(samples: Sequence[Sample], rewards: Rewards, context: Context) -> Kept:
    """Answers that ran out of tokens get weight 0: they stay in baselines and get no gradient.

    Source: arXiv:2503.14476 (overlong filtering, which masks their loss).
    """
    return Kept(np.arange(len(samples)), np.array([float(s.stop != "length") for s in samples]))

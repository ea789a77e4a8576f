"""Which samples of a group are compared with one another, for losses of preferences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.curation.core import keep
from guerdon.samples import Context, Kept, Rewards, Sample


@keep(pairs=True)
def best_worst(samples: Sequence[Sample], rewards: Rewards, context: Context, gap: float = 0.0) -> Kept:
    """One pair a group: chosen the sample of highest reward, rejected that of lowest.

    A group where these two are equal, or less than `gap` apart, gives none and leaves, as do all samples between the two. Samples that
    tie for either end stay as rows; the first of them is in the pair. Samples that failed or abstained are not compared.
    """
    group, value, alive = np.array([s.group for s in samples]), rewards.total(), rewards.alive
    rows: list[int] = []
    pairs: list[tuple[int, int]] = []
    for g in np.unique(group[alive]):
        members = np.flatnonzero((group == g) & alive)
        low, high = value[members].min(), value[members].max()
        if high > low and high - low >= gap:
            rows.extend(members[(value[members] == low) | (value[members] == high)].tolist())
            pairs.append((int(members[value[members].argmax()]), int(members[value[members].argmin()])))
    return Kept(np.array(sorted(rows), dtype=np.int64), np.ones(len(samples)), np.array(pairs, dtype=np.int64).reshape(-1, 2))


@keep(pairs=True)
def all_pairs(samples: Sequence[Sample], rewards: Rewards, context: Context, gap: float = 0.0) -> Kept:
    """Every pair of a group's living samples whose rewards differ, by `gap` or more: chosen the higher, rejected the lower. All rows stay.

    With rewards of 0 and 1: each success with each failure. Source: arXiv:2509.19199, its released code.
    """
    group, value, alive = np.array([s.group for s in samples]), rewards.total(), rewards.alive
    pairs: list[tuple[int, int]] = []
    for g in np.unique(group[alive]):
        members = np.flatnonzero((group == g) & alive)
        ahead = value[members][:, None] - value[members]
        chosen, rejected = np.nonzero((ahead > 0) & (ahead >= gap))
        pairs += zip(members[chosen].tolist(), members[rejected].tolist(), strict=True)
    return Kept(np.arange(len(samples)), np.ones(len(samples)), np.array(pairs, dtype=np.int64).reshape(-1, 2))

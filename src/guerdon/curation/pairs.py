"""Which samples of a group are compared with one another, for losses of preferences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.curation.core import keep
from guerdon.rewards.pairwise import duels, pairs_of
from guerdon.samples import Context, Grain, Kept, Rewards, Sample


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
def all_pairs(samples: Sequence[Sample], rewards: Rewards, context: Context, gap: float = 0.0, ties: bool = False) -> Kept:
    """Every pair of a group's living samples whose rewards differ, by `gap` or more: chosen the higher, rejected the lower. All rows stay.

    With rewards of 0 and 1: each success with each failure. ties: pairs of equal rewards too, as they stand, for a loss that reads by how
    much a side is better (`dno`). Source: arXiv:2509.19199, its released code.
    """
    a, b, over = _over(samples, rewards)
    which = ((over > 0) & (over >= gap)) | ((over == 0) & (a < b) & ties)
    return Kept(np.arange(len(samples)), np.ones(len(samples)), np.stack([a[which], b[which]], 1))


@keep(pairs=True)
def margin_pairs(samples: Sequence[Sample], rewards: Rewards, context: Context, gap: float = 0.5) -> Kept:
    """The pairs of `all_pairs` that are `gap` or more apart and of which the policy wrote a side or both: a teacher's answer against the
    policy's, whichever is better, but no teacher's against a teacher's. Samples in no pair leave.

    Source: arXiv:2404.03715; its margin is not known to us.
    """
    a, b, over = _over(samples, rewards)
    own = np.array([s.source == "policy" for s in samples], dtype=bool)
    which = (over > 0) & (over >= gap) & (own[a] | own[b])
    pairs = np.stack([a[which], b[which]], 1)
    return Kept(np.unique(pairs), np.ones(len(samples)), pairs)


@keep
def fair_reference(samples: Sequence[Sample], rewards: Rewards, context: Context, limit: float = 0.6) -> Kept:
    """Leaves out groups in which |sum of the credit `brpo`'s numbers| is above `limit` times the group's size: nearly all are better than
    its reference, or nearly none is. Also those in which nobody was compared. Source: arXiv:2506.00103 (limit: above 9 of 16).
    """
    group = np.array([s.group for s in samples], dtype=np.int64)
    found = pairs_of(group, rewards)
    of = np.unique(group, return_inverse=True)[1]
    total, size = (np.bincount(of, x, len(samples)) for x in (duels(found, len(samples)), rewards.alive))
    compared = np.bincount(of[found.a], found.judged, len(samples)) > 0
    return Kept(np.flatnonzero((compared & (np.abs(total) <= limit * size + 1e-9))[of]), np.ones(len(samples)))


def _over(samples: Sequence[Sample], rewards: Rewards) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(a, b, reward of a - reward of b) for all ordered pairs of living samples of a group."""
    found = pairs_of(np.array([s.group for s in samples], dtype=np.int64), Rewards(Grain.of(rewards.total(), rewards.state)))
    return found.a[found.judged], found.b[found.judged], found.by[found.judged]

"""Rows are kept by how far they are from the others of their group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.curation.core import keep
from guerdon.registry import Refused
from guerdon.samples import Context, Kept, Rewards, Sample


@keep
def advantage_filter(samples: Sequence[Sample], rewards: Rewards, context: Context, least: float = 0.01) -> Kept:
    """Rows whose |r - mean of the others in the group| is below `least` get weight 0: they stay in baselines and in no denominator.

    So the rows that do move the policy are not diluted by those of groups that are all right or all wrong. A living row alone in its group
    has nobody to be compared with and weight 0. Goes with the credit `rloo`, whose advantage this is. Raises Refused for a negative
    `least`. Source: arXiv:2502.01600 (LOOP), its released code.
    """
    if least < 0:
        raise Refused(f"advantage_filter(least={least}): the least advantage is 0 or more.")
    group, r, alive = np.array([s.group for s in samples], dtype=np.int64), rewards.total(), rewards.alive
    _, index = np.unique(group, return_inverse=True)
    total, count = np.bincount(index, r * alive)[index], np.bincount(index, alive)[index]
    advantage = (r - (total - r) / np.maximum(count - 1, 1)) * (alive & (count > 1))
    return Kept(np.arange(len(samples)), (np.abs(advantage) >= max(least, 1e-12)).astype(float))

"""Which of several judgments of one row a judge is taught on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.curation.core import keep
from guerdon.samples import Context, Kept, Rewards, Sample


@keep
def longest_right(samples: Sequence[Sample], rewards: Rewards, context: Context, above: float = 0.5) -> Kept:
    """Of each group the longest living sample whose reward is more than `above`; the others, and groups without one, leave.

    Long by tokens, by characters where there are none; of equal ones the first. With loss `sft` it warms up a judge on its own, or a
    teacher's, long judgments that came right. Source: arXiv:2505.16265, whose data are called `max`; that this is their choice is assumed.
    """
    right = rewards.alive & (rewards.total() > above)
    best: dict[int, tuple[int, int]] = {}
    for i in np.flatnonzero(right).tolist():
        sample = samples[i]
        length = len(sample.text) if sample.ids is None else len(sample.ids)
        if length > best.get(sample.group, (-1, 0))[0]:
            best[sample.group] = (length, i)
    return Kept(np.array(sorted(i for _, i in best.values()), dtype=np.int64), np.ones(len(samples)))

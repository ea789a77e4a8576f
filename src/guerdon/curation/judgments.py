"""Which of several judgments of one row a judge is taught on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.curation.core import keep
from guerdon.samples import Context, Kept, Rewards, Sample


@keep
def longest_right(samples: Sequence[Sample], rewards: Rewards, context: Context, above: float = 0.5) -> Kept:
    """Of each group the longest living sample whose reward is more than `above`, all of them where several are as long; the rest leaves.

    Long by tokens, by characters where there are none. With loss `sft` it warms up a judge on its own, or a
    teacher's, long judgments that came right. Source: arXiv:2505.16265, whose data are called `max`; that this is their choice is assumed.
    """
    right = rewards.alive & (rewards.total() > above)
    length = np.array([len(s.text) if s.ids is None else len(s.ids) for s in samples], dtype=np.int64)
    group = np.array([s.group for s in samples], dtype=np.int64)
    rows = [np.flatnonzero(right & (group == g)) for g in np.unique(group[right])]
    kept = [i for several in rows for i in several[length[several] == length[several].max()].tolist()]
    return Kept(np.array(sorted(kept), dtype=np.int64), np.ones(len(samples)))

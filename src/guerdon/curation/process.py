"""Rows are chosen by how well their steps agree with their outcome; what a process reward model says is then in no gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.curation.core import keep
from guerdon.registry import Refused
from guerdon.samples import Context, Kept, Rewards, Sample


@keep
def prof(
    samples: Sequence[Sample], rewards: Rewards, context: Context, remove: int = 4, penalty: float = 10.0, longest: int = 30,
    random_wrong: bool = False,
) -> Kept:  # fmt: skip
    """Leaves out `remove` samples of each group: right ones with poor steps, wrong ones with good-looking steps, until the sides balance.

    Of a sample with reward o (right above 0.5): c = +-2 (mean of its step rewards - mean of all step rewards of the batch), + if right,
    less `penalty` where it has fewer than 2 or more than `longest` steps; without steps -penalty. D = right - wrong ones of the group;
    min(remove, round((D + remove) / 2)) right ones of least c leave (round half to even), as many as there are, then wrong ones of least c
    up to `remove`; where that is none or negative, wrong ones alone. random_wrong: wrong ones leave at random (for a weak reward model).
    Ties leave in the order of the rows. Samples that failed or abstained stay, and are not counted; a group without any step reward stays
    whole. Groups that are all right or all wrong afterwards carry no gradient: `dynamic_sampling` behind it leaves them out.
    Source: arXiv:2509.03403, its released code, whose penalty does not change sign with the outcome as the paper's does.
    """
    if remove < 0:
        raise Refused(f"prof(remove={remove}): the number of samples that leave a group is at least 0.")
    if rewards.step is None:
        return Kept(np.arange(len(samples)), np.ones(len(samples)))
    alive, group = rewards.alive, np.array([s.group for s in samples], dtype=np.int64)
    total = rewards.total() if rewards.outcome is None else rewards.outcome.value
    right, scored = alive & (total > 0.5), rewards.step.scored & alive[:, None]
    steps = scored.sum(1)
    usual = rewards.step.value[scored].mean() if scored.any() else 0.0
    mean = np.where(scored, rewards.step.value - usual, 0.0).sum(1) / np.maximum(steps, 1)
    c = 2 * mean * np.where(right, 1, -1) - penalty * ((steps < 2) | (steps > longest))
    rng = context.rng if context.rng is not None else np.random.default_rng(0)
    out: list[int] = []
    for g in np.unique(group[steps > 0]):
        good, bad = np.flatnonzero((group == g) & right), np.flatnonzero((group == g) & alive & ~right)
        wanted = min(remove, round((len(good) - len(bad) + remove) / 2))
        first = good[np.argsort(c[good], kind="stable")][: max(wanted, 0)]
        order = rng.permutation(len(bad)) if random_wrong else np.argsort(c[bad], kind="stable")
        out += [*first.tolist(), *bad[order][: remove - len(first)].tolist()]
    return Kept(np.setdiff1d(np.arange(len(samples)), np.array(out, dtype=np.int64)), np.ones(len(samples)))

"""Filters by the spread of a group's rewards, by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

import guerdon.shaping  # noqa: F401 - fills the registry
from guerdon.curation import reflective, std_filter
from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample, Task


def batch(*groups: Sequence[float | None]) -> tuple[list[Sample], Rewards]:
    """Rewards of groups; None failed."""
    samples = [Sample(Task(f"t{g}", "q"), "", group=g) for g, values in enumerate(groups) for _ in values]
    flat = [x for values in groups for x in values]
    return samples, Rewards(Grain.of([x or 0 for x in flat], [2 * (x is None) for x in flat]))


def groups_kept(keep, samples, rewards, **more) -> list[int]:
    kept = keep(samples, rewards, Context(), **more)
    assert (kept.weights == 1).all()
    rows = kept.rows.tolist()
    found = sorted({samples[i].group for i in rows})
    assert rows == [i for i, s in enumerate(samples) if s.group in found]  # whole groups
    return found


def test_std_filter_by_hand():
    keep = std_filter(share=0.5, decay=0.9, start=2)
    wide, narrow, dead = [0.0, 1.0], [0.5, 0.6], [None, 0.4]
    deviation = 0.5**0.5  # of (0, 1), with n - 1
    everything = batch(wide, narrow, [0.2, 0.2], dead)
    assert groups_kept(keep, *everything) == [0, 1, 2]  # all but the group of one that lives
    keep.observe(*everything, Context())
    assert keep.usual == pytest.approx((deviation + 0.1 * deviation + 0) / 3)
    assert groups_kept(keep, *everything) == [0, 1, 2]  # one batch of two is seen
    keep.observe(*batch(wide, wide), Context())
    first = (1.1 / 3 + 1) / 2 * deviation
    assert keep.usual == pytest.approx(first)
    assert groups_kept(keep, *everything) == [0]
    keep.observe(*batch([0.0, 3.0]), Context())
    assert keep.usual == pytest.approx(0.9 * first + 0.1 * 3 * deviation)
    again = std_filter(share=0.5, decay=0.9, start=2)
    again.load_state_dict(json.loads(json.dumps(keep.state_dict())))
    assert again.state_dict() == keep.state_dict()
    assert groups_kept(again, *everything) == [0]


def test_std_filter_learns_from_training_batches_with_a_spread_alone():
    keep = std_filter()
    keep.observe(*batch([0.0, 1.0]), Context(), on="eval")
    keep.observe(*batch([None, 1.0]), Context())
    assert keep.state_dict() == {"usual": 0.0, "batches": 0}


@pytest.mark.parametrize("wrong", [{"share": -1}, {"decay": 1}, {"start": 0}])
def test_std_filter_refuses_what_makes_no_average(wrong):
    with pytest.raises(Refused, match=f"{next(iter(wrong))}="):
        std_filter(**wrong)


def test_reflective_drops_the_stillest_groups():
    samples, rewards = batch(*([[0.0, 1.0]] * 6))
    sigma = [0.5, 0.0, 2.0, 0.1, None, 1.0]
    rewards.evidence["r3.sigma"] = [x for x in sigma for _ in range(2)]
    assert groups_kept(reflective, samples, rewards, share=0) == [0, 2, 3, 4, 5]
    assert groups_kept(reflective, samples, rewards, share=0.4) == [0, 2, 4, 5]  # two of five
    assert groups_kept(reflective, samples, rewards.rows(np.arange(12)), share=0.6) == [2, 4, 5]
    with pytest.raises(Refused, match="share"):
        reflective(samples, rewards, Context(), share=1)


def test_reflective_reads_what_r3_leaves_behind():
    from guerdon.backends.tabular import tabular
    from guerdon.rewards import parse
    from guerdon.scoring import Engine
    from guerdon.spans import mark

    model = tabular(vocab=["good", "bad", "<answer>", "</answer>", "a"], init=1.0)
    samples = []
    for group, thoughts in enumerate([("good", "bad"), ("bad", "bad")]):
        for thought in thoughts:
            samples.append(Sample(Task(f"t{group}", "q", "a"), f"{thought}\n<answer> a </answer>", group=group, stop="end"))
            mark(samples[-1])
    with Engine(Context(models={"policy": model}), workers=1) as engine:
        for expression in ("r3", "0.5 * r3 + 0.1 * length_match | clip(-5, 5)"):
            assert groups_kept(reflective, samples, engine.score(parse(expression), samples)) == [0]

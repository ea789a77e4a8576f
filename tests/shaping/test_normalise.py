"""Norms within groups and batches, and over a run, against numbers by hand and numpy over everything at once."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from guerdon.registry import Refused
from guerdon.rewards import reward
from guerdon.samples import Context, Grain, Rewards, Sample, Task
from guerdon.scoring import Engine
from guerdon.shaping import batch_norm, group_norm, running_norm


def samples(groups):
    return [Sample(Task("t", "q"), "", group=g) for g in groups]


def outcome(values, state=None):
    return Rewards(Grain.of(values, state))


def test_group_norm_by_hand():
    r = outcome([1, 3, 10, 10, 5], [0, 0, 0, 0, 2])
    out = group_norm().fn(r, samples([0, 0, 1, 1, 1]), Context())
    assert out.outcome.value.tolist() == pytest.approx([-1, 1, 0, 0, 0], abs=1e-5)
    assert out.outcome.value[2:].tolist() == [0, 0, 0]
    assert out.failed.tolist() == [False] * 4 + [True]
    out = group_norm(scale=False).fn(r, samples([0, 0, 1, 1, 1]), Context())
    assert out.outcome.value.tolist() == [-1, 1, 0, 0, 0]


def test_batch_norm_by_hand_and_steps_together():
    out = batch_norm().fn(Rewards(step=Grain.ragged([[0.0, 2.0], [4.0]])), samples([0, 1]), Context()).step
    assert out.value.ravel().tolist() == pytest.approx([-np.sqrt(1.5), 0, np.sqrt(1.5), 0], abs=1e-5)
    assert out.state.ravel().tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("constant", [0.1, 1e6 + 0.1, -3.7])
def test_equal_values_are_zero_and_a_constant_changes_nothing(constant):
    assert not group_norm().fn(outcome([constant] * 7), samples([0] * 7), Context()).outcome.value.any()
    values = np.array([0.3, 0.1, 0.9])
    a, b = (group_norm().fn(outcome(values + c), samples([0] * 3), Context()).outcome.value for c in (0.0, constant))
    np.testing.assert_allclose(a, b, atol=1e-6)


@reward(inline=True)
def normalise_big(text):
    return 100.0 * float(text.split()[0])


@reward(inline=True)
def normalise_small(text):
    return float(text.split()[1])


def test_gdpo_is_a_composition_in_which_no_part_is_drowned():
    texts = ["1 0", "0 1", "0 0", "1 1"]
    batch = [Sample(Task("t", "q"), text) for text in texts]
    out = Engine().score((normalise_big | group_norm()) + (normalise_small | group_norm()) | batch_norm(), batch)
    a = np.array([1, -1, -1, 1.0]) + np.array([-1, 1, -1, 1.0])  # both parts have mean 1/2 and deviation 1/2
    np.testing.assert_allclose(out.total(), a / a.std(), atol=1e-4)
    assert Engine().score(normalise_big + normalise_small | group_norm(), batch).total()[1] < 0  # together the big one decides


BATCHES = [outcome([1.0, 2.0, 6.0], [0, 0, 1]), outcome([-3.0]), outcome([5.0, 5.0, 2.0]), outcome([9.0], [2])]
SEEN = np.array([1, 2, -3, 5, 5, 2.0])


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("standard", lambda r: (r - SEEN.mean()) / SEEN.std()),
        ("clip", lambda r: np.clip(r, SEEN.mean() - SEEN.std(), SEEN.mean() + SEEN.std())),
        ("range", lambda r: np.clip((r + 3) / 8, 0, 1)),
    ],
)
def test_running_norm_is_the_norm_of_all_that_was_seen(kind, wanted):
    shape = running_norm(kind).fn
    r = np.array([-10.0, 0.5, 30.0])
    assert shape(outcome(r), samples([0] * 3), Context()).outcome.value.tolist() == r.tolist()  # nothing was seen yet
    for batch in BATCHES:
        shape.observe(samples([0] * len(batch)), batch, Context(), on="train")
    shape.observe(samples([0]), outcome([1000.0]), Context(), on="eval")
    np.testing.assert_allclose(shape(outcome(r), samples([0] * 3), Context()).outcome.value, wanted(r), rtol=1e-5)


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_running_statistics_survive_a_checkpoint(batches):
    a, b = running_norm("range").fn, running_norm("range").fn
    for batch in BATCHES[:batches]:
        a.observe([], batch, Context())
    b.load_state_dict(orjson.loads(orjson.dumps(a.state_dict())))  # as checkpoints are written
    for shape in (a, b):
        shape.observe([], BATCHES[2], Context())
    assert a.state_dict() == b.state_dict()


def test_large_offsets_cancel_nothing():
    shape = running_norm().fn
    for i in range(50):
        shape.observe([], outcome([1e9 + i % 2]), Context())
    out = shape(outcome([1e9, 1e9 + 1]), samples([0, 0]), Context()).outcome.value
    np.testing.assert_allclose(out, [-1, 1], rtol=1e-5)


def test_another_kind_is_refused():
    with pytest.raises(Refused, match="standard, clip or range"):
        running_norm("minmax")

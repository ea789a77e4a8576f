"""Tasks drawn by their value: what it is, how often they come, what their samples weigh."""

from __future__ import annotations

import json

import numpy as np
import pytest

from guerdon.curation import by_value, value_weights
from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample, State, Task

TASKS = [Task(str(i), f"task {i}") for i in range(4)]


def seen(piece, rewards: dict[int, list[float]], state: list[int] | None = None, on: str = "train") -> None:
    samples = [Sample(TASKS[i], "x", group=i) for i, values in rewards.items() for _ in values]
    piece.observe(samples, Rewards(Grain.of([v for values in rewards.values() for v in values], state)), Context(), on)


def test_the_value_by_hand():
    piece = by_value()
    assert piece.value(TASKS[0]) == 1.0
    seen(piece, {0: [1, 1, 0, 0], 1: [1, 0, 0, 0], 2: [0, 0, 0, 0], 3: [3, 1, 1, 1]})
    assert piece.value(TASKS[0]) == pytest.approx(1.0)
    assert piece.value(TASKS[1]) == pytest.approx(4 * 0.25 * 0.75 * 2 * np.sqrt(0.25 * 0.75))
    assert piece.value(TASKS[2]) == piece.value(TASKS[3]) == 0.05  # never and always: the floor
    seen(piece, {1: [1, 1, 1, 0]})
    assert piece.value(TASKS[1]) == pytest.approx(1.0 * 2 * np.sqrt(0.25 * 0.75))  # p is a half again, u as it was


def test_dead_samples_and_evaluations_teach_nothing():
    piece = by_value()
    seen(piece, {0: [1, 1, 0, 0]}, state=[0, 0, State.FAILED, State.FAILED])
    assert piece.value(TASKS[0]) == 0.05
    seen(piece, {1: [0, 0]}, on="eval")
    assert piece.value(TASKS[1]) == 1.0
    assert "1" not in {key.split("/")[0] for key in piece.state_dict()["known"]}


def test_draws_are_in_proportion_to_the_value():
    piece = by_value(floor=0.1)
    seen(piece, {0: [1, 0], 1: [1, 0, 0, 0], 2: [0, 0], 3: [1, 1]})
    rng = np.random.default_rng(0)
    drawn = [piece(TASKS, 1, rng)[0].id for _ in range(8000)]
    value = np.array([piece.value(task) for task in TASKS])
    np.testing.assert_allclose([drawn.count(task.id) / 8000 for task in TASKS], value / value.sum(), atol=0.02)
    assert sorted(task.id for task in piece(TASKS, 4, rng)) == ["0", "1", "2", "3"]


def test_weights_are_values_over_their_mean_within_the_clip():
    keep = value_weights(clip=0.2)
    seen(keep, {0: [1, 0], 1: [1, 0, 0, 0], 2: [0, 0], 3: [1, 1, 1, 0, 0, 0, 0, 0]})
    samples = [Sample(TASKS[i], "x", group=i) for i in (0, 1, 3, 3)]
    rewards = Rewards(Grain.of([0.0] * 4))
    value = np.array([keep.value(TASKS[i]) for i in (0, 1, 3, 3)])
    kept = keep(samples, rewards, Context())
    np.testing.assert_allclose(kept.weights, np.clip(value / value.mean(), 0.8, 1.2))
    assert kept.weights[0] != kept.weights[1]
    assert kept.rows.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(value_weights(clip=0.0)(samples, rewards, Context()).weights, 1.0)


def test_state_survives_json():
    for make in (by_value, value_weights):
        first, second = make(), make()
        seen(first, {0: [1, 0, 0], 2: [1, 1]})
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert [first.value(t) for t in TASKS] == [second.value(t) for t in TASKS]


@pytest.mark.parametrize(("make", "params"), [(by_value, {"rate": 0.0}), (by_value, {"floor": 0.0}), (value_weights, {"clip": 1.0})])
def test_what_cannot_be_is_refused(make, params):
    with pytest.raises(Refused, match=r"above 0|below 1"):
        make(**params)

"""GLoRe's labels, against rules worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.annotation import Labels, balance, monte_carlo, outcome, sorm
from guerdon.annotation.sorm import used
from guerdon.backends.base import Completion
from guerdon.samples import Sample, Task


def test_orm_labels_are_the_outcome(world, answer) -> None:
    context = world()
    labels = outcome([answer("ggb"), answer("gg", "other=", 1)], context)
    assert labels.value[0].tolist() == [0, 0, 0, 0]
    assert labels.value[1, :3].tolist() == [1, 1, 1]
    assert np.isnan(labels.value[1, 3])
    assert labels.cost.rollouts == 0
    assert labels.cost.calls == 2


@pytest.mark.parametrize(
    ("steps", "begun", "expected"),
    [
        (["2*3=6\n", "6+1=7\n", "A: 7"], 2, True),
        (["2*3=6\n", "5+1=7\n", "A: 7"], 1, False),
        (["2*3=6\n", "6+1=8\n", "A: 7"], 2, False),
        (["2*3=6\n", "6+1=8\n", "A: 7"], 1, True),  # only what stands in the beginning must be used
        (["2*3=6\n", "16+1=17\n", "0.6, 6.5"], 1, False),  # whole numbers
        (["x=1,000\n", "then 1000 is\n"], 1, True),
        (["a = b = 12.50 cm\n", "12.50\n"], 1, True),
        (["no number\n", "3+4\n"], 2, True),
        (["3=-4\n", "5 -4\n"], 1, True),
        (["it is 6.\n", "=6.\n", "It is 6."], 2, True),
    ],
)
def test_what_is_used(steps, begun, expected) -> None:
    assert used(steps, begun) is expected


def test_a_trace_that_ignores_the_beginning_does_not_count(world) -> None:
    context = world()
    policy = context.models["policy"]
    policy.one = lambda begun, rng: _said(policy, "9+1=10\nA: 1")
    wrong = Sample(Task("p=", "p=", "1"), "2+2=5\n5+1=6\nA: 0")
    labels = sorm([wrong], context, k=4)
    assert np.isnan(labels.value[0, :2]).all()
    assert labels.text[0][0] == "no label: no rollout uses what stands before it"
    assert sorm([wrong], context, k=4, consistent=False).value.tolist() == [[1, 1, 0]]
    policy.one = lambda begun, rng: _said(policy, "10-5=5\nA: 1" if rng.random() < 0.5 else "A: 0")
    labels = sorm([wrong], context, k=40)
    assert labels.value[0].tolist() == [1, 0, 0], "5 is used behind the first step, 6 is not behind the second"
    assert 0 < labels.count[0, 1] < 40
    assert labels.count[0, 0] == 40


def _said(policy, text):
    ids = policy.encode_answer(text)
    return Completion(ids, np.zeros(len(ids)), "end", 0)


def test_right_ends_propagate(world) -> None:
    rng = np.random.default_rng(0)
    samples = [
        Sample(Task(f"{i}=", f"{i}=", "1"), "".join(f"{'b' if rng.random() < 0.05 else 'g'}\n" for _ in range(10)) + "A: 0", group=i)
        for i in range(40)
    ]
    plain = monte_carlo(samples, world(slip=0.5, length=10), k=2, soft=False)
    labels, bare = (sorm(samples, world(slip=0.5, length=10), k=2, propagate=p) for p in (True, False))
    assert np.array_equal(bare.value, plain.value)
    after = np.maximum.accumulate(plain.value[:, ::-1] == 1, 1)[:, ::-1]
    assert np.array_equal(labels.value == 1, after)
    assert (plain.value != labels.value).any()


def test_balance_leaves_as_many_of_each_at_every_place() -> None:
    rng = np.random.default_rng(1)
    value = np.where(rng.random((30, 5)) < 0.2, np.nan, (rng.random((30, 5)) < 0.7).astype(float))
    cells = np.ones((30, 5))
    labels = Labels([], value.copy(), cells.astype(int), cells.copy(), [[""] * 5 for _ in range(30)])
    balance(labels, seed=3)
    for t in range(5):
        ones, zeros = ((value[:, t] == x).sum() for x in (1, 0))
        assert (labels.value[:, t] == 1).sum() == (labels.value[:, t] == 0).sum() == min(ones, zeros)
    kept = ~np.isnan(labels.value)
    assert np.array_equal(labels.value[kept], value[kept])
    assert all((labels.text[i][t] != "") == (not np.isnan(value[i, t])) for i, t in np.argwhere(~kept))

"""Turn credit against the plainest loop over samples, turns and tokens."""

from __future__ import annotations

import statistics

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.credit import grpo, igpo
from guerdon.samples import Batch, Grain, Rewards, Sample, State, Task, collate

seeds = st.integers(0, 2**32 - 1)


def turns_of(batch: Batch, i: int) -> list[int]:
    """The turn of each token; -1 outside any. A sample without steps is one turn."""
    steps = [int(x) for x in batch.step_of[i]]
    return steps if max(steps) >= 0 else [0] * len(steps)


def by_hand(batch: Batch, gamma: float, separate: bool, eps: float = 1e-6) -> list[list[float]]:
    step, outcome = batch.rewards.step, batch.rewards.outcome
    gains: dict[tuple[int, int], float] = {}
    ends: dict[tuple[int, int], float] = {}
    for i in range(len(batch)):
        if not batch.rewards.alive[i]:
            continue
        for k in range(0 if step is None else step.value.shape[1]):
            if step is not None and step.state[i, k] == State.SCORED:
                gains[i, k] = float(step.value[i, k])
        if outcome is not None and outcome.state[i] == State.SCORED:
            ends[i, max(turns_of(batch, i))] = float(outcome.value[i])
    kinds = [gains, ends] if separate else [{key: gains.get(key, 0.0) + ends.get(key, 0.0) for key in {*gains, *ends}}]
    a: dict[tuple[int, int], float] = {}
    for rewards in kinds:
        for (i, k), r in rewards.items():
            group = [x for (j, _), x in rewards.items() if batch.group[j] == batch.group[i]]
            if len(group) > 1 and max(group) > min(group):
                a[i, k] = a.get((i, k), 0.0) + (r - statistics.fmean(group)) / (statistics.stdev(group) + eps)
    out = [[0.0] * batch.ids.shape[1] for _ in range(len(batch))]
    for i in range(len(batch)):
        for t, turn in enumerate(turns_of(batch, i)):
            if batch.mask[i, t] and batch.rewards.alive[i] and turn >= 0:
                out[i][t] = sum(gamma ** (k - turn) * x for (j, k), x in a.items() if j == i and k >= turn)
    return out


@pytest.mark.parametrize("grains", [("outcome",), ("step",), ("outcome", "step")])
@given(seed=seeds, gamma=st.sampled_from([1.0, 0.9, 0.5, 0.0]), separate=st.booleans())
def test_agrees_with_loops(awkward, grains, seed, gamma, separate):
    batch = awkward(seed, grains)
    expected = torch.tensor(by_hand(batch, gamma, separate), dtype=torch.float64).reshape(batch.ids.shape)
    torch.testing.assert_close(igpo(batch, gamma, separate), expected, rtol=1e-6, atol=1e-6)


def make(rows: list[list[float | None]], outcomes: list[float], tokens: int = 2) -> Batch:
    """One group; a turn has `tokens` tokens of the policy and one of the tool."""
    samples = []
    for row in rows:
        size = (tokens + 1) * len(row)
        spans = [(at, at + tokens + 1) for at in range(0, size, tokens + 1)]
        written = np.arange(size) % (tokens + 1) < tokens
        ids = np.arange(size)
        samples.append(Sample(Task("t", "p"), "", np.array([1]), ids, None, written, np.zeros(size), spans={"step": spans}))
    return collate(samples, Rewards(Grain.of(outcomes), Grain.ragged(rows)), dtype=torch.float64)


def test_two_samples_by_hand():
    """Rewards 0.2, then 1 by the outcome; -0.2, then 0: mean 0.25, squares (-0.05, 0.75, -0.45, -0.25), sum 0.83, over 3."""
    a = igpo(make([[0.2, None], [-0.2, None]], [1.0, 0.0]), eps=0.0)
    std = (0.83 / 3) ** 0.5
    expected = [[0.70, 0.70, 0, 0.75, 0.75, 0], [-0.70, -0.70, 0, -0.25, -0.25, 0]]
    torch.testing.assert_close(a, torch.tensor(expected, dtype=torch.float64) / std)
    apart = igpo(make([[0.2, None], [-0.2, None]], [1.0, 0.0]), separate=True, eps=0.0)
    one = 0.5 / 0.5**0.5  # two rewards stand 1 / sqrt 2 from their mean, in deviations, whatever they are
    torch.testing.assert_close(apart[:, [0, 3]], torch.tensor([[2 * one, one], [-2 * one, -one]], dtype=torch.float64))


@given(seed=seeds)
def test_with_outcomes_alone_it_is_grpo(awkward, seed):
    """On every token that stands in a turn: one turn, or several of which the last alone is paid."""
    batch = awkward(seed)
    inside = torch.tensor([[turn >= 0 for turn in turns_of(batch, i)] for i in range(len(batch))]).reshape(batch.ids.shape)
    torch.testing.assert_close(igpo(batch), grpo(batch) * inside, rtol=1e-9, atol=1e-9)


def test_a_wrong_answer_does_not_take_back_what_a_good_turn_was_worth():
    """All answers are wrong, so GRPO says nothing; the turn that raised the belief is the only one above the mean."""
    batch = make([[0.4, 0.0, None], [0.0, 0.0, None]], [0.0, 0.0])
    assert not grpo(batch).any()
    a = igpo(batch)
    assert a[0, 0] > 0 > a[1, 0]
    assert (a[:, 3] < 0).all()


def test_an_abstained_turn_is_in_no_mean():
    with_hole, without = make([[0.2, None, None], [0.1, 0.3, None]], [1.0, 0.0]), [0.2, 0.1, 0.3, 1.0, 0.0]
    a = igpo(with_hole, eps=0.0)
    mean, std = statistics.fmean(without), statistics.stdev(without)
    assert float(a[0, 3]) == pytest.approx((1.0 - mean) / std)
    assert float(a[0, 0]) == pytest.approx((1.2 - 2 * mean) / std)

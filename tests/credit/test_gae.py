"""Credit over time against plain loops."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.credit import gae, lambda_returns, rewards_to_go
from guerdon.samples import Batch, Grain, Rewards, Sample, Task, collate

seeds = st.integers(0, 2**32 - 1)
rates = st.sampled_from([1.0, 0.99, 0.5, 0.0])
GRAINS = [("outcome",), ("step",), ("token",), ("outcome", "step", "token")]


def rewards_of(batch: Batch, i: int) -> tuple[list[int], list[float]]:
    """The written tokens of row i, and their rewards, found token by token."""
    length = int(batch.lengths[i])
    times = [t for t in range(length) if batch.mask[i, t]]
    out = [0.0] * len(times)
    for t in range(length):
        r = 0.0
        if batch.rewards.token is not None:
            r += float(batch.rewards.token.value[i, t])
        s = int(batch.step_of[i, t])
        if batch.rewards.step is not None and s >= 0 and all(int(batch.step_of[i, u]) != s for u in range(t + 1, length)):
            r += float(batch.rewards.step.value[i, s])
        if batch.rewards.outcome is not None and t == length - 1:
            r += float(batch.rewards.outcome.value[i])
        if times:
            out[max([k for k, at in enumerate(times) if at <= t], default=0)] += r
    return times, out


@pytest.mark.parametrize("grains", GRAINS)
@given(seed=seeds, gamma=rates)
def test_rewards_to_go_equals_the_sum(awkward, grains, seed, gamma):
    batch = awkward(seed, grains)
    expected = [[0.0] * batch.ids.shape[1] for _ in range(len(batch))]
    for i in np.flatnonzero(batch.rewards.alive).tolist():
        times, r = rewards_of(batch, i)
        for k, t in enumerate(times):
            expected[i][t] = sum(gamma ** (u - k) * r[u] for u in range(k, len(times)))
    torch.testing.assert_close(rewards_to_go(batch, gamma).tolist(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("grains", GRAINS)
@given(seed=seeds, gamma=rates, lam=rates)
def test_gae_equals_the_sum_of_temporal_differences(awkward, grains, seed, gamma, lam):
    batch = awkward(seed, grains)
    advantage = [[0.0] * batch.ids.shape[1] for _ in range(len(batch))]
    returns = [[0.0] * batch.ids.shape[1] for _ in range(len(batch))]
    for i in np.flatnonzero(batch.rewards.alive).tolist():
        times, r = rewards_of(batch, i)
        v = [float(batch.fields["values"][i, t]) for t in times] + [0.0]
        for k, t in enumerate(times):
            for u in range(k, len(times)):
                advantage[i][t] += (gamma * lam) ** (u - k) * (r[u] + gamma * v[u + 1] - v[u])
            returns[i][t] = advantage[i][t] + v[k]
    torch.testing.assert_close(gae(batch, gamma, lam).tolist(), advantage, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(lambda_returns(batch, gamma, lam).tolist(), returns, rtol=1e-9, atol=1e-9)


@given(seed=seeds)
def test_without_a_critic_and_discount_gae_is_the_return(awkward, seed):
    batch = awkward(seed, ("outcome", "step", "token"))
    batch.fields["values"] *= 0
    torch.testing.assert_close(gae(batch, 1.0, 1.0), rewards_to_go(batch), rtol=1e-12, atol=1e-12)


@given(seed=seeds, gamma=rates)
def test_returns_with_lambda_1_are_rewards_to_go_whatever_the_critic_says(awkward, seed, gamma):
    batch = awkward(seed, ("outcome", "token"))
    torch.testing.assert_close(lambda_returns(batch, gamma, 1.0), rewards_to_go(batch, gamma), rtol=1e-9, atol=1e-9)


def one_row(written: list[int], token_rewards: list[float], values: list[float]) -> Batch:
    t = len(written)
    sample = Sample(Task("a", "p"), "", np.ones(1), np.ones(t), written=np.array(written, dtype=bool))
    batch = collate([sample], Rewards(token=Grain.of([token_rewards])), dtype=torch.float64)
    batch.fields["values"] = torch.tensor([values], dtype=torch.float64)
    return batch


def test_numbers_worked_out_by_hand():
    batch = one_row([1, 1, 1], [0, 0, 1], [0.5, 0.25, 0.125])
    # d = -0.25 + 0, 0.125 - 0.25, 1 - 0.125 with gamma 1; lam 0.5 adds half of what follows
    assert gae(batch, 1.0, 0.5)[0].tolist() == [-0.25 + (-0.125 + 0.875 / 2) / 2, -0.125 + 0.875 / 2, 0.875]


def test_a_tool_reply_takes_no_time_and_its_reward_goes_to_the_call():
    with_tool = one_row([1, 1, 0, 0, 1, 0], [0, 0.1, 0, 0.2, 0, 1], [0.5, 0.25, 9, 9, 0.125, 9])
    without = one_row([1, 1, 1], [0, 0.1 + 0.2, 1], [0.5, 0.25, 0.125])
    torch.testing.assert_close(gae(with_tool, 0.9, 0.8)[:, [0, 1, 4]], gae(without, 0.9, 0.8))
    assert gae(with_tool)[0, [2, 3, 5]].tolist() == [0, 0, 0]
    hinted = one_row([0, 1, 1], [0.5, 0, 1], [9, 0.25, 0.125])
    assert rewards_to_go(hinted)[0].tolist() == [0, 1.5, 1]


@given(st.integers(1, 200), st.sampled_from([1.0, 0.95, 0.3, 0.0]), seeds)
def test_long_answers_cross_blocks(t, gamma, seed):
    r = np.random.default_rng(seed).normal(size=t)
    batch = one_row([1] * t, r.tolist(), [0] * t)
    expected, after = np.zeros(t), 0.0
    for k in reversed(range(t)):
        after = expected[k] = r[k] + gamma * after
    np.testing.assert_allclose(rewards_to_go(batch, gamma)[0].numpy(), expected, rtol=1e-9, atol=1e-9)


def test_a_value_that_is_not_a_number_on_an_unwritten_token_does_no_harm():
    batch = one_row([1, 0, 1], [0, 0, 1], [0.5, float("nan"), 0.25])
    assert torch.isfinite(gae(batch)).all()


@pytest.mark.parametrize("grains", GRAINS)
@given(seed=seeds)
def test_without_discount_and_with_a_critic_of_zeros_it_is_the_return(awkward, grains, seed):
    batch = awkward(seed, grains)
    batch.fields["values"] = torch.zeros_like(batch.weights)
    torch.testing.assert_close(gae(batch, 1.0, 1.0), rewards_to_go(batch, 1.0), rtol=1e-12, atol=1e-12)

"""The KL penalty in the reward."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.credit import kl_reward
from guerdon.registry import Refused
from guerdon.samples import Batch, Grain, Rewards, Sample, State, Task, collate

seeds = st.integers(0, 2**32 - 1)
ESTIMATORS = {
    "k1": lambda p, q: math.log(p / q),
    "k2": lambda p, q: math.log(p / q) ** 2 / 2,
    "k3": lambda p, q: q / p - 1 - math.log(q / p),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("grains", [("outcome",), ("outcome", "token"), ("token",), ("step",)])
@given(seed=seeds)
def test_equals_the_loop(awkward, estimator, grains, seed):
    batch = awkward(seed, grains)
    after = kl_reward(batch, 0.3, estimator)
    expected = np.zeros(batch.ids.shape)
    for i in range(len(batch)):
        for t in range(int(batch.lengths[i])):
            if batch.rewards.token is not None:
                expected[i, t] = batch.rewards.token.value[i, t]
            if batch.mask[i, t] and batch.rewards.alive[i]:
                p, q = (math.exp(batch.fields[name][i, t]) for name in ("logprobs", "ref_logprobs"))
                expected[i, t] -= 0.3 * ESTIMATORS[estimator](p, q)
    assert after.rewards.token is not None
    np.testing.assert_allclose(after.rewards.token.value, expected, rtol=1e-9, atol=1e-9)


@given(seed=seeds)
def test_keeps_verdicts_reasons_and_the_batch_it_was_given(awkward, seed):
    batch = awkward(seed, ("outcome", "token"))
    value = batch.rewards.token.value.copy()
    after = kl_reward(batch, 0.3)
    assert after.rewards.state.tolist() == batch.rewards.state.tolist()
    assert after.alive.tolist() == batch.alive.tolist()
    assert after.rewards.outcome is batch.rewards.outcome
    np.testing.assert_array_equal(batch.rewards.token.value, value)


def two_rows(token: Grain | None, **fields: list[list[float]]) -> Batch:
    samples = [Sample(Task("a", "p"), "", np.ones(1), np.ones(2), written=np.array(w, bool)) for w in ([1, 1], [1, 0])]
    batch = collate(samples, Rewards(Grain.of([1, 0], [0, State.ABSTAINED]), token=token), dtype=torch.float64)
    batch.fields |= {name: torch.tensor(x, dtype=torch.float64) for name, x in fields.items()}
    return batch


def test_a_sample_without_verdict_does_not_come_alive():
    after = kl_reward(two_rows(None, logprobs=[[-1, -1], [-1, 0]], ref_logprobs=[[-2, -2], [-2, 0]]), 0.5)
    assert after.alive.tolist() == [True, False]
    assert after.rewards.token is not None
    assert after.rewards.token.value.tolist() == [[-0.5, -0.5], [0, 0]]


def test_a_failed_token_stays_failed_and_a_reward_on_a_tool_token_stays():
    token = Grain.of([[0, 0], [0, 7]], [[State.FAILED, State.ABSTAINED], [State.SCORED, State.SCORED]], {(0, 0): "judge down"})
    after = kl_reward(two_rows(token, logprobs=[[-1, -1], [-1, 0]], ref_logprobs=[[-2, -2], [-2, 0]]), 0.5)
    assert after.alive.tolist() == [False, True]
    assert after.rewards.why(0) == "judge down"
    assert after.rewards.token is not None
    assert after.rewards.token.value.tolist() == [[0, 0], [-0.5, 7]]


def test_refuses_rows_without_log_probabilities_only_where_they_count():
    nan = float("nan")
    kl_reward(two_rows(None, logprobs=[[-1, -1], [nan, nan]], ref_logprobs=[[-2, -2], [-2, 0]]), 0.5)
    with pytest.raises(Refused, match="log-probabilities"):
        kl_reward(two_rows(None, logprobs=[[-1, nan], [-1, 0]], ref_logprobs=[[-2, -2], [-2, 0]]), 0.5)


def test_refuses_an_unknown_estimator():
    with pytest.raises(Refused, match="'k4'"):
        kl_reward(two_rows(None, logprobs=[[-1, -1], [-1, 0]], ref_logprobs=[[-2, -2], [-2, 0]]), 0.5, "k4")

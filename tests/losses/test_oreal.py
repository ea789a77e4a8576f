"""OREAL's loss: what is imitated, what is pushed away, and by which denominators."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.credit import rloo
from guerdon.losses import oreal, per_outcome, policy_gradient
from guerdon.registry import Refused
from guerdon.samples import Batch, Grain, Rewards, Sample, Task, collate

seeds = st.integers(0, 2**32 - 1)


def twin(out: dict[str, torch.Tensor], batch: Batch, negative: float) -> float:
    total = 0.0
    for i in range(len(batch)):
        for u in range(batch.ids.shape[1]):
            w, a, new = float(batch.weights[i, u]), float(batch.advantages[i, u]), float(out["logprobs"][i, u])
            if w and a > 0:
                total -= w * a * new
            elif w and a < 0:
                total -= negative * w * math.exp(new - float(batch.fields["logprobs"][i, u])) * a
    return total


@pytest.mark.parametrize("negative", [0.5, 0.0])
@given(seed=seeds)
def test_against_a_plain_loop(awkward, negative, seed):
    batch = awkward(seed)
    out = {"logprobs": -torch.from_numpy(np.random.default_rng(seed).exponential(1.0, batch.ids.shape))}
    assert float(oreal(out, batch, negative)[0]) == pytest.approx(twin(out, batch, negative), abs=1e-9)


@given(seed=seeds)
def test_right_answers_alone_are_plain_policy_gradient(awkward, seed):
    batch = awkward(seed)
    batch.advantages = batch.advantages.abs()
    out = {"logprobs": -torch.rand(batch.ids.shape, dtype=torch.float64)}
    torch.testing.assert_close(oreal(out, batch)[0], policy_gradient(out, batch)[0])


def answers(outcome: list[float], lengths: list[int]) -> Batch:
    samples = [Sample(Task("t", "p"), "", np.array([1]), np.arange(t), None, np.ones(t, bool), np.full(t, -1.0)) for t in lengths]
    return collate(samples, Rewards(Grain.of(outcome)), dtype=torch.float64)


def test_right_and_wrong_tokens_have_denominators_of_their_own():
    """One right answer of 2 tokens among wrong ones of 3, 1 and 4: A 1 and -1/3, so the sums are 1 x 1 and 0.5 x 1/3 of the log-ratio's."""
    batch = answers([1.0, 0.0, 0.0, 0.0], [2, 3, 1, 4])
    batch.advantages = rloo(batch)
    batch.weights = per_outcome(batch)
    np.testing.assert_allclose(batch.weights[0, :2], 1 / 2)
    assert float(batch.weights[1:].sum()) == pytest.approx(1.0)
    np.testing.assert_allclose(batch.weights[3], 1 / 8)
    out = {"logprobs": torch.where(batch.mask, -2.0, 0.0).double()}
    assert float(oreal(out, batch)[0]) == pytest.approx(2.0 + 0.5 / 3 * math.exp(-1.0))


def test_a_right_answer_needs_no_sampling_log_probabilities_and_a_wrong_one_does():
    batch = answers([1.0, 0.0], [2, 2])
    batch.advantages = rloo(batch)
    out = {"logprobs": torch.where(batch.mask, -2.0, 0.0).double()}
    batch.fields["logprobs"][0] = torch.nan
    assert torch.isfinite(oreal(out, batch)[0])
    batch.fields["logprobs"][1, 1] = torch.nan
    with pytest.raises(Refused, match="NaN"):
        oreal(out, batch)

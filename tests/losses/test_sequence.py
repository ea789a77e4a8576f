"""Losses with one ratio an answer, against loops over answers and tokens."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.losses import gspo, sequence_mean
from guerdon.samples import Batch

seeds = st.integers(0, 2**32 - 1)


def logprobs(batch: Batch, seed: int) -> torch.Tensor:
    """Near the sampler's, as after an update or two."""
    known = batch.fields["logprobs"].nan_to_num(0.0)
    return (known + 0.2 * torch.from_numpy(np.random.default_rng(seed).normal(size=batch.ids.shape))).requires_grad_()


@given(seed=seeds, clip=st.sampled_from([3e-4, 0.1]))
def test_gspo_equals_the_loop(awkward, seed, clip):
    batch = awkward(seed)
    new = logprobs(batch, seed).detach()
    expected = 0.0
    for i in range(len(batch)):
        cells = [t for t in range(int(batch.lengths[i])) if float(batch.weights[i, t]) != 0]
        if not cells:
            continue
        s = math.exp(sum(float(new[i, t]) - float(batch.fields["logprobs"][i, t]) for t in cells) / len(cells))
        for t in cells:
            a = float(batch.advantages[i, t])
            expected -= float(batch.weights[i, t]) * min(s * a, min(max(s, 1 - clip), 1 + 2 * clip) * a)
    for token in (False, True):
        assert float(gspo({"logprobs": new}, batch, clip, 2 * clip, token)[0].detach()) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def gradient(new: torch.Tensor, batch: Batch, **params: Any) -> torch.Tensor:
    return torch.autograd.grad(gspo({"logprobs": new}, batch, **params)[0], new)[0]


@given(seed=seeds)
def test_both_forms_have_one_gradient_where_an_answer_has_one_advantage(awkward, seed):
    """Within the bounds and with a mean over answers: s A / T on every token."""
    batch = awkward(seed)
    batch.weights = sequence_mean(batch)
    own = torch.from_numpy(np.random.default_rng(seed).normal(size=len(batch)))
    batch.advantages = own[:, None] * batch.mask
    new = logprobs(batch, seed)
    whole = gradient(new, batch, clip=0.99, clip_high=1e3)
    torch.testing.assert_close(gradient(new, batch, clip=0.99, clip_high=1e3, token=True), whole, rtol=1e-9, atol=1e-12)
    for i in range(len(batch)):
        counts = batch.weights[i] != 0
        if counts.any():
            s = float((new.detach()[i] - batch.fields["logprobs"][i])[counts].mean().exp())
            torch.testing.assert_close(whole[i][counts], -s * own[i] * batch.weights[i][counts], rtol=1e-9, atol=1e-12)


def test_a_long_answer_is_held_like_a_short_one(awkward):
    """The same log-ratio on every token gives the same ratio at any length, which a product of ratios would not."""
    batch = awkward(3)
    batch.fields["logprobs"] = torch.full_like(batch.fields["logprobs"], -1.0)
    batch.weights, batch.advantages = batch.mask.to(batch.weights), torch.ones_like(batch.weights)
    new = torch.full_like(batch.weights, -1.0 + 1e-4)
    loss, metrics = gspo({"logprobs": new}, batch)
    assert float(loss) == pytest.approx(-math.exp(1e-4) * float(batch.weights.sum()))
    assert float(metrics["clip_fraction"]) == 0
    new += 1e-2  # beyond the upper bound everywhere
    loss, metrics = gspo({"logprobs": new}, batch)
    assert float(loss) == pytest.approx(-(1 + 4e-4) * float(batch.weights.sum()))
    assert float(metrics["clip_fraction"]) == float(batch.weights.sum())

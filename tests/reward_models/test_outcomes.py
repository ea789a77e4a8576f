"""Losses that explain outcomes by tokens, steps and pairs, against plain loops; what they learn on a table."""

from __future__ import annotations

import math
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.backends.base import LossCall
from guerdon.backends.tabular import tabular
from guerdon.losses import dpo, pair_mean, row_mean
from guerdon.registry import Refused
from guerdon.reward_models import Learner, mean_ce, sum_regression, trajectory_dpo
from guerdon.reward_models.heads import one_behind, values_after
from guerdon.samples import Batch, Context, Grain, Part, Rewards, Sample, Task, collate

seeds = st.integers(0, 2**32 - 1)


def softplus(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def outcome_of(batch: Batch) -> np.ndarray:
    assert batch.rewards.outcome is not None
    return batch.rewards.outcome.value


@given(seed=seeds)
def test_mean_ce_against_a_plain_loop(awkward, seed):
    batch = one_behind(awkward(seed))
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=batch.ids.shape))
    total = 0.0
    for i, o in enumerate(outcome_of(batch).clip(0, 1)):
        counted = [float(values[i, u + 1]) for u in range(batch.ids.shape[1]) if float(batch.weights[i, u])]
        z = sum(counted) / len(counted) if counted else 0.0
        total += max(batch.weights[i].tolist()) * (o * softplus(-z) + (1 - o) * softplus(z))
    assert float(mean_ce({"values": values}, batch)[0]) == pytest.approx(total, abs=1e-9)


@given(seed=seeds)
def test_sum_regression_against_a_plain_loop(awkward, seed):
    batch = one_behind(awkward(seed))
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=batch.ids.shape))
    of, mask = batch.step_of.numpy(), batch.mask.numpy()
    total = 0.0
    assert batch.rewards.outcome is not None
    for i, r in enumerate(outcome_of(batch)):
        whole = not (of[i] >= 0).any()
        steps = {0} if whole else set(of[i].tolist()) - {-1}
        ends = [np.flatnonzero(mask[i] & ((of[i] == k) | whole)) for k in sorted(steps)]
        c = sum(float(values[i, end[-1] + 1]) for end in ends if len(end))
        total += max(batch.weights[i].tolist()) * (c - r) ** 2 * batch.rewards.outcome.scored[i]
    loss, metrics = sum_regression({"values": values}, batch)
    assert float(loss) == pytest.approx(total, abs=1e-9)
    assert float(metrics["sum_error"]) == pytest.approx(total, abs=1e-9)


def test_sum_regression_of_a_part(awkward):
    batch = one_behind(awkward(3))
    values = torch.zeros(batch.ids.shape, dtype=torch.float64)
    result = Rewards(Grain.of(np.full(len(batch), 2.0)))
    batch = replace(batch, rewards=replace(batch.rewards, parts={"solved": Part(result, 0.0)}))
    expected = 4 * float(batch.weights.amax(1).sum())
    assert float(sum_regression({"values": values}, batch, part="solved")[0]) == pytest.approx(expected)
    with pytest.raises(Refused, match=r"'solve' is no part .* did you mean 'solved'"):
        sum_regression({"values": values}, batch, part="solve")
    batch = replace(batch, rewards=Rewards(token=Grain.ragged([[1.0]] * len(batch))))
    with pytest.raises(Refused, match="gives none"):
        sum_regression({"values": values}, batch)


@given(seed=seeds)
def test_trajectory_dpo_against_a_plain_loop(awkward, seed):
    batch = awkward(seed)
    written = batch.mask.any(1)
    batch.pairs = batch.pairs[written[batch.pairs].all(1)] if len(batch.pairs) else batch.pairs
    batch.weights = batch.weights * torch.isin(torch.arange(len(batch)), batch.pairs)[:, None]
    new = -torch.from_numpy(np.random.default_rng(seed).exponential(1.0, batch.ids.shape))
    q = []
    for i in range(len(batch)):
        counted = [u for u in range(batch.ids.shape[1]) if float(batch.weights[i, u])]
        steps = {int(batch.step_of[i, u]) for u in counted} - {-1}
        q.append(0.05 * sum(float(new[i, u] - batch.fields["logprobs"][i, u]) for u in counted) / max(len(steps), 1))
    w = batch.weights.amax(1).tolist()
    total = sum(min(w[a], w[b]) * softplus(q[b] - q[a]) for a, b in batch.pairs.tolist())
    assert float(trajectory_dpo({"logprobs": new}, batch)[0]) == pytest.approx(total, abs=1e-9)


@given(seed=seeds)
def test_trajectory_dpo_of_one_step_is_dpo(awkward, seed):
    batch = awkward(seed)
    batch.step_of = torch.full_like(batch.step_of, -1)
    written = batch.mask.any(1)
    batch.pairs = batch.pairs[written[batch.pairs].all(1)] if len(batch.pairs) else batch.pairs
    batch.weights = batch.weights * torch.isin(torch.arange(len(batch)), batch.pairs)[:, None]
    batch.fields["ref_logprobs"] = batch.fields["logprobs"]
    out = {"logprobs": -torch.rand(batch.ids.shape, dtype=torch.float64)}
    torch.testing.assert_close(trajectory_dpo(out, batch)[0], dpo(out, batch, beta=0.05)[0])


def walks(rng: np.random.Generator, n: int, length: int = 4) -> Batch:
    """Steps of one token, a right one (1) or not (0); the outcome is the share of right ones."""
    rows = [rng.integers(0, 2, length) for _ in range(n)]
    samples = [
        Sample(Task("t", "p"), "", np.array([9]), row, None, np.ones(length, bool), np.zeros(length), group=i // 4,
               spans={"step": [(k, k + 1) for k in range(length)]})
        for i, row in enumerate(rows)
    ]  # fmt: skip
    return collate(samples, Rewards(Grain.of([row.mean() for row in rows])), dtype=torch.float64)


def test_a_head_learns_the_shares_that_steps_have_in_a_result():
    """From sums alone: after enough trajectories the value after a right step is above that after a wrong one, and sums to the result."""
    model = tabular(vocab="01", head="scalar")
    learner = Learner("progress", model, [LossCall("sum_regression")], row_mean, lr=0.02, clip=None)
    rng = np.random.default_rng(0)
    errors = [learner.update(walks(rng, 32), Context())["progress/sum_error"] for _ in range(150)]
    assert errors[-1] < 0.05 * errors[0]
    fresh = walks(rng, 32)
    values = values_after(model, [(np.array([9]), row.numpy()) for row in fresh.ids])
    attributed = np.stack(values)
    np.testing.assert_allclose(attributed.sum(1), outcome_of(fresh), atol=0.1)
    right = fresh.ids.numpy() == 1
    assert attributed[right].mean() - attributed[~right].mean() > 0.1  # 0.25 in truth; a table shares nothing


def test_a_head_that_reads_the_answer_learns_which_is_right():
    """mean_ce: the second token decides, and the column behind it knows."""
    model = tabular(vocab="01", head="scalar")
    rng = np.random.default_rng(0)
    learner = Learner("token_rm", model, [LossCall("mean_ce")], row_mean, lr=0.1, clip=None)

    def batch(n: int) -> Batch:
        found = walks(rng, n)
        return replace(found, rewards=Rewards(Grain.of(found.ids[:, 1].double().numpy())))

    seen = [learner.update(batch(32), Context()) for _ in range(60)]
    assert seen[-1]["token_rm/accuracy"] == 1.0
    assert seen[-1]["token_rm/loss"] < 0.3 * seen[0]["token_rm/loss"]
    fresh = batch(8)
    values = model.forward(fresh, ("values",))[0]["values"]
    assert ((values[:, 2] > 0) == (fresh.ids[:, 1] == 1)).all()


def test_a_policy_like_model_learns_who_was_preferred():
    model = tabular(vocab="01")
    learner = Learner("prm", model, [LossCall("trajectory_dpo", {"beta": 1.0})], pair_mean, lr=0.05, clip=None)
    rng = np.random.default_rng(0)
    accuracies = []
    for _ in range(40):
        batch = walks(rng, 32)
        batch.fields["logprobs"] = torch.where(batch.mask, math.log(1 / 3), 0.0).double()
        value, group = outcome_of(batch), batch.group.tolist()
        pairs = [(i, j) for i in range(32) for j in range(32) if group[i] == group[j] and value[i] > value[j]]
        batch.pairs = torch.tensor(pairs).reshape(-1, 2)
        accuracies.append(learner.update(batch, Context())["prm/accuracy"])
    assert np.mean(accuracies[:3]) < 0.75
    assert np.mean(accuracies[-5:]) > 0.95

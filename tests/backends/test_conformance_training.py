"""What every backend keeps while it learns: gradients, optimiser steps, checkpoints, followers (`conftest.py` has the backends)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from guerdon.backends.base import LossCall
from guerdon.registry import Broke, Refused

PG = LossCall("policy_gradient")


# Training


@pytest.mark.parametrize("cut", [[[0, 1, 2, 3], [4, 5, 6, 7]], [[1, 3, 5, 7], [6, 4, 2, 0]], [[i] for i in range(8)]])
@pytest.mark.parametrize("calls", [PG, [PG, LossCall("sft")], LossCall("ppo_clip", {"clip": 0.1})], ids=["pg", "pg+sft", "ppo"])
def test_any_split_adds_up_to_the_same_gradient(case: Any, cut: list[list[int]], calls: Any):
    model = case.open()
    batch = case.mixed(model)
    batch.fields["logprobs"] = model.forward(batch)[0]["logprobs"].double() + 0.2 * batch.advantages
    whole, sums = case.gradient(model, batch, call=calls)
    parts, added = case.gradient(model, *(batch.rows(torch.tensor(rows)) for rows in cut), call=calls)
    assert whole.norm() > 0.1
    case.near(parts, whole, 100)
    assert set(sums) == set(added)
    assert all(added[name] == pytest.approx(sums[name], rel=100 * case.close, abs=100 * case.close) for name in sums)


def test_the_loss_is_the_sum_and_several_add_up(case: Any):
    model = case.open()
    batch = case.mixed(model)
    logp = model.forward(batch, temperature=0.7)[0]["logprobs"].double()
    pg = -(batch.weights * batch.advantages * logp).sum()
    sft = -(batch.weights * logp).sum()
    one, metrics = case.gradient(model, batch, temperature=0.7)
    case.near(metrics["loss"], float(pg), 10)
    two, _ = case.gradient(model, batch, call=LossCall("sft"), temperature=0.7)
    both, metrics = case.gradient(model, batch, call=[PG, LossCall("sft")], temperature=0.7)
    case.near(metrics["loss"], float(pg + sft), 10)
    case.near(both, one + two, 100)


def test_units_stay_together(case: Any):
    model = case.open()
    batch = case.mixed(model)
    batch.pairs = torch.tensor([[0, 4], [5, 1], [2, 6], [7, 3]])
    for i, pair in enumerate(batch.pairs.tolist()):
        batch.unit[pair] = i
    whole, metrics = case.gradient(model, batch, call=LossCall("of_pairs"))
    assert metrics["pairs"] == 4
    parts, _ = case.gradient(model, *(batch.rows(torch.tensor(r)) for r in ([0, 4, 2, 6], [1, 3, 5, 7])), call=LossCall("of_pairs"))
    assert whole.norm() > 1e-3
    case.near(parts, whole, 100)


@pytest.mark.parametrize("call", [PG, LossCall("of_values")], ids=["policy_gradient", "values"])
def test_gradient_by_finite_differences(double: Any, call: LossCall):
    case = double
    model = case.open(head="scalar")
    if call is not PG and "values" not in model.capabilities:
        with pytest.raises(Refused, match="values"):
            model.forward_backward(case.mixed(model), call)
        return
    batch = case.mixed(model)
    model.forward_backward(batch, [PG, call])
    model.optim_step(0.05)  # away from heads and adapters that start at 0
    analytic, _ = case.gradient(model, batch, call=call, temperature=0.7)
    params = case.params(model)
    random = torch.Generator().manual_seed(0)
    likeliest = torch.zeros_like(analytic)
    likeliest[analytic.abs().argmax()] = 1
    for direction in [likeliest, *(torch.randn(len(analytic), generator=random, dtype=torch.float64) for _ in range(3))]:
        parts = direction.split([p.numel() for p in params])

        def shifted(by: float, parts: Sequence[torch.Tensor] = parts) -> float:
            with torch.no_grad():
                for p, d in zip(params, parts, strict=True):
                    p += by * d.reshape(p.shape)
            value = case.gradient(model, batch, call=call, temperature=0.7)[1]["loss"]
            with torch.no_grad():
                for p, d in zip(params, parts, strict=True):
                    p -= by * d.reshape(p.shape)
            return value

        numeric = (shifted(1e-5) - shifted(-1e-5)) / 2e-5
        assert numeric == pytest.approx(float(analytic @ direction), rel=2e-6, abs=2e-7)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_optim_step_is_adamw_on_the_clipped_sum(case: Any, clip: float | None):
    """Three steps beside torch's own optimiser on the same gradients; the second batch is ten times the first."""
    model = case.open()
    case.gradient(model, *(case.mixed(model, seed) for seed in range(3)))  # a lazy table has its rows now
    twin = case.weights(model).requires_grad_()
    adam = torch.optim.AdamW([twin], weight_decay=0.0)
    for seed in range(3):
        batch = case.mixed(model, seed)
        batch.weights = batch.weights * (10 if seed == 1 else 1)
        wanted, _ = case.gradient(model, batch)
        norm = float(wanted.norm())
        model.forward_backward(batch, PG)
        assert model.version == seed
        assert model.optim_step(0.01, clip=clip)["grad_norm"] == pytest.approx(norm, rel=100 * case.close)
        assert model.version == seed + 1
        twin.grad = wanted * (1.0 if clip is None else min(1.0, clip / (norm + 1e-6)))
        adam.param_groups[0]["lr"] = 0.01
        adam.step()
        case.near(case.weights(model), twin.detach(), 100)
    groups, _ = case.sample(model)
    assert groups[0][0].version == 3


def test_rows_of_weight_0_change_nothing(case: Any):
    model = case.open()
    batch = case.mixed(model)
    kept = torch.tensor([0, 3, 4, 6])
    few = batch.rows(kept)
    batch.weights[[1, 2, 5, 7]] = 0
    a, sums = case.gradient(model, batch)
    b, same = case.gradient(model, few)
    case.near(a, b, 10)
    assert sums["loss"] == pytest.approx(same["loss"], rel=100 * case.close)


def test_batches_of_one_of_one_token_of_nothing(case: Any):
    model = case.open()
    whole, _ = case.gradient(model, case.mixed(model))
    batch = case.batch(model, case.prompts[:1], [[3]])
    one, metrics = case.gradient(model, batch)
    logp = float(model.forward(batch)[0]["logprobs"][0, 0])
    case.near(metrics["loss"], -float(batch.weights[0, 0] * batch.advantages[0, 0]) * logp)
    assert one.norm() > 0
    empty = case.batch(model, case.prompts[:2], [[3], []])
    empty.advantages[0], empty.weights[0] = batch.advantages[0], batch.weights[0]
    case.near(case.gradient(model, empty)[0], one, 10)
    for nothing in (batch.rows(torch.tensor([], dtype=torch.long)), case.batch(model, case.prompts[:1], [[]])):
        zero, metrics = case.gradient(model, nothing)
        assert zero.abs().sum() == 0
        assert metrics["loss"] == 0
    assert len(whole) == len(one)


def test_a_gradient_that_is_not_finite_breaks_off_before_the_step(case: Any):
    model = case.open()
    batch = case.mixed(model)
    case.gradient(model, batch)
    before = case.weights(model)
    batch.advantages[0, 0] = float("inf")
    model.forward_backward(batch, PG)
    with pytest.raises(Broke, match="gradient"):
        model.optim_step(0.1)
    assert torch.equal(case.weights(model), before)
    assert model.version == 0
    assert float(case.gradient(model, case.mixed(model))[0].norm()) > 0


# Checkpoints and followers


def test_a_loaded_model_goes_on_bit_for_bit(case: Any, tmp_path):
    model = case.open()
    case.train(model, range(3))
    model.save(tmp_path / "three")
    probe = case.mixed(model)
    at_three = model.forward(probe)[0]["logprobs"]
    case.train(model, range(3, 5))
    at_five, after = model.forward(probe)[0]["logprobs"], case.weights(model)
    assert not torch.equal(at_three, at_five)
    for again in (model, case.open(), case.open(seed=1)):
        again.load(tmp_path / "three")
        assert again.version == 3
        assert torch.equal(again.forward(probe)[0]["logprobs"], at_three)
        case.train(again, range(3, 5))
        assert torch.equal(case.weights(again), after)
        assert torch.equal(again.forward(probe)[0]["logprobs"], at_five)
    model.save(tmp_path / "three")  # over the old one
    fresh = case.open(trainable=False)
    fresh.load(tmp_path / "three")
    assert fresh.version == 5
    assert torch.equal(fresh.forward(probe)[0]["logprobs"], at_five)


def test_what_is_no_checkpoint_is_refused(case: Any, tmp_path):
    model = case.open()
    before = model.forward(case.mixed(model))[0]["logprobs"]
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(Refused, match=path.name):
            model.load(path)
    assert torch.equal(model.forward(case.mixed(model))[0]["logprobs"], before)


def test_copy(case: Any):
    policy, follower = case.open(), case.open(trainable=False)
    probe = case.mixed(policy)
    case.train(policy, range(2))
    assert not torch.equal(policy.forward(probe)[0]["logprobs"], follower.forward(probe)[0]["logprobs"])
    follower.copy(policy)
    at_two = policy.forward(probe)[0]["logprobs"]
    assert torch.equal(at_two, follower.forward(probe)[0]["logprobs"])
    case.train(policy, range(2, 3))  # what follows is a copy, not the same memory
    assert torch.equal(at_two, follower.forward(probe)[0]["logprobs"])


def test_copy_averages(case: Any):
    policy, follower = case.open(), case.open()
    if "average" not in policy.capabilities:
        with pytest.raises(Refused, match="average"):
            follower.copy(policy, tau=0.25)
        return
    case.gradient(follower, case.mixed(follower))  # a lazy table has its rows now
    case.gradient(policy, case.mixed(policy))
    policy.forward_backward(case.mixed(policy), PG)
    policy.optim_step(0.3)
    before, other = case.weights(follower), case.weights(policy)
    follower.copy(policy, tau=0.25)
    case.near(case.weights(follower), 0.75 * before + 0.25 * other)
    assert (before - other).abs().max() > 0.1

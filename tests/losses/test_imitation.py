"""Weighted imitation against loops over tokens, closed forms, and numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from guerdon.backends.base import LossCall
from guerdon.backends.local import local
from guerdon.losses import dft, ift, one_token_rollout, sft, sft_phi
from guerdon.registry import Refused
from guerdon.samples import Batch, Grain, Rewards, Sample, Task, collate

seeds = st.integers(0, 2**32 - 1)
V = 4


def logits(batch: Batch, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(*batch.ids.shape, V))).requires_grad_()


def outputs(z: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
    return {"logits": z, "logprobs": z.log_softmax(-1).gather(-1, batch.ids[..., None])[..., 0]}


def cells(batch: Batch) -> list[tuple[int, int]]:
    return [(i, t) for i in range(len(batch)) for t in range(int(batch.lengths[i])) if float(batch.weights[i, t]) != 0]


# sft_phi, dft


@given(seed=seeds, cutoff=st.sampled_from([1.0, 0.3]))
def test_values_and_gradients_equal_the_loop(awkward, seed, cutoff):
    """d loss / d log p is -w p (1 - p), not -w (p (1 - p) + p (1 - 2p) log p) as it would be with the weight attached."""
    batch = awkward(seed)
    logp = outputs(logits(batch, seed), batch)["logprobs"].detach().requires_grad_()
    phi, plain = sft_phi({"logprobs": logp}, batch, cutoff)[0], dft({"logprobs": logp}, batch)[0]
    gradient, of_plain = torch.autograd.grad(phi, logp)[0], torch.autograd.grad(plain, logp)[0]
    expected, expected_plain, slope, slope_plain = 0.0, 0.0, torch.zeros_like(logp), torch.zeros_like(logp)
    for i, t in cells(batch):
        w, lp = float(batch.weights[i, t]), logp[i, t].item()
        p = math.exp(lp)
        expected -= w * p * (1 - p) * min(lp, math.log(cutoff))
        expected_plain -= w * p * lp
        slope[i, t] = -w * p * (1 - p) * (p <= cutoff)
        slope_plain[i, t] = -w * p
    assert phi.item() == pytest.approx(expected, abs=1e-9)
    assert plain.item() == pytest.approx(expected_plain, abs=1e-9)
    torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(of_plain, slope_plain, rtol=1e-9, atol=1e-12)


def test_an_undecided_token_pulls_more_than_twenty_times_as_hard_as_a_known_one():
    batch = one_row(3)
    logp = torch.tensor([[0.5, 0.99, 0.001]], dtype=torch.float64).log().requires_grad_()
    undecided, known, far = torch.autograd.grad(sft_phi({"logprobs": logp}, batch)[0], logp)[0][0].tolist()
    assert undecided == pytest.approx(-0.25)
    assert undecided / known > 20
    assert undecided / far > 20


def one_row(t: int) -> Batch:
    sample = Sample(Task("a", "p"), "", np.ones(1, dtype=int), np.ones(t, dtype=int))
    return collate([sample], Rewards(Grain.of([0.0])), dtype=torch.float64)


# one_token_rollout


@given(seed=seeds, kappa=st.sampled_from([1.0, 1.3]), beta=st.sampled_from([0.0, -0.1]))
def test_expected_rollouts_equal_the_loop(awkward, seed, kappa, beta):
    batch = awkward(seed)
    z = logits(batch, seed)
    expected = 0.0
    for i, t in cells(batch):
        row = z[i, t].tolist()
        q = [math.exp(x / kappa) for x in row]
        for a in range(V):
            logp = row[a] - math.log(sum(math.exp(x) for x in row))
            expected -= float(batch.weights[i, t]) * q[a] / sum(q) * (1.0 if a == int(batch.ids[i, t]) else beta) * logp
    found = one_token_rollout(outputs(z, batch), batch, None, kappa, beta)[0]
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(seed=seeds, beta=st.sampled_from([0.0, -0.1, -0.5]))
def test_untempered_rollouts_are_dft_times_one_minus_beta(awkward, seed, beta):
    """The sum over a of p_a grad log p_a is 0; tempered draws do not have that."""
    batch = awkward(seed)
    z = logits(batch, seed)

    def gradient(loss: Any) -> torch.Tensor:
        return torch.autograd.grad(loss, z, allow_unused=True, materialize_grads=True)[0]

    found = gradient(one_token_rollout(outputs(z, batch), batch, None, 1.0, beta)[0])
    wanted = (1 - beta) * gradient(dft(outputs(z, batch), batch)[0])
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    tempered = gradient(one_token_rollout(outputs(z, batch), batch, None, 1.3, beta)[0])
    assert not cells(batch) or float((tempered - wanted).norm()) > 1e-4 * float(wanted.norm())


def test_many_draws_come_near_the_expectation_and_few_spread_as_they_should():
    """50 tokens, one position: 200,000 draws within 2 %; over many seeds, the share of hits has mean p and variance p (1 - p) / K.

    The true token has p = 0.07: the relative error of its share is sqrt((1 - p) / p K), 2 % at p = 0.01.
    """
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 50)))
    z[0, 0, 1] += 2
    z.requires_grad_()
    batch = one_row(1)

    def gradient(draws: int | None) -> torch.Tensor:
        return torch.autograd.grad(one_token_rollout(outputs(z, batch), batch, draws, kappa=1.0)[0], z)[0]

    assert float((gradient(200_000) - gradient(None)).norm() / gradient(None).norm()) < 0.02
    p = float(z.detach().softmax(-1)[0, 0, 1])
    hits = [float(one_token_rollout(outputs(z, batch), batch, 16, 1.0, seed=s)[1]["drawn"]) for s in range(2000)]
    assert np.mean(hits) == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 16 / 2000))
    assert np.var(hits) == pytest.approx(p * (1 - p) / 16, rel=0.2)


def test_draws_hang_on_the_row_alone():
    rng = np.random.default_rng(0)
    samples = [Sample(Task("a", "p"), "", np.ones(2, int), rng.integers(0, V, 5)) for _ in range(4)]
    samples.append(samples[0])
    batch = collate(samples, Rewards(Grain.of(np.zeros(5))), dtype=torch.float64)
    z = logits(batch, 0)
    z.data[4] = z.data[0]

    def of(rows: list[int], seed: int = 0) -> float:
        index = torch.tensor(rows)
        part = batch.rows(index)
        return one_token_rollout(outputs(z[index], part), part, 8, seed=seed)[0].item()

    assert of([0, 1, 2, 3]) == pytest.approx(of([3]) + of([1, 2]) + of([0]), abs=1e-12)
    assert of([4]) == of([0]) != of([0], seed=1)


@pytest.mark.parametrize("params", [{"draws": 0}, {"kappa": 0.0}])
def test_impossible_draws_are_refused(awkward, params):
    batch = awkward(0)
    with pytest.raises(Refused, match="draws"):
        one_token_rollout(outputs(logits(batch, 0), batch), batch, **params)


# ift


class Model:
    """Log-probabilities of the true tokens after given inputs: each logit is a fixed function of the inputs before it."""

    def __init__(self, batch: Batch, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.batch, self.z = batch, logits(batch, seed)
        self.table = torch.from_numpy(rng.normal(size=(V, V))).requires_grad_()

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table[ids]

    def logprobs(self, inputs: torch.Tensor) -> torch.Tensor:
        before = torch.nn.functional.pad(inputs.cumsum(1)[:, :-1], (0, 0, 1, 0))
        found = (self.z + before).log_softmax(-1).gather(-1, self.batch.ids[..., None])[..., 0]
        return torch.where(self.batch.mask, found, 0.0)

    def out(self) -> dict[str, Any]:
        return {"embeds": self, "logits": self.z, "logprobs": self.logprobs(self.embed(self.batch.ids))}


@given(seed=seeds, lam=st.sampled_from([0.0, 0.2, 1.0]), gamma=st.sampled_from([0.0, 0.5, 0.95, 1.0]))
@settings(max_examples=40)
def test_ift_equals_the_loop(awkward, seed, lam, gamma):
    batch = awkward(seed)
    model = Model(batch, seed)
    z, table = model.z.tolist(), model.table.detach().numpy()
    expected = 0.0
    for i in range(len(batch)):
        before, lp = np.zeros(V), {}
        for t in range(int(batch.lengths[i])):
            true = int(batch.ids[i, t])
            row = np.array(z[i][t]) + before
            lp[t] = float(row[true] - np.log(np.exp(row).sum()))
            guess = int(np.argmax(z[i][t])) if batch.mask[i, t] else true
            before = before + (1 - lam) * table[true] + lam * table[guess]
        counted = [t for t in range(int(batch.lengths[i])) if float(batch.weights[i, t]) != 0]
        c = {t: sum(gamma ** (k - t) * -lp[k] for k in counted if k >= t) for t in counted}
        for t in counted:
            weight = c[t] * len(counted) / sum(c.values()) if gamma else 1.0
            expected += float(batch.weights[i, t]) * weight * -lp[t]
    assert ift(model.out(), batch, lam, gamma)[0].item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(seed=seeds)
def test_ift_without_residual_and_propagation_is_sft_in_value_and_gradient(awkward, seed):
    batch = awkward(seed)
    model = Model(batch, seed)
    found, wanted = ift(model.out(), batch, 0.0, 0.0)[0], sft(model.out(), batch)[0]
    assert found.item() == pytest.approx(wanted.item(), abs=1e-9)
    for x in (model.z, model.table):
        a, b = (torch.autograd.grad(y, x, retain_graph=True)[0] for y in (found, wanted))
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_weights_sum_to_the_length_fall_for_equal_losses_and_carry_gradient_unless_detached():
    batch = one_row(6)

    class Equal(Model):
        def logprobs(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.scale.expand(1, 6)

        scale = torch.tensor(-0.7, dtype=torch.float64, requires_grad=True)

    model = Equal(batch, 0)
    weights = []
    for t in range(6):
        batch.advantages = torch.zeros_like(batch.weights)
        out = model.out()
        only = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
        out["embeds"] = type("Embeds", (), {"embed": model.embed, "logprobs": lambda _, x, e=only: model.logprobs(x) + e})()
        gradient = torch.autograd.grad(ift(out, batch, 0.0, 0.9, detach=True)[0], only)[0]
        weights.append(-float(gradient[0, t]))
    assert sum(weights) == pytest.approx(6)
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 2 * weights[-1]
    model = Model(batch, 1)
    attached, detached = (torch.autograd.grad(ift(model.out(), batch, detach=d)[0], model.z)[0] for d in (False, True))
    assert float((attached - detached).norm()) > 0.1 * float(detached.norm())


def test_ift_of_a_transformer_is_sft_there_too(tmp_path):
    """Through the backend: loss and gradient of lam = gamma = 0, and any other lam differs."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from guerdon.envs.tiny import tokenizer

    torch.manual_seed(0)
    size: dict[str, Any] = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    config = LlamaConfig(vocab_size=len(tokenizer()), initializer_range=0.3, bos_token_id=None, eos_token_id=1, pad_token_id=0, **size)
    model = local((LlamaForCausalLM(config), tokenizer()), dtype="float64", device="cpu")
    rows = [("12=", "3+4"), ("7", "1"), ("12=", "55-5+")]
    samples = [Sample(Task(p, p), a, model.encode(p), model.encode_answer(a), source="expert") for p, a in rows]
    batch = collate(samples, Rewards(Grain.of(np.zeros(3))), dtype=torch.float64)

    def measured(call: LossCall) -> tuple[float, torch.Tensor]:
        loss = model.forward_backward(batch, call)[0]["loss"]
        model.grad_keep(call.name)
        return loss, model.grad_dot(call.name, call.name)

    assert measured(LossCall("ift", {"lam": 0, "gamma": 0})) == pytest.approx(measured(LossCall("sft")), rel=1e-9)
    assert model.grad_dot("ift", "sft") == pytest.approx(model.grad_dot("sft", "sft"), rel=1e-9)
    assert measured(LossCall("ift", {"lam": 0.2, "gamma": 0}))[0] != pytest.approx(measured(LossCall("sft"))[0], rel=1e-6)


@pytest.mark.parametrize("params", [{"lam": 1.5}, {"gamma": -0.1}])
def test_ift_outside_its_range_is_refused(awkward, params):
    batch = awkward(0)
    with pytest.raises(Refused, match="within"):
        ift(Model(batch, 0).out(), batch, **params)

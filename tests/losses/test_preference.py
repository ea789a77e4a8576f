"""Losses of pairs against plain loops; limits between them; and pairs of very unlike length, padded and in micro-batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.backends.base import LossCall
from guerdon.backends.local import local
from guerdon.backends.resolve import exact_norms
from guerdon.credit import kto_point
from guerdon.envs.tiny import tokenizer
from guerdon.losses import dno, dpo, ipo, kto, modpo, nca, orpo, pair_mean, row_mean, simpo, t_reg
from guerdon.losses.core import units
from guerdon.recipe import read
from guerdon.registry import Refused, find
from guerdon.samples import Batch, Grain, Part, Rewards, Sample, Task, collate

seeds = st.integers(0, 2**32 - 1)


def paired(awkward, seed: int, grains=("outcome",)) -> tuple[dict[str, torch.Tensor], Batch]:
    """As the loop hands it over: pairs whose sides have tokens, and weights by `pair_mean`."""
    batch = awkward(seed, grains)
    written = batch.mask.any(1)
    batch.pairs = batch.pairs[written[batch.pairs].all(1)]
    batch.weights = pair_mean(batch)
    out = {"logprobs": -torch.from_numpy(np.random.default_rng(seed).exponential(1.0, batch.ids.shape))}
    return out, batch


def tokens(batch: Batch, i: int) -> list[int]:
    return [t for t in range(batch.ids.shape[1]) if float(batch.weights[i, t]) != 0]


def h(out, batch: Batch, i: int) -> float:
    return sum(float(out["logprobs"][i, t]) - float(batch.fields["ref_logprobs"][i, t]) for t in tokens(batch, i))


def mean(out, batch: Batch, i: int) -> float:
    return sum(float(out["logprobs"][i, t]) for t in tokens(batch, i)) / max(len(tokens(batch, i)), 1)


def logsigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def over_pairs(batch: Batch, term: Callable[[int, int], float]) -> float:
    total = 0.0
    for a, b in batch.pairs.tolist():
        w = min(float(batch.weights[a].max()), float(batch.weights[b].max()))
        total += w * term(a, b) if w else 0.0
    return total


@given(seed=seeds)
def test_losses_of_pairs_equal_the_loop(awkward, seed):
    out, batch = paired(awkward, seed)

    def close(found, term):
        assert float(found[0]) == pytest.approx(over_pairs(batch, term), rel=1e-9, abs=1e-9)

    def gap(a: int, b: int) -> float:
        return h(out, batch, a) - h(out, batch, b)

    def normal(i: int) -> float:
        return h(out, batch, i) / max(len(tokens(batch, i)), 1)

    def odds(i: int) -> float:
        return math.log(math.exp(mean(out, batch, i)) / (1 - math.exp(mean(out, batch, i))))

    close(dpo(out, batch, 0.3, 0.1), lambda a, b: -0.9 * logsigmoid(0.3 * gap(a, b)) - 0.1 * logsigmoid(-0.3 * gap(a, b)))
    close(ipo(out, batch, 0.2, average=False), lambda a, b: (gap(a, b) - 2.5) ** 2)
    close(ipo(out, batch, 0.2), lambda a, b: (normal(a) - normal(b) - 2.5) ** 2)
    close(simpo(out, batch, 1.5, 0.7), lambda a, b: -logsigmoid(1.5 * (mean(out, batch, a) - mean(out, batch, b)) - 0.7))
    close(orpo(out, batch, 0.4), lambda a, b: -mean(out, batch, a) - 0.4 * logsigmoid(odds(a) - odds(b)))

    def noise(a: int, b: int) -> float:
        x, y = 0.3 * h(out, batch, a), 0.3 * h(out, batch, b)
        return -logsigmoid(x) - 0.5 * (logsigmoid(-x) + logsigmoid(-y))

    close(nca(out, batch, 0.3), noise)

    def soft(a: int, b: int) -> float:
        s = 1 / (1 + math.exp(float(batch.outcome[b]) - float(batch.outcome[a])))
        return -s * logsigmoid(0.3 * gap(a, b)) - (1 - s) * logsigmoid(-0.3 * gap(a, b))

    close(dno(out, batch, 0.3), soft)


@given(seed=seeds)
def test_t_reg_equals_the_loop_and_without_its_term_dpo(awkward, seed):
    out, batch = paired(awkward, seed, ("outcome", "token"))
    grain = batch.rewards.token
    assert grain is not None

    def regularity(i: int) -> float:
        return -0.2 * sum(grain.value[i, t] * float(out["logprobs"][i, t]) for t in tokens(batch, i) if t < grain.value.shape[1])

    def term(a: int, b: int) -> float:
        d = 0.2 * (h(out, batch, a) - h(out, batch, b))
        return -logsigmoid(d) + 0.5 / (1 + math.exp(d)) * (regularity(a) + regularity(b))

    assert float(t_reg(out, batch, 0.2, 0.5)[0]) == pytest.approx(over_pairs(batch, term), rel=1e-9, abs=1e-9)
    assert float(t_reg(out, batch, 0.2, 0.0)[0]) == pytest.approx(float(dpo(out, batch, 0.2)[0]), abs=1e-12)


def test_the_gradient_of_the_regularity_is_minus_beta_times_the_token_reward(awkward):
    made = (paired(awkward, seed, ("outcome", "token")) for seed in range(100))
    out, batch = next((o, b) for o, b in made if len(b.pairs) > 2 and float(b.weights[b.pairs].amin(1).sum()))
    logprobs = out["logprobs"].clone().requires_grad_()
    with_term, without = (torch.autograd.grad(t_reg({"logprobs": logprobs}, batch, 0.2, a)[0], logprobs)[0] for a in (1.0, 0.0))
    expected = torch.zeros_like(with_term)
    for a, b in batch.pairs.tolist():
        w = min(float(batch.weights[a].max()), float(batch.weights[b].max()))
        s = 1 / (1 + math.exp(0.2 * (h(out, batch, a) - h(out, batch, b)))) if w else 0.0
        for i in (a, b):
            for t in tokens(batch, i):
                expected[i, t] -= w * s * 0.2 * float(batch.rewards.token.value[i, t])  # type: ignore[union-attr]
    torch.testing.assert_close(with_term - without, expected, rtol=0, atol=1e-12)
    with pytest.raises(Refused, match="add `\\+ contrastive"):
        t_reg(out, replace(batch, rewards=Rewards(Grain.of(np.zeros(len(batch))))))


@given(seed=seeds)
def test_modpo_equals_the_loop_and_dpo_where_nothing_else_counts(awkward, seed):
    out, batch = paired(awkward, seed)
    rng = np.random.default_rng(seed)
    kind, size = rng.normal(size=len(batch)), rng.normal(size=len(batch))
    batch.rewards.parts["kind"] = Part(Rewards(Grain.of(kind)), None)
    batch.fields["margin"] = torch.from_numpy(size)

    def g(i: int) -> float:
        return (0.3 * h(out, batch, i) - 0.5 * kind[i] - 0.3 * size[i]) / 0.2

    found = float(modpo(out, batch, 0.3, 0.2, {"kind": 0.5, "margin": 0.3})[0])
    assert found == pytest.approx(over_pairs(batch, lambda a, b: -logsigmoid(g(a) - g(b))), rel=1e-9, abs=1e-9)
    assert abs(float(modpo(out, batch, 0.3)[0]) - float(dpo(out, batch, 0.3)[0])) < 1e-9
    assert abs(float(modpo(out, batch, 0.3, 1.0, {"kind": 0.0})[0]) - float(dpo(out, batch, 0.3)[0])) < 1e-9
    with pytest.raises(Refused, match="did you mean 'kind'"):
        modpo(out, batch, others={"kin": 1.0})
    with pytest.raises(Refused, match="above 0 and at most 1"):
        modpo(out, batch, weight=0.0)


@given(seed=seeds)
def test_soft_labels_that_are_certain_are_dpo(awkward, seed):
    out, batch = paired(awkward, seed)
    outcome = np.zeros(len(batch))
    batch.pairs = batch.pairs[:1]
    outcome[batch.pairs[:, 0]], outcome[batch.pairs[:, 1]] = 50.0, -50.0
    batch.rewards = Rewards(Grain.of(outcome, batch.rewards.outcome.state))  # type: ignore[union-attr]
    batch.__dict__.pop("outcome", None)
    if not len(batch.pairs) or not batch.alive[batch.pairs].all():
        return
    assert float(dno(out, batch, 0.3)[0]) == pytest.approx(float(dpo(out, batch, 0.3)[0]), abs=1e-9)


@given(seed=seeds)
def test_kto_and_its_point_equal_the_loop(awkward, seed):
    batch = awkward(seed)
    out = {"logprobs": -torch.from_numpy(np.random.default_rng(seed).exponential(1.0, batch.ids.shape))}
    rows = [i for i in range(len(batch)) if batch.alive[i] and not batch.fields["expert"][i]]
    gaps = []
    for i in rows:
        known = [t for t in range(batch.ids.shape[1]) if batch.mask[i, t] and not batch.fields["logprobs"][i, t].isnan()]
        if known:
            gaps.append(sum(float(batch.fields["logprobs"][i, t]) - float(batch.fields["ref_logprobs"][i, t]) for t in known))
    z = max(0.0, sum(gaps) / len(gaps)) if gaps else 0.0
    batch.advantages = kto_point(batch)
    np.testing.assert_allclose(batch.advantages, z * (batch.mask & batch.alive[:, None]).double(), atol=1e-9)
    batch.weights = row_mean(batch)
    total = 0.0
    for i in range(len(batch)):
        if w := float(batch.weights[i].max()):
            s = 0.3 * (h(out, batch, i) - z)
            total += w * (2.0 * (1 - 1 / (1 + math.exp(-s))) if float(batch.outcome[i]) > 0.5 else 0.7 * (1 - 1 / (1 + math.exp(s))))
    assert float(kto(out, batch, 0.3, 2.0, 0.7)[0]) == pytest.approx(total, rel=1e-9, abs=1e-9)


def test_rows_of_an_expert_are_not_in_the_point_of_reference():
    samples = [Sample(Task("t", "p"), "", np.array([1]), np.array([2]), logprobs=np.array([x])) for x in (-1.0, -2.0, -3.0)]
    samples[2].source = "expert"
    batch = collate(samples, Rewards(Grain.of([1.0, 0.0, 1.0])), dtype=torch.float64)
    batch.fields["ref_logprobs"] = torch.tensor([[-1.5], [-3.5], [-9.0]], dtype=torch.float64)
    np.testing.assert_allclose(kto_point(batch), [[1.0], [1.0], [1.0]])
    batch.fields["ref_logprobs"][:] = 0.0
    assert not kto_point(batch).any()


CALLS = [
    LossCall("dpo", {"beta": 0.3}), LossCall("ipo"), LossCall("simpo"), LossCall("orpo"), LossCall("dno"), LossCall("nca"),
    LossCall("t_reg", {"alpha": 0.5}), LossCall("modpo", {"weight": 0.5, "others": {"margin": 0.5}}),
]  # fmt: skip


@pytest.fixture(scope="module")
def transformer():
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens = tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1, pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    network = LlamaForCausalLM(config).double()
    exact_norms(network)
    return network, tokens


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_pairs_whose_sides_differ_tenfold_in_length_have_the_right_gradient(transformer, call):
    """Four pairs, long chosen and long rejected, in one batch, in micro-batches of a pair, and each pair alone in the plain model."""
    rng, network = np.random.default_rng(0), transformer[0]
    lengths = [(4, 40), (40, 4), (3, 30), (30, 3)]
    samples = [
        Sample(Task(str(p), "p"), "", rng.integers(3, 60, 3), rng.integers(3, 60, t), group=p, meta={"margin": float(rng.normal())})
        for p, sides in enumerate(lengths)
        for t in sides
    ]
    value = [rng.uniform(-0.5, 0.5, len(s.ids)).tolist() for s in samples if s.ids is not None]
    batch = collate(samples, Rewards(Grain.of(rng.random(8)), token=Grain.ragged(value)), dtype=torch.float64)
    batch.fields["ref_logprobs"] = torch.from_numpy(-rng.exponential(1.0, batch.ids.shape)) * batch.mask
    batch.pairs = torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]])
    batch.unit, batch.weights = units(batch, [call.name]), pair_mean(batch)
    fn = {"dpo": dpo, "ipo": ipo, "simpo": simpo, "orpo": orpo, "dno": dno, "nca": nca, "t_reg": t_reg, "modpo": modpo}[call.name]
    total = torch.zeros((), dtype=torch.float64)
    for rows in batch.pairs:
        part = batch.rows(rows)
        logprobs = torch.zeros_like(part.weights)
        for i, row in enumerate(rows.tolist()):
            whole = torch.cat([batch.prompts[row], batch.ids[row, : batch.lengths[row]]])
            found = network(whole[None]).logits[0].log_softmax(-1)[2:-1].gather(1, whole[3:, None])[:, 0]
            logprobs[i, : len(found)] = found
        total = total + fn({"logprobs": logprobs}, part, **call.params)[0]
    wanted = torch.cat([g.flatten() for g in torch.autograd.grad(total, list(network.parameters()))])
    for micro in (None, 50):
        model = local(transformer, dtype="float64", micro_tokens=micro)
        metrics, _ = model.forward_backward(batch, call)
        assert metrics["loss"] == pytest.approx(float(total.detach()), rel=1e-9)
        found = torch.cat([p.grad.flatten() for p in model.causal.parameters()])
        assert float((found - wanted).norm() / wanted.norm()) < 1e-8


@pytest.mark.parametrize("name", ["dpo", "ipo", "simpo", "orpo", "dno", "nca", "modpo", "t_reg", "kto", "listwise", "tpo", "vargrad"])
def test_outputs_may_be_of_another_precision_than_the_batch(awkward, name):
    """As those of a table are, whose batch is float32 where the recipe says nothing."""
    params = {"floor": 0.1} if name == "vargrad" else {}
    for seed in range(20):
        batches = [awkward(seed, ("outcome", "token"), dtype) for dtype in (torch.float64, torch.float32)]
        rng, values = np.random.default_rng(seed), []
        n, t = batches[0].ids.shape
        out = {"logprobs": -torch.from_numpy(rng.exponential(1.0, (n, t))), "hidden": torch.from_numpy(rng.normal(size=(n, t, 3)))}
        for batch in batches:
            written = batch.mask.any(1)
            batch.pairs = batch.pairs[written[batch.pairs].all(1)]
            values.append(float(find("loss", name).fn(out, batch, **params)[0]))
        assert values[1] == pytest.approx(values[0], rel=1e-4, abs=1e-4)


def test_a_recipe_with_kto_and_another_credit_is_refused():
    recipe = {
        "models": {"policy": {"backend": "tabular"}, "reference": {"of": "policy"}}, "tasks": {"use": "arithmetic", "n": 2},
        "reward": "arithmetic", "loss": "kto", "aggregate": "row_mean",
    }  # fmt: skip
    with pytest.raises(Refused, match="loss 'kto' reads what the credit 'kto_point' gives; write `credit: kto_point`"):
        read(recipe)
    assert read(recipe | {"credit": "kto_point"}).credit is not None

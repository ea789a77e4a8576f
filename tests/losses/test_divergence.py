"""Token weights from how far the distributions of a group are apart: a plain loop, limits, and the memory of a run of positions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from transformers import LlamaConfig, LlamaForCausalLM

from guerdon.backends.base import LossCall
from guerdon.backends.local import local
from guerdon.envs.tiny import tokenizer
from guerdon.losses import divergence as module
from guerdon.losses import ppo_clip, tw_grpo
from guerdon.losses.divergence import divergence
from guerdon.samples import Batch, Grain, Rewards, Sample, Task, collate

seeds = st.integers(0, 2**32 - 1)
V = 4


def twin(logits: np.ndarray, batch: Batch) -> np.ndarray:
    """The formula, one group, position and word at a time."""
    mask, alive, group = batch.mask.numpy(), batch.alive.numpy(), batch.group.tolist()
    out = np.zeros(mask.shape)
    for g in set(group):
        rows = [i for i in range(len(batch)) if group[i] == g and alive[i] and mask[i].any()]
        k = {}
        for t in range(mask.shape[1]):
            if not any(mask[i, t] for i in rows):
                continue
            logp = {}
            for i in rows:
                z = logits[i, t] - logits[i, t].max()
                logp[i] = z - math.log(sum(math.exp(x) for x in z)) if mask[i, t] else np.full(V, -math.log(V))
            mean = np.mean(list(logp.values()), 0)
            x = [min(max(mean[v] - logp[i][v], -11), 11) for i in rows for v in range(V)]
            k[t] = sum(math.exp(d) - d - 1 for d in x) / len(rows)
        for i in rows:
            for t, value in k.items():
                if mask[i, t]:
                    out[i, t] = (value - min(k.values())) / (max(k.values()) - min(k.values()) + 1e-8)
    return out


def random_logits(seed: int, batch: Batch, scale: float = 3.0) -> torch.Tensor:
    return torch.from_numpy(scale * np.random.default_rng(seed).normal(size=(*batch.ids.shape, V)))


@given(seed=seeds)
def test_against_a_plain_loop(awkward, seed):
    batch = awkward(seed)
    logits = random_logits(seed, batch, scale=10.0)
    np.testing.assert_allclose(divergence(logits, batch), twin(logits.numpy(), batch), atol=1e-6)


@given(seed=seeds)
def test_alpha_1_is_the_plain_surrogate(awkward, seed):
    batch = awkward(seed)
    out = {"logprobs": batch.fields["logprobs"].nan_to_num() + 0.3, "logits": random_logits(seed, batch)}
    batch = replace(batch, fields={**batch.fields, "logprobs": batch.fields["logprobs"].nan_to_num()})
    assert torch.equal(tw_grpo(out, batch, alpha=1.0)[0], ppo_clip(out, batch, 0.2, 0.28)[0])


@given(seed=seeds)
def test_the_loss_is_the_weighted_sum_over_tokens(awkward, seed):
    batch = awkward(seed)
    batch = replace(batch, fields={**batch.fields, "logprobs": batch.fields["logprobs"].nan_to_num()})
    logits = random_logits(seed, batch)
    new = batch.fields["logprobs"] + torch.from_numpy(np.random.default_rng(seed).normal(size=batch.ids.shape))
    w, total = 1 + 0.7 * twin(logits.numpy(), batch), 0.0
    for i, t in np.argwhere(batch.mask.numpy()).tolist():
        r, a = math.exp(float(new[i, t] - batch.fields["logprobs"][i, t])), float(batch.advantages[i, t])
        total -= float(batch.weights[i, t]) * w[i, t] * min(r * a, min(max(r, 0.8), 1.28) * a)
    assert float(tw_grpo({"logprobs": new, "logits": logits}, batch)[0]) == pytest.approx(total, abs=1e-6)


def test_identical_distributions_weigh_every_token_the_same(awkward):
    batch = next(b for b in map(awkward, range(50)) if b.alive.sum() > 2)
    batch.mask[:] = True
    logits = random_logits(0, batch)[:1].expand(len(batch), -1, -1).contiguous()
    assert float(divergence(logits, batch).max()) < 1e-6


@given(seed=seeds)
def test_runs_of_positions_change_nothing(awkward, seed):
    batch = awkward(seed)
    logits = random_logits(seed, batch)
    whole, old = divergence(logits, batch), module.CHUNK
    module.CHUNK = V
    try:
        np.testing.assert_allclose(divergence(logits, batch), whole, atol=1e-12)
    finally:
        module.CHUNK = old


def test_a_model_in_small_micro_batches_keeps_groups_whole():
    sizes: dict[str, Any] = dict(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, bos_token_id=None,
        eos_token_id=1, pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    words = tokenizer()
    pair = (LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **sizes)).double(), words)
    rng = np.random.default_rng(0)
    samples = []
    for i in range(9):
        ids = np.r_[4, 5, rng.integers(2, len(words), int(rng.integers(1, 7)))]
        written, logprobs = np.ones(len(ids), bool), np.full(len(ids), -2.0)
        samples.append(Sample(Task(str(i // 3), "1+2="), "", np.array([3, 4, 3]), ids, None, written, logprobs, group=i // 3))
    batch = collate(samples, Rewards(Grain.of(rng.normal(size=9))), dtype=torch.float64)
    batch = replace(batch, unit=batch.group, advantages=torch.from_numpy(rng.normal(size=batch.ids.shape)) * batch.mask)
    found = []
    for most in (12, None):
        model = local(pair, dtype="float64", micro_tokens=most)
        metrics, _ = model.forward_backward(batch, LossCall("tw_grpo"))
        found.append((metrics["token_weight"], torch.cat([p.grad.flatten() for p in model._weights().values() if p.grad is not None])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-9, atol=1e-12)
    assert float(found[1][1].abs().max()) > 0

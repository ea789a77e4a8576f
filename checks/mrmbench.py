"""MRMBench: linear probes say what a reward model has learnt to see, and its distance from what it knows guards a policy against it.

Answers of twelve tokens; each of four attributes has a token for it and one against it, and is met where the first is written more often.
Tiny reward models (one layer, 16 wide) are fitted by Bradley-Terry on preferences that follow one to four of the attributes; the truth is
how many of the four are met. The policy, a table of tokens by place, climbs the model that was fitted on all four. One token that no
preference ever held is overpaid by it: its embedding is three times the mean of those that speak for an attribute.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

import guerdon.reward_models  # noqa: F401  fills the registry
from guerdon.backends.base import LossCall
from guerdon.backends.local import local
from guerdon.envs.tiny import tokenizer
from guerdon.evals.bench.probing import familiar, features, probed
from guerdon.losses.aggregate import pair_mean
from guerdon.reward_models.heads import one_behind, values_after
from guerdon.samples import Grain, Rewards, Sample, Task, collate

CLAIM = (
    "in every seed the policy's truth ends higher when answers with d_min above the 80 % quantile are dropped than when none is, and than "
    "when as many are dropped at random; probes of attributes that a model was fitted on are 0.15 more accurate than those of the others, "
    "and the mean of a model's probes ranks six models as the truth of their best of 16 does (Spearman 0.8 or more)"
)
BASELINE = "no answer is dropped"
METHOD = "answers with d_min above the 80 % quantile of known answers are dropped; without its key term: as many at random"
SEEDS = (0, 1, 2)
PLACES, FIRST, ATTRIBUTES, NEUTRAL = 12, 2, 4, 3
KNOWN = FIRST + 2 * ATTRIBUTES + NEUTRAL
ODD = KNOWN
"""The token that no preference holds."""
FITTED_ON = ((0,), (1,), (0, 1), (2, 3), (0, 1, 2), (0, 1, 2, 3))
PROMPT = np.array([FIRST])


def met(ids: np.ndarray) -> np.ndarray:
    """(n, 4) which attributes each answer meets."""
    count = [(ids == token).sum(1) for token in range(FIRST, FIRST + 2 * ATTRIBUTES)]
    return np.stack([count[2 * k] > count[2 * k + 1] for k in range(ATTRIBUTES)], 1)


def known(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(FIRST, KNOWN, (n, PLACES))


def samples_of(model: Any, ids: np.ndarray) -> list[Sample]:
    return [Sample(Task("", ""), model.decode(row)[0], PROMPT, ids=row) for row in ids]


def fitted(on: tuple[int, ...], seed: int, steps: int = 90, pairs: int = 32) -> Any:
    """A reward model of preferences for more of these attributes; pairs that meet equally many have no preference."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    tokens, rng = tokenizer(), np.random.default_rng([seed, *on])
    shape: dict[str, Any] = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    config = LlamaConfig(vocab_size=len(tokens), max_position_embeddings=32, bos_token_id=None, eos_token_id=1, pad_token_id=0, **shape)
    model = local((LlamaForCausalLM(config), tokens), head="scalar", device="cpu", seed=seed)
    for _ in range(steps):
        ids = known(2 * pairs, rng)
        worth = met(ids)[:, on].sum(1)
        a, b = np.arange(pairs), np.arange(pairs, 2 * pairs)
        unlike = worth[a] != worth[b]
        ahead, behind = np.where(worth[a] > worth[b], a, b)[unlike], np.where(worth[a] > worth[b], b, a)[unlike]
        rows = [Sample(Task("", ""), "", PROMPT, ids=row) for row in ids]
        batch = collate(rows, Rewards(Grain.of(worth)))
        batch = replace(batch, pairs=torch.from_numpy(np.stack([ahead, behind], 1)), unit=torch.zeros(len(rows), dtype=torch.long))
        batch = replace(batch, weights=pair_mean(batch))
        model.forward_backward(one_behind(batch), LossCall("bradley_terry"))
        model.optim_step(1e-2)
    return model


def labelled(model: Any, ids: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    x = features(model, samples_of(model, ids), batch=512)
    return {str(k): (x, met(ids)[:, k].astype(int)) for k in range(ATTRIBUTES)}


def probes(seed: int) -> dict[str, Any]:
    """What probes see of six models, and what their best of 16 is truly worth."""
    rng = np.random.default_rng([seed, 1])
    train, test, pool = known(600, rng), known(400, rng), known(16 * 100, rng)
    seen, unseen, means, worth = [], [], [], []
    for on in FITTED_ON:
        model = fitted(on, seed)
        found = probed(labelled(model, train), labelled(model, test))
        seen += [found[str(k)] for k in on]
        unseen += [found[str(k)] for k in range(ATTRIBUTES) if k not in on]
        means.append(found["mean"])
        values = np.array([v[-1] for v in values_after(model, [(PROMPT, row) for row in pool])]).reshape(-1, 16)
        best = pool.reshape(-1, 16, PLACES)[np.arange(len(values)), values.argmax(1)]
        worth.append(float(met(best).sum(1).mean()))
    return {
        "gap": round(float(np.mean(seen) - np.mean(unseen)), 4), "rank": round(float(spearmanr(means, worth).statistic), 4),  # pyright: ignore
        "probes": np.round(means, 3).tolist(), "best of 16": np.round(worth, 3).tolist(),
    }  # fmt: skip


def climbed(variant: str, seed: int, steps: int = 80, n: int = 96) -> float:
    """The truth of the policy at the end."""
    model, rng = fitted(FITTED_ON[-1], seed), np.random.default_rng([seed, 2])
    table = model.causal.get_input_embeddings().weight
    with torch.no_grad():
        table[ODD] = 3 * table[FIRST : FIRST + 2 * ATTRIBUTES : 2].mean(0)
    ground = familiar(labelled(model, known(400, rng)), quantile=0.8, seed=seed)
    logits = np.zeros((PLACES, ODD + 1 - FIRST))
    for _ in range(steps):
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        drawn = (rng.uniform(size=(n, PLACES, 1)) > p.cumsum(1)[None, :, :-1]).sum(2)
        ids = drawn + FIRST
        pay = np.array([v[-1] for v in values_after(model, [(PROMPT, row) for row in ids])])
        keep = np.ones(n, dtype=bool)
        if variant != "baseline":
            keep = ground.keep(features(model, samples_of(model, ids), batch=512))
        if variant == "ablated":
            keep = rng.permutation(keep)
        if keep.sum() > 1:
            score = (pay[keep] - pay[keep].mean()) / (pay[keep].std() + 1e-6)
            logits += 1.0 * (score[:, None, None] * (np.eye(logits.shape[1])[drawn[keep]] - p)).mean(0)
    return float(met(ids).sum(1).mean())


def measure(variant: str, seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    found = {"value": round(climbed(variant, seed), 4)}
    if variant == "method":
        return {**found, "random": round(climbed("ablated", seed), 4), **probes(seed)}
    return {**found, "random": found["value"]}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    above = all(m["value"] > max(b["value"], m["random"]) for b, m in zip(baseline, method, strict=True))
    return above and all(m.get("gap", 1) >= 0.15 and m.get("rank", 1) >= 0.8 for m in method)

"""Ensembles: the least of several raters removes the errors that each makes alone, not those that all make.

Arrays: an answer has a worth, one error that all raters share, and 40 oddities of heavy tail, each of which lowers the worth. A rater
sees the worth, the shared error, and overpays eight oddities of its own; raters tuned from one pretrained rater overpay the same eight,
each with weights of its own. Every rater counts from an offset of its own. The best of n answers is taken, up to n = 1024.

Fitted members: a frozen body, 24 random features tanh(f A) of what an answer is (12 numbers), and a linear head that `bradley_terry` fits
to 400 pairs drawn with repetition from the same 400. Seeds alone: one A, other draws. Pretrainings: an A each. Ten of the numbers are worth
something; the eleventh goes with worth in the pairs and is worth nothing, so that all members pay for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _array_world import answers, shaped
from _heads import fitted, linear, rows, said

CLAIM = (
    "in every seed the worth of the best of 1024 by the least of five centred raters of different pretraining is above that by raters of "
    "one pretraining, and that above a single rater's, whose worth falls by 10% or more from its best n; the raters' own exploits fall by "
    "half or more, the shared one to no less than 0.8 times; of fitted members, means of the seeds: the worth by the least of five of "
    "different pretraining is above that by other seeds alone, and that above a single member's, and the shared error is exploited no less "
    "than 0.8 times as much"
)
BASELINE = "one rater; one fitted member, and the least of five of one pretraining"
METHOD = "min over five centred raters, different pretraining; without its key terms: uncentred; five copies of one fitted member"
SEEDS = (0, 1, 2)
PROMPTS, ANSWERS, RATERS, OWN = 60, 1024, 5, 8
NS = (1, 4, 16, 64, 256, 1024)
BODY, PAIRS, FITTED = 24, 400, 20
"""Features of a body, pairs that its head is fitted to, prompts of the fitted members."""


def world(seed: int, pretrained: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """scores (p, n, raters), worth, shared error (p, n), the raters' own oddities (p, n, raters); rater 0 is the same in both."""
    rng = np.random.default_rng(seed)
    shape = (PROMPTS, ANSWERS)
    quality, shared = rng.normal(size=shape), rng.normal(size=shape)
    oddities = np.abs(rng.standard_t(3, (*shape, OWN * RATERS)))
    worth = quality - 0.05 * oddities.sum(-1)
    weights = np.zeros((RATERS, OWN * RATERS))
    for j in range(RATERS):
        start = OWN * j if pretrained else 0
        weights[j, start : start + OWN] = 0.5 * rng.uniform(0.6, 1.4, OWN)
    weights[0, :OWN] = 0.5 * np.random.default_rng([seed, 1]).uniform(0.6, 1.4, OWN)
    offsets = 10 * np.random.default_rng([seed, 2]).normal(size=RATERS)
    scores = worth[..., None] + 0.5 * shared[..., None] + oddities @ weights.T + offsets
    return scores, worth, shared, oddities.reshape(*shape, RATERS, OWN).sum(-1)


def best_of(expression: str, seed: int, pretrained: bool = True) -> dict[str, Any]:
    scores, worth, shared, own = world(seed, pretrained)
    samples = answers(scores)
    references = [s for i, s in enumerate(samples) if i % ANSWERS < 16]
    value = shaped(expression, samples, references).reshape(PROMPTS, ANSWERS)
    picks = {n: [block * n + value[:, block * n : (block + 1) * n].argmax(1) for block in range(ANSWERS // n)] for n in NS}

    def mean(x: np.ndarray, n: int) -> float:
        return float(np.mean([x[np.arange(PROMPTS), pick].mean() for pick in picks[n]]))

    gold = [mean(worth, n) - mean(worth, 1) for n in NS]
    return {
        "value": round(gold[-1], 4), "best": round(max(gold), 4), "shared": round(mean(shared, NS[-1]), 4),
        "own": round(max(mean(own[..., j], NS[-1]) - mean(own[..., j], 1) for j in range(RATERS)), 4),
    }  # fmt: skip


def measure(variant: str, seed: int) -> dict[str, Any]:
    raters = [f"rater(number={j})" for j in range(RATERS)]
    least = f"min({', '.join(f'{r} | centred' for r in raters)})"
    if variant == "baseline":
        known = {"one pretraining": best_of(least, seed, pretrained=False)["value"]}
        found = {"single": fitted_members([(0, 0)] * 2, seed), "seeds": fitted_members([(0, j) for j in range(RATERS)], seed)}
        return best_of(raters[0], seed) | known | found
    members = [(j, j) if variant == "method" else (0, 0) for j in range(RATERS)]
    return best_of(least if variant == "method" else f"min({', '.join(raters)})", seed) | {"members": fitted_members(members, seed)}


def member(seed: int, body: int, head: int, x: np.ndarray, pairs: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """(n,) the scores of the answers (n, 12) by the member with this body and head."""
    a = np.random.default_rng([seed, 1, body]).normal(size=(12, BODY)) / np.sqrt(12)
    drawn = pairs[np.random.default_rng([seed, 2, head]).integers(0, len(pairs), len(pairs))]
    used = np.tanh(np.concatenate([x[drawn[:, 0]], x[drawn[:, 1]]]) @ a)
    p = len(drawn)
    batch = rows(np.r_[np.ones(p), np.zeros(p)], np.stack([np.arange(p), p + np.arange(p)], 1))
    return said(fitted(linear(BODY, 100 * seed + head), used, batch, "bradley_terry", 150, 0.05, 0.05), np.tanh(answer @ a))


def fitted_members(members: list[tuple[int, int]], seed: int) -> dict[str, float]:
    """Worth and shared error of the best of 1024 by the least of these members, (body, head) each."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=10)
    weight /= np.linalg.norm(weight)
    x = rng.normal(size=(2 * PAIRS, 12))
    x[:, 10] = 0.7 * (x[:, :10] @ weight) + 0.7 * x[:, 10]
    worth = x[:, :10] @ weight
    first = rng.random(PAIRS) < 1 / (1 + np.exp(2 * (worth[1::2] - worth[::2])))
    pairs = np.arange(2 * PAIRS).reshape(-1, 2)
    pairs = np.where(first[:, None], pairs, pairs[:, ::-1])
    answer = 1.5 * rng.normal(size=(FITTED * ANSWERS, 12))
    made = {key: member(seed, *key, x, pairs, answer) for key in set(members)}
    scores = np.stack([made[key] for key in members], 1).reshape(FITTED, ANSWERS, -1)
    samples = answers(scores)
    least = f"min({', '.join(f'rater(number={j}) | centred' for j in range(len(members)))})"
    value = shaped(least, samples, [s for i, s in enumerate(samples) if i % ANSWERS < 16])
    pick = np.arange(FITTED) * ANSWERS + value.reshape(FITTED, ANSWERS).argmax(1)
    return {"value": round(float((answer[:, :10] @ weight)[pick].mean()), 4), "shared": round(float(answer[pick, 10].mean()), 4)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    pairs = list(zip(baseline, method, strict=True))
    ordered = all(m["value"] > b["one pretraining"] > b["value"] for b, m in pairs)
    falls = all(b["value"] <= b["best"] - 0.1 * abs(b["best"]) for b, _ in pairs)
    single, seeds = ({key: float(np.mean([b[side][key] for b in baseline])) for key in ("value", "shared")} for side in ("single", "seeds"))
    ours, shared = (float(np.mean([m["members"][key] for m in method])) for key in ("value", "shared"))
    members = ours > seeds["value"] > single["value"] and shared >= 0.8 * single["shared"]
    return ordered and falls and members and all(m["own"] <= 0.5 * b["own"] and m["shared"] >= 0.8 * b["shared"] for b, m in pairs)

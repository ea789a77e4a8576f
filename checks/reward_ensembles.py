"""Ensembles: the least of several raters removes the errors that each makes alone, not those that all make.

Arrays: an answer has a worth, one error that all raters share, and 40 oddities of heavy tail, each of which lowers the worth. A rater
sees the worth, the shared error, and overpays eight oddities of its own; raters tuned from one pretrained rater overpay the same eight,
each with weights of its own. Every rater counts from an offset of its own. The best of n answers is taken, up to n = 1024.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _array_world import answers, shaped

CLAIM = (
    "in every seed the worth of the best of 1024 by the least of five centred raters of different pretraining is above that by raters of "
    "one pretraining, and that above a single rater's, whose worth falls by 10% or more from its best n; the raters' own exploits fall by "
    "half or more, the shared one to no less than 0.8 times"
)
BASELINE = "one rater"
METHOD = "min over five centred raters, different pretraining; without its key term: uncentred"
SEEDS = (0, 1, 2)
PROMPTS, ANSWERS, RATERS, OWN = 60, 1024, 5, 8
NS = (1, 4, 16, 64, 256, 1024)


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
        return best_of(raters[0], seed) | {"one pretraining": best_of(least, seed, pretrained=False)["value"]}
    return best_of(least if variant == "method" else f"min({', '.join(raters)})", seed)


def holds(baseline: list[Any], method: list[Any]) -> bool:
    pairs = list(zip(baseline, method, strict=True))
    ordered = all(m["value"] > b["one pretraining"] > b["value"] for b, m in pairs)
    falls = all(b["value"] <= b["best"] - 0.1 * abs(b["best"]) for b, _ in pairs)
    return ordered and falls and all(m["own"] <= 0.5 * b["own"] and m["shared"] >= 0.8 * b["shared"] for b, m in pairs)

"""A reward model behind a verifier: the policy cannot be paid for what only the reward model likes; the list loss makes one that picks.

Arrays: 40 prompts with 256 answers, 35 % of them right. The rater adds 3 for an exploit that a quarter of the answers has, right ones a
third as often as wrong ones. Policies are tilted exactly from uniform to a KL of 2. And best of 8: a linear model of 12 features, fitted by
`list_pairs` to 300 lists of 6 answers (lists all right or all wrong left out), against the majority, wrong answers being of four kinds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _array_world import answers, shaped, tilted
from _heads import auc, fitted, linear, rows, said

from guerdon.search.choose import elected

CLAIM = (
    "in every seed the rater alone ends below 40% right with the exploit in above 60%, the rater behind the verifier above 90% right and, "
    "among right answers, of a higher quality than the verifier alone; rm@8 of the fitted model, whose AUC is 0.7 to 0.9, is above maj@8"
)
BASELINE = "the rater alone; the verifier alone; majority of 8"
METHOD = "rater | verified(verifier), list_pairs; without its key term, the verifier: the rater squashed alone"
SEEDS = (0, 1, 2)
KL, LISTS, OF, K = 2.0, 300, 6, 12


def world(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """right, exploit, quality (p, n), scores (p, n, 2): the rater's and the verifier's."""
    rng = np.random.default_rng(seed)
    right = rng.random((40, 256)) < 0.35
    exploit = rng.random(right.shape) < np.where(right, 0.11, 0.33)
    quality = rng.normal(size=right.shape) + 0.5 * right
    return right, exploit, quality, np.stack([quality + 3 * exploit, right.astype(float)], 2)


def trained(expression: str, seed: int) -> dict[str, float]:
    right, exploit, quality, scores = world(seed)
    policy = tilted(shaped(expression, answers(scores), []).reshape(right.shape), KL)

    def mean(x: np.ndarray, of: np.ndarray = policy) -> float:
        return round(float((of * x).sum() / of.sum()), 4)

    return {"value": mean(right), "exploit": mean(exploit), "quality of right": mean(quality, policy * right)}


def picked(seed: int) -> dict[str, float]:
    """Right answers among those that the fitted model and the majority pick of 8, p = 0.35."""
    rng = np.random.default_rng([seed, 1])
    along = rng.normal(size=K)

    def drawn(lists: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        right = rng.random((lists, n)) < 0.35
        x = rng.normal(size=(lists, n, K)) + np.where(right, 0.6, -0.6)[..., None] * along / np.linalg.norm(along)
        return x, right

    x, right = drawn(LISTS, OF)
    mixed = (right.sum(1) > 0) & (right.sum(1) < OF)
    x, right = x[mixed].reshape(-1, K), right[mixed].ravel()
    model = fitted(linear(K, seed), x, rows(right.astype(float), group=np.arange(len(x)) // OF), "list_pairs", 200, 0.03, 0.1)
    test, truth = drawn(500, 8)
    scores = said(model, test.reshape(-1, K)).reshape(truth.shape)
    names = np.where(truth, "right", rng.choice(list("abcd"), truth.shape)).tolist()
    votes = [elected(list(row), np.ones(8)) or 0 for row in names]
    at = np.arange(len(truth))
    return {
        "auc": round(auc(scores.ravel(), truth.ravel()), 4), "rm@8": round(float(truth[at, scores.argmax(1)].mean()), 4),
        "maj@8": round(float(truth[at, votes].mean()), 4),
    }  # fmt: skip


def measure(variant: str, seed: int) -> dict[str, Any]:
    rater, verifier = "rater(number=0)", "rater(number=1)"
    if variant == "baseline":
        return trained(rater, seed) | {"verifier alone": trained(verifier, seed)["quality of right"]}
    return trained(f"{rater} | {f'verified({verifier})' if variant == 'method' else 'squash(slope=0.5)'}", seed) | picked(seed)


def holds(baseline: list[Any], method: list[Any]) -> bool:
    alone = all(b["value"] < 0.4 and b["exploit"] > 0.6 for b in baseline)
    behind = all(m["value"] > 0.9 and m["quality of right"] > b["verifier alone"] for b, m in zip(baseline, method, strict=True))
    return alone and behind and all(0.7 < m["auc"] < 0.9 and m["rm@8"] > m["maj@8"] for m in method)

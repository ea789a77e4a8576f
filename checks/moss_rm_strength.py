"""Preference strength: ten reward models say which labels are wrong; turned round, and with their strength as margin, they teach better.

Linear reward models on 30 features, 800 pairs of which a fifth are near ties and a fifth, of all, have their labels turned round. Each of
the ten is fitted to a half of the pairs, two of them to the two halves, and says nothing of its own (cross-fitting). Tested on 4000 pairs
without noise.

MetaRM, for answers of a policy that has moved on: a net of 16 tanh units on 12 features, fitted to 300 old pairs. The new policy's answers
lie 2.5 further along the direction that the net pays most for, where its units are flat. Then 100 more steps on the old pairs: plain, or
each taken where the scores of 40 groups of 8 new answers, without labels, are apart. Tested on fresh pairs of both policies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from _heads import auc, fitted, linear, objective, rows, said
from torch import nn

from guerdon.curation import preference_strength, relabel
from guerdon.reward_models import meta_step

CLAIM = (
    "in every seed the strength tells wrong labels from right ones with an AUC of 0.9 or more; test accuracy, mean of the seeds: the "
    "lowest 20% turned round and the strength as margin is 3 points or more above the plain loss and above smoothed labels; the plain loss "
    "without the strongest 40% is below the plain loss on all; MetaRM, means of the seeds: new answers are further apart than after as many"
    " plain steps, accuracy on new pairs is 3 points or more higher, on old pairs less than 1 point lower"
)
BASELINE = "bradley_terry on the labels as they are; smoothed by 0.05; without the strongest 40%; 100 further steps of it"
METHOD = (
    "preference_strength, relabel(flip=0.2), bradley_terry(margin=1); 100 meta_steps with score_spread, eta 0.5; without its key terms: "
    "strengths shuffled among the pairs; eta 0"
)
SEEDS = (0, 1, 2)
META = {"features": 12, "pairs": 300, "groups": 40, "of": 8, "steps": 100}
FEATURES, PAIRS, MODELS, STEPS = 30, 800, 10, 150


def drawn(rng: np.random.Generator, worth: np.ndarray, pairs: int, ties: float) -> np.ndarray:
    """x (2 * pairs, k): rows 2 i and 2 i + 1 are a pair, the better one first; the share `ties` of them differ a tenth as much in worth."""
    x = rng.normal(size=(pairs, 2, FEATURES))
    close = rng.random(pairs) < ties
    along = ((x[:, 0] - x[:, 1]) @ worth) / (worth @ worth)
    x[close, 1] += 0.9 * along[close, None] * worth
    better = (x @ worth)[:, 0] > (x @ worth)[:, 1]
    return np.where(better[:, None, None], x, x[:, ::-1]).reshape(-1, FEATURES)


def fit(x: np.ndarray, pairs: np.ndarray, seed: int, loss: str = "bradley_terry", strength: np.ndarray | None = None, **params: Any) -> Any:
    used = np.concatenate([x[pairs[:, 0]], x[pairs[:, 1]]])
    p = len(pairs)
    outcome = np.concatenate([np.ones(p) if strength is None else strength, np.zeros(p)])
    batch = rows(outcome, np.stack([np.arange(p), p + np.arange(p)], 1))
    return fitted(linear(FEATURES, seed), used, batch, loss, STEPS, 0.05, **params)


def measure(variant: str, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    worth = rng.normal(size=FEATURES)
    x, test = drawn(rng, worth, PAIRS, 0.2), drawn(rng, worth, 4000, 0.0)
    wrong = rng.random(PAIRS) < 0.2
    pairs = np.arange(2 * PAIRS).reshape(-1, 2)
    pairs = np.where(wrong[:, None], pairs[:, ::-1], pairs)

    def right(model: Any) -> float:
        r = said(model, test)
        return round(float((r[::2] > r[1::2]).mean()), 4)

    scores = np.empty((MODELS, 2 * PAIRS))
    for m in range(MODELS):
        half = np.random.default_rng([seed, m // 2]).permutation(PAIRS)[m % 2 :: 2]
        scores[m] = said(fit(x, pairs[half], 100 * seed + m), x)
        scores[m, pairs[half]] = np.nan
    mean = preference_strength(scores, pairs).mean
    found: dict[str, Any] = {"auc": round(auc(-mean, wrong), 4), "meta": meta(variant, seed)}
    if variant == "baseline":
        weak = pairs[np.argsort(mean)[: int(0.6 * PAIRS)]]
        return found | {
            "value": right(fit(x, pairs, seed)), "smoothed": right(fit(x, pairs, seed, "soft_bradley_terry", smoothing=0.05)),
            "without the strongest": right(fit(x, weak, seed)),
        }  # fmt: skip
    if variant == "ablated":
        mean = rng.permutation(mean)
        found["auc"] = round(auc(-mean, wrong), 4)
    new = relabel(pairs, mean, flip=0.2)
    soft = fit(x, new.pairs, seed, "soft_bradley_terry", new.strength)
    return found | {"value": right(fit(x, new.pairs, seed, strength=new.margin, margin=1.0)), "soft labels": right(soft)}


def meta(variant: str, seed: int) -> dict[str, float]:
    """Accuracy on new and on old pairs, and the mean spread of new answers."""
    k, pairs, groups, of, steps = META.values()
    rng = np.random.default_rng(seed)
    worth = rng.normal(size=k)
    worth /= np.linalg.norm(worth)

    def ordered(x: np.ndarray) -> np.ndarray:
        """Rows 2 i and 2 i + 1 are a pair, the better one first."""
        x = x.reshape(-1, 2, k)
        return np.where(((x @ worth)[:, 0] > (x @ worth)[:, 1])[:, None, None], x, x[:, ::-1]).reshape(-1, k)

    old = ordered(rng.normal(size=(2 * pairs, k)))
    batch = rows(np.tile([1.0, 0.0], pairs), np.arange(2 * pairs).reshape(-1, 2))
    torch.manual_seed(seed)
    net = fitted(nn.Sequential(nn.Linear(k, 16), nn.Tanh(), nn.Linear(16, 1)).double(), old, batch, "bradley_terry", 200, 0.02)
    middle = torch.zeros(1, k, dtype=torch.float64, requires_grad=True)
    paid = torch.autograd.grad(net(middle).sum(), middle)[0][0].numpy()
    shift = 2.5 * paid / np.linalg.norm(paid)
    new = torch.from_numpy(rng.normal(size=(groups * of, k)) + shift)
    spread = objective(net, new, rows(np.zeros(groups * of), group=np.repeat(np.arange(groups), of)), "score_spread")
    loss = objective(net, torch.from_numpy(old), batch, "bradley_terry")
    optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
    for _ in range(steps):
        if variant == "baseline":
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        else:
            meta_step(net.parameters(), spread, loss, optimizer, 0.5 if variant == "method" else 0.0)

    def right(x: np.ndarray) -> float:
        r = said(net, ordered(x))
        return round(float((r[::2] > r[1::2]).mean()), 4)

    fresh = rng.normal(size=(8000, k))
    return {"new": right(fresh + shift), "old": right(fresh), "spread": round(-float(spread().detach()), 4)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    plain, smoothed, weak = (np.mean([b[key] for b in baseline]) for key in ("value", "smoothed", "without the strongest"))
    ours = np.mean([m["value"] for m in method])
    new, old, spread = ([np.mean([s["meta"][key] for s in side]) for side in (baseline, method)] for key in ("new", "old", "spread"))
    moved = spread[1] > spread[0] and new[1] >= new[0] + 0.03 and old[1] > old[0] - 0.01
    return bool(moved and all(m["auc"] >= 0.9 for m in method) and ours >= max(plain + 0.03, smoothed) and weak < plain)

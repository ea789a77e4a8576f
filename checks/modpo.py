"""MODPO: from labels of one objective and the known reward of another, the policy that weighs both as it was told to.

32 answers on `tabular` with two rewards that pull apart (correlation about -0.5). Labels are drawn from the Bradley-Terry model of the
first, on pairs of uniform answers; beta 1, weights of the first objective 0.2, 0.5 and 0.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from _bandit import learn, place, words

from guerdon.curation.core import keep
from guerdon.rewards import reward
from guerdon.rollouts.core import rollout
from guerdon.samples import Context, Kept, Rewards, Sample, Task

CLAIM = (
    "KL(policy, pi_ref exp(w r / beta) / Z) is below 0.02 for every weight and seed, the front of the two mean rewards is monotone, and "
    "w r - beta KL(policy, reference) is above that of DPO on mixed labels for at least 2 of 3 weights"
)
BASELINE = "dpo on labels of which each is drawn from the one objective or the other, as often as they weigh"
METHOD = "modpo with the second reward as margin; without its key term, the margin: others={}"
SEEDS = (0, 1, 2)
N, WEIGHTS = 32, (0.2, 0.5, 0.8)


def rewards_of(seed: int) -> np.ndarray:
    """(2, N)"""
    r = np.random.default_rng((seed, 4)).normal(size=(2, N))
    r[1] = 0.87 * r[1] - 0.5 * r[0]
    return r


@reward(inline=True)
def objective(sample: Sample, of: int = 0, seed: int = 0) -> float:
    return float(rewards_of(seed)[of, place(sample)])


@rollout
def uniform_words(policy: Any, tasks: Sequence[Task], n: int, context: Context) -> list[Sample]:
    """n answers a task, all equally likely."""
    assert context.rng is not None
    made = []
    for g, task in enumerate(tasks):
        prompt = policy.encode(task.prompt)
        for i in context.rng.integers(0, N, n).tolist():
            logprob = np.full(1, -np.log(N))
            made.append(Sample(task, words(N)[i], prompt, np.array([i]), np.array([[0, 9]]), None, logprob, group=g, stop="length"))
    return made


@keep(pairs=True)
def bradley_terry(samples: Sequence[Sample], rewards: Rewards, context: Context, weight: float = 1.0, seed: int = 0) -> Kept:
    """Neighbours are pairs, labelled by the first objective, or with chance 1 - weight by the second."""
    assert context.rng is not None
    at, r = np.array([place(s) for s in samples]), rewards_of(seed)
    a, b = np.arange(0, len(samples), 2), np.arange(1, len(samples), 2)
    by = r[np.where(context.rng.random(len(a)) < weight, 0, 1)]
    over = by[np.arange(len(a)), at[a]] - by[np.arange(len(a)), at[b]]
    first = context.rng.random(len(a)) < 1 / (1 + np.exp(-over))
    return Kept(np.arange(len(samples)), np.ones(len(samples)), np.stack([np.where(first, a, b), np.where(first, b, a)], 1))


def measure(variant: str, seed: int) -> dict[str, Any]:
    r, found = rewards_of(seed), {}
    for w in WEIGHTS:
        second = f"objective(of=1, seed={seed})"
        others = {second: 1 - w} if variant == "method" else {}
        loss = {"use": "dpo", "beta": 1.0} if variant == "baseline" else {"use": "modpo", "beta": 1.0, "weight": w, "others": others}
        seen = learn(
            [Task("t", "q")], N, seed, reference={}, reward=f"objective(seed={seed}) + 0 * {second}", credit=None, aggregate="pair_mean",
            keep={"use": "bradley_terry", "weight": w if variant == "baseline" else 1.0, "seed": seed}, rollout={"use": "uniform_words"},
            loss=loss, train={"steps": 60, "samples": 256, "lr": 0.15, "schedule": "linear"},
        )  # fmt: skip
        p, best = seen[-1, 0], np.exp(np.array([w, 1 - w]) @ r)
        best /= best.sum()
        near = float((p * np.log(p * N)).sum())
        found[w] = (float((p * np.log(p / best)).sum()), *(r @ p).tolist(), float(np.array([w, 1 - w]) @ (r @ p)) - near)
    kl, one, two, gain = (np.round(x, 4).tolist() for x in zip(*found.values(), strict=True))
    return {"value": max(kl), "kl": kl, "first": one, "second": two, "objective": gain}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    monotone = all(m["first"] == sorted(m["first"]) and m["second"] == sorted(m["second"], reverse=True) for m in method)
    ahead = [sum(x > y for x, y in zip(m["objective"], b["objective"], strict=True)) for m, b in zip(method, baseline, strict=True)]
    return monotone and all(m["value"] < 0.02 for m in method) and min(ahead) >= 2

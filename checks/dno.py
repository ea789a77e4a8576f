"""DNO: where preferences run in a circle, the average of its policies is hard to beat; the answer with the best single score is not.

16 answers on `tabular`: three kinds of three that beat one another in a circle (0.9), and seven that lose to all of these, to the first
kind most often, so that it has the highest Bradley-Terry reward. 30 iterations of 5 updates, 32 answers each; chances within a group are
exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _bandit import learn, place

from guerdon.rewards import reward
from guerdon.samples import Sample, Task

CLAIM = (
    "within 30 iterations the average policy of DNO is exploitable by less than 0.05 (max over y of P(y > policy) - 1/2) and has less "
    "than 5% on answers that lose to all of the circle by the end; maximising the Bradley-Terry reward stays at 0.2 or above; every seed"
)
BASELINE = "the Bradley-Terry reward of uniform comparisons, dr_grpo and policy_gradient"
METHOD = "win rates in the group, loss dno on all pairs, the reference following every 5 updates; without its key term: a frozen reference"
SEEDS = (0, 1, 2)
N, GOOD, EVERY = 16, 9, 5


def preference(seed: int) -> np.ndarray:
    """(N, N) chance that the row is preferred to the column; the numbering is shuffled, the losing ones last."""
    p = np.full((N, N), 0.5)
    kind = np.random.default_rng((seed, 9)).permutation(np.arange(GOOD) % 3)
    for i in range(GOOD):
        for j in range(GOOD):
            p[i, j] = {0: 0.5, 1: 0.9, 2: 0.1}[(kind[i] - kind[j]) % 3]
        p[i, GOOD:] = (0.95, 0.85, 0.75)[kind[i]]
        p[GOOD:, i] = 1 - p[i, GOOD:]
    return p


def bradley_terry(p: np.ndarray) -> np.ndarray:
    """(N,) scores that fit p under uniform comparisons, by gradient ascent of the likelihood."""
    r = np.zeros(N)
    for _ in range(2000):
        r += 0.5 * (p - 1 / (1 + np.exp(r[None] - r[:, None]))).mean(1)
    return r - r.mean()


@reward(inline=True)
def win_rate(group: list[Sample], seed: int = 0) -> list[float]:
    at, p = np.array([place(s) for s in group]), preference(seed)
    return p[at[:, None], at].mean(1).tolist()


@reward(inline=True)
def bt_score(group: list[Sample], seed: int = 0) -> list[float]:
    return bradley_terry(preference(seed))[[place(s) for s in group]].tolist()


def measure(variant: str, seed: int) -> dict[str, Any]:
    settings: dict[str, Any] = {"train": {"steps": 30 * EVERY, "samples": 32, "lr": 0.2}}
    if variant == "baseline":
        settings |= {"reward": f"bt_score(seed={seed})", "credit": "dr_grpo", "loss": "policy_gradient"}
    else:
        settings |= {
            "reward": f"win_rate(seed={seed})", "credit": None, "aggregate": "pair_mean", "keep": {"use": "all_pairs", "ties": True},
            "loss": {"use": "dno", "eta": 2.0}, "reference": {"every": EVERY} if variant == "method" else {},
        }  # fmt: skip
    seen = learn([Task("t", "q")], N, seed, **settings)[:, 0]
    p, average = preference(seed), seen.mean(0)
    return {
        "value": round(float((p @ average).max() - 0.5), 4), "losing": round(float(seen[-1, GOOD:].sum()), 4),
        "exploitable at the end": round(float((p @ seen[-1]).max() - 0.5), 4),
    }  # fmt: skip


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return all(m["value"] < 0.05 and m["losing"] < 0.05 for m in method) and all(b["value"] >= 0.2 for b in baseline)

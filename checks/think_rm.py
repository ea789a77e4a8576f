"""Think-RM's pairwise advantage: a policy over 20 answers, whose judge sees only pairs, with noise that no single number explains.

The judge says -3 to 3: four times the true difference, rounded, with its sign wrong once in five, and moved for each pair by a lasting
error of its own (so that preferences run in circles) and by a leaning to what it is shown first. Both orders are asked. Groups of 4, 100
updates on `tabular`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _bandit import learn, place

from guerdon.rewards import reward
from guerdon.rewards.pairwise import tournament
from guerdon.samples import Sample, Task, Verdict

CLAIM = (
    "after 100 updates the pairwise advantage reaches at least 95% of the best quality (mean of the seeds), and the win rate against one "
    "fixed answer with GRPO stays at 88% or less"
)
BASELINE = "the chance to be preferred to one fixed answer, credit grpo"
METHOD = "verdicts on all pairs of the group, credit pairwise; without its key term, all pairs: those with one of the group"
SEEDS = (0, 1, 2)
N, LEAN = 20, 1.0


def says(quality: np.ndarray, error: np.ndarray, i: int, j: int, rng: np.random.Generator) -> float:
    d = 4 * (quality[i] - quality[j]) + error[i, j] + LEAN
    d = -d if rng.random() < 0.2 else d
    return float(np.clip(np.sign(d) * max(1, round(abs(d))), -3, 3))


def world(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Quality (N,) in [0, 1], and the lasting error of each pair (N, N), antisymmetric."""
    rng = np.random.default_rng((seed, 7))
    error = np.triu(rng.normal(0, 0.7, (N, N)), 1)
    return rng.permutation(np.linspace(0, 1, N)), error - error.T


@reward(inline=True)
def judge_of_groups(group: list[Sample], rng: np.random.Generator, seed: int = 0, every: bool = True) -> list[Verdict]:
    quality, error = world(seed)
    return tournament(group, lambda a, b: says(quality, error, place(a), place(b), rng), references=None if every else 1, rng=rng)


@reward(inline=True)
def against_one(group: list[Sample], rng: np.random.Generator, seed: int = 0) -> list[float]:
    """1 where preferred to the middling answer, in a random order."""
    quality, error = world(seed)
    anchor, out = int(np.argsort(quality)[N // 2]), []
    for i in map(place, group):
        first = rng.random() < 0.5
        d = says(quality, error, i, anchor, rng) if first else -says(quality, error, anchor, i, rng)
        out.append(float(d > 0))
    return out


def measure(variant: str, seed: int) -> dict[str, Any]:
    text = f"against_one(seed={seed})" if variant == "baseline" else f"judge_of_groups(seed={seed}, every={variant == 'method'})"
    seen = learn(
        [Task("t", "q")], N, seed, reward=text, credit="grpo" if variant == "baseline" else "pairwise", loss="ppo_clip",
        train={"steps": 100, "samples": 4, "lr": 0.2},
    )  # fmt: skip
    quality = world(seed)[0]
    return {"value": round(float(seen[-1, 0] @ quality), 4), "entropy": round(float(-(seen[-1, 0] * np.log(seen[-1, 0])).sum()), 3)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    """The best quality is 1."""
    b, m = (float(np.mean([x["value"] for x in side])) for side in (baseline, method))
    return m >= 0.95 and b <= 0.88

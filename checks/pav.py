"""Progress under a prover, exact, on a tree of four moves and six levels with eight right leaves among 4,096.

A softmax table over prefixes (backend `tabular`, seeded noise around even chances). Q of every prefix is enumerated for the policy as it
is at each update (`backends.exact`), the prover is its best of 4.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _states import reached

from guerdon.backends.exact import Exact, exact
from guerdon.rewards import reward
from guerdon.samples import Task

CLAIM = "80% of answers are right after at most half of the updates that the outcome alone needs (mean over seeds)"
BASELINE = "outcome alone, rloo"
METHOD = "right_leaf + 5 * (true_q | progress(k=4)), pav; without its key term, progress: factor 0"
SEEDS = (0, 1, 2)
MOVES, DEPTH, RIGHT = ["a\n", "b\n", "c\n", "d\n"], 6, 8
STEPS = 60
TASK = Task("0", "task")
FACTORS = {"method": 5, "ablated": 0}
TRUTH: dict[int, Exact] = {}
LEAVES = {" ".join(leaf) for leaf in np.random.default_rng(0).choice(["a", "b", "c", "d"], (RIGHT, DEPTH))}


def right(text: str) -> float:
    return float(" ".join(text.split()) in LEAVES)


@reward(inline=True)
def right_leaf(text: str) -> float:
    return right(text)


@reward(inline=True, grain="step", pure=False)
def true_q(ids: list[int], policy: Any) -> list[float]:
    """Of each move, the chance that the policy ends right after it."""
    if policy.version not in TRUTH:
        TRUTH.clear()
        TRUTH[policy.version] = exact(policy, TASK.prompt, right, DEPTH)
    v = TRUTH[policy.version].v
    return [v[tuple(int(token) for token in ids[: h + 1])] for h in range(len(ids))]


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.training.run import train

    reward = "right_leaf" if variant == "baseline" else f"right_leaf + {FACTORS[variant]} * (true_q | progress(k=4))"
    with tempfile.TemporaryDirectory() as folder:
        found = train(
            name="pav", threads=1, seed=seed, tasks=[TASK], reward=reward, correct="right_leaf",
            models={"policy": {"backend": "tabular", "vocab": MOVES, "bias": {"<end>": -30.0}, "init": 0.5, "seed": seed}},
            credit="rloo" if variant == "baseline" else "pav", rollout={"use": "parallel", "max_tokens": DEPTH},
            train={"steps": STEPS, "prompts": 1, "samples": 16, "lr": 0.1, "checkpoint_every": 10_000, "samples_every": 10_000},
            folder=Path(folder) / "run",
        )  # fmt: skip
    solved = [row["pass@1"] for row in found.metrics if row["step"] > 0]
    return {"value": reached(solved, 0.8), "solved": round(float(np.mean(solved[-10:])), 4)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return float(np.mean([m["value"] for m in method])) <= 0.5 * float(np.mean([b["value"] for b in baseline]))

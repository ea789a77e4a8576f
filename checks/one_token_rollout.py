"""One-token rollout: tuned on demonstrations of which some are wrong, the policy follows those that it can believe.

The tiny policy works chains of sums in steps, and drops a carry seven times in ten. Demonstrations carry rightly, but in a fifth of them a
line stands that is not what it should be. Asked are chains that it was not taught, answers drawn at temperature 1.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.envs.arithmetic import arithmetic
from guerdon.samples import Task

CLAIM = "after 60 steps sampled answers are right at least 0.05 more often than by cross-entropy on the same demonstrations (every seed)"
BASELINE = "sft"
METHOD = "one_token_rollout (256 draws, kappa 1.3, beta -0.1); without its key term, the policy's own draws: anybody's (kappa 1e6, beta 0)"
SEEDS = (0, 1, 2)
LOSSES: dict[str, Any] = {
    "baseline": "sft", "method": {"use": "one_token_rollout"}, "ablated": {"use": "one_token_rollout", "kappa": 1e6, "beta": 0.0}
}  # fmt: skip
SUMS = {"steps": (2, 3), "low": 1, "high": 9, "ops": "+-", "within": (0, 20)}


def demonstrations(seed: int) -> list[Task]:
    """A fifth of them with a digit of one line replaced."""
    rng = np.random.default_rng(seed)
    found = []
    for task in arithmetic(600, seed=seed, **SUMS):
        lines = list(task.meta["solution"])
        if rng.random() < 0.2:
            i = int(rng.integers(len(lines)))
            at = rng.choice([k for k, c in enumerate(lines[i]) if c.isdigit()])
            lines[i] = lines[i][:at] + str((int(lines[i][at]) + int(rng.integers(1, 10))) % 10) + lines[i][at + 1 :]
        found.append(Task(task.id, task.prompt, task.reference, {**task.meta, "shown": lines}))
    return found


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.training.run import train

    with tempfile.TemporaryDirectory() as folder:
        rows = train(
            seed=seed, threads=1, models={"policy": {"path": "tiny"}}, tasks=demonstrations(seed), reward="arithmetic", credit=None,
            rollout={"use": "expert", "column": "shown"}, loss=LOSSES[variant],
            train={"steps": 60, "prompts": 32, "samples": 1, "lr": 2e-4, "samples_every": 1000, "checkpoint_every": 1000},
            eval={"tasks": arithmetic(80, split="test", seed=seed, **SUMS), "every": 60, "samples": 8, "temperature": 1.0,
                  "max_tokens": 30, "keep_best": False},
            folder=Path(folder) / "run",
        ).metrics  # fmt: skip
    found = [row["eval/pass@1"] for row in rows if "eval/pass@1" in row]
    return {"value": round(found[-1], 4), "before": round(found[0], 4)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return all(m["value"] >= b["value"] + 0.05 for b, m in zip(baseline, method, strict=True))

"""Kimi k1.5 on a table: its length reward after a warm-up, and its sampling of what is not solved yet.

A policy that only decides how long to think (`_length_world`). The sampling is tried with few hard tasks among many easy ones and a policy
that thinks half as long as the hard ones need.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _length_world import learn, tasks_of

STEPS, BEGIN = 80, 0.5
MIX = {"easy": 6, "medium": 3, "hard": 1}
CLAIM = (
    "after its warm-up the length reward cuts words by more than 30% for less than 2 points of accuracy, and prioritised sampling reaches "
    "80% on the hard tasks in less than 0.8 times the steps of uniform sampling"
)
BASELINE = "no length reward, and uniform sampling"
METHOD = "kimi_length from half of the run, and prioritised; without their key terms: from the first step, and uniform"
SEEDS = (1, 2, 3)
REWARDS = {"baseline": "enough", "method": f"enough | kimi_length(begin={BEGIN})", "ablated": "enough | kimi_length"}


def measure(variant: str, seed: int) -> dict[str, Any]:
    found, _ = learn(REWARDS[variant], seed, STEPS)
    return found | {"value": found["accuracy"], "steps_to_80": steps_to_80("prioritised" if variant == "method" else "uniform", seed)}


def steps_to_80(select: str, seed: int) -> int:
    """Of the hard tasks, 2 in 20; 48 where it is not reached in 44."""
    hard = [task for task in tasks_of(2, seed, MIX) if task.meta["level"] == "hard"]
    _, run = learn(
        "enough", seed, 44, each=2, shares=MIX, select=select, models={"policy": {"backend": "thinker", "length": 10.0}},
        train={"prompts": 6}, eval={"tasks": hard, "every": 2, "samples": 64, "temperature": 1.0, "max_tokens": 40, "keep_best": False},
    )  # fmt: skip
    return next((row["step"] for row in run.history if row["eval/pass@1"] >= 0.8), 48)


def holds(baseline: list[Any], method: list[Any]) -> bool:
    words, value, steps = (
        [float(np.mean([s[key] for s in side])) for side in (baseline, method)] for key in ("words", "value", "steps_to_80")
    )
    return words[1] < 0.7 * words[0] and value[1] > value[0] - 0.02 and steps[1] < 0.8 * steps[0]

"""A judge that points at wrong steps, against the outcome alone: six steps, and answers that are right by luck.

A policy (`_states`) takes one of four moves a step by a row of the task and the place; an answer of six right moves is right, any other one
by luck in 15 of 100 cases. The judge knows each step but for 20 in 100, drawn anew for each of its five critiques.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _states import States, learn, reached

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES
from guerdon.rewards import reward
from guerdon.samples import Task

CLAIM = "90% of answers have all steps right after less than 60% of the updates that the outcome alone needs (every seed)"
BASELINE = "outcome alone, grpo"
METHOD = "capo on a judge of five critiques (whole 2, process 1, majority); without its key term: process 0"
SEEDS = (0, 1, 2)
MOVES, LENGTH, LUCK, NOISE, CRITIQUES = ["a\n", "b\n", "c\n", "d\n"], 6, 0.15, 0.2, 5
STEPS = 100
CHANCE = [np.random.default_rng(0)]
"""Of luck and of critiques."""


@reward(inline=True)
def all_right(text: str, reference: str) -> float:
    return float(text.split() == reference.split())


@reward(inline=True, pure=False)
def right_or_lucky(text: str, reference: str) -> float:
    return float(text.split() == reference.split() or CHANCE[0].random() < LUCK)


@reward(inline=True, grain="step", pure=False)
def critiques(steps: list[str], reference: str) -> list[float]:
    """The share of critiques that call the step right."""
    right = [step.strip() == word for step, word in zip(steps, reference.split(), strict=False)]
    return [float(np.mean((CHANCE[0].random(CRITIQUES) < NOISE) != r)) for r in right]


@backend(capabilities=CAPABILITIES)
def lucky_chain(path: str | None = None, trainable: bool = True) -> States:
    closed = np.array([0.0] * len(MOVES) + [-30.0])
    return States(MOVES, lambda prompt, written: [(0, *prompt, len(written))], lambda row: closed, path)


def tasks(n: int = 4) -> list[Task]:
    rng = np.random.default_rng(0)
    return [Task(str(i), f"task {i}", " ".join(word.strip() for word in rng.choice(MOVES, LENGTH))) for i in range(n)]


def measure(variant: str, seed: int) -> dict[str, Any]:
    CHANCE[0] = np.random.default_rng(seed)
    credit = {"baseline": "grpo", "method": "capo", "ablated": {"use": "capo", "process": 0.0}}[variant]
    rows = learn(
        "lucky_chain", tasks(), seed, reward="right_or_lucky" if variant == "baseline" else "right_or_lucky + critiques",
        correct="all_right", credit=credit, rollout={"use": "parallel", "max_tokens": LENGTH}, train={"steps": STEPS},
    )  # fmt: skip
    solved = [row["pass@1"] for row in rows]
    return {"value": reached(solved, 0.9), "solved": round(float(np.mean(solved[-10:])), 4)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return all(m["value"] < 0.6 * b["value"] for b, m in zip(baseline, method, strict=True))

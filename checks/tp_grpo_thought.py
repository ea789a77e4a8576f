"""Thoughts in the place of steps: a judge that calls steps right, and a policy that can repeat itself.

A policy (`_states`) walks a path of four moves; `so` takes a line and moves nowhere, and up to twelve lines may be written. The judge calls
a right move right, `so` as right as the move before it, and everything from a wrong move on wrong. What comes next hangs on the number of
moves made, so that a habit of writing `so` there spreads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _states import States, learn, reached

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES
from guerdon.rewards import reward
from guerdon.samples import Task

CLAIM = (
    "80% of answers are right after at most 0.7 times the updates of the outcome alone (mean over seeds), and no seed ends with more than "
    "1.2 times the lines it began with"
)
BASELINE = "outcome alone, grpo"
METHOD = "solved + (judge | thoughts(solved)), igpo(separate=True); without its key term, the thoughts: every step is paid as it is judged"
SEEDS = (0, 1, 2)
MOVES, SO, LENGTH, MOST = ["a\n", "b\n", "c\n"], "so\n", 4, 12
STEPS = 80
REWARDS = {"baseline": "arrived", "method": "arrived + (path_judge | thoughts(arrived))", "ablated": "arrived + (path_judge - 0.5)"}


def moves(text: str) -> list[str]:
    return [word for word in text.split() if word != SO.strip()]


@reward(inline=True)
def arrived(text: str, reference: str) -> float:
    return float(moves(text) == reference.split())


@reward(inline=True)
def lines_written(text: str) -> float:
    return float(len(text.split()))


@reward(inline=True, grain="step")
def path_judge(steps: list[str], reference: str) -> list[float]:
    path, right, out = reference.split(), True, []
    for step in steps:
        if step.strip() != SO.strip():
            right = right and bool(path) and step.strip() == path.pop(0)
        out.append(float(right))
    return out


TASKS = [Task(str(i), f"task {i}", " ".join(np.random.default_rng(i).choice(["a", "b", "c"], LENGTH))) for i in range(4)]


@backend(capabilities=CAPABILITIES)
def wanderer(path: str | None = None, trainable: bool = True) -> States:
    """At first a line in five is `so`, and a walk of n moves ends with a chance that grows to a half at four."""
    names = [*MOVES, SO]

    def rows(prompt: tuple[int, ...], written: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [(sum(word < len(MOVES) for word in written), *prompt)]

    def start(row: tuple[int, ...]) -> np.ndarray:
        return np.array([0.0] * len(MOVES) + [-0.3, 1.4 if row[0] >= LENGTH else -4.0])

    return States(names, rows, start, path)


def measure(variant: str, seed: int) -> dict[str, Any]:
    rows = learn(
        "wanderer", TASKS, seed, reward=f"{REWARDS[variant]} + 0 * lines_written", correct="arrived",
        credit="grpo" if variant == "baseline" else {"use": "igpo", "separate": True},
        rollout={"use": "parallel", "max_tokens": MOST}, train={"steps": STEPS},
    )  # fmt: skip
    right, lines = ([row[name] for row in rows] for name in ("pass@1", "reward/lines_written"))
    found = {"first lines": np.mean(lines[:3]), "last lines": np.mean(lines[-10:]), "solved": np.mean(right[-10:])}
    return {"value": reached(right, 0.8)} | {name: round(float(x), 3) for name, x in found.items()}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    faster = float(np.mean([m["value"] for m in method])) <= 0.7 * float(np.mean([b["value"] for b in baseline]))
    return faster and all(m["last lines"] <= 1.2 * m["first lines"] for m in method)

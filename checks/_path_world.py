"""Five turns, three of which decide: what each step is worth is known exactly.

A task asks for five turns, each `a`, `b` or `c`, a line each. Three places, hidden and different by task, decide: the answer is right where
all three have the right turn; the other two do nothing. The policy, a table of one row for each task and place, begins with even chances,
so that one answer in 27 is right. A judge of steps is wrong about one step in ten, the same one each time.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from _states import States

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES
from guerdon.rewards import reward
from guerdon.samples import Task

TURNS = ["a\n", "b\n", "c\n"]
PLACES, DECIDE, TASKS = 5, 3, 8
NEVER = -20.0
"""The logit of an end before the last place: no answer has one."""


def tasks() -> list[Task]:
    """The reference is what stands at each place, `.` where it does not matter."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(TASKS):
        path = np.array(["."] * PLACES)
        path[rng.choice(PLACES, DECIDE, replace=False)] = rng.choice(list("abc"), DECIDE)
        found.append(Task(str(i), f"task {i}", "".join(path)))
    return found


@reward(inline=True)
def arrived(text: str, reference: str) -> float:
    """1 where every place that decides has the right turn."""
    turns = text.split()
    return float(len(turns) == PLACES and all(want in (".", turn) for turn, want in zip(turns, reference, strict=True)))


@reward(inline=True, grain="step")
def judged_step(steps: list[str], reference: str, signed: bool = False, wrong: float = 0.1) -> list[float]:
    """1 for a step that is right or does not matter, else 0 (signed: -1); the other way round for a share `wrong` of steps."""
    values = []
    for i, (step, want) in enumerate(zip(steps, reference, strict=False)):
        digest = hashlib.blake2b(f"{reference}/{''.join(steps[: i + 1])}".encode(), digest_size=4).digest()
        flipped = int.from_bytes(digest, "little") / 2**32 < wrong
        right = (want in (".", step.strip())) != flipped
        values.append(1.0 if right else -1.0 if signed else 0.0)
    return values


@reward(inline=True, grain="step")
def chance(steps: list[str], reference: str) -> list[float]:
    """How likely a policy of even chances is to arrive after each step: what a process model of Q values learns from rollouts."""
    values, alive = [], True
    for i, (step, want) in enumerate(zip(steps, reference, strict=False)):
        alive &= want in (".", step.strip())
        values.append(alive * math.pow(1 / 3, sum(later != "." for later in reference[i + 1 :])))
    return values


@backend(capabilities=CAPABILITIES)
def walker(path: str | None = None, trainable: bool = True) -> States:
    """Even chances of the turns, and no end."""
    chances = np.array([0.0] * len(TURNS) + [NEVER])
    return States(TURNS, lambda prompt, written: [(*prompt, len(written))], lambda row: chances, path)


def table(**more: Any) -> dict[str, Any]:
    """A model beside the policy with a row for every prefix."""
    return {"backend": "tabular", "vocab": TURNS, "bias": {"<end>": NEVER}, **more}

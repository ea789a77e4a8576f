"""Entropy-modulated credit in a corridor of ten steps, of which three decide and seven do not matter.

The policy (`_states`) picks one of four moves a step, by a row of the place and a row that all places share, so that what chance teaches
at the places that do not matter is in the way at those that do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from _states import States, learn, reached

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES
from guerdon.credit import credit, empg, grpo
from guerdon.rewards import reward
from guerdon.samples import Batch, Task

CLAIM = (
    "in the mean over seeds 80% is solved after fewer updates, and the share of |advantage| on steps that do not matter is lower by 30% or "
    "more, than with GRPO"
)
BASELINE = "grpo"
METHOD = "empg (k 1, zeta 0.05); without its key term, the scale by entropy: k 0"
SEEDS = (0, 1, 2)
MOVES, LENGTH, DECIDE, RIGHT = ["a\n", "b\n", "c\n", "d\n"], 10, (2, 5, 8), (0, 1, 2)
STEPS = 60
MASS: list[tuple[float, float]] = []


@reward(inline=True)
def through(text: str) -> float:
    words = text.split()
    return float(len(words) == LENGTH and all(words[place] == MOVES[move].strip() for place, move in zip(DECIDE, RIGHT, strict=True)))


@backend(capabilities=CAPABILITIES)
def corridor(path: str | None = None, trainable: bool = True) -> States:
    closed = np.array([0.0] * len(MOVES) + [-30.0])
    return States(MOVES, lambda prompt, written: [(0, len(written)), (1,)], lambda row: closed if row[0] == 1 else None, path)


@credit(needs=("entropy",), group=True)
def weighed(batch: Batch, k: float = 1.0, zeta: float = 0.05, plain: bool = False) -> torch.Tensor:
    """The credit, and where its mass lies."""
    a = grpo(batch) if plain else empg(batch, k=k, zeta=zeta)
    matters = torch.isin(torch.arange(a.shape[1]), torch.tensor(DECIDE))
    MASS.append((float(a[:, ~matters].abs().sum()), float(a.abs().sum())))
    return a


def measure(variant: str, seed: int) -> dict[str, Any]:
    MASS.clear()
    params = {"baseline": {"plain": True}, "method": {}, "ablated": {"k": 0.0}}[variant]
    rows = learn(
        "corridor", [Task(str(i), f"task {i}") for i in range(4)], seed, reward="through", credit={"use": "weighed", **params},
        rollout={"use": "parallel", "max_tokens": LENGTH}, train={"steps": STEPS},
    )  # fmt: skip
    solved = [row["pass@1"] for row in rows]
    upto = reached(solved, 0.8)
    noise, mass = np.sum(MASS[:upto], 0)
    return {"value": upto, "noise": round(float(noise / mass), 4), "solved": round(float(np.mean(solved[-10:])), 4)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    updates, noise = ([float(np.mean([s[key] for s in side])) for side in (baseline, method)] for key in ("value", "noise"))
    return updates[1] < updates[0] and noise[1] <= 0.7 * noise[0]

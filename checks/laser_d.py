"""LASER-D on a table: targets that follow each band of difficulty, against one fixed target.

A policy that only decides how long to think (`_length_world`); a word stands for 512 tokens, so the fixed target is 4096 and the grid that
of the paper up to 16384. What it learns on one difficulty spreads to the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _length_world import learn

TARGET, STEPS = 8, 60
CLAIM = (
    "against a fixed target, on the tasks that need more than it (medium and hard) accuracy is higher by 8 points or more, with no more "
    "than 1.1 times the words over all tasks; easy tasks take less than half the words of hard ones; targets are in the order high, "
    "medium, low"
)
BASELINE = f"laser(target={TARGET})"
METHOD = f"laser_d from the same target; without its key term: the targets are never refreshed ({TARGET} words for ever)"
SEEDS = (1, 2, 3)
ADAPTIVE = f"enough | laser_d(target={TARGET}, lower=2, step=2, upper=32"
REWARDS = {"baseline": f"enough | {BASELINE}", "method": f"{ADAPTIVE})", "ablated": f"{ADAPTIVE}, monitor='eval')"}


def measure(variant: str, seed: int) -> dict[str, Any]:
    found, run = learn(REWARDS[variant], seed, STEPS)
    state = run.stages[0].state_dict()["pieces"].get("shape/0/laser_d", {"targets": {}})
    return found | {"value": (found["accuracy/medium"] + found["accuracy/hard"]) / 2, "targets": state["targets"]}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    gain = np.mean([m["value"] for m in method]) - np.mean([b["value"] for b in baseline])
    words = np.mean([m["words"] for m in method]) <= 1.1 * np.mean([b["words"] for b in baseline])
    adapts = all(m["words/easy"] < 0.5 * m["words/hard"] for m in method)
    return bool(gain >= 0.08 and words and adapts and all(in_order(m["targets"]) for m in method))


def in_order(targets: dict[str, Any]) -> bool:
    high, medium, low = (float("inf") if targets[name] is None else targets[name] for name in ("high", "medium", "low"))
    return high <= medium <= low

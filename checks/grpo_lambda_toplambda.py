"""Length punished in the best groups only, on a table: the others go on learning to be right.

A policy that only decides how long to think (`_length_world`); what it learns on easy tasks spreads to the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _length_world import learn

STEPS = 80
CLAIM = "words fall by more than 30% against the plain 0/1 reward and accuracy stays within 3 points of it"
BASELINE = "the plain 0/1 reward"
METHOD = "top_lambda; without its key term: every group is punished (share=1)"
SEEDS = (1, 2, 3)
REWARDS = {"baseline": "enough", "method": "enough | top_lambda", "ablated": "enough | top_lambda(share=1)"}


def measure(variant: str, seed: int) -> dict[str, Any]:
    found, _ = learn(REWARDS[variant], seed, STEPS)
    return found | {"value": found["accuracy"], "fall": round(found["peak"] - found["accuracy"], 4)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    words = np.mean([m["words"] for m in method]) < 0.7 * np.mean([b["words"] for b in baseline])
    return bool(words and np.mean([m["value"] for m in method]) >= np.mean([b["value"] for b in baseline]) - 0.03)

"""Budgets as subgroups, on a table: trained under hints of a budget, judged without one.

A policy that only decides how long to think (`_length_world`); 40 words stand for 4096 tokens, so budgets of 512, 1024, 2048, 2560 are
5, 10, 20, 25 words. A hint pulls the end of an answer towards the budget from the start, as the sentence does in a language model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _length_world import BUDGETS, MOST, NEED, learn

STEPS = 60
CLAIM = (
    "without a hint, mean words correlate with the need of a difficulty above 0.9, accuracy on hard tasks is within 3 points of the plain "
    "0/1 reward, and words are below 60% of its"
)
BASELINE = "the plain 0/1 reward, parallel answers"
METHOD = f"budgets, the shape hbpo and the credit hbpo; without its key term, the hierarchy: one budget of {BUDGETS[0]} words"
SEEDS = (1, 2, 3)


def measure(variant: str, seed: int) -> dict[str, Any]:
    train = {"prompts": 8, "samples": 16}
    if variant == "baseline":
        found, _ = learn("enough", seed, STEPS, train=train)
    else:
        several = list(BUDGETS) if variant == "method" else [BUDGETS[0]]
        found, _ = learn(
            f"enough | hbpo(limit={MOST})", seed, STEPS, train=train, credit={"use": "hbpo", "limit": MOST},
            rollout={"use": "budgets", "budgets": several, "hint": "[{budget}]", "max_tokens": MOST},
        )  # fmt: skip
    words = [found[f"words/{name}"] for name in NEED]
    return found | {"value": found["accuracy/hard"], "correlation": round(float(np.corrcoef(words, list(NEED.values()))[0, 1]), 4)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    hard, words = ([float(np.mean([s[key] for s in side])) for side in (baseline, method)] for key in ("value", "words"))
    return all(m["correlation"] > 0.9 for m in method) and hard[1] >= hard[0] - 0.03 and words[1] < 0.6 * words[0]

"""A gate of bottom lines in front of utility: a sum of both has to weigh them, and one that weighs richness too high invents.

An answer makes claims: the one that the evidence holds, and up to two invented ones, in the asked form or not. Grounding is the share of
its claims that are grounded (1 without claims), form is 1 or 0, richness 0.1 + 0.3 a claim, usability 1. A bandit of 12 answers over 4
questions, which all have the same rewards, on the tabular backend.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from _bandit import learn, place

from guerdon.rewards import reward
from guerdon.samples import Sample, Task

CLAIM = (
    "the gate ends with grounding of 0.95 or more and utility within 0.05 of the best linear arm that is as well grounded, in every seed, "
    "with nothing to weigh; of three weights of the linear sum, at least one ends with grounding of 0.8 or less"
)
BASELINE = "the linear sum of bottom lines and utilities, weights 0.5, 1 and 2 of the utilities"
METHOD = "mean(richness, usability) | gated(grounding, form); without its key term, the gate: mean(richness, usability)"
SEEDS = (0, 1, 2)
ANSWERS = list(itertools.product((0, 1), (0, 1, 2), (0, 1)))
"""(grounded claims, invented claims, in form)"""
UTILITY = "mean(gate_rich, gate_usable)"
LINEAR = "gate_grounded + gate_form + {weight} * (gate_rich + gate_usable)"
WEIGHTS, STEPS = (0.5, 1.0, 2.0), 100


def grounding(answer: tuple[int, int, int]) -> float:
    claims = answer[0] + answer[1]
    return answer[0] / claims if claims else 1.0


def richness(answer: tuple[int, int, int]) -> float:
    return 0.1 + 0.3 * (answer[0] + answer[1])


@reward(inline=True)
def gate_grounded(sample: Sample) -> float:
    return grounding(ANSWERS[place(sample)])


@reward(inline=True)
def gate_form(sample: Sample) -> float:
    return float(ANSWERS[place(sample)][2])


@reward(inline=True)
def gate_rich(sample: Sample) -> float:
    return richness(ANSWERS[place(sample)])


@reward(inline=True)
def gate_usable(sample: Sample) -> float:
    return 1.0


def arm(expression: str, seed: int) -> dict[str, float]:
    """What the policy does at the end, in expectation."""
    tasks = [Task(str(i), f"question {i}") for i in range(4)]
    chances = learn(tasks, len(ANSWERS), seed, reward=expression, train={"steps": STEPS, "samples": 16})[-1].mean(0)

    def mean(of: Any) -> float:
        return round(float(chances @ np.array([of(answer) for answer in ANSWERS])), 4)

    return {"grounding": mean(grounding), "utility": mean(lambda a: (richness(a) + 1) / 2), "form": mean(lambda a: a[2])}


def measure(variant: str, seed: int) -> dict[str, Any]:
    if variant == "baseline":
        arms = {str(weight): arm(LINEAR.format(weight=weight), seed) for weight in WEIGHTS}
        return {"value": min(found["grounding"] for found in arms.values()), **arms}
    found = arm(f"{UTILITY} | gated(gate_grounded, gate_form)" if variant == "method" else UTILITY, seed)
    return {"value": found["grounding"], **found}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    def fine(arms: dict[str, Any], gate: dict[str, Any]) -> bool:
        safe = [arms[str(weight)]["utility"] for weight in WEIGHTS if arms[str(weight)]["grounding"] >= 0.95]
        return gate["grounding"] >= 0.95 and gate["utility"] >= max(safe, default=0.0) - 0.05 and arms["value"] <= 0.8

    return all(fine(arms, gate) for arms, gate in zip(baseline, method, strict=True))

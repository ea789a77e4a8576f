"""PRIME on a chain of sub-goals: outcomes alone teach a process reward model which moves count, and the policy learns from it at once.

Tables over states (`_chain_world`); 14 moves for 6 sub-goals, so that a random policy finishes about one time in twenty.
The model beside the policy learns at twice its rate, as in the release.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _chain_world import learn, of_text, updates_to

STEPS = 100
CLAIM = (
    "80% of the answers finish after at most 0.7 times the updates that the outcome alone takes (means over seeds), and in 80% or more of "
    "the answers that failed, moves that do nothing have a lower mean token reward than moves that go on (every seed)"
)
BASELINE = "the outcome alone: prime(process=0), which is whitened RLOO"
METHOD = "prime, a process reward model that learns from the outcomes; without its key term, that learning: one that stays as it began"
SEEDS = (0, 1, 2)


def measure(variant: str, seed: int) -> dict[str, Any]:
    how = {"loss": {"use": "implicit_ce", "beta": 0.05}, "lr": 0.0 if variant == "ablated" else 0.1, "aggregate": "row_mean"}
    found = learn(
        seed, STEPS, samples_every=5, reward="finished + implicit(model='prm', beta=0.05)",
        models={"reference": {"of": "policy"}, "prm": {"of": "policy", "learn": {**how, "when": "before"}}},
        credit={"use": "prime", "process": 0.0} if variant == "baseline" else "prime",
    )  # fmt: skip
    return {"value": updates_to(0.8, found["finished"]), "told apart": told_apart(found["rows"])}


def told_apart(rows: list[dict[str, Any]]) -> float:
    """Of failed answers with both kinds of moves: the share in which the token rewards of moves that went on have the higher mean."""
    right = []
    for row in rows:
        moves = np.array(of_text(row["text"]))
        if row["step"] > 5 and sum(moves) < 6 and 0 < moves.sum() < len(moves):
            token = np.array(row["token_rewards"][: len(moves)], dtype=float)
            right.append(token[moves].mean() > token[~moves].mean())
    return round(float(np.mean(right)), 4)


def holds(baseline: list[Any], method: list[Any]) -> bool:
    updates = [float(np.mean([s["value"] for s in side])) for side in (baseline, method)]
    return updates[1] <= 0.7 * updates[0] and all(m["told apart"] >= 0.8 for m in method)

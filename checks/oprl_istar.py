"""iStar on a chain of sub-goals: who beat whom teaches an implicit model which moves count, and steps get credit beside the answers.

Tables over states (`_chain_world`); 14 moves for 6 sub-goals, so that a random policy finishes about one time in twenty.
The model beside the policy learns at twice its rate, as in the release.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from _chain_world import learn, of_text

from guerdon.curation import all_pairs, keep
from guerdon.samples import Kept

STEPS = 60
CLAIM = (
    "pairs of a fresh success and a fresh failure are told apart by the model in 85% or more (every seed), moves that went on have the "
    "higher mean reward in failed answers (every seed), and the mean share that finishes over the run is 1.2 times that of RLOO (means)"
)
BASELINE = "RLOO on the outcome: istar(alpha=0)"
METHOD = "istar(alpha=1); without its key term, the preferences: pairs whose sides are drawn at random"
SEEDS = (0, 1, 2)


@keep(pairs=True)
def pairs_by_chance(samples: Any, rewards: Any, context: Any) -> Kept:
    """Of `all_pairs`, each turned round with chance 1/2."""
    kept = all_pairs(samples, rewards, context)
    turned = context.rng.random(len(kept.pairs)) < 0.5
    return replace(kept, pairs=np.where(turned[:, None], kept.pairs[:, ::-1], kept.pairs))


def measure(variant: str, seed: int) -> dict[str, Any]:
    how = {"loss": "trajectory_dpo", "lr": 0.1, "aggregate": "pair_mean", "when": "after"}
    found = learn(
        seed, STEPS, samples_every=1, reward="finished + implicit(model='prm', reference_model='policy', beta=0.05)",
        models={"prm": {"of": "policy", "learn": how}}, keep="pairs_by_chance" if variant == "ablated" else "all_pairs",
        credit={"use": "istar", "alpha": 0.0 if variant == "baseline" else 1.0},
    )  # fmt: skip
    return {"value": round(float(np.mean(found["finished"])), 4)} | told_apart(found["rows"])


def told_apart(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Scored before the model learns from them, after the first ten updates. pairs: how often a success of the step has the higher mean
    step reward than a failure; gap: mean step reward in failures of moves that went on, less that of the others."""
    right, gaps = [], []
    for step in range(11, STEPS + 1):
        several = []
        for row in (row for row in rows if row["step"] == step):
            moves = np.array(of_text(row["text"]))
            token = np.array(row["token_rewards"][: len(moves)], dtype=float)
            several.append((bool(moves.sum() == 6), token.mean()))
            if 0 < moves.sum() < 6:
                gaps.append(token[moves].mean() - token[~moves].mean())
        right += [a > b for won, a in several for lost, b in several if won and not lost]
    return {"pairs": round(float(np.mean(right)), 4), "gap": round(float(np.mean(gaps)), 5)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    area = [float(np.mean([s["value"] for s in side])) for side in (baseline, method)]
    return all(m["pairs"] >= 0.85 and m["gap"] > 0 for m in method) and area[1] >= 1.2 * area[0]

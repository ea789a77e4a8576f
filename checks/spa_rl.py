"""SPA-RL on a chain of sub-goals: a head that must explain the result of an answer as a sum over its moves learns which of them count.

Tables over states (`_chain_world`), the head's and the critic's too; 14 moves for 6 sub-goals, and a reward at the end alone: the share of
sub-goals behind. PPO with a critic, in steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _chain_world import executable, learn, of_text, updates_to  # noqa: F401  (executable is named in the reward)

from guerdon.samples import Grain, Rewards
from guerdon.shaping import shape

STEPS = 80
CLAIM = (
    "what the head gives a move correlates with whether it went on by 0.7 or more (every seed), and 80% of the answers finish after at "
    "most 0.6 times the updates that the reward at the end alone takes (means over seeds)"
)
BASELINE = "PPO on the share of sub-goals, paid at the end"
METHOD = (
    "PPO on attributed progress and grounding (0.5); without its key term, the attribution: the head's values permuted within an answer"
)
SEEDS = (0, 1, 2)


@shape
def permuted(rewards: Rewards, samples: Any, context: Any) -> Rewards:
    """Step rewards in an order drawn anew within each answer."""
    assert rewards.step is not None
    rng, value = np.random.default_rng((context.progress.step, len(samples))), rewards.step.value.copy()
    for i, scored in enumerate(rewards.step.scored):
        value[i, scored] = rng.permutation(value[i, scored])
    return Rewards(step=Grain.of(value, rewards.step.state))


def measure(variant: str, seed: int) -> dict[str, Any]:
    head = {"backend": "chain", "head": "scalar"}
    how = {"loss": {"use": "sum_regression", "part": "progress"}, "lr": 0.05, "aggregate": "row_mean", "when": "before"}
    attributed = "(prm(model='estimator') | permuted)" if variant == "ablated" else "prm(model='estimator')"
    paid = "progress + 0 * prm(model='estimator')" if variant == "baseline" else f"0 * progress + {attributed} + 0.5 * executable"
    found = learn(
        seed, STEPS, samples_every=1, reward=paid, critic={"lr": 0.05},
        models={"critic": head, "estimator": {**head, "learn": how}}, credit="gae" if variant == "baseline" else "step_gae",
    )  # fmt: skip
    return {"value": updates_to(0.8, found["finished"]), "correlation": 0.0 if variant == "baseline" else correlation(found["rows"])}


def correlation(rows: list[dict[str, Any]]) -> float:
    """Of what the head gave the moves of the first ten updates after the first five, grounding taken off, with whether they went on."""
    given, moved = [], []
    for row in (row for row in rows if 5 < row["step"] <= 15):
        moves = of_text(row["text"])
        given += [c - 0.5 * went for c, went in zip(row["step_rewards"], moves, strict=False)]
        moved += moves
    return round(float(np.corrcoef(given, moved)[0, 1]), 4)


def holds(baseline: list[Any], method: list[Any]) -> bool:
    updates = [float(np.mean([s["value"] for s in side])) for side in (baseline, method)]
    return all(m["correlation"] >= 0.7 for m in method) and updates[1] <= 0.6 * updates[0]

"""Random calculation: only a reward that tells right from wrong teaches; shuffled and random ones do not.

The tiny policy, taught arithmetic with a systematic error, is trained by the embedded recipe with the reward of the final answer. The
control gives every sample the reward of another one in the batch: the same rewards, the same spread, no information.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _controls import shuffled  # noqa: F401  a shape of the expressions below

from guerdon.samples import Context, Grain, Rewards, Sample
from guerdon.shaping import shape

CLAIM = (
    "greedy accuracy on held-out expressions of 3-4 steps rises by more than 0.30 with the reward of the final answer, "
    "and by less than 0.05 when the same rewards are shuffled between samples"
)
BASELINE = "rewards shuffled between samples"
METHOD = "reward of the final answer; without its key term: a coin instead of the verifier"
SEEDS = (0, 1, 2)


@shape
def coin(rewards: Rewards, samples: Sequence[Sample], context: Context) -> Rewards:
    """0 or 1 with probability 1/2, whatever the answer."""
    rng = np.random.default_rng((context.progress.step, len(samples), 1))
    return Rewards(outcome=Grain.of(rng.integers(0, 2, len(samples))), parts=rewards.parts)


REWARDS = {"baseline": "arithmetic | shuffled", "method": "arithmetic", "ablated": "arithmetic | coin"}


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.training.run import train
    from guerdon.training.verbs import embedded

    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"reward={REWARDS[variant]}", "correct=arithmetic", f"seed={seed}", "train.steps=30", "eval.every=30"]
        run = train(embedded(), *overrides, folder=Path(folder) / "run")
    accuracy = [row["eval/pass@1"] for row in run.metrics if "eval/pass@1" in row]
    return {"value": accuracy[-1] - accuracy[0], "before": accuracy[0], "after": accuracy[-1]}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return min(found["value"] for found in method) > 0.30 and max(found["value"] for found in baseline) < 0.05

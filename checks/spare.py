"""All steps of an answer labelled in one reply of a judge beside a reference solution, against one rollout behind each step.

Answers of 12 to 16 steps by a simulated solver that never recovers (`_chain_solver`). The judge (`_chain_judge.aligning`) compares each
step with the likest step of the worked solution, says CORRECT where the two are equal, and leaves one record in ten out. Tokens are
characters, of the judge's JSON and of the rollouts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from _chain_judge import aligning
from _chain_solver import answered

from guerdon.annotation import monte_carlo, spare
from guerdon.envs.arithmetic import verify_steps

CLAIM = (
    "over the steps of 100 answers the F1 of the wrong ones is 0.85 or more for spare and 0.75 or less for one rollout a step, and spare's "
    "new tokens are at most a fifth of those of 8 rollouts a step (every seed)"
)
BASELINE = "monte_carlo(k=1), whose tokens count 8 times"
METHOD = "spare; without its key term, the reference solution: beside the final answer alone"
SEEDS = (0, 1, 2)


def measure(variant: str, seed: int) -> dict[str, Any]:
    samples, context = answered(100, 1, seed)
    if variant == "baseline":
        labels = monte_carlo(samples, context, k=1, soft=False, max_tokens=2000)
    else:
        context.models["judge"] = aligning(skipped=0.1)
        if variant == "ablated":
            samples = [replace(s, task=replace(s.task, meta={"expression": s.task.meta["expression"]})) for s in samples]
        labels = spare(samples, context)
    real = np.concatenate([verify_steps(s.steps, s.task) for s in samples])
    said = np.concatenate([labels.value[i, :n] for i, n in enumerate(labels.steps)]) > 0
    hit = float((~real & ~said).sum())
    return {"value": round(2 * hit / ((~real).sum() + (~said).sum()), 4), "tokens": labels.cost.tokens}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    pairs = zip(baseline, method, strict=True)
    return all(b["value"] <= 0.75 and m["value"] >= 0.85 and 5 * m["tokens"] <= 8 * b["tokens"] for b, m in pairs)

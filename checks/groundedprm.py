"""Step labels by a tool, on answers that tree searches find, against rollouts, where a solver comes back from wrong steps; labels only.

A simulated solver (`_chain_solver`) of chains of 12 to 16 steps slips at 8% of the steps and comes back to the true value at 5% of those
behind a wrong one. The tool works each step out, and says the opposite of what it found in 3 of 100 cases. A step is truly right as
`verify_steps` has it: nothing behind a wrong one is.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from _chain_solver import answered

from guerdon.annotation import grounded, monte_carlo
from guerdon.envs.arithmetic import task_of, verify_steps
from guerdon.rewards import reward

CLAIM = (
    "over the steps of the answers to 20 tasks 0.95 of the tree's labels or more are true, and 0.85 or less of those of Monte Carlo with 8 "
    "rollouts (every seed)"
)
BASELINE = "monte_carlo(k=8, soft=False), four answers a task"
METHOD = "grounded(rounds=12); without its key term, a tool that can be trusted: false in 30 of 100 cases"
SEEDS = (0, 1, 2)


@reward(inline=True, grain="step")
def worked_out(steps: list[str], meta: dict, false: float = 0.03) -> list[float]:
    """1 where a step is right, but for a share `false` of the steps, always the same."""
    right = verify_steps(steps, task_of(meta["expression"]))
    said = [hashlib.blake2b(f"{meta['expression']} {''.join(steps[: t + 1])}".encode(), digest_size=4).digest() for t in range(len(steps))]
    return [float(ok != (int.from_bytes(digest, "big") / 2**32 < false)) for ok, digest in zip(right, said, strict=True)]


def measure(variant: str, seed: int) -> dict[str, Any]:
    samples, context = answered(20, 4, seed, slip=0.08, recover=0.05)
    if variant == "baseline":
        labels = monte_carlo(samples, context, k=8, soft=False, max_tokens=2000)
    else:
        tasks = list({sample.task.id: sample.task for sample in samples}.values())
        false = 0.03 if variant == "method" else 0.3
        labels = grounded(tasks, context, tool=f"worked_out(false={false})", rounds=12, max_tokens=2000, step_tokens=100, seed=seed)
    cells = [(labels.value[i, t], ok) for i, s in enumerate(labels.samples) for t, ok in enumerate(verify_steps(s.steps, s.task))]
    said, truth = (np.array(column) for column in zip(*cells, strict=True))
    known = ~np.isnan(said)
    found = {
        "value": (said[known] == truth[known]).mean(),
        "labelled": known.mean(),
        "right": said[known].mean(),
        "answers": len(labels.samples),
    }
    return {name: round(float(x), 4) for name, x in found.items()}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return all(m["value"] >= 0.95 and b["value"] <= 0.85 for b, m in zip(baseline, method, strict=True))

"""Step labels on which rollouts and a judge agree, against rollouts alone, where a solver comes back from wrong steps.

A simulated solver (`_chain_solver`) of chains of 12 to 16 steps slips at 8% of the steps and comes back to the true value at 5% of those
behind a wrong one: rollouts then still come right behind a wrong step, so that Monte Carlo, which measures what can still come right, sees
the error late or not at all. The judge names the first wrong step in 85% of the answers, and another at random in the others.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from _chain_judge import noisy
from _chain_solver import answered, first_error, truth

from guerdon.annotation import Labels, consensus, monte_carlo

CLAIM = (
    "of 300 answers the first-error F1 of the labels that Monte Carlo and the judge agree on is at least 0.10 above that of Monte Carlo on "
    "all, with fewer than 60% of the answers kept (every seed)"
)
BASELINE = "monte_carlo(k=8, soft=False), all answers"
METHOD = "consensus(k=8), the answers that it keeps; without its key term, the agreement: as many answers kept at random"
SEEDS = (0, 1, 2)


def measure(variant: str, seed: int) -> dict[str, Any]:
    samples, context = answered(300, 1, seed, slip=0.08, recover=0.05)
    real = truth(samples)
    context.models["judge"] = noisy(0.85)
    if variant == "baseline":
        labels = monte_carlo(samples, context, k=8, soft=False, max_tokens=2000)
    else:
        module = vars(sys.modules[consensus.__module__])
        agree, rng = module["agree"], np.random.default_rng(seed)
        if variant == "ablated":
            module["agree"] = lambda a, b: rng.permutation(agree(a, b))
        labels = consensus(samples, context, k=8, max_tokens=2000)
    rows = np.flatnonzero(~np.isnan(labels.value[:, 0]))
    kept = Labels(
        [samples[i] for i in rows], labels.value[rows], labels.count[rows], labels.confidence[rows], [labels.text[i] for i in rows]
    )
    found = first_error(kept, real[rows])
    return {"value": found["f1"], **found, "kept": round(len(rows) / len(samples), 4)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return all(m["value"] >= b["value"] + 0.10 and m["kept"] < 0.6 for b, m in zip(baseline, method, strict=True))

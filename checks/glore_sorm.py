"""Labels of whether a beginning can come right at all, against the outcome of the answer that it stands in; labels only, no models.

A simulated solver (`_chain_solver`) writes one operation with its result a line, slips at 5% of the steps, and at 5% of those behind a
wrong one starts again from the true value, ignoring what it has written. A step is truly good where it is right and none before it was
wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _chain_solver import answered, truth_of_equations

from guerdon.annotation import outcome, sorm

CLAIM = (
    "over all operations of 200 answers the AUC of SORM's labels (k = 8) against the truth is at least 0.10 above that of ORM's, the "
    "outcome of the own answer, and at least 0.90 (every seed)"
)
BASELINE = "outcome: each step has its answer's"
METHOD = "sorm(k=8); without its key terms, what is done to the labels: no rollout is left out, nothing is propagated"
SEEDS = (0, 1, 2)


def measure(variant: str, seed: int) -> dict[str, Any]:
    samples, context = answered(200, 1, seed, recover=0.05, equations=True)
    if variant == "baseline":
        labels = outcome(samples, context)
    else:
        bare = variant == "ablated"
        labels = sorm(samples, context, k=8, consistent=not bare, propagate=not bare, max_tokens=2000)
    real = truth_of_equations(samples)
    said = np.concatenate([labels.value[i, : len(row)] for i, row in enumerate(real)])
    truth = np.concatenate(real)
    good, bad = (float(np.nanmean(said[truth == side])) for side in (True, False))
    return {
        "value": round((1 + good - bad) / 2, 4),
        "good": round(good, 4),
        "bad": round(bad, 4),
        "labelled": round(float((~np.isnan(said)).mean()), 4),
    }


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return all(m["value"] >= max(0.90, b["value"] + 0.10) for b, m in zip(baseline, method, strict=True))

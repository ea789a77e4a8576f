"""The first wrong step, from labels of whole answers alone: the implicit process reward against an outcome model read at every step.

Chains of 12 to 16 operations by a simulated solver that slips at 5 % of them and does not recover; both models start from a transformer
that writes as the solver does (`_chain_writer`) and learn from 800 answers, one a task, right or wrong. Tested on 200 answers to others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _chain_models import best_threshold, f1, first_error_auc, first_errors, fitted, of_steps, scored
from _chain_writer import chains, writer

from guerdon.registry import find
from guerdon.samples import Sample

CLAIM = (
    "a wrong answer's first wrong step has a lower implicit reward than a step before it in 0.80 of such pairs or more, and in 0.10 more "
    "than by the outcome model (every seed)"
)
BASELINE = "outcome_ce: a head on whole answers, read behind every step by prm"
METHOD = "implicit_ce, read by implicit, summed over each step; without its key term: the outcomes are dealt out at random"
SEEDS = (0, 1, 2)
ANSWERS, TESTED, CHOSEN = 800, 200, 100


def measure(variant: str, seed: int) -> dict[str, Any]:
    samples, context = chains(ANSWERS, seed)
    assert context.score is not None
    right = context.score(samples).outcome
    assert right is not None
    outcomes = right.value if variant != "ablated" else np.random.default_rng(seed).permutation(right.value)
    rows = [{"prompt": s.task.prompt, "completion": s.text, "label": float(y)} for s, y in zip(samples, outcomes, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        model = fitted(Path(folder), rows, seed, "outcome_ce" if variant == "baseline" else "implicit_ce")
        opened = {name: find("backend", "local").fn(str(path), trainable=False) for name, path in (("rm", model), ("start", writer()))}

        def steps(answers: Sequence[Sample]) -> list[np.ndarray]:
            if variant == "baseline":
                grain = scored("prm(model='rm')", answers, **opened).step
                return [grain.value[i, : len(s.steps)] for i, s in enumerate(answers)]
            return of_steps(scored("implicit(model='rm', reference_model='start')", answers, **opened).token.value, answers, np.sum)

        others, tested = (chains(n, 10_000 * i + seed)[0] for i, n in ((1, CHOSEN), (2, TESTED)))
        at, said = best_threshold(steps(others), first_errors(others)), steps(tested)
    least = np.array([row.min() for row in said])
    wrong = first_errors(tested) >= 0
    return {
        "value": round(first_error_auc(said, tested), 4),
        "f1": f1(said, first_errors(tested), at)["f1"],
        "answers": round(float((least[~wrong][:, None] > least[wrong]).mean()), 4),
    }


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return all(m["value"] >= max(0.80, b["value"] + 0.10) for b, m in zip(baseline, method, strict=True))

"""RewardMATH: one right solution against nine wrong ones of the same style; pairs whose right side has a style of its own reward style.

Arrays, benched through files: eight raters add up correctness, style and noise, from one that sees style alone to one that sees
correctness alone. The policy's own answers have either style whether right or wrong; what a bench is for is the share of right answers
in best of 64 by the same rater.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from guerdon.evals.bench import bench, curves

CLAIM = (
    "in every seed the score's rank correlation with the accuracy of best of 64 over eight raters is 0.8 or more, and below 0.4 for "
    "confounded pairs; the rater of style alone has 0.2 or less and that of correctness alone 0.7 or more, where confounded pairs put the "
    "first no lower"
)
BASELINE = "one wrong solution, of another style than the right one"
METHOD = "nine wrong solutions of the right one's style; without its key term: nine of another style"
SEEDS = (0, 1, 2)
CORRECT = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)
STYLE = (3.5, 3.0, 2.5, 2.0, 1.5, 1.0, 0.5, 0.0)
ITEMS, PROMPTS, ANSWERS = 483, 1500, 64


def best_of_64(rng: np.random.Generator) -> list[float]:
    """The accuracy by each rater; three in ten answers are right, half are of either style."""
    out = []
    for correct, style in zip(CORRECT, STYLE, strict=True):
        right, styled = rng.uniform(size=(PROMPTS, ANSWERS)) < 0.3, rng.uniform(size=(PROMPTS, ANSWERS)) < 0.5
        scores = correct * right + style * styled + rng.normal(size=right.shape)
        out.append(float(np.mean([curves.best_of_n(s, r * 1.0, ANSWERS) for s, r in zip(scores, right, strict=True)])))
    return out


def of_bench(wrong: int, matched: bool, folder: Path, rng: np.random.Generator) -> list[float]:
    """The strict accuracy of each rater, by `guerdon bench rewardmath`."""
    data, file = folder / "data.json", folder / "scores.jsonl"
    kinds = ["chosen", *["rejected"] * wrong]
    rows = [
        {"problem": f"P{i}", "eval_solution": ["s"], "solution_type": kind, "problem_id": i, "id": f"{i}-{k}"}
        for i in range(ITEMS) for k, kind in enumerate(kinds)
    ]  # fmt: skip
    data.write_text(json.dumps(rows))
    out = []
    for correct, style in zip(CORRECT, STYLE, strict=True):
        scores = rng.normal(size=(ITEMS, 1 + wrong))
        scores[:, 0] += correct + style
        scores[:, 1:] += style * matched
        lines = [{"id": row["id"], "score": s} for row, s in zip(rows, scores.ravel().tolist(), strict=True)]
        file.write_text("\n".join(map(json.dumps, lines)))
        out.append(bench("rewardmath", data, scores=file).overall.value)
    return out


def measure(variant: str, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    gold = best_of_64(rng)
    with tempfile.TemporaryDirectory() as name:
        found = of_bench(1 if variant == "baseline" else 9, variant == "method", Path(name), rng)
    rank = float(spearmanr(found, gold).statistic)  # pyright: ignore
    return {
        "value": round(rank, 4), "style alone": round(found[0], 3), "correctness alone": round(found[-1], 3),
        "scores": np.round(found, 3).tolist(), "best of 64": np.round(gold, 3).tolist(),
    }  # fmt: skip


def holds(baseline: list[Any], method: list[Any]) -> bool:
    ranks = all(m["value"] >= 0.8 and b["value"] < 0.4 for b, m in zip(baseline, method, strict=True))
    ends = all(m["style alone"] <= 0.2 and m["correctness alone"] >= 0.7 for m in method)
    return ranks and ends and float(np.mean([b["style alone"] - b["correctness alone"] for b in baseline])) >= -0.02

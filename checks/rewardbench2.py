"""RewardBench 2: best of four close answers tells good raters apart where easy pairs no longer do; Ties see a margin, not only accuracy.

Arrays, benched through files: eight raters see the worth of an answer with noise of growing size. What a bench is for is what comes out of
best of 16 by the same rater. In the easy bench the chosen answer is far above the rejected ones. The subset Ties is scored for a rater as
it is, and with a large random bonus on each right answer, which makes equally right answers unlike.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.evals.bench import bench, curves

CLAIM = (
    "in every seed the score correlates (Pearson) with the worth of the rater's best of 16 at 0.9 or more over eight raters and over the "
    "four best, the latter above that of easy pairs; a random bonus on right answers leaves the accuracies of Ties within 0.01 and takes "
    "0.2 or more off its score"
)
BASELINE = "RewardBench: one rejected answer, far below the chosen one"
METHOD = "RewardBench 2: three rejected answers close to the chosen one, and Ties; without: far below, and Ties by accuracy alone"
SEEDS = (0, 1, 2)
NOISE = (0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
ITEMS, PROMPTS, ANSWERS = 600, 3000, 16


def worth(rng: np.random.Generator) -> list[float]:
    """Of the best of 16 by each rater."""
    out = []
    for noise in NOISE:
        quality = rng.normal(size=(PROMPTS, ANSWERS))
        scores = quality + noise * rng.normal(size=quality.shape)
        out.append(float(np.mean([curves.best_of_n(s, q, ANSWERS) for s, q in zip(scores, quality, strict=True)])))
    return out


def scored(name: str, folder: Path, rows: list[dict[str, Any]], scores: list[list[float]]) -> Any:
    data, file = folder / "data.jsonl", folder / "scores.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    file.write_text("\n".join(json.dumps({"id": row["id"], "scores": s}) for row, s in zip(rows, scores, strict=True)))
    return bench(name, data, scores=file)


def accuracies(easy: bool, rejected: int, folder: Path, rng: np.random.Generator) -> list[float]:
    """The bench's score of each rater."""
    one = rejected == 1
    rows = [
        {"id": str(i), "prompt": "p", "subset": "Math", "num_correct": 1, "chosen": ["c"], "rejected": ["r"] * rejected}
        for i in range(ITEMS)
    ]
    if one:
        rows = [{"id": str(i), "prompt": "p", "subset": "math-prm", "chosen": "c", "rejected": "r"} for i in range(ITEMS)]
    out = []
    for noise in NOISE:
        quality = rng.normal(scale=0.5, size=(ITEMS, 1 + rejected))
        quality[:, 0] += 4.0 if easy else 1.0
        found = quality + noise * rng.normal(size=quality.shape)
        out.append(scored("rewardbench" if one else "rewardbench2", folder, rows, found.tolist()).overall.value)
    return out


def ties(folder: Path, rng: np.random.Generator, accuracy_only: bool) -> dict[str, float]:
    """How far the bonus moves the accuracies and the score of Ties."""
    rows: list[dict[str, Any]] = []
    plain, bonus = [], []
    for i in range(100):
        for kind, right in (("ref", 1), ("tied", 4)):
            rows.append(
                {"id": f"{kind}:{i}", "prompt": "p", "subset": "Ties", "num_correct": right, "chosen": ["c"] * right, "rejected": ["r"] * 4}
            )
            s = np.array([2.0] * right + [0.0] * 4) + 0.2 * rng.normal(size=right + 4)
            plain.append(s.tolist())
            bonus.append((s + np.r_[rng.exponential(6.0, right), np.zeros(4)]).tolist())
    before, after = (scored("rewardbench2", folder, rows, s) for s in (plain, bonus))
    first, second = ({line.name: line.value for line in r.more["Ties"]} for r in (before, after))
    names = ("accurate, several right", "accurate, one right")
    moved = max(abs(first[n] - second[n]) for n in names)
    lost = float(np.mean([first[n] - second[n] for n in names])) if accuracy_only else before.overall.value - after.overall.value
    return {"accuracies moved": round(moved, 4), "score lost": round(lost, 4)}


def measure(variant: str, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    gold = worth(rng)
    with tempfile.TemporaryDirectory() as name:
        found = accuracies(variant != "method", 1 if variant == "baseline" else 3, Path(name), rng)
        more = ties(Path(name), rng, variant != "method")
    best = np.corrcoef(found[:4], gold[:4])[0, 1] if np.ptp(found[:4]) > 0 else 0.0
    return {
        "value": round(float(best), 4),
        "all": round(float(np.corrcoef(found, gold)[0, 1]), 4),
        "scores": np.round(found, 3).tolist(),
        **more,
    }


def holds(baseline: list[Any], method: list[Any]) -> bool:
    tells = all(m["value"] >= 0.9 and m["all"] >= 0.9 and m["value"] > b["value"] for b, m in zip(baseline, method, strict=True))
    return tells and all(m["accuracies moved"] <= 0.01 and m["score lost"] >= 0.2 for m in method)

"""Reward models of chain arithmetic, fitted by `guerdon.fit` from the model of `_chain_writer`; how well they find the first wrong step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from _chain_solver import truth_of_equations
from _chain_writer import writer

from guerdon.samples import Context, Sample
from guerdon.scoring import Engine


def fitted(folder: Path, rows: Iterable[Mapping[str, Any]], seed: int, loss: Any, **recipe: Any) -> Path:
    """The folder of a reward model that `guerdon.fit` made of the writer and of these rows of a data file."""
    from guerdon import fit

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "rows.jsonl"
    file.write_bytes(b"".join(orjson.dumps(dict(row), option=orjson.OPT_SERIALIZE_NUMPY) + b"\n" for row in rows))
    train = {"epochs": 2, "batch": 12, "lr": 5e-4, "schedule": "linear", "warmup": 10, "checkpoint_every": 10_000}
    train |= recipe.pop("train", {})
    own = {"name": "chains", "seed": seed, "model": {"path": str(writer())}, "data": str(file), "held_out": 0.0}
    fit(**own, loss=loss, train=train, folder=folder / "fit", **recipe)
    return folder / "fit"


def step_rows(samples: Sequence[Sample], value: np.ndarray) -> list[dict[str, Any]]:
    """Rows of labelled steps: value (n, s), NaN where a step has no label."""
    return [
        {"prompt": s.task.prompt, "steps": s.steps, "labels": [None if np.isnan(x) else float(x) for x in row[: len(s.steps)]]}
        for s, row in zip(samples, value, strict=True)
        if not np.isnan(row[: len(s.steps)]).all()
    ]


def scored(reward: str, samples: Sequence[Sample], **models: Any) -> Any:
    """The rewards that an expression gives these samples."""
    engine = Engine(Context(models=models, rng=np.random.default_rng(0)), workers=1)
    return engine.score(engine.check(reward), list(samples))


def step_scores(path: Path, samples: Sequence[Sample]) -> list[np.ndarray]:
    """What the fitted model in the folder says of each step of each sample."""
    grain = scored(f"reward_model(path='{path}')", samples).step
    return [grain.value[i, : len(s.steps)] for i, s in enumerate(samples)]


def f1(scores: Sequence[np.ndarray], real: np.ndarray, at: float = 0.5) -> dict[str, float]:
    """First-error F1 as ProcessBench counts it: the first step whose score is below `at` is said to be wrong; -1 where there is none."""
    said = np.array([int((row < at).argmax()) if (row < at).any() else -1 for row in scores])
    wrong = real >= 0
    a, b = (float((said == real)[rows].mean()) for rows in (wrong, ~wrong))
    return {"f1": round(2 * a * b / (a + b) if a + b else 0.0, 4), "wrong": round(a, 4), "right": round(b, 4)}


def best_threshold(scores: Sequence[np.ndarray], real: np.ndarray) -> float:
    """The threshold of the best F1 on answers that are not the tested ones, as ProcessBench chooses it."""
    every = np.unique(np.concatenate(scores))
    tried = every[:: max(1, len(every) // 200)]
    return float(max(tried, key=lambda at: f1(scores, real, at)["f1"]))


def first_errors(samples: Sequence[Sample]) -> np.ndarray:
    """(n,) the first wrong operation of each answer; -1 where there is none."""
    return np.array([-1 if row.all() else int((~row).argmax()) for row in truth_of_equations(samples)])


def first_error_auc(scores: Sequence[np.ndarray], samples: Sequence[Sample]) -> float:
    """How often a wrong answer's first wrong step has a lower score than a step of its own before it, over all such pairs; ties half."""
    below, pairs = 0.0, 0
    for row, first in zip(scores, first_errors(samples), strict=True):
        if first > 0:
            before = row[:first]
            below += float((before > row[first]).sum() + (before == row[first]).sum() / 2)
            pairs += int(first)
    return below / pairs


def of_steps(tokens: np.ndarray, samples: Sequence[Sample], put: Callable[[np.ndarray], float]) -> list[np.ndarray]:
    """Scores of tokens (n, t) as one number a step."""
    return [np.array([put(row[a:b]) for a, b in s.spans["step"]]) for row, s in zip(tokens, samples, strict=True)]

"""What a fit came to on the examples it did not see, and the sentences of its model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from guerdon.reward_models.calibration import expected_error, interval, log_loss, temperature
from guerdon.reward_models.data import Data
from guerdon.reward_models.fit import Unit
from guerdon.training.fit_recipe import FitRecipe

CALIBRATES = 10
"""Held-out judgements that a temperature is fitted on: of fewer, all of them right, it would be the least there is."""


def evaluated(spec: FitRecipe, units: Sequence[Unit], values: Sequence[np.ndarray]) -> dict[str, Any]:
    """Measures on held-out units from the head's values of each answer, or its beta log pi / pi_ref: how many judgements, their accuracy
    with its 95 % interval and, where scores are logits, the temperature and the calibration error before and after it; {} without units.

    A judgement is a pair (the chosen one is ahead), an answer, a labelled step or a token. For `outcome_mse` and `ordinal`: rmse and the
    rank correlation instead.
    """
    if not len(values):
        return {}
    scores, labels = judgements(spec, units, values)
    if spec.classes is not None:
        right = np.array(spec.classes)[scores.argmax(-1)] == labels
        return accuracy(right)
    if spec.about.get("takes") in ("any number", "levels"):
        from scipy.stats import spearmanr

        both = len(labels) > 1 and np.ptp(labels) > 0 and np.ptp(scores) > 0
        out = {"n": len(labels), "rank_correlation": float(spearmanr(scores, labels).statistic) if both else float("nan")}  # type: ignore
        return out | ({"rmse": float(np.sqrt(np.mean((scores - labels) ** 2)))} if spec.about["takes"] == "any number" else {})
    t = temperature(scores, labels) if len(labels) >= CALIBRATES else 1.0
    before, after = (expected_error(1 / (1 + np.exp(-np.clip(scores / x, -500, 500))), labels) for x in (1.0, t))
    return accuracy((scores > 0) == (labels > 0.5)) | {
        "log_loss": log_loss(scores, labels), "temperature": t, "calibration_error": before, "calibration_error_at_temperature": after
    }  # fmt: skip


def judgements(spec: FitRecipe, units: Sequence[Unit], values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(scores, labels) of every judgement; of a pair the difference, and 1."""
    found, labels, rows = [], [], iter(values)
    for unit in units:
        own = [next(rows) for _ in unit.samples]
        if spec.learns == "pairs":
            found += [own[i][0] - own[j][0] for i, j in unit.pairs]
            labels += [1.0] * len(unit.pairs)
        elif spec.learns == "outcomes":
            found += [x[0] for x in own]
            labels += unit.outcomes
        else:
            known = unit.labels if spec.learns == "steps" else unit.tokens
            cells = [(x, y) for row, answer in zip(own, known, strict=True) for x, y in zip(row, answer, strict=True) if y is not None]
            found += [x for x, _ in cells]
            labels += [y for _, y in cells]
    return np.array(found), np.array(labels, dtype=float)


def accuracy(right: np.ndarray) -> dict[str, Any]:
    return {"n": len(right), "accuracy": float(right.mean()), "accuracy_interval": interval(right.astype(float))}


def lines(
    spec: FitRecipe, data: Data, held: Data, held_units: int, curve: Sequence[Mapping[str, float]], found: Mapping[str, Any]
) -> dict[str, str]:
    """The sections of the model card that a fit can write: data, fit, held out."""
    sources = "\n".join(f"- `{path}`, read as {name}" for path, name in {**data.layouts, **held.layouts}.items())
    left_out = len(data.rejected) + len(held.rejected)
    loss, t = f"`{spec.loss.use}` {spec.loss.params or ''}".strip(), spec.train
    recipe = f"Loss {loss}, head `{spec.heads}`, body {spec.body}, from `{spec.model.path}`; seed {spec.seed}."
    steps = f"{len(curve)} steps of {t.batch} examples, {t.epochs} epochs, learning rate {t.lr:g}, at most {t.max_tokens} tokens a row."
    first, last = (curve[0]["loss"], curve[-1]["loss"]) if curve else (float("nan"), float("nan"))
    measured = "\n".join(f"- {name.replace('_', ' ')}: {shown(value)}" for name, value in found.items()) or "Nothing was held out."
    return {
        "Data": f"{sources}\n\n{len(data.examples)} examples learnt, {held_units} held out, {left_out} rows left out (`rejected.jsonl`).",
        "Fit": f"{recipe}\n\n{steps}\n\nLoss of the first batch {first:.4f}, of the last {last:.4f}.",
        "Held out": measured,
    }


def shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{value[0]:.3f} to {value[1]:.3f} (95 %)"
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""Rewards read off the heads that `backends/` opens: one module for outcome and process models.

A head's value in column t of a backend belongs to the state before token t; what it says of a text up to and including token t stands one
column later. So every row is run with one more token behind it, whose value nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.rewards.core import reward
from guerdon.rewards.likelihood import completion_ids, own_ids, prompt_ids, too_long
from guerdon.samples import Grain, Rewards, Sample, Task, Verdict, collate

if TYPE_CHECKING:
    from guerdon.backends.base import Model


def values_after(model: Model, rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """For each (prompt ids, completion ids) the head's values (t, ...) after each token of the completion; logits of a head of classes."""
    behind = np.zeros(1, dtype=np.int64)
    samples = [Sample(Task("", ""), "", prompt, ids=np.concatenate([ids, behind])) for prompt, ids in rows]
    batch = collate(samples, Rewards(Grain.of(np.zeros(len(samples)))))
    found = model.forward(batch, ("values",))[0]["values"].double().cpu().numpy()
    return [values[1 : len(ids) + 1] for values, (_, ids) in zip(found, rows, strict=True)]


def _rows(model: Model, samples: Sequence[Sample]) -> tuple[list[Verdict | None], list[tuple[np.ndarray, np.ndarray]]]:
    refused = [too_long(s) for s in samples]
    return refused, [(prompt_ids(model, s), completion_ids(model, s)) for s, why in zip(samples, refused, strict=True) if why is None]


@reward(batch=True)
def orm(sample: Sequence[Sample], model: Any = "orm", sigmoid: bool = False) -> list[Verdict]:
    """The scalar head of `model` (opened with head: scalar) after the last token of the completion, end token left out.

    sigmoid: as a probability. Abstained for an empty completion; hostile for a text that is too long.
    """
    refused, rows = _rows(model, sample)
    found = iter(values_after(model, rows) if rows else [])
    return [why or _last(next(found), sigmoid) for why in refused]


@reward(batch=True, grain="step")
def prm(sample: Sequence[Sample], model: Any = "prm", sigmoid: bool = False) -> list[Verdict | list[float | None]]:
    """The scalar head of `model` after the last token of each step; a step without tokens abstains.

    sigmoid: as probabilities. A sample whose ids are another model's fails: its steps cannot be found among other tokens.
    """
    out: list[Verdict | list[float | None]] = []
    mine = [own_ids(model, s) and too_long(s) is None for s in sample]
    rows = [(np.asarray(s.prompt_ids), np.asarray(s.ids)) for s, ok in zip(sample, mine, strict=True) if ok]
    found = iter(values_after(model, rows) if rows else [])
    for s, ok in zip(sample, mine, strict=True):
        if not ok:
            out.append(too_long(s) or Verdict.fail("the sample has no token ids of this model, which marks where its steps end"))
            continue
        values = _squash(next(found), sigmoid)
        out.append([float(values[end - 1]) if end > start else None for start, end in s.spans.get("step", [])])
    return out


def _last(values: np.ndarray, sigmoid: bool) -> Verdict:
    return Verdict(float(_squash(values, sigmoid)[-1])) if len(values) else Verdict.abstain("the completion is empty")


def _squash(values: np.ndarray, sigmoid: bool) -> np.ndarray:
    return 1 / (1 + np.exp(-values)) if sigmoid else values

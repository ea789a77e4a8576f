"""Rewards read off the heads that `backends/` opens: one module for outcome and process models.

A head's value in column t of a backend belongs to the state before token t; what it says of a text up to and including token t stands one
column later. So every row is run with one more token behind it, whose value nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.rewards.core import reward
from guerdon.rewards.likelihood import encode, own_ids, too_long
from guerdon.samples import Grain, Rewards, Sample, Task, Verdict, collate
from guerdon.spans import to_tokens

if TYPE_CHECKING:
    from guerdon.backends.base import Model
    from guerdon.samples import Batch


def values_after(model: Model, rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """For each (prompt ids, completion ids) the head's values (t, ...) after each token of the completion; logits of a head of classes."""
    behind = np.zeros(1, dtype=np.int64)
    samples = [Sample(Task("", ""), "", prompt, ids=np.concatenate([ids, behind])) for prompt, ids in rows]
    batch = collate(samples, Rewards(Grain.of(np.zeros(len(samples)))))
    found = model.forward(batch, ("values",))[0]["values"].double().cpu().numpy()
    return [values[1 : len(ids) + 1] for values, (_, ids) in zip(found, rows, strict=True)]


def one_behind(batch: Batch) -> Batch:
    """The batch with one more token behind each row, which counts nowhere: there stands what a head says of the row as a whole."""
    import torch.nn.functional as F

    t = batch.ids.shape[1]

    def wider(x: Any, fill: float = 0) -> Any:
        return F.pad(x, (0, 1), value=fill)

    return replace(
        batch,
        lengths=batch.lengths + 1,
        **{name: wider(getattr(batch, name)) for name in ("ids", "mask", "advantages", "weights")},
        **{name: wider(getattr(batch, name), -1) for name in ("step_of", "node_of")},
        fields={name: wider(x) if x.ndim > 1 and x.shape[1] == t else x for name, x in batch.fields.items()},
    )


def own_tokens(model: Model, sample: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(prompt ids, completion ids (t,), offsets (t, 2)) in tokens of this model: the sample's own where they are, else its text encoded."""
    if own_ids(model, sample):
        ids = np.asarray(sample.ids)
        return np.asarray(sample.prompt_ids), ids, model.decode(ids)[1]
    ids = encode(model, sample.text)
    return model.encode(sample.task.prompt), ids, model.decode(ids)[1]


@reward(batch=True)
def orm(sample: Sequence[Sample], model: Any = "orm", sigmoid: bool = False) -> list[Verdict]:
    """The scalar head of `model` (opened with head: scalar) after the last token of the completion, its end token among them.

    sigmoid: as a probability. Abstained for an empty completion; hostile for a text that is too long.
    """

    def last(values: np.ndarray, ends: list[int]) -> Verdict:
        return Verdict(float(values[-1])) if len(values) else Verdict.abstain("the completion is empty")

    return _read(model, sample, sigmoid, last)


@reward(batch=True, grain="step")
def prm(sample: Sequence[Sample], model: Any = "prm", sigmoid: bool = False) -> list[Verdict | list[float | None]]:
    """The scalar head of `model` after the last token of each step; a step without tokens abstains. sigmoid: as probabilities.

    A model with another tokenizer than the policy's reads the text in its own tokens; the last one of a step is the last that touches it.
    """

    def steps(values: np.ndarray, ends: list[int]) -> list[float | None]:
        return [float(values[end - 1]) if end else None for end in ends]

    return _read(model, sample, sigmoid, steps)


def _read(model: Model, samples: Sequence[Sample], sigmoid: bool, take: Callable[[np.ndarray, list[int]], Any]) -> list[Any]:
    """take(values (t,) after each token, where each step ends: 0 for one without tokens) of every sample that is not too long."""
    refused = [too_long(s) for s in samples]
    found = [own_tokens(model, s) for s, why in zip(samples, refused, strict=True) if why is None]
    values = values_after(model, [(prompt, ids) for prompt, ids, _ in found]) if found else []
    taken = iter(zip(found, values, strict=True))
    out: list[Any] = []
    for s, why in zip(samples, refused, strict=True):
        if why is not None:
            out.append(why)
            continue
        (_, _, offsets), v = next(taken)
        ends = [end if end > start else 0 for start, end in to_tokens(s.marks.get("step", []), offsets)]
        out.append(take(1 / (1 + np.exp(-v)) if sigmoid else v, ends))
    return out

"""Rewards read off the heads that `backends/` opens: one module for outcome and process models.

A head's value in column t of a backend belongs to the state before token t; what it says of a text up to and including token t stands one
column later. So every row is run with one more token behind it, whose value nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.likelihood import LONGEST, encode, own_ids, too_long
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


def chat_tokens(model: Model, sample: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same as the model's chat template writes the conversation, with what closes the answer's turn."""
    tokens = getattr(model, "tokens", None)
    if tokens is None:
        raise Refused("chat=True needs a model with a chat template, and this one has none; leave it out.")
    prompt, ids = tokens.encode_turn(sample.task.prompt, sample.text)
    return prompt, ids, model.decode(ids)[1]


@reward(batch=True)
def orm(sample: Sequence[Sample], model: Any = "orm", sigmoid: bool = False, chat: bool = False) -> list[Verdict]:
    """The scalar head of `model` after the last token of the completion, its end token among them where the policy wrote one.

    model: opened with head: scalar, or a classifier with one label that transformers saved, which brings its own head.  sigmoid: as a
    probability.  chat: the conversation as the model's chat template writes it, the answer's closing tokens among them: what most published
    reward models were fitted on. Abstained for an empty completion; failed for more tokens than the model reads; hostile for a text that is
    too long.
    """

    def last(values: np.ndarray, ends: list[int]) -> Verdict:
        return Verdict(float(values[-1])) if len(values) else Verdict.abstain("the completion is empty")

    return _read(model, sample, sigmoid, last, chat_tokens if chat else own_tokens)


@reward(batch=True, grain="step")
def prm(sample: Sequence[Sample], model: Any = "prm", sigmoid: bool = False) -> list[Verdict | list[float | None]]:
    """The scalar head of `model` after the last token of each step; a step without tokens abstains. sigmoid: as probabilities.

    A model with another tokenizer than the policy's reads the text in its own tokens; the last one of a step is the last that touches it.
    """

    def steps(values: np.ndarray, ends: list[int]) -> list[float | None]:
        return [float(values[end - 1]) if end else None for end in ends]

    return _read(model, sample, sigmoid, steps)


def _read(
    model: Model,
    samples: Sequence[Sample],
    sigmoid: bool,
    take: Callable[[np.ndarray, list[int]], Any],
    tokens: Callable[[Model, Sample], tuple[np.ndarray, np.ndarray, np.ndarray]] = own_tokens,
) -> list[Any]:
    """take(values (t,) after each token, where each step ends: 0 for one without tokens) of every sample that is not too long."""
    longest = getattr(model, "longest", LONGEST)
    out: list[Any] = [too_long(s) for s in samples]
    found: list[tuple[int, tuple[np.ndarray, np.ndarray, np.ndarray]]] = []
    for i, s in enumerate(samples):
        if out[i] is None:
            row = tokens(model, s)
            if (size := len(row[0]) + len(row[1])) > longest:
                out[i] = Verdict.fail(f"{size} tokens, and the model reads {longest}")
            else:
                found.append((i, row))
    values = values_after(model, [(prompt, ids) for _, (prompt, ids, _) in found]) if found else []
    for (i, (_, _, offsets)), v in zip(found, values, strict=True):
        ends = [end if end > start else 0 for start, end in to_tokens(samples[i].marks.get("step", []), offsets)]
        out[i] = take(1 / (1 + np.exp(-v)) if sigmoid else v, ends)
    return out

"""From examples to batches that a reward model learns from, and to its scores: what both drivers share.

`guerdon fit` drives them with transformers' Trainer (`training.fit`), the training loop with the backend's verbs (`Learner`); head, batches
and losses are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from guerdon.registry import Refused
from guerdon.reward_models.heads import one_behind
from guerdon.reward_models.layouts import Example
from guerdon.reward_models.losses_outcome import at_end
from guerdon.reward_models.losses_steps import at_steps, prefix_values, step_ends
from guerdon.rewards.likelihood import encode
from guerdon.samples import Batch, Grain, Rewards, Sample, Task, collate
from guerdon.spans import to_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from guerdon.backends.base import Model


@dataclass
class Unit:
    """Rows that are learnt together, in tokens: one answer, a pair, a list."""

    samples: list[Sample]
    outcomes: list[float | None]
    labels: list[list[float | None]]
    pairs: list[tuple[int, int]]
    tokens: list[np.ndarray] = field(default_factory=list)
    """Labels of each answer's tokens, where the loss learns these."""
    fields: list[dict[str, np.ndarray]] = field(default_factory=list)
    """Further fields (t,) of each answer, such as ref_logprobs."""
    states: list[Tensor] = field(default_factory=list)
    """Of a frozen body: the state behind each place that the loss reads (`places`), for each answer."""

    @property
    def size(self) -> int:
        return sum(len(s.prompt_ids) + len(s.ids) for s in self.samples if s.ids is not None and s.prompt_ids is not None)


def tokenise(model: Model, examples: Sequence[Example], max_tokens: int) -> tuple[list[Unit], list[str]]:
    """(the examples in tokens of the model, a warning for each row that was cut to max_tokens).

    A row that is too long loses the beginning of its prompt, down to half of max_tokens, then the end of its answer; steps that lie behind
    the cut lose their labels. Answers are read without an end token. Raises Refused for a prompt without tokens.
    """
    units, warnings = [], []
    for example in examples:
        task = Task(f"{example.file}:{example.row}", example.prompt)
        prompt = model.encode(example.prompt)
        if len(prompt) == 0:
            raise Refused(f"{example.file}, row {example.row}: `prompt` has no tokens; an answer needs something that it answers.")
        unit = Unit([], [], [], list(example.pairs))
        for answer in example.answers:
            ids, before = encode(model, answer.text), prompt
            if len(before) + len(ids) > max_tokens:
                warnings.append(f"{example.file}, row {example.row}: {len(before) + len(ids)} tokens, cut to {max_tokens}.")
                before = before[-max(max_tokens - len(ids), max_tokens // 2) :]
                ids = ids[: max_tokens - len(before)]
            offsets = model.decode(ids)[1]
            spans = to_tokens(answer.steps, offsets)
            labels = [y if end > start else None for y, (start, end) in zip(answer.labels, spans, strict=True)]
            if len(ids) and spans and answer.steps[-1][1] > offsets[-1, 1]:  # the step that the cut goes through, and those behind it
                labels = [y if stop <= offsets[-1, 1] else None for y, (_, stop) in zip(labels, answer.steps, strict=True)]
            marks = {"step": answer.steps}
            sample = Sample(
                task, answer.text, before, ids, offsets, np.ones(len(ids), bool), source="file", group=example.group, marks=marks
            )
            sample.spans = {"step": spans}
            unit.samples.append(sample)
            unit.outcomes.append(answer.outcome)
            unit.labels.append(labels)
        units.append(unit)
    return units, warnings


def label_tokens(units: Sequence[Unit]) -> None:
    """Give every token the share of right answers among those that begin as its own does up to it: see `prefix_values`."""
    rows = [(u, i) for u in units for i in range(len(u.samples))]
    ids = [np.asarray(u.samples[i].ids) for u, i in rows]
    found = prefix_values(ids, [float(u.outcomes[i] or 0) for u, i in rows], [u.samples[i].group for u, i in rows])
    for u in units:
        u.tokens = [np.zeros(0)] * len(u.samples)
    for (u, i), values in zip(rows, found, strict=True):
        u.tokens[i] = values


def batch_of(units: Sequence[Unit], dtype: torch.dtype = torch.float32) -> Batch:
    """The rows of these units side by side, with their labels as rewards and their pairs."""
    samples = [s for u in units for s in u.samples]
    grains: dict[str, Grain] = {}
    if any(x is not None for u in units for x in u.outcomes):
        known = [x for u in units for x in u.outcomes]
        grains["outcome"] = Grain.of([x or 0.0 for x in known], [0 if x is not None else 1 for x in known])
    if any(labels for u in units for labels in u.labels):
        grains["step"] = Grain.ragged([labels for u in units for labels in u.labels])
    if any(u.tokens for u in units):
        grains["token"] = Grain.ragged([values.tolist() for u in units for values in u.tokens])
    batch = collate(samples, Rewards(**grains), dtype=dtype)  # pyright: ignore[reportArgumentType]
    starts = np.cumsum([0, *(len(u.samples) for u in units)])
    pairs = [(start + i, start + j) for u, start in zip(units, starts.tolist(), strict=False) for i, j in u.pairs]
    batch.pairs = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    for name in units[0].fields[0] if units[0].fields else ():
        rows = [torch.from_numpy(more[name]).to(dtype) for u in units for more in u.fields]
        batch.fields[name] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        batch.fields[name] = torch.nn.functional.pad(batch.fields[name], (0, batch.ids.shape[1] - batch.fields[name].shape[1]))
    return batch


def order(n: int, epochs: int, seed: int) -> list[int]:
    """Places of n units in the order that they are learnt: each epoch goes through all, in an order of its own."""
    rng = np.random.default_rng(seed)
    return [int(i) for _ in range(epochs) for i in rng.permutation(n)]


def batches(units: Sequence[Unit], size: int, epochs: int, seed: int) -> list[list[Unit]]:
    """The units of each optimiser step."""
    taken = order(len(units), epochs, seed)
    return [[units[i] for i in taken[at : at + size]] for at in range(0, len(taken), size)]


def places(batch: Batch, learns: str) -> Tensor:
    """(n, c) columns of a batch with a column behind at which a loss reads values; -1 for none."""
    if learns == "steps":
        ends = step_ends(batch)
        return torch.where(ends >= 0, ends + 1, -1)
    if learns == "tokens":
        columns = torch.arange(batch.ids.shape[1]).expand(batch.ids.shape)
        return torch.where((columns > 0) & (columns < batch.lengths[:, None]), columns, -1)
    return (batch.lengths - 1)[:, None]


def read_values(model: Model, units: Sequence[Unit], learns: str, chunk: int = 256) -> list[np.ndarray]:
    """For each answer of each unit what the head says of it: (1,) or (1, k) of the whole, (s,) of steps, (t,) of tokens."""
    out: list[np.ndarray] = []
    for at in range(0, len(units), chunk):
        some = units[at : at + chunk]
        batch = one_behind(batch_of(some, torch.float64))
        values = model.forward(batch, ("values",))[0]["values"].double().cpu()
        if learns == "steps":
            found = at_steps(values, step_ends(batch))
            out += [found[i, : len(s.spans["step"])].numpy() for i, s in enumerate(s for u in some for s in u.samples)]
        elif learns == "tokens":
            out += [row[1 : int(length)].numpy() for row, length in zip(values, batch.lengths, strict=True)]
        else:
            out += list(at_end(values, batch)[:, None].numpy())
    return out


def read_ratios(model: Model, units: Sequence[Unit], beta: float, chunk: int = 64) -> list[np.ndarray]:
    """For each answer of each unit (1,): beta times what the model's log-probability of it gained on `ref_logprobs`."""
    out: list[np.ndarray] = []
    for at in range(0, len(units), chunk):
        some = units[at : at + chunk]
        found = model.forward(batch_of(some, torch.float64), ("logprobs",))[0]["logprobs"].double().sum(1).cpu().numpy()
        before = [more["ref_logprobs"].sum() for u in some for more in u.fields]
        out += [np.array([beta * (now - then)]) for now, then in zip(found, before, strict=True)]
    return out


def cache_states(model: Any, units: Sequence[Unit], learns: str, chunk: int = 32, done: Any = None) -> None:
    """Put into each unit the body's states that the loss reads, computed once, for a body that does not learn.

    done: called with the number of units that are done.
    """
    by_size = sorted((u for u in units if not u.states), key=lambda u: u.size)
    for at in range(0, len(by_size), chunk):
        some = by_size[at : at + chunk]
        batch = one_behind(batch_of(some, model.dtype))
        hidden = model.forward(batch, ("hidden",))[0]["hidden"]
        rows = iter(zip(hidden, places(batch, learns), strict=True))
        for u in some:
            u.states = [states[columns[columns >= 0]].clone() for _, (states, columns) in zip(u.samples, rows, strict=False)]
        if done is not None:
            done(min(at + chunk, len(by_size)))


def values_from_states(head: Any, units: Sequence[Unit], batch: Batch, learns: str) -> Tensor:
    """(n, t) or (n, t, k): the head's values at the places that the loss reads, 0 elsewhere, from cached states."""
    at = places(batch, learns)
    row, column = (at >= 0).nonzero()[:, 0], at[at >= 0]
    found = head(torch.cat([states for u in units for states in u.states]).to(next(head.parameters()).dtype))
    out = found.new_zeros((*batch.ids.shape, found.shape[-1])).index_put((row, column), found)
    return out[..., 0] if found.shape[-1] == 1 else out

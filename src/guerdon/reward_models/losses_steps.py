"""Losses that teach a head what each step, or each token, is worth: the value behind a step's last token, which knows the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from guerdon.losses.aggregate import aggregate, row_mean
from guerdon.losses.core import loss, row_weights
from guerdon.registry import Refused
from guerdon.reward_models.losses_outcome import nearest_class
from guerdon.tree import forest

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from guerdon.samples import Batch


def step_ends(batch: Batch) -> Int[Tensor, "n s"]:
    """The column of each step's last token, -1 where the step has none."""
    s = max(int(batch.step_of.max()) + 1 if batch.step_of.numel() else 0, 1)
    column = torch.arange(batch.step_of.shape[1], device=batch.step_of.device).expand(batch.step_of.shape)
    ends = torch.full((len(batch.step_of), s), -1, dtype=torch.long, device=batch.step_of.device)
    return ends.scatter_reduce_(1, batch.step_at, torch.where(batch.step_of >= 0, column, -1), "amax")


def step_labels(batch: Batch, ends: Int[Tensor, "n s"]) -> tuple[Float[Tensor, "n s"], Bool[Tensor, "n s"]]:
    """(the label of each step, where there is one). Raises Refused where the batch has no step rewards."""
    grain = batch.rewards.step
    if grain is None:
        raise Refused("A loss of steps learns step labels, and the reward gives none; use one that scores steps.")
    s = min(ends.shape[1], grain.value.shape[1])
    labels, known = torch.zeros(ends.shape, dtype=batch.weights.dtype), torch.zeros(ends.shape, dtype=torch.bool)
    labels[:, :s], known[:, :s] = torch.from_numpy(grain.value[:, :s]), torch.from_numpy(grain.scored[:, :s])
    return labels.to(ends.device), known.to(ends.device) & (ends >= 0)


def at_steps(values: Tensor, ends: Int[Tensor, "n s"]) -> Tensor:
    """(n, s), or (n, s, k) of a head of classes: the value behind each step's last token; 0 where the step has none."""
    behind = (ends + 1).clamp(max=values.shape[1] - 1)
    found = values[torch.arange(len(values), device=values.device)[:, None], behind]
    there = ends >= 0
    return torch.where(there if found.ndim == 2 else there[..., None], found, 0.0)


@aggregate
def step_mean(batch: Batch) -> Float[Tensor, "n t"]:
    """w / sum over labelled steps of their row's w, on every token: with it a loss of steps is a mean over steps, long answers weigh more.

    Without step labels as `row_mean`.
    """
    if batch.rewards.step is None:
        return row_mean(batch)
    total = (row_weights(batch)[:, None] * step_labels(batch, step_ends(batch))[1]).sum()
    return batch.weights / total if float(total) else row_mean(batch)


@loss(needs=("values",), over="step", grains=("step",), behind=True, learns="steps", takes="0 to 1")
def step_ce(out: dict[str, Tensor], batch: Batch):
    """sum over labelled steps of -w [y log s + (1 - y) log (1 - s)], s = sigmoid(c), c the value behind the step's last token.

    y is the step's label held to [0, 1]: hard labels, or soft ones such as Monte Carlo shares of right ends; steps without are left out.
    For `aggregate: step_mean`. Metric accuracy: (s > 1/2) is (y > 1/2). Source: arXiv:2312.08935.
    """
    ends = step_ends(batch)
    c, (labels, known) = at_steps(out["values"], ends), step_labels(batch, ends)
    w, right = row_weights(batch)[:, None] * known, labels.clamp(0, 1)
    terms = F.binary_cross_entropy_with_logits(c, right.to(c.dtype), reduction="none")
    return (w * terms).sum(), {"accuracy": (w * ((c > 0) == (right > 0.5))).sum().detach()}


@loss(needs=("values",), over="step", grains=("step",), behind=True, learns="steps", takes="classes", head="classes")
def step_classes(out: dict[str, Tensor], batch: Batch, classes: Sequence[float] = (-1, 0, 1)):
    """sum over labelled steps of -w log softmax(c)_k, k the class that is the label (or nearest to it): PRM800K's bad, neutral, good.

    c is of a head of that many classes. For `aggregate: step_mean`. Metric accuracy. Source: arXiv:2305.20050.
    """
    ends = step_ends(batch)
    c, (labels, known) = at_steps(out["values"], ends), step_labels(batch, ends)
    w, k = row_weights(batch)[:, None] * known, nearest_class(labels, classes)
    terms = F.cross_entropy(c.flatten(0, 1), k.flatten(), reduction="none").view_as(w)
    return (w * terms).sum(), {"accuracy": (w * (c.argmax(-1) == k)).sum().detach()}


@loss(needs=("values",), grains=("token",), behind=True, learns="tokens", takes="0 to 1")
def token_values(out: dict[str, Tensor], batch: Batch):
    """sum over tokens of w (sigmoid(v_t) - y_t)^2, v_t the value behind token t, y_t its label: the chance to end right from there on.

    For `aggregate: token_mean`. Labels are the batch's token rewards, such as `prefix_values`; tokens without are left out. Metric
    squared_error. Source: arXiv:2407.12863.
    """
    grain = batch.rewards.token
    if grain is None:
        raise Refused("token_values learns token labels, and the reward gives none; use one that scores tokens.")
    t = min(batch.weights.shape[1], grain.value.shape[1])
    labels, w = torch.zeros_like(batch.weights), torch.zeros_like(batch.weights)
    labels[:, :t] = torch.from_numpy(grain.value[:, :t]).to(labels)
    w[:, :t] = batch.weights[:, :t] * torch.from_numpy(grain.scored[:, :t]).to(w)
    v = out["values"].roll(-1, 1)
    value = (w * (v.sigmoid() - labels) ** 2).sum()
    return value, {"squared_error": value.detach()}


def prefix_values(ids: Sequence[np.ndarray], outcomes: Sequence[float], group: Sequence[int]) -> list[np.ndarray]:
    """For each row the label of each of its tokens: the mean outcome of the group's rows that begin with the same tokens up to that one.

    Equal rows count as often as they are there, so this is a Monte Carlo estimate of the value of every prefix, at no further rollout.
    Source: arXiv:2407.12863.
    """
    out = [np.zeros(0)] * len(ids)
    members: dict[int, list[int]] = {}
    for row, g in enumerate(group):
        members.setdefault(g, []).append(row)
    for rows in members.values():
        tree, node_of = forest([ids[row] for row in rows], np.zeros(len(rows), dtype=np.int64))
        value, count = np.zeros(len(tree)), np.zeros(len(tree))
        through = [np.unique(nodes[nodes >= 0]) for nodes in node_of]
        for row, nodes in zip(rows, through, strict=True):
            value[nodes] += outcomes[row]
            count[nodes] += 1
        for row, nodes in zip(rows, node_of, strict=True):
            out[row] = (value / count.clip(min=1))[nodes[: len(ids[row])]] if len(ids[row]) else np.zeros(0)
    return out

"""Reward heads on rows of features: registered losses read what a small torch module says of each row, through an `out` made by hand.

A row is an answer of one token; what the module says of it stands in the column behind, where a head's value stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import guerdon.reward_models  # noqa: F401  fills the registry
from guerdon.losses.aggregate import pair_mean, row_mean
from guerdon.registry import find
from guerdon.reward_models.heads import one_behind
from guerdon.samples import Batch, Grain, Rewards, Sample, Task, collate

ONE = np.ones(1, dtype=np.int64)


def rows(outcome: np.ndarray, pairs: np.ndarray | None = None, group: np.ndarray | None = None) -> Batch:
    """Answers with these outcomes (n,); with pairs (p, 2) the weights make a mean over pairs, else over rows."""
    task = Task("t", "p")
    samples = [Sample(task, "", ONE, ONE, group=i if group is None else int(group[i])) for i in range(len(outcome))]
    batch = collate(samples, Rewards(Grain.of(outcome)), dtype=torch.float64)
    if pairs is not None:
        batch.pairs = torch.from_numpy(np.ascontiguousarray(pairs))
    batch.weights = row_mean(batch) if pairs is None else pair_mean(batch)
    return one_behind(batch)


def objective(net: Callable[[Tensor], Tensor], x: Tensor, batch: Batch, loss: str, **params: Any) -> Callable[[], Tensor]:
    """() -> the registered loss of what net says of x (n, k), whose rows are the batch's."""
    fn = find("loss", loss).fn

    def value() -> Tensor:
        r = net(x)[:, 0]
        return fn({"values": torch.stack([torch.zeros_like(r), r], 1)}, batch, **params)[0]

    return value


def fitted(net: nn.Module, x: np.ndarray, batch: Batch, loss: str, steps: int, lr: float, decay: float = 0.0, **params: Any) -> nn.Module:
    """The net after so many steps of Adam on the whole batch."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=decay)
    value = objective(net, torch.from_numpy(x), batch, loss, **params)
    for _ in range(steps):
        optimizer.zero_grad()
        value().backward()
        optimizer.step()
    return net


def linear(k: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(k, 1, dtype=torch.float64)


def said(net: nn.Module, x: np.ndarray) -> np.ndarray:
    """(n,) what the net says of x (n, k)."""
    with torch.no_grad():
        return net(torch.from_numpy(x))[:, 0].numpy()


def auc(score: np.ndarray, right: np.ndarray) -> float:
    """The chance that a row that is right has a higher score than one that is not, ties counting half."""
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    good = int(right.sum())
    return float((rank[right].sum() - good * (good + 1) / 2) / (good * (len(right) - good)))

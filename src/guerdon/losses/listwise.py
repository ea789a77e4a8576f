"""Losses of ranked lists: all samples of a prompt, or all branches of its tree, at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from guerdon.losses.core import log_ratio, loss, row_weights
from guerdon.losses.preference import pair_metrics

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from guerdon.samples import Batch

Ranks = Literal["lambda", "one"]


@loss(fields=("ref_logprobs",), unit="group", over="row")
def listwise(out: dict[str, Tensor], batch: Batch, beta: float = 0.1, ranks: Ranks = "lambda"):
    """`tpo` with all steps of a branch weighing the same: it needs no hidden states, so it runs everywhere."""
    g, has = step_means(log_ratio(out["logprobs"], batch.field("ref_logprobs"), batch)[..., None], batch)
    return ranked(g[..., 0], has.to(g.dtype), batch, beta, ranks)


@loss(needs=("hidden",), fields=("ref_logprobs",), unit="group", over="row")
def tpo(out: dict[str, Tensor], batch: Batch, beta: float = 0.1, ranks: Ranks = "lambda"):
    """sum over lists of W mean over pairs i, j of the list with v_i > v_j of -l_ij log sigmoid(beta (h_i - h_j)).

    v: the outcome. h_i = sum_k w_ik g_ik / sum_k w_ik over the steps of branch i, g the mean of log pi - log pi_ref over a step's tokens,
    w_ik = 1 + cos(e_ik, e_1k), e the mean hidden state, of step k of the best branch, 1 (of several, the likeliest); steps that it lacks
    count nothing, and a row without steps is one step. l_ij = |2^v_i - 2^v_j| |1 / log2(1 + rank_i) - 1 / log2(1 + rank_j)|, ranks by
    h as it stands, a tie as if it were in the wrong order (or all l would begin at 0, where the reference is the policy); ranks "one":
    l = 1. w and l are held fixed. W: the sum of the list's row weights, so it goes with `aggregate: row_mean`. Metrics as of `dpo`.
    Source: arXiv:2410.12854; its released code has l = 1, keeps ties, and minimises -log sigmoid(beta loss), which raises the loss.
    """
    g, has = step_means(log_ratio(out["logprobs"], batch.field("ref_logprobs"), batch)[..., None], batch)
    e, _ = step_means(out["hidden"].detach().to(g.dtype), batch)
    best = best_of_group(batch, torch.where(batch.weights != 0, out["logprobs"].detach(), 0.0).sum(1))
    w = (1 + F.cosine_similarity(e, e[best], dim=-1)).clamp(min=0) * (has & has[best])
    return ranked(g[..., 0], w, batch, beta, ranks)


def step_means(x: Float[Tensor, "n t d"], batch: Batch) -> tuple[Float[Tensor, "n s d"], Bool[Tensor, "n s"]]:
    """(means over each step's tokens that count, which steps have some). A row without steps is one step; tokens outside count nothing."""
    n, _, d = x.shape
    whole = (batch.step_of < 0).all(1, keepdim=True)
    of = torch.where(whole, 0, batch.step_of)
    s = int(of.max()) + 1 if of.numel() else 1
    inside = (batch.weights != 0) & (of >= 0)
    cell = (torch.arange(n, device=x.device)[:, None] * s + of)[inside]
    count = x.new_zeros(n * s).index_add(0, cell, torch.ones_like(cell, dtype=x.dtype))
    sums = x.new_zeros(n * s, d).index_add(0, cell, x[inside])
    return (sums / count.clamp(min=1)[:, None]).view(n, s, d), (count > 0).view(n, s)


def best_of_group(batch: Batch, likely: Float[Tensor, " n"]) -> Tensor:
    """(n,) for each row the row of its group with the highest outcome among those that count, the likeliest of them."""
    counts = row_weights(batch) > 0
    order = sorted(range(len(batch)), key=lambda i: (bool(counts[i]), float(batch.outcome[i]), float(likely[i])))
    best = torch.zeros(int(batch.group.max()) + 1 if len(batch) else 0, dtype=torch.long, device=batch.group.device)
    for i in order:  # the last one written stays
        best[batch.group[i]] = i
    return best[batch.group]


def ranked(g: Tensor, w: Tensor, batch: Batch, beta: float, ranks: str):
    size = w.sum(1)
    h = (w * g).sum(1) / size.clamp(min=1e-12)
    v, fixed = batch.outcome, h.detach()
    row = torch.where(size > 1e-9, row_weights(batch), 0.0)  # a branch that shares no step with the best one has no h
    listed = (batch.group[:, None] == batch.group) & (row[:, None] > 0) & (row > 0)
    above, below = (listed & (v[:, None] > v)).nonzero().T
    groups = int(batch.group.max()) + 1 if len(batch) else 0
    of = batch.group[above]
    count = row.new_zeros(groups).index_add(0, of, torch.ones_like(of, dtype=row.dtype))
    weight = row.new_zeros(groups).index_add(0, batch.group, row)
    each = (weight / count.clamp(min=1))[of]
    d = beta * (h[above] - h[below])
    if ranks == "lambda":
        ahead = (fixed > fixed[:, None]) | ((fixed == fixed[:, None]) & (v < v[:, None]))  # [i, j]: j stands before i
        discount = 1 / torch.log2(2 + (listed & ahead).sum(1).to(row.dtype))
        each_pair = each * (2 ** v[above] - 2 ** v[below]) * (discount[above] - discount[below]).abs()
    else:
        each_pair = each
    return -(each_pair * F.logsigmoid(d)).sum(), pair_metrics(each, d)

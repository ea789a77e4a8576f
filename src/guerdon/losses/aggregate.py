"""Where every denominator goes: weights (n, t) over the whole optimiser batch, computed once, before it is split.

Rows enter with the weight that curation gave them (0: no gradient), living rows only; a loss then is a plain weighted sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import PositiveInt

from guerdon.credit.tree import entered
from guerdon.registry import registrar

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch

aggregate = registrar("aggregate")
"""(batch, **params) -> weights (n, t). `batch.weights` holds 1 on written tokens of living rows, times the row's weight."""


@aggregate
def token_mean(batch: Batch) -> Float[Tensor, "n t"]:
    """w / sum of all w: every token counts the same, long answers more (DAPO).

    The paper writes the sum over a group, its code over the batch; here it is the batch. Source: arXiv:2503.14476.
    """
    return batch.weights / batch.weights.sum().clamp(min=1e-12)


@aggregate
def sequence_mean(batch: Batch) -> Float[Tensor, "n t"]:
    """Mean over tokens within an answer, then over answers: every answer counts the same (GRPO). Source: arXiv:2402.03300."""
    tokens = batch.mask.sum(1, keepdim=True).clamp(min=1)
    rows = batch.weights.amax(1).sum().clamp(min=1e-12)
    return batch.weights / tokens / rows


@aggregate
def constant(batch: Batch, tokens: PositiveInt) -> Float[Tensor, "n t"]:
    """w / (answers x tokens) with a fixed number of tokens, usually the limit (Dr. GRPO). Source: arXiv:2503.20783."""
    return batch.weights / (batch.weights.amax(1).sum().clamp(min=1e-12) * tokens)


@aggregate
def per_source(batch: Batch) -> Float[Tensor, "n t"]:
    """`token_mean` among the rows that the policy wrote, and again among those of experts, apart.

    So the ratio of two terms, `of: policy` and `of: expert`, does not hang on how many rows of each there are. Source: arXiv:2508.11408.
    """
    expert = batch.field("expert")[:, None] > 0
    theirs, own = (torch.where(rows, batch.weights, 0.0).sum().clamp(min=1e-12) for rows in (expert, ~expert))
    return batch.weights / torch.where(expert, theirs, own)


@aggregate
def per_node(batch: Batch) -> Float[Tensor, "n t"]:
    """w / (rows that train the token's node), over the sum of these: `token_mean` over the distinct tokens of each group's tree.

    A token that several rows of a group share, in a tree or a thought that was cut at several places, counts once, at the mean of what its
    rows make of it. Rows of weight 0 are not counted. Source: arXiv:2506.11902 divides by the root of that number.
    """
    row, at = entered(batch)
    trains = (batch.weights.amax(1) > 0).to(batch.weights.dtype)
    rows = batch.weights.new_zeros(len(batch.tree)).index_add_(0, batch.node_of[row, at], trains[row])
    once = (
        torch.where(batch.weights > 0, batch.weights / rows.clamp(min=1)[batch.node_of.clamp(min=0)], 0.0) if len(rows) else batch.weights
    )
    return once / once.sum().clamp(min=1e-12)


@aggregate
def pair_mean(batch: Batch) -> Float[Tensor, "n t"]:
    """w / sum of the weights of all pairs (of a pair's lighter row) on every token: with it a loss of preferences is a mean over pairs,
    whatever their lengths. Without pairs, as `row_mean`."""
    rows = batch.weights.amax(1)
    total = rows[batch.pairs].amin(1).sum() if len(batch.pairs) else rows.new_zeros(())
    return batch.weights / (total if float(total) else rows.sum().clamp(min=1e-12))


@aggregate
def row_mean(batch: Batch) -> Float[Tensor, "n t"]:
    """w / number of rows on every token: with it a loss of whole rows, such as a cross-entropy of outcomes, is a mean over rows."""
    return batch.weights / batch.weights.amax(1).sum().clamp(min=1e-12)

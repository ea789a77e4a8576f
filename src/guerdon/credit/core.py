"""The credit contract: (batch, **params) -> advantages (n, t).

Rows that failed or abstained on everything (`~batch.alive`) are in no baseline and get 0; so do tokens that the policy did not write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from guerdon.registry import registrar

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch

credit = registrar("credit")
"""`@credit` or `@credit(needs=("values",), grains=("outcome", "token"))`.

needs: batch fields it reads; one that nobody can fill is refused when the recipe is read. grains: of rewards that it reads (outcome unless
stated); a recipe whose rewards it would ignore is refused.
"""


def spread(per_sample: Float[Tensor, " n"], batch: Batch) -> Float[Tensor, "n t"]:
    """One number a sample on every token that the policy wrote; 0 on rows without a verdict."""
    return (per_sample * batch.alive)[:, None] * batch.mask


def group_sum(x: Float[Tensor, " n"], batch: Batch) -> Float[Tensor, " n"]:
    """For each sample, the sum of x over the living samples of its group, itself among them."""
    groups = int(batch.group.max()) + 1 if len(batch) else 0
    sums = torch.zeros(groups, dtype=x.dtype, device=x.device).index_add_(0, batch.group, x * batch.alive)
    return sums[batch.group]


def group_mean(x: Float[Tensor, " n"], batch: Batch) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """(mean, count) of the living samples of each sample's group; mean 0 where none lives."""
    count = group_sum(torch.ones_like(x), batch)
    return group_sum(x, batch) / count.clamp(min=1), count

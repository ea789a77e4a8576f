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
    sums = torch.zeros(_groups(batch), dtype=x.dtype, device=x.device).index_add_(0, batch.group, x * batch.alive)
    return sums[batch.group]


def centred(batch: Batch) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """(outcome - mean of its group, number of outcomes in its group) over living samples whose outcome was scored; 0 for the others.

    A group of one and a group of equal outcomes give exact zeros: they are counted from the group's lowest, for the rounding error of a
    mean is all that GRPO would have to divide by its standard deviation, which is as small. Raises Refused without outcome rewards.
    """
    r, low = batch.outcome, torch.full((_groups(batch),), torch.inf, dtype=batch.outcome.dtype, device=batch.outcome.device)
    assert batch.rewards.outcome is not None
    judged = torch.from_numpy(batch.rewards.outcome.scored).to(r.device) & batch.alive
    low.scatter_reduce_(0, batch.group, torch.where(judged, r, torch.inf), "amin")
    above = torch.where(judged, r - low[batch.group], 0.0)
    count = group_sum(judged.to(r.dtype), batch)
    return torch.where(judged, above - group_sum(above, batch) / count.clamp(min=1), 0.0), count * judged


def _groups(batch: Batch) -> int:
    return int(batch.group.max()) + 1 if len(batch) else 0

"""Outcome credit with a baseline from the group or the batch: every written token of an answer gets the same number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from guerdon.credit.core import credit, group_mean, group_sum, spread
from guerdon.credit.gae import rewards_to_go

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch


@credit
def grpo(batch: Batch, eps: float = 1e-6) -> Float[Tensor, "n t"]:
    """A = (r - mean of the group) / (std of the group + eps), std with n - 1. Groups of one sample or of equal rewards get 0.

    Source: arXiv:2402.03300.
    """
    r = batch.outcome
    mean, count = group_mean(r, batch)
    variance = group_sum((r - mean) ** 2, batch) / (count - 1).clamp(min=1)
    return spread(torch.where(count > 1, (r - mean) / (variance.sqrt() + eps), 0.0), batch)


@credit
def dr_grpo(batch: Batch) -> Float[Tensor, "n t"]:
    """A = r - mean of the group: GRPO without the division by std, which favours easy and hard questions. Groups of one get 0.

    Its other half is `aggregate: constant`, which replaces the division by each answer's length. Source: arXiv:2503.20783.
    """
    mean, count = group_mean(batch.outcome, batch)
    return spread(torch.where(count > 1, batch.outcome - mean, 0.0), batch)


@credit
def rloo(batch: Batch) -> Float[Tensor, "n t"]:
    """A = r - mean of the others in the group = (r - mean) n / (n - 1). Groups of one get 0. Source: arXiv:2402.14740."""
    mean, count = group_mean(batch.outcome, batch)
    return spread((batch.outcome - mean) * count / (count - 1).clamp(min=1) * (count > 1), batch)


@credit(grains=("outcome", "step", "token"))
def reinforce_pp(batch: Batch, gamma: float = 1.0, group_baseline: bool = False, eps: float = 1e-8) -> Float[Tensor, "n t"]:
    """REINFORCE++: reward to go, normalised over all written tokens of the batch: A = (G - mean) / (std + eps).

    G_t = sum over u >= t of gamma^(u - t) r_u of all grains, a KL penalty at token grain among them. group_baseline subtracts the
    mean outcome of the group first (the paper's "-baseline" variant). Source: arXiv:2501.03262.
    """
    to_go = rewards_to_go(batch, gamma)
    if group_baseline:
        to_go = to_go - group_mean(batch.outcome, batch)[0][:, None]
    live = batch.mask & batch.alive[:, None]
    count = live.sum().clamp(min=1)
    mean = (to_go * live).sum() / count
    variance = (((to_go - mean) * live) ** 2).sum() / (count - 1).clamp(min=1)
    return (to_go - mean) / (variance.sqrt() + eps) * live

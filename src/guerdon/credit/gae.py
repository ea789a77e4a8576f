"""Credit over time: discounted rewards to go and generalised advantage estimation.

Time is counted in tokens that the policy wrote: a tool's reply between two of them is no step of the policy. A reward that lies on a token
the policy did not write belongs to the last one it wrote before (to its first, where there is none before).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scipy.signal import lfilter

from guerdon.credit.core import credit

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from guerdon.samples import Batch


def _packed(batch: Batch) -> tuple[Int[Tensor, "n t"], Float[Tensor, "n t"]]:
    """Position of each token among the written ones, and the rewards moved there."""
    position = (batch.mask.cumsum(1) - 1).clamp(min=0)
    reward = torch.zeros_like(batch.token_rewards).scatter_add_(1, position, batch.token_rewards)
    return position, reward * (batch.mask.any(1) & batch.alive)[:, None]


def _decay_sum(x: Float[Tensor, "n t"], decay: float) -> Float[Tensor, "n t"]:
    """y_t = x_t + decay * y_(t+1), a linear filter run from the end."""
    backward = x.flip(1)
    if decay == 1.0:
        return backward.cumsum(1).flip(1)
    y = lfilter([1.0], [1.0, -decay], backward.detach().cpu().numpy(), axis=1)
    return torch.from_numpy(y).to(x.device, x.dtype).flip(1)


def rewards_to_go(batch: Batch, gamma: float = 1.0) -> Float[Tensor, "n t"]:
    """G_t = sum over written tokens u >= t of gamma^(u - t) r_u; 0 on tokens that the policy did not write."""
    position, reward = _packed(batch)
    return _decay_sum(reward, gamma).gather(1, position) * batch.mask


@credit(needs=("values",), grains=("outcome", "step", "token"))
def gae(batch: Batch, gamma: float = 1.0, lam: float = 0.95) -> Float[Tensor, "n t"]:
    """A_t = sum over k of (gamma lam)^k d_(t+k), d_t = r_t + gamma V_(t+1) - V_t, V = 0 behind the last token.

    V_t is `values`, the critic's estimate before token t is written. Source: arXiv:1506.02438.
    """
    position, reward = _packed(batch)
    written = batch.mask
    values = torch.zeros_like(reward).scatter_add_(1, position, batch.field("values").to(reward.dtype) * written)
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
    advantages = _decay_sum(reward + gamma * following - values, gamma * lam)
    return advantages.gather(1, position) * (written & batch.alive[:, None])


def lambda_returns(batch: Batch, gamma: float = 1.0, lam: float = 1.0) -> Float[Tensor, "n t"]:
    """What a critic learns: A + V with its own lam; lam 1 is the plain reward to go. Source: arXiv:2503.01491 (decoupled GAE)."""
    return (gae(batch, gamma, lam) + batch.field("values")) * (batch.mask & batch.alive[:, None])

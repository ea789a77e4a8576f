"""Credit over time: discounted rewards to go and generalised advantage estimation.

Time is counted in tokens that the policy wrote: a tool's reply between two of them is no step of the policy. A reward that lies on a token
the policy did not write belongs to the last one it wrote before (to its first, where there is none before).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from guerdon.credit.core import credit

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from guerdon.samples import Batch


def _positions(batch: Batch) -> Int[Tensor, "n t"] | None:
    """Where each token stands among the written ones; None where all are written, and each stands where it is."""
    if bool((batch.mask.sum(1) == batch.lengths).all()):
        return None
    return (batch.mask.cumsum(1) - 1).clamp(min=0)


def _pack(x: Float[Tensor, "n t"], position: Int[Tensor, "n t"] | None) -> Float[Tensor, "n t"]:
    return x if position is None else torch.zeros_like(x).scatter_add_(1, position, x)


def _unpack(x: Float[Tensor, "n t"], position: Int[Tensor, "n t"] | None, batch: Batch) -> Float[Tensor, "n t"]:
    """Back to the tokens; 0 on those that the policy did not write and on rows without a verdict."""
    return torch.where(batch.mask & batch.alive[:, None], x if position is None else x.gather(1, position), 0.0)


def _decay_sum(x: Float[Tensor, "n t"], decay: float, block: int = 32) -> Float[Tensor, "n t"]:
    """y_t = x_t + decay * y_(t+1): by a matrix of powers within blocks of tokens, then from block to block, the last one first."""
    t = x.shape[1]
    i = torch.arange(block, device=x.device)
    powers = torch.pow(torch.tensor(decay, dtype=x.dtype, device=x.device), (i[:, None] - i).clamp(min=0)).tril()
    y = (F.pad(x, (0, -t % block)) if t % block else x).unflatten(1, (-1, block)) @ powers
    onward = powers[-1] * decay
    for b in range(y.shape[1] - 2, -1, -1):
        y[:, b] += y[:, b + 1, :1] * onward
    return y.flatten(1)[:, :t]


def rewards_to_go(batch: Batch, gamma: float = 1.0) -> Float[Tensor, "n t"]:
    """G_t = sum over written tokens u >= t of gamma^(u - t) r_u; 0 on tokens that the policy did not write."""
    position = _positions(batch)
    return _unpack(_decay_sum(_pack(batch.token_rewards, position), gamma), position, batch)


@credit(needs=("values",), grains=("outcome", "step", "token"))
def gae(batch: Batch, gamma: float = 1.0, lam: float = 0.95) -> Float[Tensor, "n t"]:
    """A_t = sum over k of (gamma lam)^k d_(t+k), d_t = r_t + gamma V_(t+1) - V_t, V = 0 behind the last token.

    V_t is `values`, the critic's estimate before token t is written; an answer that ran out of tokens has no value behind it either.
    A is not whitened. Source: arXiv:1506.02438.
    """
    position = _positions(batch)
    reward = _pack(batch.token_rewards, position)
    values = _pack(torch.where(batch.mask, batch.field("values").to(reward.dtype), 0.0), position)
    delta = reward - values
    delta[:, :-1].add_(values[:, 1:], alpha=gamma)
    return _unpack(_decay_sum(delta, gamma * lam), position, batch)


def lambda_returns(batch: Batch, gamma: float = 1.0, lam: float = 1.0) -> Float[Tensor, "n t"]:
    """What a critic learns: A + V with its own lam; lam 1 is the plain reward to go. Source: arXiv:2503.01491 (decoupled GAE)."""
    return torch.where(batch.mask & batch.alive[:, None], gae(batch, gamma, lam) + batch.field("values").to(batch.weights.dtype), 0.0)

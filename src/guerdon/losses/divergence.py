"""The clipped surrogate, heavier on the tokens at which the answers of a group differ."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from guerdon.losses.core import loss
from guerdon.losses.policy import Out, Result, ppo_clip

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch

CHUNK = 2**24
"""Numbers of a temporary: positions are taken in runs of so many at most."""


@loss(needs=("logits",), fields=("logprobs",), unit="group")
def tw_grpo(out: Out, batch: Batch, alpha: float = 1.7, clip: float = 0.2, clip_high: float | None = 0.28) -> Result:
    """`ppo_clip` times w_t = 1 + (alpha - 1) u_t at position t, u_t of `divergence` without gradient; alpha 1 is `ppo_clip`.

    A loss and no credit, so that the logits of one group at a time are enough, from the pass that is made anyway; w is in no denominator.
    Rows of advantage 0 stay in the pass, for the others' weights hang on them. Metrics clip_fraction, token_weight (the mean of w).
    Source: arXiv:2505.24718 and its released code (alpha 1.7).
    """
    weight = 1 + (alpha - 1) * divergence(out["logits"].detach(), batch)
    value, metrics = ppo_clip(out, replace(batch, advantages=batch.advantages * weight), clip, clip_high)
    return value, {**metrics, "token_weight": (batch.weights * weight).sum()}


def divergence(logits: Float[Tensor, "n t v"], batch: Batch) -> Float[Tensor, "n t"]:
    """How far the next-token distributions of a group's answers are from each other, position by position, from 0 to 1 in each group.

    u = (k - min k) / (max k - min k + 1e-8), k_t = mean over rows i of sum over v of exp(x) - x - 1, x = mean over rows of l_t - l_it, held
    within +-11, l log-softmax over the vocabulary; a row has the uniform l where it has ended, or somebody else wrote. min and max are over
    the positions at which a living row of the group writes. Positions are counted from the answer's first token, so answers that drift
    apart are compared out of step.
    """
    out = torch.zeros_like(batch.weights)
    writes = batch.mask & batch.alive[:, None]
    for g in batch.group[writes.any(1)].unique():
        rows = ((batch.group == g) & writes.any(1)).nonzero()[:, 0]
        columns = writes[rows].any(0).nonzero()[:, 0]
        run = max(CHUNK // (len(rows) * logits.shape[-1]), 1)
        k = torch.cat([_apart(logits[rows[:, None], part], writes[rows[:, None], part]) for part in columns.split(run)])
        out[rows[:, None], columns] = ((k - k.min()) / (k.max() - k.min() + 1e-8)).to(out.dtype)
    return out * writes


def _apart(logits: Float[Tensor, "g c v"], writes: Tensor) -> Float[Tensor, " c"]:
    logp = torch.where(writes[..., None], logits.log_softmax(-1), -math.log(logits.shape[-1]))
    x = (logp.mean(0) - logp).clamp(-11, 11)
    return (x.expm1() - x).sum(-1).mean(0)

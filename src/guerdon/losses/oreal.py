"""OREAL: right answers are imitated, wrong ones pushed away by less."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from guerdon.losses.aggregate import aggregate
from guerdon.losses.core import log_ratio, loss

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch


@loss(fields=("logprobs",), vanishes=True)
def oreal(out: dict[str, Tensor], batch: Batch, negative: float = 0.5):
    """sum over tokens of -w A log pi where A > 0, of -negative w r A where A < 0, r = exp(log pi - log pi_old).

    Behaviour cloning of what was right, a policy gradient on what was wrong. With credit `oreal`, or `rloo` for its form without a token
    reward model, and `aggregate: per_outcome`. The KL penalty of the paper is a term of its own, `{use: kl, coefficient: 0.01}`.
    Raises Refused where a token with A < 0 has no sampling log-probability. Source: arXiv:2502.06781, its released code, where r is 1:
    its old log-probabilities are those of the pass itself.
    """
    w, a, logp = batch.weights, batch.advantages, out["logprobs"]
    old = torch.where(a < 0, batch.field("logprobs"), logp.detach())  # cloning asks for no ratio: rows of experts have none
    ratio = log_ratio(logp, old, batch).exp()
    terms = torch.where(a > 0, a * logp, torch.where(a < 0, negative * ratio * a, 0.0))
    return -(w * terms).sum(), {}


@aggregate
def per_outcome(batch: Batch) -> Float[Tensor, "n t"]:
    """`token_mean` among the right answers (outcome above 0.5), and again among the others, apart. Source: arXiv:2502.06781, its code."""
    right = (batch.outcome > 0.5)[:, None]
    good, bad = (torch.where(rows, batch.weights, 0.0).sum().clamp(min=1e-12) for rows in (right, ~right))
    return batch.weights / torch.where(right, good, bad)

"""Terms that add nothing to a loss and only measure, in the same pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from guerdon.credit.penalty import kl_estimate
from guerdon.losses.core import log_ratio, loss

if TYPE_CHECKING:
    from torch import Tensor

    from guerdon.samples import Batch


@loss(fields=("logprobs",))
def logprob_gap(out: dict[str, Tensor], batch: Batch):
    """0; metric logprob_gap: weighted mean |sampled - recomputed| log-probability. A sampler and a trainer that disagree show here.

    Tokens without a sampling log-probability (expert rows) add nothing; where none has one the metric is left out.
    """
    gap = (out["logprobs"].detach() - batch.field("logprobs")).abs()
    known = (batch.weights != 0) & ~gap.isnan()
    metrics = {"logprob_gap": (batch.weights * torch.where(known, gap, 0.0)).sum()} if bool(known.any()) else {}
    return out["logprobs"].sum() * 0.0, metrics


@loss(fields=("ref_logprobs",))
def kl_to_reference(out: dict[str, Tensor], batch: Batch):
    """0; metric kl: weighted mean of the k3 estimate of KL(policy, reference)."""
    d = log_ratio(batch.field("ref_logprobs"), out["logprobs"].detach(), batch)
    return out["logprobs"].sum() * 0.0, {"kl": (batch.weights * kl_estimate(d, "k3")).sum()}

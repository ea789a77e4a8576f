"""Terms that add nothing to a loss and only measure, in the same pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guerdon.credit.penalty import kl_estimate
from guerdon.losses.core import loss

if TYPE_CHECKING:
    from torch import Tensor

    from guerdon.samples import Batch


@loss(fields=("logprobs",))
def logprob_gap(out: dict[str, Tensor], batch: Batch):
    """0; metric logprob_gap: weighted mean |sampled - recomputed| log-probability. A sampler and a trainer that disagree show here."""
    gap = (out["logprobs"].detach() - batch.field("logprobs")).abs()
    return out["logprobs"].sum() * 0.0, {"logprob_gap": (batch.weights * gap).sum()}


@loss(fields=("ref_logprobs",))
def kl_to_reference(out: dict[str, Tensor], batch: Batch):
    """0; metric kl: weighted mean of the k3 estimate of KL(policy, reference)."""
    k3 = kl_estimate(batch.field("ref_logprobs") - out["logprobs"].detach(), "k3")
    return out["logprobs"].sum() * 0.0, {"kl": (batch.weights * k3).sum()}

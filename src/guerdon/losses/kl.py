"""Staying near a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from guerdon.credit.penalty import kl_estimate
from guerdon.losses.core import log_ratio, loss

if TYPE_CHECKING:
    from torch import Tensor

    from guerdon.samples import Batch


@loss(fields=("ref_logprobs",))
def kl(out: dict[str, Tensor], batch: Batch, coefficient: float = 0.01, estimator: Literal["k1", "k2", "k3"] = "k3"):
    """coefficient * sum of w k, with d = log pi_ref - log pi: k1 = -d, k2 = d^2 / 2, k3 = exp(d) - 1 - d.

    As a loss the gradient of k2 is that of KL(policy, reference) on fresh samples, that of k3 of KL(reference, policy), that of k1 is 0 in
    expectation: k1 belongs into the reward (`kl: {place: reward}`). Metric kl_loss. Source: arXiv:2402.03300 (k3 in the loss).
    """
    d = log_ratio(batch.field("ref_logprobs"), out["logprobs"], batch)
    term = coefficient * (batch.weights * kl_estimate(d, estimator)).sum()
    return term, {"kl_loss": term.detach()}


@loss(needs=("entropy",))
def entropy_bonus(out: dict[str, Tensor], batch: Batch, coefficient: float = 0.001):
    """-coefficient * sum of w H, H the entropy of each token's distribution in nats. Source: arXiv:1602.01783."""
    return -coefficient * (batch.weights * out["entropy"]).sum(), {}

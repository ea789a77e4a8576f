"""The KL penalty as a reward at token grain; as a term of the loss it is `losses.kl`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from guerdon.registry import Refused
from guerdon.samples import Batch, Grain, Part, Rewards, State


def kl_reward(batch: Batch, coefficient: float, estimator: str = "k1") -> Batch:
    """The batch with -coefficient * k added to the reward of each written token, k an estimate of KL(policy, reference) there.

    With d = log pi_ref - log pi, both at the token that was sampled: k1 = -d, k2 = d^2 / 2, k3 = exp(d) - 1 - d. Rows without a verdict
    stay without one. Needs the fields `logprobs` and `ref_logprobs`; raises Refused where a row to be scored has no log-probabilities.
    Source: arXiv:2009.01325 for the penalty; the estimators are Schulman's (2020).
    """
    live = batch.mask & batch.alive[:, None]
    d = torch.where(live, batch.field("ref_logprobs") - batch.field("logprobs"), 0.0)
    if bool(d.isnan().any()):
        raise Refused(
            "kl: some rows have no log-probabilities of their own (expert rows, files), which a KL penalty needs; leave them out."
        )
    value = (-coefficient * kl_estimate(d, estimator)).double().cpu().numpy()
    state = np.where(live.cpu().numpy(), State.SCORED, State.ABSTAINED)
    parts = {**batch.rewards.parts, "kl": Part(Rewards(token=Grain.of(value, state)))}
    old = batch.rewards.token
    if old is not None:
        width = min(value.shape[1], old.value.shape[1])
        value[:, :width] += old.value[:, :width]
        state[:, :width] = np.where(old.state[:, :width] == State.ABSTAINED, state[:, :width], old.state[:, :width])
    return replace(batch, rewards=replace(batch.rewards, token=Grain.of(value, state, old.reason if old else None), parts=parts))


def kl_estimate(d: torch.Tensor, estimator: str) -> torch.Tensor:
    """k1, k2 or k3 of d = log pi_ref - log pi. Raises Refused for another name."""
    if estimator == "k1":
        return -d
    if estimator == "k2":
        return d**2 / 2
    if estimator == "k3":
        return d.expm1() - d
    raise Refused(f"There is no estimator {estimator!r} of a KL divergence; write k1, k2 or k3.")

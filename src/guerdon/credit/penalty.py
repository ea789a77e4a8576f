"""The KL penalty as a reward at token grain; as a term of the loss it is `losses.kl`."""

from __future__ import annotations

from dataclasses import replace

from guerdon.samples import Batch, Grain, State


def kl_reward(batch: Batch, coefficient: float, estimator: str = "k1") -> Batch:
    """The batch with -coefficient * k added to the reward of each written token, k an estimate of KL(policy, reference) there.

    With d = log pi_ref - log pi, both at the token that was sampled: k1 = -d, k2 = d^2 / 2, k3 = exp(d) - 1 - d. Needs the fields
    `logprobs` and `ref_logprobs`. Source: arXiv:2009.01325 for the penalty; the estimators are Schulman's (2020).
    """
    d = batch.field("ref_logprobs") - batch.field("logprobs")
    penalty = -coefficient * kl_estimate(d, estimator) * batch.mask * batch.alive[:, None]
    value = penalty.double().cpu().numpy()
    state = (~batch.mask).cpu().numpy() * int(State.ABSTAINED)
    old = batch.rewards.token
    if old is not None:
        value[:, : old.value.shape[1]] += old.value
    return replace(batch, rewards=replace(batch.rewards, token=Grain.of(value, state)))


def kl_estimate(d, estimator: str):
    """k1, k2 or k3 of d = log pi_ref - log pi."""
    if estimator == "k1":
        return -d
    if estimator == "k2":
        return d**2 / 2
    return d.exp() - 1 - d

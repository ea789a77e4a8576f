"""Credit of process rewards: what a step is worth is a form - the minimum, the sum - of the rewards from it onward."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch

from guerdon.credit.core import credit, on_tokens, others_mean, step_rewards, to_go
from guerdon.credit.gae import rewards_to_go
from guerdon.credit.group import rloo
from guerdon.registry import Refused
from guerdon.samples import Rewards

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch


@credit(grains=("outcome", "step", "token"))
def min_form(
    batch: Batch, temperature: float = 0.1, baseline: Literal["token", "step", "none"] = "token", outcome: float = 1.0
) -> Float[Tensor, "n t"]:
    """G of a step = sum over it and the later ones of w_k r_k, w = softmax(-r / temperature) over the sample's steps; minus a baseline.

    As temperature goes to 0, G is min r up to the worst step and 0 behind it: many good steps cannot pay for a bad one. The baseline, of
    the others in the group: `step`, their sum of w r over their steps, off every step; `token`, over their tokens, off every step as often
    as it has tokens (the released default). An outcome reward adds `outcome` times its leave-one-out advantage to all tokens, token rewards
    (a KL penalty) add their sum from the token onward. Source: arXiv:2504.15275, its released code, which zeroes step separators besides.
    """
    if temperature <= 0:
        raise Refused(f"min_form(temperature={temperature}): the temperature is above 0; a small one, 0.001, is the plain minimum.")
    value, scored, tokens = step_rewards(batch)
    weight = torch.where(scored, -value / temperature, -torch.inf).softmax(1).nan_to_num()
    return _returns(batch, torch.where(scored, weight * value, 0.0), tokens * scored, baseline, outcome)


@credit(grains=("outcome", "step", "token"))
def sum_form(batch: Batch, baseline: Literal["token", "step", "none"] = "token", outcome: float = 1.0) -> Float[Tensor, "n t"]:
    """The usual return of process rewards, G = sum of r over a step and the later ones, with the baselines of `min_form`.

    Its weakness is known: steps that a reward model likes can be added without end. Source: the comparison in arXiv:2504.15275.
    """
    value, scored, tokens = step_rewards(batch)
    return _returns(batch, value, tokens * scored, baseline, outcome)


def _returns(batch: Batch, reward: Tensor, tokens: Tensor, baseline: str, outcome: float) -> Float[Tensor, "n t"]:
    if baseline not in ("token", "step", "none"):
        raise Refused(f"The baseline of a process credit is token, step or none, not {baseline!r}.")
    if baseline != "none":
        size = tokens if baseline == "token" else (tokens > 0).to(reward.dtype)
        reward = reward - others_mean(reward.sum(1), size.sum(1), batch)[:, None] * size
    out = on_tokens(to_go(reward), batch)
    if batch.rewards.outcome is not None:
        out = out + outcome * rloo(batch)
    if batch.rewards.token is not None:
        out = out + torch.where(batch.alive[:, None], rewards_to_go(replace(batch, rewards=Rewards(token=batch.rewards.token))), 0.0)
    return out

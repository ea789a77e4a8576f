"""Credit of steps that a judge calls right or wrong, or that a prover finds to bring the answer nearer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from guerdon.credit.core import credit, group_sum, on_tokens, per_step, step_rewards
from guerdon.credit.group import rloo
from guerdon.registry import Refused

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch

VOTES = {
    "intersection": lambda c: (c >= 1 - 1e-6).to(c.dtype),
    "majority": lambda c: (c > 0.5).to(c.dtype),
    "union": lambda c: (c > 1e-6).to(c.dtype),
    "average": lambda c: c,
}


@credit(grains=("outcome", "step"))
def capo(
    batch: Batch,
    whole: float = 2.0,
    process: float = 1.0,
    vote: Literal["intersection", "majority", "union", "average"] = "majority",
    eps: float = 1e-6,
) -> Float[Tensor, "n t"]:
    """A = (r - mean) / (std + eps), r of a token = whole * outcome - process * c of its step, over all written tokens of the group.

    A step's reward is the share of critiques that call it right, within 0 and 1; c = 1 - share is the share that call it wrong, counted by
    `vote`: c itself (average), or 1 where all (intersection), more than half (majority) or any (union) do. whole above process ranks any
    right answer above any wrong one. std is with n - 1. A step on which the judge abstains and tokens outside every step have c 0; a row
    without an outcome gets 0. process 0 is `grpo` with its mean and std over tokens. Source: arXiv:2508.02298 (no code was released; that
    mean and std are over tokens, and c of `average`, are assumed).
    """
    if vote not in VOTES:
        raise Refused(f"capo(vote={vote!r}): vote is one of {', '.join(VOTES)}.")
    value, scored, tokens = step_rewards(batch)
    wrong = VOTES[vote](torch.where(scored, 1 - value, 0.0).clamp(0, 1))
    view = batch
    if bool((batch.mask & (batch.step_of < 0)).any()):  # what the policy wrote outside every step is one step more
        view = replace(batch, step_of=torch.where(batch.step_of < 0, value.shape[1], batch.step_of))
        wrong, tokens = F.pad(wrong, (0, 1)), per_step(batch.mask.to(value.dtype), view, value.shape[1] + 1)
    assert batch.rewards.outcome is not None
    judged = batch.alive & torch.from_numpy(batch.rewards.outcome.scored).to(value.device)
    r = whole * batch.outcome[:, None] - process * wrong
    centre, count = within_group(r, tokens * judged[:, None], batch)
    variance = group_sum((centre**2 * tokens).sum(1), batch) / (count - 1).clamp(min=1)
    return on_tokens(centre / (variance.sqrt() + eps)[:, None], view)


@credit(grains=("outcome", "step"))
def pav(batch: Batch) -> Float[Tensor, "n t"]:
    """A = outcome - mean outcome of the others in the group, plus the reward of the token's own step: progress is paid where it is made.

    The step rewards are the progress of a prover, times a factor that the reward states: `exact + 0.5 * (prm | progress(k=4))`. They are
    advantages already, so they have no baseline, and they are not summed over later steps, where their sum would be the outcome again.
    Tokens outside every step get the outcome's part alone; with factor 0 this is `rloo`. Source: arXiv:2410.08146.
    """
    value, _, _ = step_rewards(batch)
    return rloo(batch) + on_tokens(value, batch, outside="zero")


def within_group(x: Float[Tensor, "n k"], times: Tensor, batch: Batch) -> tuple[Float[Tensor, "n k"], Float[Tensor, " n"]]:
    """(x - mean over the entries of the group, how many there are), an entry counted `times (n, k)`; 0 where that is 0, and exactly 0 where
    all are equal."""
    known, times = times > 0, times.to(x.dtype)
    low = x.new_full((int(batch.group.max()) + 1 if len(batch) else 0,), torch.inf)
    low.scatter_reduce_(0, batch.group, torch.where(known, x, torch.inf).amin(1), "amin")
    above = torch.where(known, x - low[batch.group][:, None], 0.0)  # from the lowest, as in `centred`
    count = group_sum(times.sum(1), batch)
    mean = group_sum((above * times).sum(1), batch) / count.clamp(min=1)
    return torch.where(known, above - mean[:, None], 0.0), count


def with_steps(batch: Batch) -> Batch:
    """The batch in which a sample without steps is one step."""
    without = batch.step_of.amax(1, keepdim=True) < 0
    return replace(batch, step_of=torch.where(without, 0, batch.step_of)) if bool(without.any()) else batch

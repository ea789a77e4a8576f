"""The credit contract: (batch, **params) -> advantages (n, t).

Rows that failed or abstained on everything (`~batch.alive`) are in no baseline and get 0; so do tokens that the policy did not write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from guerdon.registry import Refused, registrar

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from guerdon.samples import Batch

credit = registrar("credit")
"""`@credit` or `@credit(needs=("values",), grains=("outcome", "token"))`.

needs: batch fields it reads; one that nobody can fill is refused when the recipe is read. grains: of rewards that it reads (outcome unless
stated); a recipe whose rewards it would ignore is refused. group: it is 0 for a sample alone in its group, so that a recipe with one
sample a task is refused.
"""


def spread(per_sample: Float[Tensor, " n"], batch: Batch) -> Float[Tensor, "n t"]:
    """One number a sample on every token that the policy wrote; 0 on rows without a verdict."""
    return (per_sample * batch.alive)[:, None] * batch.mask


def group_sum(x: Float[Tensor, " n"], batch: Batch) -> Float[Tensor, " n"]:
    """For each sample, the sum of x over the living samples of its group, itself among them."""
    sums = torch.zeros(_groups(batch), dtype=x.dtype, device=x.device).index_add_(0, batch.group, x * batch.alive)
    return sums[batch.group]


def centred(batch: Batch) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """(outcome - mean of its group, number of outcomes in its group) over living samples whose outcome was scored; 0 for the others.

    A group of one and a group of equal outcomes give exact zeros: they are counted from the group's lowest, for the rounding error of a
    mean is all that GRPO would have to divide by its standard deviation, which is as small. Raises Refused without outcome rewards.
    """
    r, low = batch.outcome, torch.full((_groups(batch),), torch.inf, dtype=batch.outcome.dtype, device=batch.outcome.device)
    assert batch.rewards.outcome is not None
    judged = torch.from_numpy(batch.rewards.outcome.scored).to(r.device) & batch.alive
    low.scatter_reduce_(0, batch.group, torch.where(judged, r, torch.inf), "amin")
    above = torch.where(judged, r - low[batch.group], 0.0)
    count = group_sum(judged.to(r.dtype), batch)
    return torch.where(judged, above - group_sum(above, batch) / count.clamp(min=1), 0.0), count * judged


def step_rewards(batch: Batch) -> tuple[Float[Tensor, "n s"], Bool[Tensor, "n s"], Float[Tensor, "n s"]]:
    """(values, which of them count, tokens of every step): step rewards that were scored, of living rows and of steps in which the policy
    wrote. Tokens are those that it wrote.

    s is one column or more, however many steps the batch has. Raises Refused without step rewards.
    """
    grain = batch.rewards.step
    if grain is None:
        raise Refused("This credit needs step rewards, and the recipe's reward gives none; use one that scores steps.")
    value = torch.from_numpy(grain.value).to(batch.weights.device, batch.weights.dtype)
    scored = torch.from_numpy(grain.scored).to(value.device) & batch.alive[:, None]
    s = max(value.shape[1], int(batch.step_of.max()) + 1 if batch.step_of.numel() else 0, 1)
    value, scored = (F.pad(x, (0, s - x.shape[1])) for x in (value, scored))
    tokens = per_step(batch.mask.to(value.dtype), batch, s)
    scored = scored & (tokens > 0)
    return torch.where(scored, value, 0.0), scored, tokens


def per_step(x: Float[Tensor, "n t"], batch: Batch, s: int) -> Float[Tensor, "n s"]:
    """Sums over the tokens of each step that the policy wrote."""
    inside = batch.mask & (batch.step_of >= 0)
    return x.new_zeros(len(batch), s).scatter_add_(1, batch.step_at, x * inside)


def on_tokens(y: Float[Tensor, "n s"], batch: Batch, outside: Literal["next", "zero"] = "next") -> Float[Tensor, "n t"]:
    """Each step's number on its tokens; 0 on tokens that the policy did not write and on rows without a verdict.

    A written token outside any step gets the number of the step that follows, 0 behind the last; with outside "zero", 0.
    """
    of, at, s = batch.step_of, batch.step_at, y.shape[1]
    live = batch.mask & batch.alive[:, None]
    if bool((live & (of < 0)).any()):
        y, at = F.pad(y, (0, 1)), torch.where(of < 0, s, of)
        at = at.flip(1).cummin(1).values.flip(1) if outside == "next" else at
    return y.gather(1, at).mul_(live)


def to_go(y: Float[Tensor, "n s"]) -> Float[Tensor, "n s"]:
    """Sums over a step and all that follow it."""
    return y.flip(1).cumsum(1).flip(1)


def others_mean(total: Float[Tensor, " n"], size: Float[Tensor, " n"], batch: Batch) -> Float[Tensor, " n"]:
    """For each sample the sum of `total` over the other living samples of its group, over their sum of `size`; 0 where there are none."""
    rest, count = group_sum(total, batch) - total * batch.alive, group_sum(size, batch) - size * batch.alive
    return torch.where(count > 0, rest / count.clamp(min=1e-12), 0.0)


def centre_(x: Float[Tensor, "n t"], live: Bool[Tensor, "n t"]) -> tuple[Float[Tensor, "n t"], int]:
    """(x - its mean over the tokens that count, how many these are), in the place of x; 0 elsewhere, and exactly 0 where all are equal."""
    count = int(live.sum())
    if not count:
        return x.zero_(), 0
    above = x.sub_(torch.where(live, x, torch.inf).amin()).mul_(live)  # from the lowest, as in `centred`
    return above.sub_(above.sum() / count).mul_(live), count


def _groups(batch: Batch) -> int:
    return int(batch.group.max()) + 1 if len(batch) else 0

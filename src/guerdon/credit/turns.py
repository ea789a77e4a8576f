"""Credit that differs from turn to turn of one sample."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from guerdon.credit.core import credit, on_tokens

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from guerdon.samples import Batch


@credit(grains=("outcome", "step"))
def igpo(batch: Batch, gamma: float = 1.0, separate: bool = False, eps: float = 1e-6) -> Float[Tensor, "n t"]:
    """A_t = sum over turns k >= t of gamma^(k - t) (r_k - mean) / (std + eps), on every token that the policy wrote in turn t.

    A turn is a step. r_t is its step reward, such as `belief`; the outcome is added to the reward of the sample's last turn. mean and std
    (with n - 1) are of all rewards of all turns of the group's living samples, or with `separate` of the step rewards and of the outcomes
    each apart. A turn without a reward is in neither and adds 0; so does a group with one reward, or with equal ones. A sample without
    steps is one turn: with outcomes alone this is `grpo` on all of a sample's turns. (The paper's formula; its release subtracts the mean
    of the returns at each token position of the group and divides by nothing.) Source: arXiv:2510.14967 (IGPO).
    """
    last = batch.step_of.amax(1)
    if bool((last < 0).any()):
        batch = replace(batch, step_of=torch.where(last[:, None] < 0, 0, batch.step_of))
        last = last.clamp(min=0)
    gain, known, outcome, judged = _rewards(batch)
    width = max(gain.shape[1], int(last.max()) + 1 if len(last) else 1)
    gain, known = (F.pad(x, (0, width - x.shape[1])) for x in (gain, known))
    ends = (torch.arange(width, device=last.device) == last[:, None]) & judged[:, None]
    if separate:
        a = _normalised(gain, known, batch.group, eps) + ends * _normalised(outcome[:, None], judged[:, None], batch.group, eps)
    else:
        a = _normalised(torch.where(ends, gain + outcome[:, None], gain), known | ends, batch.group, eps)
    for t in range(width - 2, -1, -1):
        a[:, t] += gamma * a[:, t + 1]
    return on_tokens(a, batch, outside="zero")


def _rewards(batch: Batch) -> tuple[Float[Tensor, "n s"], Bool[Tensor, "n s"], Float[Tensor, " n"], Bool[Tensor, " n"]]:
    """Step rewards and outcomes, 0 where not scored, and which are scored on living rows."""
    like, alive = batch.weights, batch.alive
    values, states = [], []
    for grain, shape in ((batch.rewards.step, (len(batch), 1)), (batch.rewards.outcome, (len(batch),))):
        values.append(like.new_zeros(shape) if grain is None else torch.from_numpy(grain.value).to(like))
        scored = torch.zeros(shape, dtype=torch.bool) if grain is None else torch.from_numpy(grain.scored)
        states.append(scored.to(like.device) & alive.reshape(-1, *[1] * (len(shape) - 1)))
    return values[0], states[0], values[1], states[1]


def _normalised(r: Float[Tensor, "n s"], known: Bool[Tensor, "n s"], group: Int[Tensor, " n"], eps: float) -> Float[Tensor, "n s"]:
    """(r - mean) / (std + eps) over the known entries of each group; 0 elsewhere, and exactly 0 where they are equal or there is one."""
    groups = int(group.max()) + 1 if len(group) else 0

    def total(x: Float[Tensor, "n s"]) -> Float[Tensor, "n 1"]:
        return torch.zeros(groups, dtype=r.dtype, device=r.device).index_add_(0, group, x.sum(1))[group][:, None]

    low = torch.full((groups,), torch.inf, dtype=r.dtype, device=r.device)
    low.scatter_reduce_(0, group, torch.where(known, r, torch.inf).amin(1), "amin")
    above = torch.where(known, r - low[group][:, None], 0.0)  # from the lowest, as in `centred`
    count = total(known.to(r.dtype))
    centre = torch.where(known, above - total(above) / count.clamp(min=1), 0.0)
    return centre / ((total(centre**2) / (count - 1).clamp(min=1)).sqrt() + eps)

"""Losses of generative flow: answers come to be written as often as they are rewarded, and not only the best one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from guerdon.losses.core import loss, row_sums, row_weights
from guerdon.registry import Refused

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch


@loss(unit="group", over="row")
def vargrad(out: dict[str, Tensor], batch: Batch, floor: float = 0.0, power: float = 1.0):
    """sum over rows of w (d - mean of d over the group)^2, d = sum over tokens of log pi - power * log max(outcome, floor).

    Trajectory balance whose log Z is the group's own mean (weighed by w): the optimum is pi proportional to reward^power, for each prompt.
    The sum of log pi, not its mean: dividing by length breaks the proportion. Every answer has one way to be written, so nothing stands
    for a backward policy. A row alone in its group adds 0. Goes with `aggregate: row_mean`, and with rows of any origin. Metric balance:
    the loss. Raises Refused for a reward of 0 or below without a floor. Source: arXiv:2406.05673, its released code.
    """
    d = row_sums(out["logprobs"], batch) - log_reward(batch, floor, power)
    w = row_weights(batch).to(d)
    groups = int(batch.group.max()) + 1 if len(batch) else 0
    total, size = (w.new_zeros(groups).index_add(0, batch.group, x) for x in (w * d, w))
    value = (w * (d - (total / size.clamp(min=1e-12))[batch.group]) ** 2).sum()
    return value, {"balance": value.detach()}


@loss(over="row")
class trajectory_balance:
    """sum over rows of w (log Z + d)^2, d as in `vargrad`, log Z = start + pace * a parameter that is learned.

    One log Z for all prompts: right for one prompt, or prompts whose rewards add up to like sums; otherwise `vargrad`. The parameter learns
    at the policy's rate; `pace` is how much faster log Z moves. On backends that train a loss's own parameters: `local`. Metrics balance:
    the loss; log_z. Raises Refused as `vargrad`. Source: arXiv:2406.05673, its released code (start 5); arXiv:2201.13259.
    """

    def __init__(self) -> None:
        self.moved = torch.nn.Parameter(torch.zeros(()))

    def parameters(self) -> list[torch.nn.Parameter]:
        return [self.moved]

    def __call__(
        self, out: dict[str, Tensor], batch: Batch, floor: float = 0.0, power: float = 1.0, start: float = 0.0, pace: float = 100.0
    ):
        w = row_weights(batch)
        log_z = (start + pace * self.moved).to(w)
        d = row_sums(out["logprobs"], batch) - log_reward(batch, floor, power)
        value = (w * (log_z + d) ** 2).sum()
        return value, {"balance": value.detach(), "log_z": (w.sum() * log_z).detach()}


def log_reward(batch: Batch, floor: float, power: float) -> Float[Tensor, " n"]:
    """power * log max(outcome, floor); 0 for rows that do not count. Raises Refused where that is the logarithm of 0 or less."""
    counts = row_weights(batch) > 0
    reward = torch.where(counts, batch.outcome.clamp(min=floor), 1.0)
    if bool((reward <= 0).any()):
        i = int((reward <= 0).nonzero()[0, 0])
        raise Refused(
            f"Sample {i} of a micro-batch has the reward {float(reward[i])}; a flow needs rewards above 0: set `floor`, such as 0.001."
        )
    return power * reward.log()

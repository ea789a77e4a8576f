"""Policy-gradient losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from guerdon.losses.core import log_ratio, loss

if TYPE_CHECKING:
    from torch import Tensor

    from guerdon.samples import Batch

Out = dict[str, "Tensor"]
Result = tuple["Tensor", dict[str, "Tensor"]]


@loss(vanishes=True)
def policy_gradient(out: Out, batch: Batch) -> Result:
    """REINFORCE: sum over tokens of -w A log pi. No ratio, so rows need no sampling log-probabilities. Source: Williams 1992."""
    return -(batch.weights * batch.advantages * out["logprobs"]).sum(), {}


@loss(fields=("logprobs",), vanishes=True)
def ppo_clip(out: Out, batch: Batch, clip: float = 0.2, clip_high: float | None = None) -> Result:
    """Clipped surrogate: sum of -w min(r A, clamp(r, 1 - clip, 1 + clip_high) A), r = exp(log pi - log pi_old) a token.

    clip_high None equals clip; DAPO's clip-higher is 0.28 beside 0.2. Metric clip_fraction: the clamp was the smaller.
    Raises Refused where a token that counts has no sampling log-probability. Source: arXiv:1707.06347; clip-higher arXiv:2503.14476.
    """
    ratio = log_ratio(out["logprobs"], batch.field("logprobs"), batch).exp()
    free = ratio * batch.advantages
    held = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high)) * batch.advantages
    clipped = (batch.weights * (held < free)).sum().detach()
    return -(batch.weights * torch.minimum(free, held)).sum(), {"clip_fraction": clipped}

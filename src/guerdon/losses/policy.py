"""Policy-gradient losses with a ratio for each token; those with one for each answer stand in `sequence`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from guerdon.losses.core import log_ratio, loss

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch

Out = dict[str, "Tensor"]
Result = tuple["Tensor", dict[str, "Tensor"]]


@loss(vanishes=True)
def policy_gradient(out: Out, batch: Batch) -> Result:
    """REINFORCE: sum over tokens of -w A log pi. No ratio, so rows need no sampling log-probabilities. Source: Williams 1992.

    With `credit: gpg` it is GPG.
    """
    return -(batch.weights * batch.advantages * out["logprobs"]).sum(), {}


@loss(fields=("logprobs",), vanishes=True)
def ppo_clip(out: Out, batch: Batch, clip: float = 0.2, clip_high: float | None = None) -> Result:
    """Clipped surrogate: sum of -w min(r A, clamp(r, 1 - clip, 1 + clip_high) A), r = exp(log pi - log pi_old) a token.

    clip_high None equals clip; DAPO's clip-higher is 0.28 beside 0.2. Metric clip_fraction: the clamp was the smaller.
    Raises Refused where a token that counts has no sampling log-probability. Source: arXiv:1707.06347; clip-higher arXiv:2503.14476.
    """
    d = log_ratio(out["logprobs"], batch.field("logprobs"), batch)
    return clipped(d.exp(), batch.advantages, batch.weights, clip, clip_high)


def clipped(
    ratio: Float[Tensor, "n t"], advantages: Float[Tensor, "n t"], weights: Float[Tensor, "n t"], clip: float, clip_high: float | None
) -> Result:
    """The clipped surrogate of these ratios, and how often the clamp was the smaller."""
    free = ratio * advantages
    held = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high)) * advantages
    return -(weights * torch.minimum(free, held)).sum(), {"clip_fraction": (weights * (held < free)).sum().detach()}


@loss(fields=("logprobs",), vanishes=True)
def stable_reinforce(out: Out, batch: Batch, clip: float = 0.2, clip_high: float | None = None, bound: float = 1e3) -> Result:
    """`ppo_clip` with log pi - log pi_old held within +-log(bound) before it is exponentiated.

    Where A < 0 the surrogate keeps the free ratio, which otherwise explodes, or overflows, on a token that the policy has come to write
    much more often than when it was sampled. Metrics clip_fraction, pre_clip_fraction: outside the bound. Its other half is `credit:
    three_sigma`. Source: arXiv:2505.02835.
    """
    d = log_ratio(out["logprobs"], batch.field("logprobs"), batch)
    most = math.log(bound)
    term, metrics = clipped(d.clamp(-most, most).exp(), batch.advantages, batch.weights, clip, clip_high)
    return term, {**metrics, "pre_clip_fraction": (batch.weights * (d.abs() > most)).sum().detach()}


@loss(fields=("logprobs",), vanishes=True)
def cispo(out: Out, batch: Batch, clip: float = 1.0, clip_high: float = 0.28) -> Result:
    """Clipped weights instead of clipped terms: sum of -w sg(clamp(r, 1 - clip, 1 + clip_high)) A log pi, sg a stop of the gradient.

    So every token keeps a gradient, and one that was rare when it was sampled is not left out after the first update. clip 1 sets no lower
    bound, as the paper; its upper one is not published. Metric clip_fraction: weights that were held. Source: arXiv:2506.13585.
    """
    ratio = log_ratio(out["logprobs"], batch.field("logprobs"), batch).exp().detach()
    held = ratio.clamp(1 - clip, 1 + clip_high)
    return -(batch.weights * held * batch.advantages * out["logprobs"]).sum(), {"clip_fraction": (batch.weights * (held != ratio)).sum()}


@loss(fields=("logprobs", "logprobs/policy"), vanishes=True)
def ppo_tis(out: Out, batch: Batch, clip: float = 0.2, clip_high: float | None = None, cap: float = 2.0) -> Result:
    """Truncated importance sampling: sum of -w min(q, cap) min(r A, clamp(r, 1 - clip, 1 + clip_high) A).

    r = pi / pi_recomputed is the policy's against its own log-probabilities before the update (field `logprobs/policy`); q = pi_recomputed
    / pi_sampled corrects for a sampler that is another program, or older. With a sampler that agrees, q = 1 and this is `ppo_clip`.
    Metrics clip_fraction; cap_fraction: q was above the cap. Source: Yao et al. 2025,
    "Your efficient RL framework secretly brings you off-policy RL training".
    """
    recomputed = batch.field("logprobs/policy")
    q = log_ratio(recomputed, batch.field("logprobs"), batch).exp()
    ratio = log_ratio(out["logprobs"], recomputed, batch).exp()
    term, metrics = clipped(ratio, batch.advantages * q.clamp(max=cap), batch.weights, clip, clip_high)
    return term, {**metrics, "cap_fraction": (batch.weights * (q > cap)).sum()}

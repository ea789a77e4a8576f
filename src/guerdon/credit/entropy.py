"""Credit that is scaled by how certain the policy was of each step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from guerdon.credit.core import centred, credit, group_sum
from guerdon.credit.judged import with_steps
from guerdon.registry import Refused

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from guerdon.samples import Batch


@credit(needs=("entropy",), group=True)
def empg(
    batch: Batch, k: float = 1.0, k_future: float = 1.0, zeta: float = 0.05, trim: float = 0.0, eps: float = 1e-6
) -> Float[Tensor, "n t"]:
    """A of a step = A_grpo g(h) + zeta f(h of the sample's next step) - mean of this over all steps of the batch.

    H is the mean entropy of the tokens that the policy wrote in the step, h = (H - min) / (max - min + 1e-8) over the steps of the batch,
    g(h) = exp(-k h) / mean of exp(-k h) over them, f(h) = exp(-k_future h), 0 behind the last step. So a sure step is moved more than a
    doubtful one, and a step is paid for being followed by a sure one (zeta above 0 pays for low entropy: watch it). trim 0.05 takes the
    5th and 95th percentile for min and max, against one step that is far from all others. A sample without steps is one step; written
    tokens outside every step get A_grpo less the same mean. k 0 and zeta 0 is `grpo` less a constant. Source: arXiv:2509.09265 and the
    code on its project page, whose zeta is 0.1. Raises Refused for a trim outside [0, 0.5).
    """
    if not 0 <= trim < 0.5:
        raise Refused(f"empg(trim={trim}): trim is the share of steps left out at each end, at least 0 and below 0.5.")
    above, count = centred(batch)
    a = above / ((group_sum(above**2, batch) / (count - 1).clamp(min=1)).sqrt() + eps)
    view = with_steps(batch)
    entropy, steps = step_entropy(view)
    live = batch.mask & batch.alive[:, None]
    if not bool(steps.any()):
        return a[:, None] * live
    found = entropy[steps]
    low, high = (found.min(), found.max()) if not trim else found.quantile(found.new_tensor([trim, 1 - trim])).unbind()
    h = ((entropy - low) / (high - low + 1e-8)).clamp(0, 1)
    g = torch.exp(-k * h)
    g = g / g[steps].mean()
    f = torch.where(steps, torch.exp(-k_future * h), 0.0)
    moved = a[:, None] * g + zeta * F.pad(f, (0, 1)).gather(1, following(steps))
    shift = moved[steps].mean()
    out = (moved - shift).gather(1, view.step_at)
    if bool((live & (view.step_of < 0)).any()):
        out = torch.where(view.step_of < 0, (a - shift)[:, None], out)
    return out.mul_(live)


def step_entropy(batch: Batch) -> tuple[Float[Tensor, "n s"], Bool[Tensor, "n s"]]:
    """(mean entropy of the tokens that the policy wrote in each step, which steps of living rows have such tokens)."""
    entropy, of = batch.field("entropy").to(batch.weights.dtype), batch.step_at
    inside = (batch.mask & (batch.step_of >= 0)).to(entropy.dtype)
    none = entropy.new_zeros(len(batch), int(of.max()) + 1 if of.numel() else 1)
    tokens, total = (none.scatter_add(1, of, x) for x in (inside, entropy * inside))
    return total / tokens.clamp(min=1), (tokens > 0) & batch.alive[:, None]


def following(steps: Bool[Tensor, "n s"]) -> Tensor:
    """(n, s) the index of each step's next one that counts, s where there is none."""
    s = steps.shape[1]
    at = torch.where(steps, torch.arange(s, device=steps.device), s)
    return F.pad(at.flip(1).cummin(1).values.flip(1)[:, 1:], (0, 1), value=s)

"""Losses that teach a scalar head, of a model that learns beside the policy, to explain outcomes by what it says of tokens and steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from guerdon.losses.core import loss, row_sizes, row_sums, row_weights
from guerdon.registry import Refused, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from guerdon.samples import Batch


@loss(needs=("values",), over="row", behind=True)
def mean_ce(out: dict[str, Tensor], batch: Batch):
    """sum over rows of -w [o log s + (1 - o) log (1 - s)], s = sigmoid(mean over the row's tokens of g), o the outcome held to [0, 1].

    g of a token is the value behind it, which knows it (so the batch needs a column behind each row, which `Learner` adds). For `aggregate:
    row_mean`. Metric accuracy: (s > 1/2) is (o > 1/2). Source: arXiv:2502.06781 (token reward model of OREAL).
    """
    z = row_sums(out["values"].roll(-1, 1), batch) / row_sizes(batch).clamp(min=1)
    right, w = batch.outcome.to(z.dtype).clamp(0, 1), row_weights(batch)
    terms = F.binary_cross_entropy_with_logits(z, right, reduction="none")
    return (w * terms).sum(), {"accuracy": (w * ((z > 0) == (right > 0.5))).sum().detach()}


@loss(needs=("values",), over="row", behind=True)
def sum_regression(out: dict[str, Tensor], batch: Batch, part: str | None = None):
    """sum over rows of w (sum over steps k of c_k - R)^2: c_k, the value after the last token of step k, learns its share of the result.

    c_k stands in the column behind that token (so the batch needs one behind each row, which `Learner` adds), where the reward `prm` reads
    it. R is the outcome, or that of the reward's part `part`: `0 * solved + prm(...)` keeps R out of what a critic learns.
    A sample without steps is one step; rows without R add nothing. For `aggregate: row_mean`. Metric sum_error: mean squared error.
    Source: arXiv:2505.20732; all steps count, as in its released code.
    """
    values = out["values"]
    step_of = torch.where((batch.step_of >= 0).any(1, keepdim=True), batch.step_of, 0)
    inside = batch.mask & (step_of >= 0)
    column = torch.arange(values.shape[1], device=values.device).expand(values.shape)
    s = max(int(step_of.max()) + 1 if step_of.numel() else 0, 1)
    last = torch.full((len(values), s), -1, dtype=torch.long, device=values.device)
    last.scatter_reduce_(1, step_of.clamp(min=0), torch.where(inside, column, -1), "amax")
    behind = torch.minimum(last + 1, (batch.lengths - 1).clamp(min=0)[:, None])
    attributed = torch.where(last >= 0, values.gather(1, behind), 0.0).sum(1)
    result, known = _result(batch, part)
    w = torch.where(known, row_weights(batch), 0.0)
    value = (w * (attributed - result.to(values.dtype)) ** 2).sum()
    return value, {"sum_error": value.detach()}


def _result(batch: Batch, part: str | None) -> tuple[Tensor, Tensor]:
    """(n,) the outcome of the reward, or of its part of that name, and where there is one. Raises Refused for a part that is not there."""
    if part is not None and part not in batch.rewards.parts:
        raise Refused(f"sum_regression: {part!r} is no part of the recipe's reward{nearest(part, batch.rewards.parts)}")
    grain = (batch.rewards if part is None else batch.rewards.parts[part].rewards).outcome
    if grain is None:
        raise Refused(f"sum_regression learns an outcome, and {part or 'the reward'!r} gives none; name a part that does with `part`.")
    return torch.from_numpy(grain.value).to(batch.weights), torch.from_numpy(grain.scored).to(batch.weights.device)

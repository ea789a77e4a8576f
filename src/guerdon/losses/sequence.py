"""Policy-gradient losses with one ratio for a whole answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guerdon.losses.core import log_ratio, loss, row_sizes, row_sums
from guerdon.losses.policy import Out, Result, clipped

if TYPE_CHECKING:
    from guerdon.samples import Batch


@loss(fields=("logprobs",), vanishes=True)
def gspo(out: Out, batch: Batch, clip: float = 3e-4, clip_high: float | None = 4e-4, token: bool = False) -> Result:
    """sum of -w min(s A, clamp(s, 1 - clip, 1 + clip_high) A), s = exp(mean of log pi - log pi_old over the answer's tokens that count).

    The ratio of a whole answer, its length taken out, which is why the bounds are so near to 1. `aggregate: sequence_mean` makes it the
    paper's mean over answers. token: s keeps its value, but each token's own log pi its gradient (GSPO-token), for advantages that differ
    within an answer; where they do not, and with `sequence_mean`, both have one gradient. Metric clip_fraction. Source: arXiv:2507.18071.
    """
    d = log_ratio(out["logprobs"], batch.field("logprobs"), batch)
    s = (row_sums(d, batch) / row_sizes(batch).clamp(min=1)).exp()[:, None]
    ratio = s.detach() * (d - d.detach()).exp() if token else s.expand_as(d)
    return clipped(ratio, batch.advantages, batch.weights, clip, clip_high)

"""Losses that teach a head what whole answers are worth: pairs, numbers, yes or no, classes, levels.

r of a row is the head's value behind its last token, which knows the whole answer. It stands in the column behind that token (so the batch
needs a column behind each row, which `Learner` and `fit` add), where the rewards `orm` and `reward_model` read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from guerdon.losses.core import loss, pair_weights, row_weights
from guerdon.losses.preference import ahead, pair_metrics

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch


def at_end(values: Tensor, batch: Batch) -> Tensor:
    """(n,), or (n, k) of a head of classes: the value behind each row's last token, in a batch with a column behind."""
    return values[torch.arange(len(values), device=values.device), (batch.lengths - 1).clamp(min=0)]


def nearest_class(labels: Tensor, classes: Sequence[float]) -> Tensor:
    """Which of the classes each label is, or is nearest to."""
    return (labels[..., None] - labels.new_tensor(list(classes))).abs().argmin(-1)


@loss(needs=("values",), unit="pair", behind=True, learns="pairs")
def bradley_terry(out: dict[str, Tensor], batch: Batch, margin: float = 0.0, square: float = 0.0):
    """sum over pairs of w [-log sigmoid(d - margin (R_c - R_r)) + square (r_c^2 + r_r^2)], d = r_c - r_r of the chosen and rejected row.

    margin: how far apart outcomes R one apart shall be (Llama 2's margin loss). square: pulls rewards to 0, where the loss alone leaves
    their level open. For `aggregate: pair_mean`. Metrics accuracy (d > 0) and reward_gap, d. Source: arXiv:2203.02155; margin:
    arXiv:2307.09288; 2509.16127 finds every `square` up to 0.1 worse than none.
    """
    w, r = pair_weights(batch), at_end(out["values"], batch)
    d = ahead(r, batch)
    terms = -F.logsigmoid(d - margin * ahead(batch.outcome.to(r.dtype), batch)) + square * (r[batch.pairs] ** 2).sum(1)
    return (w * terms).sum(), pair_metrics(w, d)


@loss(needs=("values",), over="row", behind=True, learns="outcomes", takes="any number")
def outcome_mse(out: dict[str, Tensor], batch: Batch):
    """sum over rows of w (r - R)^2, R the outcome. For `aggregate: row_mean`. Metric squared_error."""
    value = (row_weights(batch) * (at_end(out["values"], batch) - batch.outcome) ** 2).sum()
    return value, {"squared_error": value.detach()}


@loss(needs=("values",), over="row", behind=True, learns="outcomes", takes="0 to 1")
def outcome_ce(out: dict[str, Tensor], batch: Batch):
    """sum over rows of -w [R log s + (1 - R) log (1 - s)], s = sigmoid(r), R the outcome held to [0, 1]: hard or soft labels.

    For `aggregate: row_mean`. Metric accuracy: (s > 1/2) is (R > 1/2). Source: arXiv:2110.14168.
    """
    r, w, right = at_end(out["values"], batch), row_weights(batch), batch.outcome.clamp(0, 1)
    terms = F.binary_cross_entropy_with_logits(r, right.to(r.dtype), reduction="none")
    return (w * terms).sum(), {"accuracy": (w * ((r > 0) == (right > 0.5))).sum().detach()}


@loss(needs=("values",), over="row", behind=True, learns="outcomes", takes="classes", head="classes")
def outcome_classes(out: dict[str, Tensor], batch: Batch, classes: Sequence[float] = (0, 1)):
    """sum over rows of -w log softmax(r)_k, k the class that is the outcome (or nearest to it), r of a head of that many classes.

    For `aggregate: row_mean`. Metric accuracy: the likeliest class is k.
    """
    r, w, k = at_end(out["values"], batch), row_weights(batch), nearest_class(batch.outcome, classes)
    terms = F.cross_entropy(r, k, reduction="none")
    return (w * terms).sum(), {"accuracy": (w * (r.argmax(-1) == k)).sum().detach()}


MOST_LEVELS = 16


@loss(needs=("values",), over="row", behind=True, learns="outcomes", takes="levels")
class ordinal:
    """sum over rows of -w log P(level), P(level > k) = sigmoid(r - b_k) with learned bounds b_0 < b_1 < ...: graded labels, 1 to 5 stars.

    The outcome is one of `levels` whole numbers from `lowest` on (`MOST_LEVELS` at most). The score is r. For `aggregate: row_mean`. Metric
    accuracy: the likeliest level is the label. It is the proportional-odds model (McCullagh 1980).
    """

    def __init__(self) -> None:
        self.first = nn.Parameter(torch.full((1,), -1.0))
        self.gaps = nn.Parameter(torch.zeros(MOST_LEVELS - 2))

    def parameters(self) -> list[nn.Parameter]:
        return [self.first, self.gaps]

    def bounds(self, levels: int) -> Float[Tensor, " k"]:
        """b_0 < b_1 < ..., one fewer than there are levels."""
        return torch.cat([self.first, self.first + F.softplus(self.gaps[: levels - 2]).cumsum(0)])

    def __call__(self, out: dict[str, Tensor], batch: Batch, levels: int = 5, lowest: int = 1):
        r, w = at_end(out["values"], batch), row_weights(batch)
        k = (batch.outcome.round().long() - lowest).clamp(0, levels - 1)
        above = r[:, None] - self.bounds(levels).to(r)
        edge = above.new_full((len(r), 1), torch.inf)
        low, high = torch.cat([edge, above], 1), torch.cat([above, -edge], 1)  # logits of P(level >= k) and P(level > k)
        logp = _log_between(low, high)
        terms = -logp.gather(1, k[:, None])[:, 0]
        return (w * terms).sum(), {"accuracy": (w * (logp.argmax(1) == k)).sum().detach()}


def _log_between(low: Tensor, high: Tensor) -> Tensor:
    """log(sigmoid(low) - sigmoid(high)) for low > high, without cancellation; low may be inf, high -inf."""
    gap = torch.where(low.isinf() | high.isinf(), 0.0, low - high)
    inner = torch.where(low.isinf() | high.isinf(), 0.0, torch.log(-torch.expm1(-gap.clamp(min=1e-12))))
    upper = torch.where(low.isinf(), 0.0, F.logsigmoid(torch.where(low.isinf(), 0.0, low)))
    lower = torch.where(high.isinf(), 0.0, F.logsigmoid(torch.where(high.isinf(), 0.0, -high)))
    return upper + lower + inner

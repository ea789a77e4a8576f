"""Losses that imitate or regress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guerdon.losses.core import loss

if TYPE_CHECKING:
    from torch import Tensor

    from guerdon.samples import Batch


@loss
def sft(out: dict[str, Tensor], batch: Batch):
    """Cross-entropy: -sum of w log pi of the tokens that stand there. Rewards and advantages play no part."""
    return -(batch.weights * out["logprobs"]).sum(), {}


@loss(needs=("values",), fields=("returns",))
def value_mse(out: dict[str, Tensor], batch: Batch):
    """sum of w (V - G)^2 / 2, G the field `returns`. Metric value_error: mean squared error."""
    error = (out["values"] - batch.field("returns").to(out["values"].dtype)) ** 2
    return (batch.weights * error).sum() / 2, {"value_error": (batch.weights * error).sum().detach()}

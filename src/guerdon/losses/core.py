"""The loss contract: (out, batch, **params) -> (sum, metrics).

`out` holds what the loss named in `needs` (`logprobs` always). Every denominator is in `batch.weights` already, so a loss is a plain sum
of weight times term over tokens, its metrics are weighted sums too, and any split of the batch along `unit` adds up to the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from guerdon.registry import Refused, registrar

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch

loss = registrar("loss")
"""`@loss` or `@loss(needs=("entropy",), fields=("logprobs",), vanishes=True)`.

needs: outputs of the backend beside `logprobs`. fields: batch fields it reads. vanishes: tokens of advantage 0 add nothing to its gradient,
so that rows of nothing else may be left out of the passes.
"""


def log_ratio(new: Float[Tensor, "n t"], old: Float[Tensor, "n t"], batch: Batch) -> Float[Tensor, "n t"]:
    """new - old where the token counts, 0 where its weight is 0: a NaN there, or what overflows in exp, must not get into a sum.

    Raises Refused where the difference is NaN on a token that counts.
    """
    counts = batch.weights != 0
    d = torch.where(counts, new - old, 0.0)
    if bool(d.isnan().any()):
        raise Refused(
            "Log-probabilities are missing (NaN) on tokens that a loss with a ratio counts: train on expert rows and files, which have "
            "none, with a loss such as sft; if there are no such rows, the model has diverged."
        )
    return d

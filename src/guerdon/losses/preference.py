"""Losses of pairs (chosen, rejected): what was preferred becomes likelier than what was not.

h of a row is the sum of log pi - log pi_ref over its tokens: a sum, so that pairs whose sides differ in length are weighed as the model's
probabilities are. Every mean over pairs stands in the weights (`aggregate: pair_mean`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

from guerdon.losses.core import log_ratio, loss, pair_weights, row_sums

if TYPE_CHECKING:
    from torch import Tensor

    from guerdon.samples import Batch


@loss(fields=("ref_logprobs",), unit="pair")
def dpo(out: dict[str, Tensor], batch: Batch, beta: float = 0.1, smoothing: float = 0.0):
    """sum over pairs of -w [(1 - smoothing) log sigmoid(beta d) + smoothing log sigmoid(-beta d)], d = h(chosen) - h(rejected).

    smoothing: the share of labels that are taken to be wrong (conservative DPO). Metrics accuracy (d > 0) and reward_gap, beta d.
    Source: arXiv:2305.18290.
    """
    w = pair_weights(batch)
    h = row_sums(log_ratio(out["logprobs"], batch.field("ref_logprobs"), batch), batch)
    d = beta * (h[batch.pairs[:, 0]] - h[batch.pairs[:, 1]])
    terms = (1 - smoothing) * F.logsigmoid(d) + smoothing * F.logsigmoid(-d)
    return -(w * terms).sum(), pair_metrics(w, d)


def pair_metrics(w: Tensor, d: Tensor) -> dict[str, Tensor]:
    """Weighted sums over pairs: how often, and by how much, the chosen one is ahead."""
    d = d.detach()
    return {"accuracy": (w * (d > 0)).sum(), "reward_gap": (w * d).sum()}

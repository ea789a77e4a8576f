"""The loss contract: (out, batch, **params) -> (sum, metrics).

`out` holds what the loss named in `needs` (`logprobs` always). Every denominator is in `batch.weights` already, so a loss is a plain sum
of weight times term over tokens, its metrics are weighted sums too, and any split of the batch along `unit` adds up to the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from guerdon.registry import Refused, find, registrar

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from guerdon.backends.base import LossCall
    from guerdon.samples import Batch

loss = registrar("loss")
"""`@loss` or `@loss(needs=("entropy",), fields=("logprobs",), vanishes=True, unit="pair")`.

needs: outputs of the backend beside `logprobs`. fields: batch fields it reads. vanishes: tokens of advantage 0 add nothing to its gradient,
so that rows of nothing else may be left out of the passes. unit: what it sees at once and no micro-batch may split, a `pair` of
`batch.pairs` (its recipe takes `aggregate: pair_mean` and a `keep` that makes pairs) or a `group`; a row unless stated. credit: the one
whose advantages it reads. grains: of rewards that it reads by itself. over: what its
metrics are sums over, `token` unless stated, `row`, `step` (a labelled one), or `pair` where that is the unit; they are divided by the
sum of those weights. Of reward models: behind, whether it reads the column behind each row; learns, the kind of data; takes, their labels;
head, the one it reads where that is not a scalar.
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


def row_sums(x: Float[Tensor, "n t"], batch: Batch) -> Float[Tensor, " n"]:
    """Sums over the tokens of each row that count (their weight is not 0)."""
    return torch.where(batch.weights != 0, x, 0.0).sum(1)


def row_sizes(batch: Batch) -> Float[Tensor, " n"]:
    """How many tokens of each row count."""
    return (batch.weights != 0).sum(1).to(batch.weights.dtype)


def row_weights(batch: Batch) -> Float[Tensor, " n"]:
    """The weight of each row as a whole: of its heaviest token."""
    return batch.weights.amax(1)


def pair_weights(batch: Batch) -> Float[Tensor, " p"]:
    """The weight of each pair, that of its lighter row; 0 where a side failed, so that such a pair is in no sum.

    Raises Refused for a pair with one side that has tokens and one that has none.
    """
    chosen, rejected = batch.pairs.T
    written = batch.mask.any(1)
    torn = written[chosen] != written[rejected]
    if bool(torn.any()):
        a, b = batch.pairs[int(torn.nonzero()[0, 0])].tolist()
        row = a if not bool(written[a]) else b
        raise Refused(f"Sample {row}, in the pair ({a}, {b}), has no token in `written`: it cannot be preferred or not; leave it out.")
    weights = row_weights(batch)
    return torch.minimum(weights[chosen], weights[rejected])


def units(batch: Batch, names: Sequence[str]) -> Int[Tensor, " n"]:
    """Which rows these losses must see together: those of a group, those of a pair (chains of pairs too), or each row by itself."""
    kinds = {find("loss", name).about.get("unit", "row") for name in names}
    unit = torch.arange(len(batch), device=batch.ids.device)
    if "group" in kinds:
        return batch.group
    changed = "pair" in kinds and len(batch.pairs) > 0
    while changed:
        lowest = unit.scatter_reduce(0, batch.pairs.flatten(), unit[batch.pairs].amin(1).repeat_interleave(2), "amin")
        changed = not torch.equal(lowest, unit)
        unit = lowest
    return unit


def shared(calls: Sequence[LossCall], batch: Batch) -> list[LossCall]:
    """The terms that have rows in this optimiser batch, each knowing the sum of their weights, by which its metrics are divided."""
    known = [(call, call.rows(batch)) for call in calls]
    return [replace(call, share=float(_total(call.name, part)) or 1.0) for call, part in known if bool(part.weights.any())]


def _total(name: str, batch: Batch) -> Tensor:
    """The sum of the weights of what this loss's metrics are sums over: of tokens, rows, pairs or labelled steps."""
    about = find("loss", name).about
    over = about.get("over", "pair" if about.get("unit") == "pair" else "token")
    if over == "token":
        return batch.weights.sum()
    if over == "step":
        inside = batch.rewards.step
        return row_weights(batch).sum() if inside is None else row_weights(batch) @ torch.from_numpy(inside.scored.sum(1)).to(batch.weights)
    return row_weights(batch).sum() if over == "row" else row_weights(batch)[batch.pairs].amin(1).sum()

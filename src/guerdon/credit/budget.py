"""Credit for groups that are made of subgroups, each with its own budget of tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from guerdon.credit.core import centred, credit, group_sum, spread
from guerdon.registry import Refused

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch


@credit(needs=("budget",))
def hbpo(batch: Batch, limit: int = 4096, beta: float = 4.0, intra: float = 1.0, eps: float = 1e-6) -> Float[Tensor, "n t"]:
    """A = intra (mean of the subgroup - beta cos(pi b / (2 limit))) + (r - mean of the group) / (std of the group + eps), std with n - 1.

    A subgroup is the answers of a group that share the budget b, the batch's field `budget` (tokens, from the rollout `budgets`). limit and
    beta are those of the shape `hbpo`, whose highest reward within b is the number subtracted: a subgroup is pushed down as a whole unless
    all of it is right and within budget; intra 0 leaves that term out. A group of one, or of equal rewards, has only that term.
    The released code adds the first term twice (intra 2). Raises Refused without the field. Source: arXiv:2507.15844, algorithm 1.
    """
    if "budget" not in batch.fields:
        raise Refused("The credit `hbpo` needs the budget of every sample; sample with `rollout: budgets`, or give a column `budget`.")
    above, count = centred(batch)
    variance = group_sum(above**2, batch) / (count - 1).clamp(min=1)
    inter = above / (variance.sqrt() + eps)
    budget = batch.fields["budget"].to(inter.dtype)
    budgets, which = torch.unique(budget, return_inverse=True)
    subgroup = batch.group * max(len(budgets), 1) + which
    judged = (count > 0).to(inter.dtype)
    most = int(subgroup.max()) + 1 if len(batch) else 0
    total, size = (torch.zeros(most, dtype=inter.dtype, device=inter.device) for _ in range(2))
    total.index_add_(0, subgroup, batch.outcome * judged)
    size.index_add_(0, subgroup, judged)
    short = (total / size.clamp(min=1))[subgroup] - beta * torch.cos(math.pi * budget / (2 * limit))
    return spread((intra * short + inter) * judged, batch)

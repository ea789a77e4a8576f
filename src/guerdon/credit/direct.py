"""Both terms of the gradient of an expected likelihood: credit of the thought, and the likelihood's own gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from guerdon.credit.core import credit, spread
from guerdon.credit.group import rloo
from guerdon.registry import Refused

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch


@credit
def two_term(batch: Batch, direct: float = 1.0, weigh: Literal["one", "reward"] = "one", baseline: bool = True) -> Float[Tensor, "n t"]:
    """A = r - mean of the others in the group on the thought; on the reference's tokens `direct`, or with weigh "reward" direct * r.

    grad E_z[f(log p(a | z))] = E_z[(f - b) grad log p(z)] + E_z[f' grad log p(a | z)], with loss `policy_gradient`: f' is 1 for the reward
    `log_prob`, and the reward itself for `prob`. baseline False: A = r, for rewards that are differences already (`jepo`). The reference's
    tokens are fields direct_from to direct_to, of the rollout `with_reference`; a batch without them gets the first term alone. Sums over
    tokens, so it goes with an aggregate that divides every token alike (token_mean, constant). Source: arXiv:2602.03979.
    """
    if weigh not in ("one", "reward"):
        raise Refused(f"two_term(weigh={weigh!r}): weigh is one or reward.")
    thought = rloo(batch) if baseline else spread(batch.outcome, batch)
    if "direct_from" not in batch.fields:
        return thought
    place = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    inside = (place >= batch.field("direct_from")[:, None]) & (place < batch.field("direct_to")[:, None])
    weight = direct * (batch.outcome if weigh == "reward" else torch.ones_like(batch.outcome))
    return torch.where(inside, spread(weight, batch), thought)

"""Outcome credit with a baseline from the group or the batch: every written token of an answer gets the same number.

A sample alone in its group has nobody to be compared with and gets 0 (some trainers give it its raw reward).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from guerdon.credit.core import centre_, centred, credit, group_sum, spread
from guerdon.credit.gae import rewards_to_go

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch


@credit(group=True)
def grpo(batch: Batch, eps: float = 1e-6) -> Float[Tensor, "n t"]:
    """A = (r - mean of the group) / (std of the group + eps), std with n - 1. Groups of one sample or of equal rewards get 0.

    The paper has no eps and leaves n or n - 1 open. Source: arXiv:2402.03300.
    """
    above, count = centred(batch)
    variance = group_sum(above**2, batch) / (count - 1).clamp(min=1)
    return spread(above / (variance.sqrt() + eps), batch)


@credit(group=True)
def dr_grpo(batch: Batch) -> Float[Tensor, "n t"]:
    """A = r - mean of the group: GRPO without the division by std, which favours easy and hard questions. Groups of one get 0.

    Its other half is `aggregate: constant`, which replaces the division by each answer's length. Source: arXiv:2503.20783.
    """
    return spread(centred(batch)[0], batch)


@credit(group=True)
def rloo(batch: Batch) -> Float[Tensor, "n t"]:
    """A = r - mean of the others in the group = (r - mean) n / (n - 1). Groups of one get 0. Source: arXiv:2402.14740."""
    above, count = centred(batch)
    return spread(above * count / (count - 1).clamp(min=1), batch)


@credit(grains=("outcome", "step", "token"))
def reinforce_pp(batch: Batch, gamma: float = 1.0, group_baseline: bool = False, eps: float = 1e-8) -> Float[Tensor, "n t"]:
    """REINFORCE++: reward to go, normalised over all written tokens of the batch: A = (G - mean) / (std + eps), std with n - 1.

    G_t = sum over u >= t of gamma^(u - t) r_u of all grains, a KL penalty at token grain among them. group_baseline first subtracts from
    each outcome the mean of its group (the paper's "-baseline" variant). Equal G everywhere give 0. Source: arXiv:2501.03262.
    """
    if group_baseline:
        above, outcome = centred(batch)[0], batch.rewards.outcome
        assert outcome is not None
        batch = replace(batch, rewards=replace(batch.rewards, outcome=replace(outcome, value=above.double().cpu().numpy())))
    centre, count = centre_(rewards_to_go(batch, gamma), batch.mask & batch.alive[:, None])
    return centre.div_(torch.linalg.vector_norm(centre) / max(count - 1, 1) ** 0.5 + eps)

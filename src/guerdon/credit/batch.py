"""Outcome credit that looks at the whole batch once more: which groups teach anything, which advantages are beyond belief."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guerdon.credit.core import centred, credit, group_sum, spread
from guerdon.credit.group import reinforce_pp

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch


@credit(group=True)
def gpg(batch: Batch) -> Float[Tensor, "n t"]:
    """A = alpha (r - mean of the group), alpha = groups of the batch / groups whose outcomes differ. Groups of one get 0.

    A group of equal outcomes has no gradient but stands in the mean over the batch; alpha takes it out again. With `loss: policy_gradient`
    and `aggregate: token_mean` it is GPG. Groups without a verdict are not counted. Source: arXiv:2504.02546 (with F_norm = 1).
    """
    above, count = centred(batch)
    judged, teaches = count > 0, group_sum((above != 0).to(above.dtype), batch) > 0
    share = len(batch.group[judged].unique()) / max(len(batch.group[judged & teaches].unique()), 1)
    return spread(above * share, batch)


@credit(grains=("outcome", "step", "token"))
def three_sigma(batch: Batch, sigma: float = 3.0, gamma: float = 1.0) -> Float[Tensor, "n t"]:
    """The advantages of `reinforce_pp`, those beyond `sigma` deviations set to 0: in a batch of all but equal rewards the few that differ
    get advantages without measure.

    The filter comes after standardising, on the number that the outlier is in itself. With `loss: stable_reinforce` it is StableReinforce.
    Source: arXiv:2505.02835, which the authors' code leaves out.
    """
    advantages = reinforce_pp(batch, gamma)
    return advantages.mul_(advantages.abs() <= sigma)

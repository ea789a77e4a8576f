"""Credit from what a judge of pairs said within a group, without any number for a single answer.

The verdicts are evidence of the reward (`rewards.pairwise.tournament`); without them differences of outcomes stand for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from guerdon.credit.core import credit, spread
from guerdon.rewards.pairwise import duels, pairs_of

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch


@credit(group=True)
def pairwise(batch: Batch, eps: float = 1e-6) -> Float[Tensor, "n t"]:
    """A_i = (1/G) sum_j d_ij / sqrt(sum_ab d_ab^2 / (2 G (G - 1)) + eps), d_ij by how much i was judged better than j.

    d averages both orders, so a judge's leaning to what it is shown first falls out. With d_ij = r_i - r_j it is GRPO's, but for eps. A
    pair without a readable verdict is left out of both means (in the released code it is a tie, which shrinks what all are divided by).
    Groups of one get 0. Source: arXiv:2505.16265, its released code.
    """
    found, n = pairs_of(batch.group.cpu().numpy(), batch.rewards), len(batch)
    a, by = found.a[found.judged], found.by[found.judged]
    group = np.unique(batch.group.cpu().numpy(), return_inverse=True)[1]
    count = np.bincount(a, minlength=n)
    living = np.bincount(group, batch.rewards.alive, minlength=n)[group]
    mean = np.bincount(a, by, n) / np.maximum(count, 1) * (living - 1) / np.maximum(living, 1)
    square = (np.bincount(group[a], by**2, n) / np.maximum(np.bincount(group[a], minlength=n), 1))[group]
    return spread(_tensor(mean / np.sqrt(square / 2 + eps), batch), batch)


@credit(group=True)
def brpo(batch: Batch) -> Float[Tensor, "n t"]:
    """A_i = 1 where every verdict, in both orders, prefers i to the group's reference, else -1; 0 for the reference itself.

    No mean, no deviation: with a reference drawn at random, equally good samples have expectation 0, less what ties take (a tie is -1). Of
    several references the mean, for less variance. A sample without a readable verdict gets 0 (in the paper -1, after retries). Groups
    whose reference was an outlier: `keep: fair_reference`. Source: arXiv:2506.00103.
    """
    return spread(_tensor(duels(pairs_of(batch.group.cpu().numpy(), batch.rewards), len(batch)), batch), batch)


@credit(needs=("logprobs", "ref_logprobs", "expert"))
def kto_point(batch: Batch) -> Float[Tensor, "n t"]:
    """The point of reference of the loss `kto`, on every token: max(0, mean over the policy's living rows of sum_t log pi - log pi_ref).

    That mean estimates KL(pi, pi_ref), once over all rows that are trained on together, however they are split; without a row that the
    policy wrote it is 0. (The paper, whose rows come from files, pairs prompts with others' answers for it.) Source: arXiv:2402.01306.
    """
    known = batch.mask & ~batch.field("logprobs").isnan()
    h = torch.where(known, batch.field("logprobs") - batch.field("ref_logprobs"), 0.0).sum(1)
    own = batch.alive & (batch.field("expert") == 0) & known.any(1)
    z = torch.where(own, h, 0.0).sum() / own.sum().clamp(min=1)
    return spread(z.clamp(min=0).expand(len(batch)), batch)


def _tensor(x: np.ndarray, batch: Batch) -> Tensor:
    return torch.from_numpy(x).to(batch.weights)

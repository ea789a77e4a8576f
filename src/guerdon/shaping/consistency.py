"""Pay for answers that follow from their own thought."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Context, Rewards, Sample, State
from guerdon.shaping.core import shape


@shape(scope="group", grains=("outcome",), changes_state=True, example={"likelihood": "exact"})
def care(
    rewards: Rewards,
    samples: Sequence[Sample],
    context: Context,
    likelihood: Rewards,
    coefficient: float = 0.5,
    margin: float = 0.01,
    least: float = 0.1,
) -> Rewards:
    """a_i + coefficient * a_i for samples that are both right and consistent with their thought, by the measure of their group; else a_i.

    Right: H = {i: a_i > least and a_i >= mean of a over the group}, a the reward that is shaped. Consistent: p_i >= mean of p over H -
    margin, p the reward `likelihood`. No H, no bonus; none either for those whose likelihood abstained. A likelihood that failed fails what
    it is for. `(math | care(answer_likelihood)) + format`, with a model `reference` that follows the policy slowly, and no KL term.
    Raises Refused where the likelihood is one of steps or tokens. Source: arXiv:2506.16141, its released code.
    """
    if likelihood.outcome is None:
        raise Refused("care: `likelihood` is a reward of whole answers, such as answer_likelihood, not one of steps or tokens.")
    assert rewards.outcome is not None
    out = rewards.map(lambda g: g.value.copy())
    a, p, new = rewards.outcome, likelihood.outcome, out.outcome
    assert new is not None
    group = np.array([s.group for s in samples], dtype=np.int64)
    for g in np.unique(group):
        rows = np.flatnonzero((group == g) & a.scored)
        right = rows[(a.value[rows] > least) & (a.value[rows] >= a.value[rows].mean())] if len(rows) else rows
        known = right[p.scored[right]]
        if len(known):
            paid = known[p.value[known] >= p.value[known].mean() - margin]
            new.value[paid] += coefficient * a.value[paid]
    for i in np.flatnonzero(a.scored & p.failed).tolist():
        new.value[i], new.state[i], new.reason[(i,)] = 0.0, State.FAILED, likelihood.why(i)
    return out

"""Shapes that pay for one thing only as far as others hold: bottom lines as a soft AND, evidence for right answers alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.registry import Refused
from guerdon.rewards import algebra
from guerdon.samples import Context, Grain, Rewards, Sample, State
from guerdon.shaping.core import shape
from guerdon.shaping.normalise import group_rows


@shape(scope="sample", grains=("outcome",), changes_state=True, example={"first": "exact"})
def gated(
    rewards: Rewards,
    samples: Sequence[Sample],
    context: Context,
    first: Rewards,
    second: Rewards | None = None,
    third: Rewards | None = None,
    fourth: Rewards | None = None,
    delta: float = 1e-6,
) -> Rewards:
    """B * U, B = (prod_k (b_k + delta))^(1/K) - delta over the bottom lines b_1 .. b_K, U the reward that is shaped; all in [0, 1].

    `mean(rich, concise) | gated(grounding, quality, well_formed)`: any bottom line near 0 shuts the reward, and where all are near 1 what
    is left to gain is U. One b_k = 0 leaks at most delta^(1/K) of U: 1 % for K = 3 and the default, 20 % for delta = 0.01. States as in a
    mean of the b and a product with U: an abstained bottom line is left out of it, a failed one fails the sample.
    Raises Refused for a bottom line of steps or tokens, or below 0, and for a negative delta. Source: arXiv:2603.10473; the form of the
    smoothing and its size are not in the abstract and are assumed.
    """
    if delta < 0:
        raise Refused(f"gated(delta={delta}): delta is 0 or more.")
    lines = [line for line in (first, second, third, fourth) if line is not None]
    grains = [line.outcome for line in lines if line.outcome is not None]
    if len(grains) < len(lines):
        raise Refused("gated: every bottom line is a reward of whole answers, not of steps or tokens.")
    value, scored = (np.stack([getattr(g, name) for g in grains]) for name in ("value", "scored"))
    if (value < 0).any():
        raise Refused(f"gated: a bottom line is {value.min():g}; bottom lines lie in [0, 1], so write `| clip(0, 1)` behind it.")
    open_by = np.where(scored, value + delta, 1.0).prod(0) ** (1.0 / np.maximum(scored.sum(0), 1)) - delta
    known = algebra.fold("mean", lines).outcome
    assert known is not None
    return Rewards(outcome=algebra.product([Rewards(outcome=Grain.of(open_by, known.state, known.reason)), rewards]).outcome)


@shape(scope="group", grains=("outcome",), changes_state=True, example={"rubric": "exact"})
def c_grpo(rewards: Rewards, samples: Sequence[Sample], context: Context, rubric: Rewards, weight: float = 0.3) -> Rewards:
    """(1 - weight) * o_i + weight * o_i * r_i / max_j r_j, o the outcome that is shaped, r the rubric reward, the maximum over the group.

    `correct | c_grpo(carr)`: evidence pays for right answers alone, so o_i = 0 is exactly 0 and collecting evidence without an answer
    pays nothing. A maximum of 0, or a rubric that abstained, adds nothing. A rubric that failed fails its sample where o_i is not 0.
    The released trainer works out r_i / max_j r_j and then, with `--rubric-only-positive`, adds the raw r_i: for that, write
    `0.7 * correct + 0.3 * correct * carr`. Raises Refused for a rubric of steps or tokens and a weight outside [0, 1].
    Source: arXiv:2601.06021 (C-GRPO).
    """
    if rubric.outcome is None:
        raise Refused("c_grpo(rubric): the rubric must be a reward of whole answers; write c_grpo(carr).")
    if not 0 <= weight <= 1:
        raise Refused(f"c_grpo(weight={weight}): weight is a share, from 0 to 1.")
    assert rewards.outcome is not None
    o, r = rewards.outcome, rubric.outcome
    share = np.zeros(len(rewards))
    for rows in group_rows(samples):
        most = r.value[rows].max(initial=0.0)
        if most > 0:
            share[rows] = r.value[rows] / most
    lost = np.flatnonzero(o.scored & (o.value != 0) & r.failed).tolist()
    state = o.state.copy()
    state[lost] = State.FAILED
    reason = {**o.reason, **{(i,): rubric.why(i) for i in lost}}
    return Rewards(outcome=Grain.of(o.value * (1 - weight + weight * share), state, reason))

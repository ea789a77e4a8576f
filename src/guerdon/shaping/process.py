"""Shapes of step rewards: a learned process reward as a dense signal that cannot be farmed by adding steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample, State
from guerdon.shaping.core import shape


@shape(scope="sample", grains=("step",))
def step_clip(rewards: Rewards, samples: Sequence[Sample], context: Context, threshold: float = 0.5) -> Rewards:
    """min(p_k - threshold, 0): a step is neutral or punished, never paid. Source: arXiv:2410.15115 (Clip)."""
    return rewards.map(lambda g: np.minimum(g.value - threshold, 0.0))


@shape(scope="sample", grains=("step",))
def step_delta(rewards: Rewards, samples: Sequence[Sample], context: Context) -> Rewards:
    """p_k - p_(k+1) for the steps k = 1 .. K-2, p_(K-1) for the last but one, 0 for the last, which the outcome pays.

    From step k on these add up to p_k, and over the answer to p_1, however many steps follow: repeating steps earns nothing. Only with a
    discount of 1. Steps that abstained are passed over. `prm | step_clip | step_delta` is the paper's best. Source: arXiv:2410.15115; what
    the last two steps get is recalled, and not confirmed.
    """
    return rewards.map(_delta)


def _delta(g: Grain) -> np.ndarray:
    out = np.zeros_like(g.value)
    for row, scored in enumerate(g.scored):
        at = np.flatnonzero(scored)
        p = g.value[row, at[:-1]]
        out[row, at[:-1]] = p - np.append(p[1:], 0.0)
    return out


@shape(scope="sample", grains=("step",), changes_state=True, example={"outcome": "exact"})
def renorm(rewards: Rewards, samples: Sequence[Sample], context: Context, outcome: Rewards) -> Rewards:
    """p_k + o - 1 for every step but the last, o for the last: `judge_steps | renorm(exact)` is the whole reward, its outcome included.

    For p and o in [0, 1]: a step of a failed answer gets at most 0, one of a solved answer at least 0. Steps that abstained are passed
    over; where the outcome abstained or failed, so does every scored step. Longer answers are not neutral: each step of a failed one costs
    up to 1. Raises Refused for an outcome of steps or tokens. Source: arXiv:2509.25598; that the last step keeps o is assumed.
    """
    o = outcome.outcome
    if o is None:
        raise Refused("renorm(outcome): the outcome must be a reward of whole answers; write renorm(exact).")
    assert rewards.step is not None
    scored = rewards.step.scored
    last = scored & (scored[:, ::-1].cumsum(1)[:, ::-1] == 1)
    out = rewards.map(lambda g: np.where(last, o.value[:, None], g.value + o.value[:, None] - 1))
    assert out.step is not None
    without = scored & ~o.scored[:, None]
    out.step.value[without] = 0.0
    out.step.state[without] = np.broadcast_to(o.state[:, None], scored.shape)[without]
    for i in np.flatnonzero(without.any(1) & (o.state == State.FAILED)).tolist():
        out.step.reason[(i, int(scored[i].argmax()))] = outcome.why(i)
    return out

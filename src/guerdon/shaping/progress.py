"""Step rewards of what a step changes: the progress of a prover, and thoughts in the place of steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample, State
from guerdon.shaping.core import shape
from guerdon.shaping.normalise import group_rows


@shape(scope="group", grains=("step",))
def progress(rewards: Rewards, samples: Sequence[Sample], context: Context, k: int = 4) -> Rewards:
    """A_h = Q_h - Q_(h-1) of the best of k: Q_h = 1 - (1 - q_h)^k, q_h the step's reward, the chance of a right end after step h.

    q is held within 0 and 1: of a process reward model, of continuations, or exact. Before the first step q is the mean of the first steps
    of the sample's group. k 1 measures progress under the policy itself, which the outcome already tells on average; a large k calls every
    prefix good. Steps that abstained are passed over. For the credit `pav`. Raises Refused for k below 1.
    Source: arXiv:2410.08146; that q before the first step is the group's mean is our choice.
    """
    if k < 1:
        raise Refused(f"progress(k={k}): the prover takes the best of k answers, 1 or more.")

    def value(g: Grain) -> np.ndarray:
        q = np.clip(g.value, 0.0, 1.0)
        first = g.scored & (g.scored.cumsum(1) == 1)
        before, out = np.zeros(len(q)), np.zeros_like(q)
        for rows in group_rows(samples):
            if first[rows].any():
                before[rows] = 1 - (1 - q[rows][first[rows]].mean()) ** k
        for h in range(q.shape[1]):
            now = np.where(g.scored[:, h], 1 - (1 - q[:, h]) ** k, before)
            out[:, h], before = now - before, now
        return out

    return rewards.map(value)


@shape(scope="group", grains=("step",), changes_state=True, example={"outcome": "exact"})
def thoughts(
    rewards: Rewards, samples: Sequence[Sample], context: Context, outcome: Rewards, correct: float = 0.5, wrong: float = 0.5
) -> Rewards:
    """correct * acc for a thought of right steps, -wrong for one of wrong steps, at the thought's last step; its other steps abstain.

    A thought is a run of steps that are all right (reward 0.5 or more) or all wrong; steps that abstained are passed over. acc is the mean
    outcome of the group, 0 where none was scored: where nobody solves the task a right thought earns nothing. Splitting a thought into more
    steps changes nothing. `exact + (judge_steps | thoughts(exact))` with the credit `igpo(separate=True)`, which normalises outcomes and
    thoughts apart and sums thoughts to go, is the paper's advantage.
    Raises Refused for an outcome of steps or tokens. Source: arXiv:2507.23317; 0.5 for both sizes is assumed, its replay is not built.
    """
    o, g = outcome.outcome, rewards.step
    if o is None:
        raise Refused("thoughts(outcome): the outcome must be a reward of whole answers; write thoughts(exact).")
    assert g is not None
    acc = np.zeros(len(samples))
    for rows in group_rows(samples):
        acc[rows] = o.value[rows][o.scored[rows]].mean() if o.scored[rows].any() else 0.0
    right = g.value >= 0.5
    after, ends = np.full(len(samples), -1), np.zeros_like(g.scored)
    for h in range(right.shape[1] - 1, -1, -1):
        now = np.where(g.scored[:, h], right[:, h], after)
        ends[:, h], after = g.scored[:, h] & (now != after), now
    state = np.where(g.scored & ~ends, State.ABSTAINED, g.state)
    return Rewards(step=Grain.of(np.where(right, correct * acc[:, None], -wrong), state, g.reason))

"""A dense reward from which tests a program passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample, State
from guerdon.shaping.core import shape
from guerdon.shaping.normalise import group_rows


@shape(scope="group", grains=("outcome", "step"), changes_state=True)
def verpo(
    rewards: Rewards, samples: Sequence[Sample], context: Context, alpha: float = 2.0, sigma: float = 0.1, delta: float = 1e-3
) -> Rewards:
    """Step rewards r of a turn = sum over tests j of w_j passed_j, w_j = exp(-alpha rho_j) / (N_j + delta).

    rho_j is the share of all turns of the group that pass test j, N_j = sum over tests k of exp(-(rho_j - rho_k)^2 / (2 sigma^2)): rare
    passes weigh more, and tests that pass about equally often share one weight. It reads the evidence `passes` of the reward it stands on:
    of each sample a list of turns, each 0 or 1 a test (a turn is a step; a sample without steps has one). A sample without it abstains, one
    that failed stays failed. `solved + (tests | verpo)` with the credit `verpo`. Raises Refused for turns of unequal numbers of tests.
    Source: arXiv:2601.03525; alpha, sigma and delta are assumed.
    """
    found = next((entry for name, entry in rewards.evidence.items() if name.split(".")[-1] == "passes"), [None] * len(samples))
    rows = [None if entry is None or not alive else entry for entry, alive in zip(found, rewards.alive.tolist(), strict=True)]
    out: list[list[float | None]] = [[] for _ in samples]
    for members in group_rows(samples):
        turns = [(i, turn) for i in members.tolist() for turn in rows[i] or ()]
        if len({len(turn) for _, turn in turns}) > 1:
            raise Refused(f"verpo: the turns of task {samples[members[0]].task.id!r} were run against different numbers of tests.")
        passed = np.array([turn for _, turn in turns], dtype=float)
        if passed.size:
            for (i, _), r in zip(turns, (passed @ weights_of_tests(passed.mean(0), alpha, sigma, delta)).tolist(), strict=True):
                out[i].append(r)
    step = Grain.ragged(out)
    for i in np.flatnonzero(rewards.failed).tolist():
        step.state[i, 0], step.reason[i, 0] = State.FAILED, rewards.why(i)
    return Rewards(step=step)


def weights_of_tests(rho: np.ndarray, alpha: float = 2.0, sigma: float = 0.1, delta: float = 1e-3) -> np.ndarray:
    """(m,) the weight of each test from the share of turns that pass it: see `verpo`."""
    crowd = np.exp(-((rho[:, None] - rho[None, :]) ** 2) / (2 * sigma**2)).sum(1)
    return np.exp(-alpha * rho) / (crowd + delta)

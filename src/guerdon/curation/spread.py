"""Prompts are kept by how much their samples' rewards differ: where all thoughts are worth the same there is nothing to learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.curation.core import keep
from guerdon.registry import Refused
from guerdon.samples import Context, Kept, Rewards, Sample


def spreads(samples: Sequence[Sample], rewards: Rewards) -> dict[int, float]:
    """group -> standard deviation (n - 1) of its living rewards; groups of which fewer than two live are left out."""
    group, value, alive = np.array([s.group for s in samples], dtype=np.int64), rewards.total(), rewards.alive
    found = {int(g): value[(group == g) & alive] for g in np.unique(group)}
    return {g: float(x.std(ddof=1)) for g, x in found.items() if len(x) > 1}


@keep
class std_filter:
    """Leaves out groups whose standard deviation is below `share` of what is usual: too easy, too hard, or a reward that does not move.

    Usual is the mean standard deviation of a batch's groups: the plain mean over the first `start` batches, in which everything is kept
    (but for groups of which fewer than two live), then its moving average, decay * old + (1 - decay) * new. The loop refills the batch with
    fresh groups, `train.max_refills` times. State: usual, and the number of batches. Source: arXiv:2506.18254, its released code (which
    averages over steps 6 to 10 at first, and here a round of refills counts as a batch).
    """

    def __init__(self, share: float = 0.5, decay: float = 0.99, start: int = 10) -> None:
        if share < 0 or not 0 <= decay < 1 or start < 1:
            raise Refused(
                f"std_filter(share={share}, decay={decay}, start={start}): share is at least 0, decay within [0, 1), start at least 1."
            )
        self.share, self.decay, self.start = share, decay, start
        self.usual, self.batches = 0.0, 0

    def __call__(self, samples: Sequence[Sample], rewards: Rewards, context: Context) -> Kept:
        least = self.share * self.usual if self.batches >= self.start else 0.0
        kept = [g for g, spread in spreads(samples, rewards).items() if spread >= least]
        return Kept(np.flatnonzero(np.isin([s.group for s in samples], kept)), np.ones(len(samples)))

    def observe(self, samples: Sequence[Sample], rewards: Rewards, context: Context, on: str = "train") -> None:
        found = list(spreads(samples, rewards).values())
        if on != "train" or not found:
            return
        old = self.batches / (self.batches + 1) if self.batches < self.start else self.decay
        self.usual = old * self.usual + (1 - old) * float(np.mean(found))
        self.batches += 1

    def state_dict(self) -> dict[str, Any]:
        return {"usual": self.usual, "batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.usual, self.batches = state["usual"], state["batches"]


@keep
def reflective(samples: Sequence[Sample], rewards: Rewards, context: Context, share: float = 0.1) -> Kept:
    """Leaves out the `share` of groups in which the thoughts move the reference least, and those in which they do not move it at all.

    By the evidence `sigma` of the reward `r3`: the largest standard deviation, over thoughts, of a reference token's log-probability. It
    has nothing to say of groups without that evidence, and keeps them. Source: arXiv:2506.13351 (its second filter).
    """
    if not 0 <= share < 1:
        raise Refused(f"reflective(share={share}): a share is at least 0 and below 1.")
    evidence = next((entry for name, entry in rewards.evidence.items() if name.split(".")[-1] == "sigma"), [None] * len(samples))
    found = {s.group: sigma for s, sigma in zip(samples, evidence, strict=True) if sigma is not None}
    order = sorted(found, key=lambda g: (found[g], g))
    still = {*order[: int(share * len(order))], *(g for g in order if found[g] == 0)}
    return Kept(np.flatnonzero([s.group not in still for s in samples]), np.ones(len(samples)))

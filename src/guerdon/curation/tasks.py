"""Which tasks are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.curation.core import select
from guerdon.registry import Refused
from guerdon.samples import Context, Rewards, Sample, Task


@select
def uniform(tasks: Sequence[Task], n: int, rng: np.random.Generator) -> list[Task]:
    """n tasks without replacement, fresh every time; with replacement where there are fewer than n."""
    _some(tasks)
    return [tasks[i] for i in rng.choice(len(tasks), size=n, replace=len(tasks) < n)]


@select
class epochs:
    """Every task once before any comes again, in an order shuffled anew each epoch from `seed`. State: how many were drawn."""

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.drawn = seed, 0

    def __call__(self, tasks: Sequence[Task], n: int, rng: np.random.Generator) -> list[Task]:
        _some(tasks)
        order: list[int] = []
        epoch, at = divmod(self.drawn, len(tasks))
        while len(order) < n:
            order.extend(np.random.default_rng((self.seed, epoch)).permutation(len(tasks))[at:].tolist())
            epoch, at = epoch + 1, 0
        return [tasks[i] for i in order[:n]]

    def observe(self, samples: Sequence[Sample], rewards: Rewards, context: Context, on: str = "train") -> None:
        if on == "train":
            self.drawn += len({s.group for s in samples})

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drawn = state["drawn"]


def _some(tasks: Sequence[Task]) -> None:
    if not tasks:
        raise Refused("There are no tasks to draw from; give a file with at least one row, or a world with n above 0.")

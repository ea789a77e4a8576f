"""Which tasks are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.curation.core import select
from guerdon.registry import Refused, nearest
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


@select
class prioritised:
    """First from easy to hard, then each task with a probability proportional to max(floor, 1 - s), s its success rate.

    s: the share of a task's answers that were right (`of`, a reward that is part of the recipe's, else the reward itself, above 0.5), as a
    moving average over its draws: s + rate (new - s). A task not drawn yet has s = 0. n are drawn without replacement; with replacement
    where there are fewer than n. curriculum: during the first so many draws tasks come evenly from the easiest ones by the number
    `meta[by]` (lower is easier), a share of them that grows evenly to all. State: success rates by task key, draws.
    Raises Refused for a task without that number, and for `of` that is no part. Source: arXiv:2501.12599, section 2.3.4 (floor 0 there:
    a task once solved every time never comes back).
    """

    def __init__(self, floor: float = 0.05, rate: float = 0.5, curriculum: int = 0, by: str = "level", of: str | None = None) -> None:
        if not 0 <= floor <= 1 or not 0 < rate <= 1 or curriculum < 0:
            raise Refused(
                f"prioritised(floor={floor}, rate={rate}, curriculum={curriculum}): 0 <= floor <= 1, 0 < rate <= 1, curriculum >= 0."
            )
        self.floor, self.rate, self.curriculum, self.by, self.of = floor, rate, curriculum, by, of
        self.success: dict[str, float] = {}
        self.drawn = 0

    def __call__(self, tasks: Sequence[Task], n: int, rng: np.random.Generator) -> list[Task]:
        _some(tasks)
        if self.drawn < self.curriculum:
            easiest = sorted(tasks, key=self._level)
            share = (self.drawn + n) / self.curriculum
            return uniform(easiest[: max(n, math.ceil(len(tasks) * share))], n, rng)
        weight = np.array([max(self.floor, 1 - self.success.get(task.key, 0.0), 1e-9) for task in tasks])
        return [tasks[i] for i in rng.choice(len(tasks), size=n, replace=len(tasks) < n, p=weight / weight.sum())]

    def _level(self, task: Task) -> float:
        level = task.meta.get(self.by)
        if not isinstance(level, (int, float)):
            raise Refused(f"prioritised: the task {task.id!r} has no number {self.by!r} to tell how hard it is; name another with `by:`.")
        return level

    def observe(self, samples: Sequence[Sample], rewards: Rewards, context: Context, on: str = "train") -> None:
        if on != "train":
            return
        if self.of is not None and self.of not in rewards.parts:
            raise Refused(f"prioritised: {self.of!r} is no part of the recipe's reward{nearest(self.of, rewards.parts)}")
        judged = rewards if self.of is None else rewards.parts[self.of].rewards
        right, alive = judged.total() > 0.5, judged.alive
        by_task: dict[str, list[bool]] = {}
        for sample, ok, counts in zip(samples, right.tolist(), alive.tolist(), strict=True):
            if counts:
                by_task.setdefault(sample.task.key, []).append(ok)
        for task, found in by_task.items():
            new, old = sum(found) / len(found), self.success.get(task)
            self.success[task] = new if old is None else old + self.rate * (new - old)
        self.drawn += len({s.group for s in samples})

    def state_dict(self) -> dict[str, Any]:
        return {"success": self.success, "drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.success, self.drawn = state["success"], state["drawn"]


def _some(tasks: Sequence[Task]) -> None:
    if not tasks:
        raise Refused("There are no tasks to draw from; give a file with at least one row, or a world with n above 0.")

"""Tasks are drawn, and their samples weighed, by what a task is worth to learning: neither too easy nor too hard, and still uncertain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.curation.core import keep, select
from guerdon.curation.tasks import _some
from guerdon.registry import Refused
from guerdon.samples import Context, Kept, Rewards, Sample, Task


class _Values:
    """v = max(floor, 4 p (1 - p) u), p the mean and u the standard deviation (n) of a task's rewards held to [0, 1], times 2.

    Both are moving averages over its draws, old + rate (new - old). A task not drawn yet has p = 1/2 and 2 u = 1: the largest value.
    """

    def __init__(self, rate: float, floor: float) -> None:
        if not 0 < rate <= 1 or not 0 < floor <= 1:
            raise Refused(f"A task's value has a rate and a floor above 0 and at most 1, not {rate} and {floor}.")
        self.rate, self.floor = rate, floor
        self.known: dict[str, list[float]] = {}

    def value(self, task: Task) -> float:
        p, u = self.known.get(task.key, (0.5, 0.5))
        return max(self.floor, 4 * p * (1 - p) * 2 * u)

    def observe(self, samples: Sequence[Sample], rewards: Rewards, context: Context, on: str = "train") -> None:
        if on != "train":
            return
        found: dict[str, list[float]] = {}
        for sample, value, counts in zip(samples, rewards.total().clip(0, 1).tolist(), rewards.alive.tolist(), strict=True):
            if counts:
                found.setdefault(sample.task.key, []).append(value)
        for task, values in found.items():
            new = [float(np.mean(values)), float(np.std(values))]
            old = self.known.get(task, new)
            self.known[task] = [a + self.rate * (b - a) for a, b in zip(old, new, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        return {"known": self.known}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.known = state["known"]


@select
class by_value(_Values):
    """n tasks with a probability proportional to their value v, without replacement; with it where there are fewer than n.

    v = max(floor, 4 p (1 - p) 2 u) of the running mean p and standard deviation u of a task's rewards in [0, 1]; a task not drawn yet has
    1, the most there can be. With `keep: dynamic_sampling` the groups that carry no gradient are drawn again this way (VSPO; every draw
    goes by value here, the first of a batch too). State: p and u by task. Source: arXiv:2512.07478; v is ours, its formula is not public.
    """

    def __init__(self, rate: float = 0.5, floor: float = 0.05) -> None:
        super().__init__(rate, floor)

    def __call__(self, tasks: Sequence[Task], n: int, rng: np.random.Generator) -> list[Task]:
        _some(tasks)
        value = np.array([self.value(task) for task in tasks])
        return [tasks[i] for i in rng.choice(len(tasks), size=n, replace=len(tasks) < n, p=value / value.sum())]


@keep
class value_weights(_Values):
    """Keeps every row, with the weight clip(v / mean v, 1 - clip, 1 + clip), v its task's value as in `by_value`, the mean over rows.

    So tasks of high value, which are drawn again and again, do not take over (value smoothing). State: as `by_value`.
    Source: arXiv:2512.07478; the form is ours.
    """

    def __init__(self, clip: float = 0.2, rate: float = 0.5, floor: float = 0.05) -> None:
        super().__init__(rate, floor)
        if not 0 <= clip < 1:
            raise Refused(f"value_weights(clip={clip}): the clip is at least 0 and below 1.")
        self.clip = clip

    def __call__(self, samples: Sequence[Sample], rewards: Rewards, context: Context) -> Kept:
        value = np.array([self.value(s.task) for s in samples])
        mean = value.mean() if len(value) else 1.0
        return Kept(np.arange(len(samples)), (value / mean).clip(1 - self.clip, 1 + self.clip))

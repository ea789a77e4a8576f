"""Many whole answers, one chosen: best of n, and votes weighted by the reward."""

from __future__ import annotations

from typing import Any

import numpy as np

from guerdon.backends.base import Model
from guerdon.registry import Refused
from guerdon.samples import Sample, Task
from guerdon.search.core import Budget, Explorer, Found, Partial, Scorer, search


@search
def best_of_n(task: Task, policy: Model, reward: Scorer | None, budget: Budget = Budget(), n: int = 16, **how: Any) -> Found:  # noqa: B008
    """The answer of the highest value of n samples, the first of equal ones. A sample without a verdict is never chosen.

    how: temperature, max_tokens, ... of `Explorer`; `how` puts step scores together (last, min, product, mean, sum).
    """
    _many(n)
    explorer = Explorer(task, policy, reward, budget, **how)
    samples = explorer.grow([Partial.empty()] * n)
    return explorer.found(samples, explorer.value(samples))


@search
def weighted_vote(task: Task, policy: Model, reward: Scorer | None, budget: Budget = Budget(), n: int = 16, **how: Any) -> Found:  # noqa: B008
    """The final answer a for which sum over samples with answer a of their values is highest; without a reward every vote counts 1.

    Answers are compared by their text without blanks at the ends and in one case. Of the samples with that answer the one of the highest
    value is returned. Values are shares or probabilities: a negative one would vote against its own answer. A sample without an answer or
    without a verdict does not vote.
    """
    _many(n)
    explorer = Explorer(task, policy, reward, budget, **how)
    partials = explorer.grow([Partial.empty()] * n)
    values = np.ones(len(partials)) if reward is None else explorer.value(partials)
    names = [vote_of(explorer.sample(p)) for p in partials]
    return explorer.found(partials, values, elected(names, values))


def vote_of(sample: Sample) -> str | None:
    """What a sample votes for."""
    return None if sample.answer is None or not sample.answer.strip() else " ".join(sample.answer.split()).casefold()


def elected(names: list[str | None], values: np.ndarray) -> int | None:
    """The place of the sample that stands for the winner: of the highest value, the first of equal ones; None where nobody votes."""
    tally: dict[str, float] = {}
    for name, value in zip(names, values, strict=True):
        if name is not None and not np.isnan(value):
            tally[name] = tally.get(name, 0.0) + float(value)
    if not tally:
        return None
    winner = max(tally, key=lambda name: tally[name])
    own = [i for i, name in enumerate(names) if name == winner and not np.isnan(values[i])]
    return max(own, key=lambda i: (values[i], -i))


def _many(n: int) -> None:
    if n < 1:
        raise Refused(f"A search needs n of 1 or more, not {n}.")

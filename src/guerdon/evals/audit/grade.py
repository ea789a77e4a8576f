"""The reward under audit as one call: cases and texts in, values, states and reasons out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from guerdon.evals.audit.cases import Case
from guerdon.rewards.expr import Expr
from guerdon.samples import Sample
from guerdon.scoring.engine import Engine, needs_groups
from guerdon.spans import mark

Asked = tuple[Case, str]


@dataclass
class Graded:
    """n verdicts. value: NaN where there is none."""

    value: np.ndarray
    failed: np.ndarray
    hostile: np.ndarray
    reasons: list[str]

    def rows(self, index: np.ndarray) -> Graded:
        return Graded(self.value[index], self.failed[index], self.hostile[index], [self.reasons[i] for i in index.tolist()])


class Grader:
    """Scores texts through the engine, so that a grader that hangs or crashes costs its own row only.

    A reward that compares the samples of a group sees each text beside three others: a right answer and two wrong ones.
    """

    def __init__(self, expression: Expr, engine: Engine, tick: Callable[[int], None] = lambda n: None) -> None:
        self.expression, self.engine, self.tick = expression, engine, tick
        self.grouped = needs_groups(expression)
        self.calls, self.seconds = 0, 0.0

    def __call__(self, asked: Sequence[Asked], chunk: int = 512) -> Graded:
        parts = [self._some(asked[i : i + chunk]) for i in range(0, len(asked), chunk)]
        return Graded(
            np.concatenate([p.value for p in parts]) if parts else np.zeros(0),
            np.concatenate([p.failed for p in parts]) if parts else np.zeros(0, dtype=bool),
            np.concatenate([p.hostile for p in parts]) if parts else np.zeros(0, dtype=bool),
            [reason for p in parts for reason in p.reasons],
        )

    def _some(self, asked: Sequence[Asked]) -> Graded:
        samples, size = [], 4 if self.grouped else 1
        for group, (case, text) in enumerate(asked):
            samples += [sample_of(case, t, group) for t in ([text, *beside(case)] if self.grouped else [text])]
        began = time.perf_counter()
        rewards = self.engine.score(self.expression, samples)
        self.seconds += time.perf_counter() - began
        self.calls += len(asked)
        self.tick(len(asked))
        own = np.arange(0, len(samples), size)
        value = np.where(rewards.alive, rewards.total(), np.nan)[own]
        return Graded(value, rewards.failed[own], rewards.hostile[own], [rewards.why(int(i)) for i in own])


def beside(case: Case) -> list[str]:
    """The other three of a group."""
    wrong = [*case.wrong(), "", " "]
    return [case.known or "", case.host(wrong[0]), case.host(wrong[1])]


def sample_of(case: Case, text: str, group: int) -> Sample:
    sample = Sample(case.task, text, group=group, stop="end")
    mark(sample)
    return sample

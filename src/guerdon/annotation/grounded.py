"""Step labels by a tool that checks each step, on answers that a tree search finds (GroundedPRM)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from guerdon.annotation.core import Labels, annotator, confidence, policy_of
from guerdon.annotation.judged import stepped
from guerdon.annotation.probe import graded
from guerdon.annotation.remember import Remembered
from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample, State, Task
from guerdon.scoring.cache import Cache
from guerdon.scoring.engine import Engine
from guerdon.search.core import Budget, Cost, Found
from guerdon.search.steps import mcts
from guerdon.spans import Split

Checked = Callable[[Sequence[Sample]], list[list[int]]]
"""Samples -> for each step +1 (the tool agrees), -1 (it does not) or 0 (no verdict)."""


@annotator(adds=True)
def grounded(
    samples: Sequence[Sample | Task], context: Context, *, tool: str = "prm", rounds: int = 8, expand: int = 3, c: float = 1.4,
    beta: float = 1.0, max_tokens: int = 256, step_tokens: int = 128, temperature: float = 1.0, split: Split = "lines", seed: int = 0,
    budget: Budget = Budget(), journal: Cache | None = None, about: str = "",  # noqa: B008
) -> Labels:  # fmt: skip
    """A step is right where the tool says so; the last step of an answer has the answer's outcome.

    tool: a reward expression with a value a step; above 0.5 is v = +1, else -1; abstained and failed are 0, no label. Beside the given
    answers, for each of their tasks (or for tasks alone), stand those of two tree searches (`guerdon.search.mcts`) of `rounds` / 2 each,
    over steps of the policy: the first looks for high values, the second for low ones, so that neither label is rare. The value of an
    answer with n steps before its last, and the outcome F = +1 or -1:
        V = (1/n) sum_{j=0}^{n-1} v_j (n - j) / n + beta F;  V = beta F where n = 0
    A step of theirs that the tool calls right has no label where the mean V of the answers through it is 0. rounds=0: the given answers
    alone. The budget is for all searches together; the tool's checks are not counted. A journal has what the policy said.
    Source: arXiv:2510.14942, github.com/JerryPlain/GroundedPRMCode, which scales F by 1/n too (long answers almost ignore it), counts no
    first step, adds values with 0.9^distance where this search averages them, and has a language model write the tool's queries.
    """
    if rounds < 0:
        raise Refused(f"grounded(rounds={rounds}): it is 0 or more.")
    policy: Any = policy_of(context) if rounds else None
    policy = Remembered(policy, journal, about) if policy is not None and journal is not None else policy
    given = stepped([item for item in samples if isinstance(item, Sample)], split)
    tasks = {(item.task if isinstance(item, Sample) else item).key: item.task if isinstance(item, Sample) else item for item in samples}
    found: list[tuple[Sample, float]] = []
    cost, spent = Cost(), False
    with Engine(context) as engine:
        checked = partial(_checked, engine, engine.check(tool), tool)
        groups = max((s.group for s in given), default=-1) + 1
        for number, task in enumerate(tasks.values() if rounds else ()):
            born: dict[str, Sample] = {}
            own: dict[str, float] = {}
            for sign, share in ((1.0, rounds - rounds // 2), (-1.0, rounds // 2)):
                if share:
                    result: Found = mcts(
                        task, policy, partial(_valued, context, checked, beta, sign), _left(budget, cost), expand=expand, c=c, rounds=share,
                        max_tokens=max_tokens, step_tokens=step_tokens, temperature=temperature, split=split, seed=seed + int(sign < 0),
                    )  # fmt: skip
                    cost, spent = cost + result.cost, spent or (result.spent and budget != Budget())
                    for sample, value in zip(result.samples, result.values, strict=True):
                        if not np.isnan(value) and sample.marks.get("step"):
                            own[sample.text] = sign * float(value)
                            born.setdefault(sample.text, sample)
            for sample in born.values():
                sample.group = next((s.group for s in given if s.task.key == task.key), groups + number)
                found.append((sample, own[sample.text]))
        labels = Labels.none([*given, *(sample for sample, _ in found)])
        verdicts, outcomes = checked(labels.samples), graded(context, labels.samples) if labels.samples else []
    worth = _worth(found)
    for i, (row, right) in enumerate(zip(verdicts, outcomes, strict=True)):
        last = len(row) - 1
        for t, v in enumerate(row):
            if t == last and right is not None:
                labels.set(i, t, float(right), 1, 1.0)
            elif t == last or not v:
                labels.text[i][t] = "no label: no verdict"
            elif v > 0 and i >= len(given) and worth[i - len(given)][t] == 0:
                labels.text[i][t] = "no label: the answers through it are worth 0"
            else:
                labels.set(i, t, float(v > 0), 1, confidence(int(v > 0), 1))
    labels.cost, labels.spent = cost, spent
    return labels


def _checked(engine: Engine, root: Any, tool: str, samples: Sequence[Sample]) -> list[list[int]]:
    if not samples:
        return []
    step = engine.score(root, samples).step
    if step is None:
        raise Refused(f"grounded(tool={tool!r}): it scores no steps; name a reward that does, such as arithmetic_steps.")
    width = step.value.shape[1]
    return [
        [0 if t >= width or not step.scored[i, t] else 1 if step.value[i, t] > 0.5 else -1 for t in range(len(s.steps))]
        for i, s in enumerate(samples)
    ]


def answer_value(verdicts: Sequence[int], right: bool, beta: float) -> float:
    """V of `grounded`, of the verdicts on all steps of an answer; the last one's is not counted."""
    n = len(verdicts) - 1
    steps = sum(v * (n - j) / n for j, v in enumerate(verdicts[:n])) / n if n > 0 else 0.0
    return steps + beta * (1 if right else -1)


def _valued(context: Context, checked: Checked, beta: float, sign: float, samples: Sequence[Sample]) -> Rewards:
    """The outcome is sign * V; failed where an answer has no steps, or no verdict on its end."""
    rights = graded(context, samples)
    values = [0.0 if right is None else sign * answer_value(row, right, beta) for row, right in zip(checked(samples), rights, strict=True)]
    state = [State.FAILED if right is None or not s.steps else State.SCORED for s, right in zip(samples, rights, strict=True)]
    return Rewards(Grain.of(values, state))


def _worth(found: Sequence[tuple[Sample, float]]) -> list[list[float]]:
    """For each answer and step the mean value of the answers to the same task that begin with the same text, up to the step's end."""
    through: dict[tuple[str, str], list[float]] = {}
    for sample, value in found:
        for _, end in sample.marks["step"]:
            through.setdefault((sample.task.key, sample.text[:end]), []).append(value)
    return [[float(np.mean(through[s.task.key, s.text[:end]])) for _, end in s.marks["step"]] for s, _ in found]


def _left(budget: Budget, cost: Cost) -> Budget:
    spent = {"rollouts": cost.rollouts, "tokens": cost.tokens, "calls": cost.calls}
    return Budget(**{name: None if limit is None else max(0, limit - spent[name]) for name, limit in vars(budget).items()})

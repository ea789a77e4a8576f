"""Demonstrations among the policy's own answers, in one group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from guerdon.backends.base import Model
from guerdon.registry import Refused
from guerdon.rollouts.core import rollout
from guerdon.rollouts.expert import expert
from guerdon.rollouts.parallel import parallel
from guerdon.samples import Context, Sample, Task
from guerdon.spans import Split


@rollout
def mixed(
    policy: Model, tasks: Sequence[Task], n: int, context: Context, *, column: str = "solution", experts: int = 1,
    missing: Literal["skip", "refuse"] = "skip", max_tokens: int = 256, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0,
    stop: Sequence[str] = (), split: Split = "lines",
) -> list[Sample]:  # fmt: skip
    """n samples a task: n - experts answers of the policy, as `parallel` draws them, then `experts` times the demonstration `meta[column]`.

    All are one group: a credit with a baseline from the group counts the demonstrations' rewards in it like any other's, as LUFFY does, so
    that a policy that fails everywhere is still told which row was better. Their advantages reach a loss only where its term takes them:
    `loss: [{use: ppo_clip, of: policy}, {use: sft, of: expert}]`, for they have no log-probabilities.
    missing: a task without the column has n answers of the policy ("skip"), or is refused. Raises Refused for experts below 0 or above n.
    Source: arXiv:2504.14945 (LUFFY).
    """
    if not 0 <= experts <= n:
        raise Refused(f"mixed(experts={experts}): of the {n} samples a task, 0 to {n} can be demonstrations.")
    have = [task.meta.get(column) is not None for task in tasks]
    if missing == "refuse" and not all(have):
        task = tasks[have.index(False)]
        raise Refused(
            f"The task {task.id!r} has no column {column!r}, which the rollout `mixed` reads; name another, or write missing: skip."
        )
    groups: list[list[Sample]] = [[] for _ in tasks]

    def add(samples: Sequence[Sample], where: Sequence[int]) -> None:
        for sample in samples:
            group = where[sample.group]
            groups[group].append(replace(sample, group=group))

    for shown in (True, False):  # one call of the backend for each number of answers
        where = [i for i, x in enumerate(have) if x == shown]
        answers = n - experts if shown else n
        if where and answers:
            params = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "top_k": top_k, "stop": stop, "split": split}
            add(parallel(policy, [tasks[i] for i in where], answers, context, **params), where)
        if where and shown and experts:
            add(expert(policy, [tasks[i] for i in where], experts, context, column=column, split=split), where)
    return [sample for group in groups for sample in group]

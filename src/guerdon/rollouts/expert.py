"""Demonstrations as samples: somebody else's answers, read from the tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.backends.base import Model
from guerdon.registry import Refused
from guerdon.rollouts.core import rollout
from guerdon.samples import Context, Sample, Task
from guerdon.spans import Split, mark


@rollout
def expert(
    policy: Model, tasks: Sequence[Task], n: int, context: Context, *, column: str = "solution", split: Split = "lines"
) -> list[Sample]:
    """The text in `meta[column]` of each task (a list of lines, or a text), n times, with the end token, source `expert`.

    Its log-probabilities are unknown (NaN), so losses that need a ratio refuse it. Raises Refused for a task without the column.
    """
    samples = []
    for group, task in enumerate(tasks):
        text = task.meta.get(column)
        if text is None:
            raise Refused(f"The task {task.id!r} has no column {column!r}, which the rollout `expert` reads; name another with `column:`.")
        prompt = policy.encode(task.prompt)
        ids = policy.encode_answer(text if isinstance(text, str) else "\n".join(text))
        shown, offsets = policy.decode(ids)
        for _ in range(n):
            sample = Sample(
                task,
                shown,
                prompt,
                ids,
                offsets,
                np.ones(len(ids), dtype=bool),
                version=policy.version,
                source="expert",
                group=group,
                stop="end",
            )
            mark(sample, split)
            samples.append(sample)
    return samples

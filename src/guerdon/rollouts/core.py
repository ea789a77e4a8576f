"""The rollout contract: (policy, tasks, n, context, **params) -> samples, n a task, rows of one task standing together as one group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.backends.base import Model
from guerdon.registry import registrar
from guerdon.samples import Context, Sample, Task
from guerdon.spans import Split, mark
from guerdon.tree import forest

rollout = registrar("rollout")


def seed_of(context: Context) -> int:
    """A fresh seed from the run's generator; 0 where there is none."""
    return int(context.rng.integers(2**31)) if context.rng is not None else 0


def plain_ids(policy: Model, text: str) -> np.ndarray:
    """(t,) ids of a text in the middle of an answer: without the end token."""
    ids = policy.encode_answer(text)
    return ids[: len(ids) - len(policy.encode_answer(""))]


def completed(
    policy: Model,
    task: Task,
    group: int,
    prompt: np.ndarray,
    pieces: Sequence[tuple[np.ndarray, np.ndarray | None]],
    stop: str | None,
    version: int,
    split: Split,
) -> Sample:
    """A sample with its spans marked. pieces: ids and log-probabilities, in order; None for those of what the policy did not write."""
    ids = np.concatenate([ids for ids, _ in pieces]).astype(np.int64)
    text, offsets = policy.decode(ids)
    written = np.concatenate([np.full(len(ids), logprobs is not None) for ids, logprobs in pieces])
    logprobs = np.concatenate([np.full(len(ids), np.nan) if logprobs is None else logprobs for ids, logprobs in pieces])
    sample = Sample(task, text, prompt, ids, offsets, written, logprobs, version, group=group, stop=stop)
    mark(sample, split)
    return sample


def place(samples: Sequence[Sample]) -> None:
    """Fills `path`: the nodes of each sample, from the prompt on, in the forest of its group, whose nodes count from 0."""
    tree, node_of = forest([s.ids for s in samples if s.ids is not None], [s.group for s in samples if s.ids is not None])
    first: dict[int, int] = {}
    for node, group in enumerate(tree.group.tolist()):
        first.setdefault(group, node)
    for sample, row in zip((s for s in samples if s.ids is not None), node_of, strict=True):
        own = row[row >= 0]
        sample.path = tuple((own[np.diff(own, prepend=-1) != 0] - first[sample.group]).tolist()) if len(own) else ()


def distinct_prefixes(rows: Sequence[np.ndarray]) -> int:
    """How many different prefixes of one token and more the rows have."""
    _, node_of = forest(rows, [0] * len(rows))
    where = node_of * node_of.shape[1] + np.arange(node_of.shape[1])
    return len(np.unique(where[node_of >= 0]))

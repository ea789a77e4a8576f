"""HRM's data: steps alone and joined with the one before, from labelled steps or from a tree of graded answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.annotation.core import Labels
from guerdon.reward_models.newest import shown, whole_steps
from guerdon.samples import Sample, Task

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class StepTree:
    """The beginnings of the answers to one task, m nodes of whole steps; a parent stands before its children, the root is node 0."""

    task: Task
    parent: Int[np.ndarray, " m"]
    """-1 at the root."""
    steps: tuple[tuple[str, ...], ...]
    """Of each node, the newest last; () at the root. A node's depth is their number."""
    ends: Int[np.ndarray, " m"]
    """How many graded answers end at the node."""
    right: Int[np.ndarray, " m"]
    """How many of them are right."""

    @property
    def leaves(self) -> Int[np.ndarray, " m"]:
        """Graded answers that end at each node or below it."""
        return self._below(self.ends)

    @property
    def value(self) -> Float[np.ndarray, " m"]:
        """The share of these that are right."""
        return self._below(self.right) / self.leaves

    def _below(self, count: np.ndarray) -> np.ndarray:
        total = count.copy()
        for node in range(len(total) - 1, 0, -1):
            total[self.parent[node]] += total[node]
        return total


def step_trees(samples: Sequence[Sample], right: Sequence[bool | None]) -> list[StepTree]:
    """One tree a group, in order of first appearance: answers that begin with the same steps share these nodes.

    right: whether each answer is; one without a verdict (None), or without steps, is in no tree.
    """
    groups: dict[int, list[tuple[Sample, bool]]] = {}
    for sample, verdict in zip(samples, right, strict=True):
        if verdict is not None and sample.steps:
            groups.setdefault(sample.group, []).append((sample, verdict))
    trees = []
    for members in groups.values():
        node_of: dict[tuple[str, ...], int] = {(): 0}
        parent, ends, good = [-1], defaultdict(int), defaultdict(int)
        for sample, verdict in members:
            steps, at = tuple(whole_steps(sample)), 0
            for t in range(1, len(steps) + 1):
                if (begun := steps[:t]) not in node_of:
                    node_of[begun] = len(parent)
                    parent.append(at)
                at = node_of[begun]
            ends[at] += 1
            good[at] += verdict
        counts = (np.array([of[node] for node in range(len(parent))], dtype=np.int64) for of in (ends, good))
        trees.append(StepTree(members[0][0].task, np.array(parent, dtype=np.int64), tuple(node_of), *counts))
    return trees


LEAST = 4
"""Children of a node that may give one away."""


def compressed(tree: StepTree, rng: np.random.Generator, chance: float = 0.5) -> StepTree:
    """Hierarchical node compression: at each node with `LEAST` children or more, up to one child moves to the node's own parent, its last
    two steps as one.

    The children are gone through in order, each moves with probability `chance`, and the first that does ends it. What is below a child
    moves with it and keeps its own steps; a node that moved gives no child away, nor does the root. So the answers below every node stay
    what they were, but for the nodes that gave a child away: their values change, and they alone. Source: arXiv:2503.13551.
    """
    parent, steps = tree.parent.copy(), list(tree.steps)
    for node in range(1, len(parent)):
        children = np.flatnonzero(tree.parent == node)
        if len(children) < LEAST or parent[node] != tree.parent[node]:
            continue
        for child in children.tolist():
            if rng.random() < chance:
                parent[child], steps[child] = tree.parent[node], merged(steps[child])
                break
    return replace(tree, parent=parent, steps=tuple(steps))


def merged(steps: Sequence[str]) -> tuple[str, ...]:
    """The same steps, the last two as one."""
    return (*steps[:-2], "".join(steps[-2:]))


def drawn(tree: StepTree, rng: np.random.Generator, share: float = 0.1, alike: int = 5) -> list[int]:
    """Nodes to learn from, at each depth by itself: of the nodes of every value as many as have the rarest value, but `share` of them at
    the least, rounded down; `alike` where all have one value. The root is none of them. Source: arXiv:2503.13551."""
    buckets: dict[int, dict[float, list[int]]] = {}
    for node, (steps, value) in enumerate(zip(tree.steps, tree.value.tolist(), strict=True)):
        if steps:
            buckets.setdefault(len(steps), {}).setdefault(value, []).append(node)
    found = []
    for _, of in sorted(buckets.items()):
        rarest = min(map(len, of.values())) if len(of) > 1 else alike
        for _, nodes in sorted(of.items()):
            most = min(len(nodes), max(rarest, int(share * len(nodes)) if len(of) > 1 else 0))
            found += sorted(rng.choice(nodes, most, replace=False).tolist())
    return found


def hierarchical(
    samples: Sequence[Sample], right: Sequence[bool | None], rng: np.random.Generator, merge: bool = True, compress: bool = True
) -> list[dict[str, Any]]:
    """Rows `prompt, completion, label, joined` for `guerdon fit` with `outcome_ce`, from graded answers that share beginnings.

    Of each task's tree, and with `compress` of its compressed copy, every node that is `drawn` gives its newest step alone and with `merge`
    the last two steps as one, both labelled with the node's value; equal rows are there once. prompt: the task and all steps before
    (`reward_models.newest.shown`).  joined: whether the completion is two steps, one of a compressed node counting as one.
    Source: arXiv:2503.13551, self-training/construct_hrm_train_data.py; its held-out rows are not merged in the compressed tree.
    """
    rows: dict[tuple[str, str, float], dict[str, Any]] = {}
    for tree in step_trees(samples, right):
        for one in (tree, compressed(tree, rng)) if compress else (tree,):
            value = one.value
            for node in drawn(one, rng):
                for row in _rows(one.task, one.steps[node], float(value[node]), merge):
                    rows.setdefault((repr(row["prompt"]), row["completion"], row["label"]), row)
    return list(rows.values())


def hierarchical_labels(labels: Labels, merge: bool = True) -> list[dict[str, Any]]:
    """The same rows from labelled steps, people's or an annotator's: every step with a label alone, and with the one before it as one.

    The label of both is the later step's: wrong and then put right counts as right. Steps without a label give no row.
    Source: arXiv:2503.13551, construct_dataset/rm_dataset_construction_phase1.py.
    """
    rows = []
    for i, sample in enumerate(labels.samples):
        steps = tuple(whole_steps(sample))
        for t in np.flatnonzero(~np.isnan(labels.value[i, : len(steps)])).tolist():
            rows += _rows(sample.task, steps[: t + 1], float(labels.value[i, t]), merge)
    return rows


def _rows(task: Task, steps: tuple[str, ...], value: float, merge: bool) -> list[dict[str, Any]]:
    units = [(steps, False)] + [(merged(steps), True)] * (merge and len(steps) > 1)
    return [
        {"prompt": shown(task.prompt, "".join(unit[:-1])), "completion": unit[-1].rstrip(), "label": value, "joined": joined}
        for unit, joined in units
    ]

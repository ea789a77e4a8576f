"""One forest for rollouts, credit, labels and search: a node is a maximal run of tokens shared by the same samples."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from guerdon.registry import Refused


@dataclass(frozen=True)
class Tree:
    """A forest of M nodes in topological order (a parent stands before its children).

    parent (M,): index of the parent, -1 at a root.  group (M,): the group that owns the node.
    first_token (M,): position in the sample of the node's first token.  depth (M,): number of ancestors.
    """

    parent: np.ndarray
    group: np.ndarray
    first_token: np.ndarray
    depth: np.ndarray

    def __post_init__(self) -> None:
        """Raises Refused for a node whose parent is not there, stands after it (a cycle), or is of another group."""
        for problem, bad in (
            ("is an orphan: its `parent` is {0}, and there are {1} nodes", (self.parent < -1) | (self.parent >= len(self))),
            (
                "has the `parent` {0}, which does not stand before it: a cycle, or an order that is not topological",
                self.parent >= np.arange(len(self)),
            ),
        ):
            if bad.any():
                node = int(bad.argmax())
                raise Refused(f"Node {node} of the tree " + problem.format(self.parent[node], len(self)) + ".")
        inner = np.flatnonzero(self.parent >= 0)
        other = inner[self.group[inner] != self.group[self.parent[inner]]]
        if len(other):
            raise Refused(
                f"Node {other[0]} of the tree is of `group` {self.group[other[0]]}, its parent of {self.group[self.parent[other[0]]]}."
            )

    def __len__(self) -> int:
        return len(self.parent)

    def children(self, node: int) -> np.ndarray:
        return np.flatnonzero(self.parent == node)

    def leaves(self) -> np.ndarray:
        """(M,) bool: nodes without children."""
        leaf = np.ones(len(self), dtype=bool)
        leaf[self.parent[self.parent >= 0]] = False
        return leaf


def forest(ids: Sequence[np.ndarray], group: Sequence[int] | np.ndarray) -> tuple[Tree, np.ndarray]:
    """The forest of ragged token rows and `node_of (N, T)`, -1 at padding.

    Rows of one group share a node as long as their tokens agree from the start; rows of different groups share none. Rows
    are sorted within their group, so only neighbours are compared: time and memory grow with the number of tokens.
    """
    group = np.asarray(group, dtype=np.int64)
    if len(ids) != len(group):
        raise ValueError(f"{len(ids)} rows of tokens but {len(group)} groups.")
    rows = [np.ascontiguousarray(row, dtype=">u4").view(np.uint32) for row in ids]  # bytes that sort as the numbers do
    width = max((len(row) for row in rows), default=0)
    node_of = np.full((len(rows), width), -1, dtype=np.int64)
    parent: list[int] = []
    owner: list[int] = []
    first: list[int] = []
    depth: list[int] = []

    members: dict[int, list[int]] = {}
    for row, g in enumerate(group.tolist()):
        members.setdefault(g, []).append(row)
    for g, unsorted in members.items():
        order = sorted(unsorted, key=lambda row: rows[row].tobytes())
        shared = [_common_prefix(rows[a], rows[b]) for a, b in itertools.pairwise(order)]
        stack = [(0, len(order), 0, -1)]  # rows order[low:high] agree up to `start`; they hang below `above`
        while stack:
            low, high, start, above = stack.pop()
            end = min(shared[low : high - 1], default=len(rows[order[low]]))
            if end > start:
                node = len(parent)
                parent.append(above)
                owner.append(g)
                first.append(start)
                depth.append(0 if above < 0 else depth[above] + 1)
                node_of[order[low:high], start:end] = node
                above = node
            if high - low > 1:
                cuts = [low, *(i + 1 for i in range(low, high - 1) if shared[i] == end), high]
                branches = [(a, b, end, above) for a, b in itertools.pairwise(cuts) if len(rows[order[b - 1]]) > end]
                stack.extend(reversed(branches))
    tree = Tree(*(np.asarray(column, dtype=np.int64) for column in (parent, owner, first, depth)))
    return tree, node_of


def _common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    short = min(len(a), len(b))
    differs = a[:short] != b[:short]
    return int(differs.argmax()) if differs.any() else short

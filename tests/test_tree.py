"""The forest against a brute-force twin that compares every row with every other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.registry import Refused
from guerdon.tree import Tree, forest


def brute_force(rows: list[list[int]], group: list[int]) -> dict[tuple[int, int], tuple[int, frozenset[int]]]:
    """(row, position) -> what names its node: the group, and the rows that agree with this one up to and including the position."""
    return {
        (i, p): (g, frozenset(j for j, other in enumerate(rows) if group[j] == g and other[: p + 1] == row[: p + 1]))
        for i, (row, g) in enumerate(zip(rows, group, strict=True))
        for p in range(len(row))
    }


tokens = st.lists(st.integers(0, 2), max_size=6)


@given(st.lists(st.tuples(tokens, st.integers(0, 2)), max_size=10))
def test_forest_equals_its_twin(cases: list[tuple[list[int], int]]):
    rows, group = [row for row, _ in cases], [g for _, g in cases]
    tree, node_of = forest([np.array(row, dtype=np.int64) for row in rows], group)
    twin = brute_force(rows, group)
    assert node_of.shape == (len(rows), max(map(len, rows), default=0))
    assert {(i, p) for i, p in zip(*np.nonzero(node_of >= 0), strict=True)} == set(twin)

    name = {int(node_of[at]): key for at, key in twin.items()}
    assert len(set(twin.values())) == len(name) == len(tree)  # two tokens share a node where, and only where, they share its name
    assert all(name[int(node_of[at])] == key for at, key in twin.items())

    first = {key: min(p for (_, p), other in twin.items() if other == key) for key in twin.values()}
    for node in range(len(tree)):
        g, members = name[node]
        assert tree.group[node] == g
        assert tree.first_token[node] == first[name[node]]
        above = next((twin[i, first[name[node]] - 1] for i in members if first[name[node]] > 0), None)
        parent = int(tree.parent[node])
        assert parent < node
        assert (name[parent] if parent >= 0 else None) == above
        assert tree.depth[node] == (tree.depth[parent] + 1 if parent >= 0 else 0)
    parents = set(tree.parent.tolist())
    assert tree.leaves().tolist() == [node not in parents for node in range(len(tree))]
    assert all(tree.children(node).tolist() == [c for c in range(len(tree)) if tree.parent[c] == node] for node in range(len(tree)))


def test_forest_by_hand():
    """Group 0: 1 2 3 | 1 2 4 5 | 1 2 (a prefix of the others); group 1: 1 2 3 twice; group 2: nothing."""
    rows = [[1, 2, 3], [1, 2, 3], [1, 2, 4, 5], [1, 2], [1, 2, 3], []]
    tree, node_of = forest([np.array(row) for row in rows], [0, 1, 0, 0, 1, 2])
    assert node_of.tolist() == [[0, 0, 1, -1], [3, 3, 3, -1], [0, 0, 2, 2], [0, 0, -1, -1], [3, 3, 3, -1], [-1] * 4]
    assert tree.parent.tolist() == [-1, 0, 0, -1]
    assert tree.group.tolist() == [0, 0, 0, 1]
    assert tree.first_token.tolist() == [0, 2, 2, 0]
    assert tree.depth.tolist() == [0, 1, 1, 0]
    assert tree.children(0).tolist() == [1, 2]
    assert tree.leaves().tolist() == [False, True, True, True]


def test_tokens_are_compared_as_numbers_not_as_signed_or_single_bytes():
    big = [255, 256, 65536, 2**31, 2**32 - 1]
    tree, node_of = forest([np.array([7, token]) for token in big], [0] * len(big))
    assert len(tree) == 6
    assert len(set(node_of[:, 1].tolist())) == 5
    assert set(node_of[:, 0].tolist()) == {0}


def test_no_rows_and_unequal_lengths():
    tree, node_of = forest([], [])
    assert (len(tree), node_of.shape) == (0, (0, 0))
    assert isinstance(tree, Tree)
    with pytest.raises(ValueError, match="2 rows of tokens but 1 groups"):
        forest([np.array([1]), np.array([2])], [0])


@pytest.mark.parametrize(
    ("parent", "group", "why"),
    [
        ([-1, 2, 1], [0, 0, 0], "Node 1 of the tree has the `parent` 2, which does not stand before it: a cycle"),
        ([0], [0], "Node 0 of the tree has the `parent` 0"),
        ([-1, 5], [0, 0], "Node 1 of the tree is an orphan: its `parent` is 5, and there are 2 nodes"),
        ([-1, -3], [0, 0], "Node 1 of the tree is an orphan"),
        ([-1, 0], [0, 1], "Node 1 of the tree is of `group` 1, its parent of 0"),
    ],
)
def test_what_is_no_tree_is_refused(parent, group, why):
    with pytest.raises(Refused, match=why):
        Tree(np.array(parent), np.array(group), np.zeros(len(parent), dtype=int), np.zeros(len(parent), dtype=int))

"""HRM's rows: a tree of answers, its compression and what is drawn from it, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.annotation import Labels, hierarchical, hierarchical_labels
from guerdon.annotation.hierarchy import StepTree, compressed, drawn, merged, step_trees
from guerdon.samples import Sample, Task
from guerdon.spans import mark


def answers(*texts: str, group: int = 0) -> list[Sample]:
    out = [Sample(Task("t", "q="), "\n".join(text), stop="end", group=group) for text in texts]
    for sample in out:
        mark(sample)
    return out


def tree_of(*texts: str, right: str) -> StepTree:
    (tree,) = step_trees(answers(*texts), [x == "1" for x in right])
    return tree


def by_name(tree: StepTree) -> dict[str, tuple[str, float]]:
    """Of each node its steps, | between two, with its parent's and its value."""
    names = ["|".join(step.replace("\n", "") for step in steps) for steps in tree.steps]
    return {name: (names[parent] if parent >= 0 else "-", round(v, 4)) for name, parent, v in zip(names, tree.parent, tree.value)}  # noqa: B905


def test_answers_that_begin_alike_share_nodes():
    tree = tree_of("ab", "ac", "ac", "d", right="1011")
    assert by_name(tree) == {"": ("-", 0.75), "a": ("", 0.6667), "a|b": ("a", 1), "a|c": ("a", 0.5), "d": ("", 1)}
    assert tree.leaves.tolist() == [4, 3, 1, 2, 1]
    two = step_trees([*answers("ab"), *answers("ab", group=1), *answers("c")], [True, False, None])
    assert [t.value.tolist() for t in two] == [[1, 1, 1], [0, 0, 0]]


def test_compression_moves_the_first_child_to_the_grandparent():
    tree = tree_of("abx", "aby", "ac", "ad", "ae", "f", right="110010")
    moved = compressed(tree, np.random.default_rng(0), chance=1.0)
    # `a` has four children: b, the first, goes to the root as `ab`; what is below it keeps its steps. The root gives nothing away.
    assert by_name(moved) == {
        "": ("-", 0.5), "a": ("", 0.3333), "ab": ("", 1), "a|b|x": ("ab", 1), "a|b|y": ("ab", 1), "a|c": ("a", 0),
        "a|d": ("a", 0), "a|e": ("a", 1), "f": ("", 0),
    }  # fmt: skip
    assert by_name(tree)["a"] == ("", 0.6)  # the tree that was given is what it was
    assert by_name(compressed(tree, np.random.default_rng(0), chance=0.0)) == by_name(tree)
    few = tree_of("ab", "ac", "ad", "f", right="1000")
    assert by_name(compressed(few, np.random.default_rng(0), chance=1.0)) == by_name(few)


def test_a_node_that_moved_gives_no_child_away():
    tree = tree_of(*(f"ab{x}" for x in "1234"), "ac", "ad", "ae", right="1000000")
    moved = by_name(compressed(tree, np.random.default_rng(0), chance=1.0))
    assert moved["ab"] == ("", 0.25)
    assert all(moved[f"a|b|{x}"][0] == "ab" for x in "1234")


@given(st.lists(st.tuples(st.text("abcde", min_size=1, max_size=5), st.booleans()), min_size=1, max_size=40), st.integers(0, 99))
def test_compression_keeps_all_answers_and_every_value_off_the_path(rows: list[tuple[str, bool]], seed: int):
    tree = tree_of(*(text for text, _ in rows), right="".join(str(int(right)) for _, right in rows))
    moved = compressed(tree, np.random.default_rng(seed))
    assert moved.leaves[0] == tree.leaves[0] == len(rows)
    assert moved.ends.sum() == tree.ends.sum()
    gave = set(tree.parent[moved.parent != tree.parent].tolist())
    for node in range(len(tree.parent)):
        below = []
        for leaf in range(len(tree.parent)):  # by hand: go up from every node
            at = leaf
            while at >= 0 and at != node:
                at = moved.parent[at]
            below += [(moved.ends[leaf], moved.right[leaf])] * int(at == node)
        leaves, right = np.sum(below, 0)
        assert moved.leaves[node] == leaves
        assert moved.value[node] == right / leaves
        assert node in gave or moved.value[node] == tree.value[node]
        assert "".join(moved.steps[node]) == "".join(tree.steps[node])
    for node in gave:
        assert (tree.parent == node).sum() >= 4
        assert (moved.parent == node).sum() == (tree.parent == node).sum() - 1


def test_what_is_drawn_is_balanced_at_each_depth():
    # depth 1: 25 nodes of value 0, one of value 1: one of each by the rarest, but of the 25 a tenth, two. Depth 2: all alike, five.
    letters = "abcdefghijklmnopqrstuvwxy"
    tree = tree_of(*letters, *(f"z{x}" for x in "1234567"), right="0" * 25 + "1" * 7)
    nodes = drawn(tree, np.random.default_rng(0))
    depth = [(len(tree.steps[n]), tree.value[n]) for n in nodes]
    assert sorted(depth) == [(1, 0), (1, 0), (1, 1), *[(2, 1)] * 5]
    assert len(set(nodes)) == len(nodes)


def test_rows_of_steps_alone_and_joined():
    rows = hierarchical(answers("ab", "ac"), [True, False], np.random.default_rng(0))
    end = "\n\nNewest step:\n"
    assert rows == [
        {"prompt": "q=" + end, "completion": "a", "label": 0.5, "joined": False},
        {"prompt": "q=\n\nSteps so far:\na" + end, "completion": "c", "label": 0.0, "joined": False},
        {"prompt": "q=" + end, "completion": "a\nc", "label": 0.0, "joined": True},
        {"prompt": "q=\n\nSteps so far:\na" + end, "completion": "b", "label": 1.0, "joined": False},
        {"prompt": "q=" + end, "completion": "a\nb", "label": 1.0, "joined": True},
    ]
    alone = hierarchical(answers("ab", "ac"), [True, False], np.random.default_rng(0), merge=False)
    assert alone == [row for row in rows if not row["joined"]]
    assert hierarchical(answers("ab"), [None], np.random.default_rng(0)) == []


def test_of_labelled_steps_the_later_label_counts():
    labels = Labels.none(answers("abc"))
    labels.set(0, 0, 0.0, 1, 1.0)
    labels.set(0, 1, 1.0, 1, 1.0)  # put right; the third has no label
    rows = hierarchical_labels(labels)
    assert [(row["completion"], row["label"], row["joined"]) for row in rows] == [("a", 0, False), ("b", 1, False), ("a\nb", 1, True)]


@pytest.mark.parametrize(("steps", "as_one"), [(("a",), ("a",)), (("a", "b", "c"), ("a", "bc"))])
def test_merged(steps: tuple[str, ...], as_one: tuple[str, ...]):
    assert merged(steps) == as_one

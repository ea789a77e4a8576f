"""Relative progress: the ratio of two shares, worked out from the counts alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.annotation import Labels, agreeing, relative_progress
from guerdon.annotation.probe import Probe, Rollout
from guerdon.annotation.progress import UNSOLVED, _label
from guerdon.registry import Refused
from guerdon.samples import Sample, Task
from guerdon.search import Cost

K = 8


def probe(right: int) -> Probe:
    return Probe(tuple(Rollout(np.zeros(0), "end", i < right) for i in range(K)), Cost())


def labelled(rights: list[int], outcome: bool, smooth: bool = False, eps: float = 0.8) -> Labels:
    """Of a whole answer with one step more than there are beginnings behind steps."""
    sample = Sample(Task("t", "q"), "", stop="end")
    sample.marks["step"] = [(0, 0)] * len(rights)
    labels = Labels.none([sample])
    _label(labels, 0, [probe(r) for r in rights], outcome, True, eps, smooth, False)
    return labels


@given(rights=st.lists(st.integers(0, K), min_size=1, max_size=6), outcome=st.booleans(), smooth=st.booleans())
def test_labels_by_hand(rights: list[int], outcome: bool, smooth: bool):
    found = labelled(rights, outcome, smooth).value[0]
    add, size = (1, K + 2) if smooth else (0, K)
    shares = [(r + add) / size for r in rights] + [float(outcome)]
    raw = [r / K for r in rights] + [float(outcome)]
    for t in range(len(rights)):
        if raw[0] == 0:
            assert np.isnan(found[t])
        elif 0 in raw[1 : t + 2]:
            assert found[t] == 0
        else:
            assert found[t] == float(shares[t + 1] >= 0.8 * shares[t])


def test_a_step_that_helps_and_one_that_harms():
    labels = labelled([4, 8, 6, 7], True)
    assert labels.value[0].tolist() == [1, 0, 1, 1]  # 2, 0.75, 1.17, 1.14
    assert labels.text[0] == [f"relative progress {x}" for x in ("2", "0.75", "1.17", "1.14")]
    assert labels.count[0].tolist() == [8, 8, 8, 1]
    assert labels.confidence[0, 3] == 1


def test_nothing_after_a_lost_beginning_is_right_and_a_task_never_solved_has_no_labels():
    assert labelled([4, 0, 8], True).value[0].tolist() == [0, 0, 0]
    never = labelled([0, 8], True)
    assert np.isnan(never.value).all()
    assert never.text[0] == [UNSOLVED, UNSOLVED]


def test_it_asks_the_prompt_and_behind_every_step_but_the_last(world, answer) -> None:
    context = world(slip=0.0)
    labels = relative_progress([answer("ggbggg"), answer("gggggg")], context, k=2)
    assert labels.value.tolist() == [[1, 1, 0, 0, 0, 0, 0], [1] * 7]
    assert labels.cost.rollouts == 2 * (1 + 6 + 4)  # the prompt and the first two beginnings are shared


def test_eps_is_above_0(world, answer) -> None:
    with pytest.raises(Refused, match="eps=0"):
        relative_progress([answer("gggggg")], world(), eps=0)


def test_rows_on_which_judge_and_labels_agree():
    labels = labelled([4, 8, 6, 7], True)
    several = [[0.9, 0.1, 0.5, 0.6], [0.9, 0.6, 0.5, 0.6], [0.9, None, 0.5, 0.6], [0.9, 0.1, 0.5]]
    assert [bool(agreeing(labels, [values])[0]) for values in several] == [True, False, False, False]
    assert not agreeing(labelled([0, 8], True), [[0.9, 0.9]])[0]

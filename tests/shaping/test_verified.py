"""A learned reward behind a verifier: classes never mix, order inside them stays, states."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from guerdon.registry import Refused
from guerdon.rewards import parse, reward
from guerdon.rewards.core import get
from guerdon.samples import Context, Grain, Rewards, Sample, State, Task
from guerdon.scoring import Engine
from guerdon.shaping import verified


def apply(r: Grain, v: Grain, **params: float) -> Grain:
    samples = [Sample(Task("t", "q"), "")] * len(r.value)
    out = verified(get("exact"), **params).fn(Rewards(r), samples, Context(), verifier=Rewards(v)).outcome
    assert out is not None
    return out


@given(rows=st.lists(st.tuples(st.floats(-50, 50), st.booleans()), min_size=1, max_size=20), alpha=st.sampled_from([0.1, 0.5, 2.0]))
def test_every_right_answer_is_above_every_wrong_one_and_the_order_inside_stays(rows, alpha):
    r, right = np.array([x for x, _ in rows]), np.array([y for _, y in rows])
    value = apply(Grain.of(r), Grain.of(right.astype(float)), alpha=alpha).value
    for x, y, found in zip(r, right, value, strict=True):
        assert found == pytest.approx(1 / (1 + math.exp(-alpha * x)) - (0 if y else 1), abs=1e-12)
    if right.any() and (~right).any():
        assert value[right].min() >= value[~right].max()
    for side in (right, ~right):
        order = np.argsort(r[side], kind="stable")
        assert (np.diff(value[side][order]) >= 0).all()


def test_a_side_that_abstained_or_failed():
    scored, abstained, failed = State.SCORED, State.ABSTAINED, State.FAILED
    r = Grain.of([0, 0, 2, 2, 2, 0], [abstained, abstained, scored, scored, failed, abstained], {(4,): "no model", (0,): "empty"})
    v = Grain.of([1, 0, 0, 0, 1, 0], [scored, scored, abstained, failed, scored, failed], {(3,): "grader"})
    out = apply(r, v)
    assert out.state.tolist() == [scored, scored, abstained, failed, failed, failed]
    np.testing.assert_array_equal(out.value, [0, -1, 0, 0, 0, 0])
    assert out.reason == {(3,): "grader", (4,): "no model"}


def test_large_scores_stay_finite_and_what_cannot_be_used_is_refused():
    assert apply(Grain.of([1e6, -1e6]), Grain.of([0, 1])).value.tolist() == [0.0, 0.0]
    assert apply(Grain.of([0.0]), Grain.of([2.0])).value.tolist() == [0.5]
    with pytest.raises(Refused, match="alpha is above 0"):
        apply(Grain.of([0.0]), Grain.of([1.0]), alpha=0.0)


def test_in_an_expression():
    @reward(inline=True)
    def liked(text: str) -> float:
        return len(text) - 2

    @reward(inline=True)
    def same(text: str, reference: str) -> float:
        return text == reference

    out = Engine().score(parse("liked | verified(same)"), [Sample(Task("t", "q", "ab"), text) for text in ("ab", "abc")])
    np.testing.assert_allclose(out.total(), [0.5, 1 / (1 + math.exp(-0.5)) - 1])

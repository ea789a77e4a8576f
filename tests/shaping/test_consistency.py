"""The bonus of GRPO-CARE, by hand."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from guerdon.backends.tabular import tabular
from guerdon.rewards import parse
from guerdon.samples import Context, Grain, Rewards, Sample, State, Task
from guerdon.scoring import Engine
from guerdon.shaping import care
from guerdon.spans import mark


def apply(a, p, groups=None, state=None, p_state=None, **params) -> Rewards:
    samples = [Sample(Task("t", "q"), "", group=g) for g in (groups or [0] * len(a))]
    reason = {(i,): "why" for i, s in enumerate(p_state or []) if s == 2}
    call = care(parse("exact"), **params)
    return call.fn(Rewards(Grain.of(a, state)), samples, Context(), likelihood=Rewards(Grain.of(p, p_state, reason)))


def test_the_right_and_consistent_are_paid_half_again():
    a = [1, 1, 1, 0, 0, 0.5]  # mean 7/12: the right ones are the first three
    p = [0.9, 0.5, 0.3, 0.95, 0.1, 0.95]  # their mean is 17/30
    np.testing.assert_allclose(apply(a, p).total(), [1.5, 1, 1, 0, 0, 0.5])
    np.testing.assert_allclose(apply(a, p, margin=0.07).total(), [1.5, 1.5, 1, 0, 0, 0.5])
    np.testing.assert_allclose(apply(a, p, coefficient=2.0).total(), [3, 1, 1, 0, 0, 0.5])
    np.testing.assert_allclose(apply([0.2, 0.2, 0.0], [0.5, 0.5, 0.9], least=0.3).total(), [0.2, 0.2, 0])


def test_groups_are_measured_by_themselves():
    got = apply([1, 0, 1, 1], [0.1, 0.9, 0.8, 0.2], groups=[4, 4, 7, 7]).total()
    np.testing.assert_allclose(got, [1.5, 0, 1.5, 1])


@pytest.mark.parametrize("a", [[0, 0, 0], [0.1, 0.1, 0.05], [-1, -1, -1]])
def test_without_a_right_answer_nothing_changes(a):
    got = apply(a, [0.2, 0.9, 0.5])
    np.testing.assert_array_equal(got.total(), a)
    assert not got.failed.any()


@given(st.integers(0, 2**32 - 1))
def test_a_wider_margin_never_pays_fewer(seed):
    rng = np.random.default_rng(seed)
    a, p = rng.random(8).round(1), rng.random(8)
    paid = [set(np.flatnonzero(apply(a, p, margin=m).total() > a)) for m in (0, 0.01, 0.1, 0.5, 1)]
    assert all(small <= large for small, large in pairwise(paid))
    assert paid[-1] == set(np.flatnonzero((a > 0.1) & (a >= a.mean())))


def test_states_of_both_rewards():
    a, state = [1, 1, 1, 0, 0], [0, 0, 0, 1, 2]
    got = apply(a, [0.5, 0.9, 0.1, 0, 0], state=state, p_state=[0, 1, 2, 0, 0])
    assert got.state.tolist() == [State.SCORED, State.SCORED, State.FAILED, State.ABSTAINED, State.FAILED]
    np.testing.assert_allclose(got.total(), [1.5, 1, 0, 0, 0])
    assert got.why(2) == "why"


def test_in_an_expression_with_a_model():
    model = tabular(vocab=["<think>", "</think>", "one", "two", "<answer>", "</answer>"])
    for thought, right in [("one", 0.9), ("two", 0.2)]:
        prefix = np.concatenate([model.encode("q"), model.encode(f"<think> {thought} </think> <answer>")])
        model.set_logits(prefix, np.log([right if name == "one" else (1 - right) / 6 for name in model.names]))
    samples = []
    for thought, answer in [("one", "one"), ("two", "one"), ("one", "two")]:
        ids = model.encode_answer(f"<think> {thought} </think> <answer> {answer} </answer>")
        text, offsets = model.decode(ids)
        samples.append(Sample(Task("t", "q", "one"), text, model.encode("q"), ids, offsets, stop="end"))
        mark(samples[-1])
    with Engine(Context(models={"reference": model}), workers=1) as engine:
        got = engine.score(parse("(exact | care(answer_likelihood)) + 0.1 * format"), samples)
    base = engine.score(parse("0.1 * format"), samples).total()
    np.testing.assert_allclose(got.total() - base, [1.5, 1, 0])

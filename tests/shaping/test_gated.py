"""Bottom lines as a soft AND, and evidence that pays for right answers alone, against the formulas entry by entry."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from guerdon.registry import Refused
from guerdon.rewards import parse, reward
from guerdon.rewards.core import get
from guerdon.samples import Context, Grain, Rewards, Sample, State, Task
from guerdon.scoring import Engine
from guerdon.shaping import c_grpo, gated

unit = st.floats(0, 1).map(lambda x: round(x, 6))
states = st.sampled_from([0, 0, 0, 0, 1, 2])


def samples(groups: list[int]) -> list[Sample]:
    return [Sample(Task(f"t{g}", "q"), "abc", group=g) for g in groups]


def of(values, state=None) -> Rewards:
    state = [0] * len(values) if state is None else state
    return Rewards(Grain.of(values, state, {(i,): f"why {i}" for i, s in enumerate(state) if s == State.FAILED}))


def shape(call, rewards: Rewards, group: list[int], **beside: Rewards) -> Rewards:
    return call.fn(rewards, samples(group), Context(), **beside)


def bottom(*lines: Rewards, utility: Rewards, delta: float = 1e-6) -> Rewards:
    names = ["first", "second", "third", "fourth"][: len(lines)]
    call = gated(**{name: get("exact") for name in names}, delta=delta)
    return shape(call, utility, [0] * len(utility), **dict(zip(names, lines, strict=True)))


cells = st.tuples(unit, states)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(cells, st.lists(cells, min_size=3, max_size=3)), min_size=1, max_size=8), st.sampled_from([0.0, 1e-6, 0.01, 1.0]))
def test_the_gate_is_the_smoothed_geometric_mean_times_utility(rows, delta):
    utility = of([u for (u, _), _ in rows], [s for (_, s), _ in rows])
    lines = [of([b[k][0] for _, b in rows], [b[k][1] for _, b in rows]) for k in range(3)]
    out = bottom(*lines, utility=utility, delta=delta).outcome
    assert out is not None
    for i, ((u, s), b) in enumerate(rows):
        known = [x for x, state in b if state == State.SCORED]
        if s == State.FAILED or any(state == State.FAILED for _, state in b):
            assert out.state[i] == State.FAILED
            assert out.why(i)
        elif s == State.ABSTAINED or not known:
            assert out.state[i] == State.ABSTAINED
        else:
            gate = math.exp(sum(math.log(x + delta) for x in known) / len(known)) - delta if delta else math.prod(known) ** (1 / len(known))
            assert out.state[i] == State.SCORED
            assert out.value[i] == pytest.approx(gate * u, abs=1e-9)


def test_one_bottom_line_at_0_leaks_what_the_docstring_says():
    zero, one = of([0.0]), of([1.0])
    assert 0 <= bottom(zero, one, one, utility=one).total()[0] <= 1e-6 ** (1 / 3)
    assert bottom(zero, one, one, utility=one, delta=0.01).total()[0] == pytest.approx(0.2069, abs=1e-4)
    assert bottom(zero, one, one, utility=one, delta=0.0).total()[0] == 0


@given(st.lists(unit, min_size=4, max_size=4), st.integers(0, 3), unit)
def test_more_of_anything_never_pays_less(values, which, more):
    better = list(values)
    better[which] = max(better[which], more)
    low, high = (bottom(*(of([x]) for x in v[:3]), utility=of([v[3]])).total()[0] for v in (values, better))
    assert high >= low - 1e-9


def test_what_is_no_bottom_line_is_refused():
    one = of([1.0])
    with pytest.raises(Refused, match=r"-0\.5; bottom lines lie in"):
        bottom(of([-0.5]), utility=one)
    with pytest.raises(Refused, match="whole answers"):
        bottom(one, Rewards(step=Grain.of([[1.0]])), utility=one)
    with pytest.raises(Refused, match="delta is 0 or more"):
        bottom(one, utility=one, delta=-1.0)


def mixed(outcome: Rewards, rubric: Rewards, group: list[int], weight: float = 0.3) -> Rewards:
    return shape(c_grpo(rubric=get("exact"), weight=weight), outcome, group, rubric=rubric)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.tuples(st.sampled_from([0.0, 1.0, 0.5]), states), cells, st.integers(0, 2)), min_size=1, max_size=9),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_rubrics_are_scaled_by_the_best_of_the_group_and_pay_for_right_answers(rows, weight):
    group = [g for *_, g in rows]
    out = mixed(of(*zip(*(o for o, _, _ in rows), strict=True)), of(*zip(*(r for _, r, _ in rows), strict=True)), group, weight).outcome
    assert out is not None
    for i, ((o, state), (r, known), g) in enumerate(rows):
        best = max([x for _, (x, s), other in rows if s == State.SCORED and other == g], default=0.0)
        share = r / best if known == State.SCORED and best > 0 else 0.0
        if state != State.SCORED:
            assert out.state[i] == state
        elif known == State.FAILED and o != 0:
            assert out.state[i] == State.FAILED
            assert "why" in out.why(i)
        else:
            assert out.state[i] == State.SCORED
            assert out.value[i] == pytest.approx((1 - weight) * o + weight * o * share, abs=1e-12)


def test_by_hand():
    out = mixed(of([1.0, 1.0, 0.0, 1.0]), of([0.25, 0.5, 0.5, 0.0]), [0, 0, 0, 1])
    assert out.total().tolist() == pytest.approx([0.7 + 0.15, 1.0, 0.0, 0.7])


def test_weights_and_grains_that_make_no_sense_are_refused():
    one = of([1.0])
    with pytest.raises(Refused, match="a share, from 0 to 1"):
        mixed(one, one, [0], weight=1.5)
    with pytest.raises(Refused, match="whole answers"):
        mixed(one, Rewards(step=Grain.of([[1.0]])), [0])


@reward(inline=True)
def gated_ground(text: str) -> float:
    return text.count("g") / 4


@reward(inline=True)
def gated_long(text: str) -> float:
    return min(len(text) / 8, 1.0)


def test_it_stands_in_an_expression():
    texts = ["gggg", "gg", "gggghhhh", "hhhhhhhh"]
    rows = [Sample(Task("t", "q"), text, group=0) for text in texts]
    with Engine(workers=1) as engine:
        found = engine.score(parse("gated_long | gated(gated_ground, gated_long, delta=0)"), rows).total()
    wanted = [np.sqrt(t.count("g") / 4 * len(t) / 8) * len(t) / 8 for t in texts]
    np.testing.assert_allclose(found, wanted)

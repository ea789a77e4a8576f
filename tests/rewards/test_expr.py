"""The algebra against a twin that works it out one sample and one cell at a time, by the table in the words of the design."""

from __future__ import annotations

import math
from itertools import zip_longest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.registry import Refused
from guerdon.rewards import core, gate, greatest, least, mean, parse, reward
from guerdon.rewards.expr import Compare, Const, Expr, Fold, Pipe, Product, Sum, When
from guerdon.samples import GRAINS, Sample, State, Task, Verdict
from guerdon.scoring import Engine
from guerdon.shaping import clip

A, F = "abstained", "failed"  # a cell is a number, A or F


def said(meta: dict, name: str) -> Verdict:
    cell = meta[name]
    return Verdict.abstain("no") if cell == A else Verdict.fail("bad") if cell == F else Verdict(cell)


def said_each(meta: dict, name: str) -> list[float | None] | Verdict:
    cells = meta[name]
    return Verdict.fail("bad") if F in cells else [None if cell == A else cell for cell in cells]


@reward(inline=True)
def o1(meta):
    return said(meta, "o1")


@reward(inline=True)
def o2(meta):
    return said(meta, "o2")


@reward(inline=True, grain="step")
def s1(meta):
    return said_each(meta, "s1")


@reward(inline=True, grain="step")
def s2(meta):
    return said_each(meta, "s2")


@reward(inline=True, grain="token")
def t1(meta):
    return said_each(meta, "t1")


LEAVES = {"o1": "outcome", "o2": "outcome", "s1": "step", "s2": "step", "t1": "token"}


# --- the twin: an expression and one sample's cells -> {grain: [cells]} --------------------------------------------------------------


class Unlike(Exception):
    """A combination of grains that has no meaning."""


def grains_of(e: Expr) -> list[str]:
    """By the words of the design, without values."""
    match e:
        case core.Reward(name=name):
            return [LEAVES[name]]
        case Sum(terms):
            found = {g for t in terms if not isinstance(t, Const) for g in grains_of(t)}
            return [g for g in GRAINS if g in found]
        case Product(terms):
            several = [grains_of(t) for t in terms if not isinstance(t, Const)]
            if len(several) == 1:
                return several[0]
            finest = max((g for kinds in several for g in kinds), key=GRAINS.index)
            if any(kinds not in ([finest], ["outcome"]) for kinds in several):
                raise Unlike
            return [finest]
        case Fold(terms=terms):
            several = [grains_of(t) for t in terms if not isinstance(t, Const)]
            if any(kinds != several[0] for kinds in several):
                raise Unlike
            return several[0]
        case Compare(left=left):
            return grains_of(left)
        case When(branch=branch, condition=condition):
            if "outcome" not in grains_of(condition):
                raise Unlike
            return ["outcome"] if isinstance(branch, Const) else grains_of(branch)
        case Pipe(source=source):
            return grains_of(source)
    raise TypeError(e)


def spread(out: dict[str, list]) -> dict[str, list]:
    """Failed makes every grain of the sample failed."""
    if any(F in cells for cells in out.values()):
        return {g: [F] for g in out}
    return out


def twin(e: Expr, cells: dict[str, list]) -> dict[str, list]:
    match e:
        case core.Reward(name=name):
            return spread({LEAVES[name]: cells[name]})
        case Const(value):
            return {"outcome": [value]}
        case Sum(terms):
            constant = sum(t.value for t in terms if isinstance(t, Const))
            parts = [twin(t, cells) for t in terms if not isinstance(t, Const)]
            out = {}
            for i, g in enumerate(grains_of(e)):
                columns = zip_longest(*(p[g] for p in parts if g in p), fillvalue=A)
                out[g] = [add(column, 0.0 if i else constant) for column in columns]
            return spread(out)
        case Product(terms):
            factor = math.prod(t.value for t in terms if isinstance(t, Const))
            parts = [twin(t, cells) for t in terms if not isinstance(t, Const)]
            [grain] = kinds if len(kinds := grains_of(e)) == 1 else [None]
            if len(parts) == 1:
                return {g: [c if c in (A, F) else c * factor for c in p] for g, p in parts[0].items()}
            assert grain is not None
            if any(F in cells for p in parts for cells in p.values()):
                return {grain: [F]}
            fine = [p[grain] for p in parts if grain in p]
            coarse = [p["outcome"][0] for p in parts if grain not in p]
            columns = list(zip_longest(*fine, fillvalue=A))
            return {grain: [A if A in (*c, *coarse) else math.prod((*c, *coarse)) * factor for c in columns]}
        case Fold(how, terms):
            constants = [t.value for t in terms if isinstance(t, Const)]
            parts = [twin(t, cells) for t in terms if not isinstance(t, Const)]
            how = {"min": min, "max": max, "mean": lambda xs: sum(xs) / len(xs)}[how]
            out = {}
            for g in grains_of(e):
                out[g] = []
                for column in zip_longest(*(p[g] for p in parts), fillvalue=A):
                    known = [c for c in column if c != A]
                    out[g].append(F if F in column else A if not known else how([*known, *constants]))
            return spread(out)
        case Compare(left, test, right):
            tests = {">": lambda x: x > right, ">=": lambda x: x >= right, "<": lambda x: x < right, "<=": lambda x: x <= right}
            return {g: [c if c in (A, F) else float(tests[test](c)) for c in p] for g, p in twin(left, cells).items()}
        case When(branch, condition):
            state = twin(condition, cells)["outcome"][0]
            if state not in (A, F) and state > 0:
                return twin(branch, cells)
            return {g: [F if state == F else A if state == A else 0.0] for g in grains_of(e)}
        case Pipe(source):
            return {g: [c if c in (A, F) else min(max(c, 0.0), 1.0) for c in p] for g, p in twin(source, cells).items()}
    raise TypeError(e)


def add(column: tuple, constant: float):
    known = [c for c in column if c != A]
    return F if F in column else A if not known else sum(known) + constant


# --- expressions and samples ---------------------------------------------------------------------------------------------------------

small = st.sampled_from([-1.5, -1.0, 0.0, 0.25, 1.0, 2.0])
outcomes = st.one_of(small, small, st.sampled_from([A, F]))
fine = st.lists(st.one_of(small, small, small, st.sampled_from([A, F])), max_size=3)
samples = st.fixed_dictionaries({"o1": outcomes, "o2": outcomes, "s1": fine, "s2": fine, "t1": fine})


def grow(inner):
    term = st.one_of(inner, inner, small.map(Const))
    some = st.lists(term, min_size=1, max_size=2)
    return st.one_of(
        st.builds(lambda a, b: a + b, inner, term),
        st.builds(lambda a, b: b - a, inner, term),
        st.builds(lambda a, b: a * b, inner, term),
        st.builds(lambda a, bs: least(a, *bs), inner, some),
        st.builds(lambda a, bs: greatest(*bs, a), inner, some),
        st.builds(lambda a, bs: mean(a, *bs), inner, some),
        st.builds(lambda a, x, test: Compare(a, test, x), inner, small, st.sampled_from([">", ">=", "<", "<="])),
        st.builds(gate, inner, term),
        st.builds(lambda a: a | clip(0, 1), inner),
    )


expressions = st.recursive(st.sampled_from([o1, o1, o2, s1, s2, t1]), grow, max_leaves=6)
engine = Engine()


def to_samples(several):
    """Cells -> samples; those of the finer grains are lists."""
    return [Sample(Task(str(i), "q", "r"), "", group=i, meta=cells) for i, cells in enumerate(several)]


def trimmed(cells):
    while cells and cells[-1] == A:
        cells = cells[:-1]
    return cells


@settings(max_examples=400, deadline=None)
@given(expressions, st.lists(samples, min_size=1, max_size=4))
def test_every_combination_agrees_with_the_twin_cell_by_cell(e, several):
    try:
        grains = grains_of(e)
    except Unlike:
        with pytest.raises(Refused):
            engine.score(e, to_samples(several))
        return
    rewards = engine.score(e, to_samples(several))
    assert [name for name, _ in rewards.grains()] == grains
    for i, cells in enumerate(several):
        wanted = twin(e, {name: [c] if isinstance(c, (str, float)) else c for name, c in cells.items()})
        assert bool(rewards.failed[i]) == any(F in row for row in wanted.values())
        if rewards.failed[i]:
            continue
        for name, g in rewards.grains():
            mine = [[v, A, F][s] for v, s in zip(np.atleast_1d(g.value[i]).tolist(), np.atleast_1d(g.state[i]).tolist(), strict=True)]
            assert trimmed(mine) == pytest.approx(trimmed(wanted[name])), (str(e), i, name)


@settings(max_examples=200, deadline=None)
@given(expressions, st.lists(samples, min_size=1, max_size=3), st.lists(samples, min_size=1, max_size=2))
def test_other_samples_change_nothing(e, several, others):
    try:
        alone = engine.score(e, to_samples(several))
    except Refused:
        return
    padded = engine.score(e, to_samples([*others, *several])).rows(range(len(others), len(others) + len(several)))
    np.testing.assert_array_equal(alone.state, padded.state)
    np.testing.assert_allclose(alone.total(), padded.total())
    assert [alone.why(i) for i in range(len(alone))] == [padded.why(i) for i in range(len(alone))]


@settings(max_examples=300, deadline=None)
@given(expressions)
def test_the_text_of_an_expression_reads_back_as_itself(e):
    assert str(parse(str(e))) == str(e)


@settings(max_examples=100, deadline=None)
@given(expressions, st.lists(samples, min_size=1, max_size=3))
def test_the_text_means_the_same(e, several):
    try:
        wanted = engine.score(e, to_samples(several))
    except Refused:
        return
    mine = engine.score(str(e), to_samples(several))
    np.testing.assert_array_equal(wanted.state, mine.state)
    np.testing.assert_allclose(wanted.total(), mine.total())


# --- by hand -------------------------------------------------------------------------------------------------------------------------


def score(e, **cells):
    """The outcome and state of one sample."""
    given = {"o1": 1.0, "o2": 1.0, "s1": [], "s2": [], "t1": [], **cells}
    r = engine.score(e, to_samples([given]))
    return (None if r.state[0] else float(r.total()[0])), State(int(r.state[0]))


@pytest.mark.parametrize(
    ("e", "cells", "value", "state"),
    [
        (o1 + o2, {"o1": 2.0, "o2": A}, 2.0, State.SCORED),
        (o1 + o2, {"o1": A, "o2": A}, None, State.ABSTAINED),
        (o1 + o2, {"o1": 2.0, "o2": F}, None, State.FAILED),
        (o1 + o2, {"o1": A, "o2": F}, None, State.FAILED),
        (mean(o1, o2), {"o1": 3.0, "o2": A}, 3.0, State.SCORED),
        (least(o1, o2), {"o1": 3.0, "o2": A}, 3.0, State.SCORED),
        (o1 * o2, {"o1": 3.0, "o2": A}, None, State.ABSTAINED),
        (o1 * o2, {"o1": F, "o2": A}, None, State.FAILED),
        (gate(o1, o2), {"o1": A, "o2": 1.0}, None, State.ABSTAINED),
        (gate(o1, o2), {"o1": F, "o2": 1.0}, None, State.FAILED),
        (gate(o1, o2), {"o1": 0.0, "o2": F}, 0.0, State.SCORED),
        (gate(o1, o2), {"o1": 1.0, "o2": A}, None, State.ABSTAINED),
        (gate(o1, s1), {"o1": 0.0, "s1": [F]}, 0.0, State.SCORED),
        (o1 - 5, {"o1": 2.0}, -3.0, State.SCORED),
        (o1 + s1 + 0.5, {"o1": 2.0, "s1": [1.0, 1.0]}, 2.5, State.SCORED),
        (o1 + s1, {"o1": 2.0, "s1": [1.0, F]}, None, State.FAILED),
        (o1 * s1, {"o1": F, "s1": []}, None, State.FAILED),
    ],
    ids=str,
)
def test_the_table_by_hand(e, cells, value, state):
    assert score(e, **cells) == (value, state)


def test_a_constant_is_added_once_to_the_coarsest_grain():
    r = engine.score(o1 + s1 + 0.5, to_samples([{"o1": 2.0, "s1": [1.0, 1.0]}]))
    assert (r.outcome.value.tolist(), r.step.value.tolist()) == ([2.5], [[1.0, 1.0]])
    r = engine.score(s1 + 0.5, to_samples([{"s1": [1.0, A]}]))
    assert r.step.value.tolist() == [[1.5, 0.0]]


def test_reasons_name_the_reward_they_come_from():
    r = engine.score(o1 + o2, to_samples([{"o1": F, "o2": A}]))
    assert r.why(0) == "o1: bad; o2: no"
    assert engine.score(o1, to_samples([{"o1": F}])).why(0) == "bad"


def test_coefficients_of_a_part_that_enters_twice_add_up():
    r = engine.score(0.5 * o1 + 2 * (o1 + o2), to_samples([{"o1": 1.0, "o2": 1.0}]))
    assert {name: part.coefficient for name, part in r.parts.items()} == {"o1": 2.5, "o2": 2.0}
    assert r.total()[0] == 4.5


def test_numbers_keep_all_their_digits_in_the_text():
    assert str(0.1234567891 * o1) == "0.1234567891 * o1"
    assert str(o1 > 1e-7) == "o1 > 1e-07"
    assert str(0.5 * o1 + 1) == "0.5 * o1 + 1"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: o1 | 3, "takes a shape"),
        (lambda: bool(o1 > 0), "neither true nor false"),
        (lambda: o1 * float("nan"), "finite number"),
        (lambda: o1 + "x", "finite number"),
        (lambda: gate(1, o1), "needs a reward as its condition"),
        (lambda: least(1, 2), "names no reward"),
        (lambda: engine.score(Const(1.0), []), "names no reward"),
        (lambda: o1 > (0 | clip(0, 1)), "needs brackets"),
    ],
)
def test_what_makes_no_sense_is_refused(make, sentence):
    with pytest.raises(Refused, match=sentence):
        make()


# --- evaluated once, and only where needed -------------------------------------------------------------------------------------------

calls: list[str] = []


@reward(inline=True)
def counted(text):
    calls.append(text)
    return float(len(text))


@reward
def counted_group(group):
    calls.append("+".join(s.text for s in group))
    return [float(len(s.text)) for s in group]


def texts(*several, groups=None):
    groups = groups or range(len(several))
    return [Sample(Task("t", "q", "r"), text, group=g, meta={"o1": float(len(text) > 1)}) for text, g in zip(several, groups, strict=True)]


@pytest.fixture(autouse=True)
def _forget():
    calls.clear()


def test_a_sub_expression_used_twice_is_evaluated_once():
    engine.score(counted + 2 * counted + gate(counted > 1, counted), texts("a", "bb"))
    assert sorted(calls) == ["a", "bb"]


def test_a_shut_gate_does_not_evaluate_its_branch():
    r = engine.score(gate(o1, counted), texts("a", "bb", "c"))
    assert calls == ["bb"]
    assert r.total().tolist() == [0.0, 2.0, 0.0]
    assert r.state.tolist() == [0, 0, 0]
    assert r.parts["counted"].rewards.outcome.state.tolist() == [State.ABSTAINED, State.SCORED, State.ABSTAINED]


def test_a_branch_needed_elsewhere_too_is_evaluated_on_the_rest_alone():
    r = engine.score(gate(o1, counted) + counted, texts("a", "bb", "c"))
    assert calls == ["bb", "a", "c"]
    assert r.total().tolist() == [1.0, 4.0, 1.0]


def test_groups_are_never_split_and_scored_once():
    r = engine.score(gate(o1, counted_group) + counted_group, texts("a", "bb", "c", "d", groups=[0, 0, 7, 7]))
    assert calls == ["a+bb", "c+d"]
    assert r.total().tolist() == [1.0, 4.0, 1.0, 1.0]


def test_a_shape_over_all_samples_sees_all_even_behind_a_gate():
    from guerdon.shaping import shape

    @shape
    def minus_mean(rewards, samples, context):
        from guerdon.samples import Grain, Rewards

        g = rewards.outcome
        return Rewards(outcome=Grain.of(g.value - g.value[g.scored].mean(), g.state, g.reason))

    both = engine.score(gate(o1, counted | minus_mean()), texts("a", "bbb", "c", "d"))
    assert both.total().tolist() == [0.0, 1.5, 0.0, 0.0]


def test_an_empty_batch_has_empty_rewards():
    for e in (o1, o1 + s1, gate(o1, s1) | clip(0, 1), counted_group):
        assert len(engine.score(e, [])) == 0

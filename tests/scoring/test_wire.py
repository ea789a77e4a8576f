"""Rewards -> plain data -> the same Rewards."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.samples import Grain, Part, Rewards, State, Verdict
from guerdon.scoring.wire import cell_from_bytes, cell_to_bytes, from_bytes, from_plain, to_bytes, to_plain

numbers = st.floats(allow_nan=False, allow_infinity=False)
keys = st.one_of(st.text(max_size=3), st.just("$"), st.integers(), st.tuples(st.integers()))
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=4)),
    lambda x: st.one_of(st.lists(x, max_size=3), st.lists(x, max_size=3).map(tuple), st.dictionaries(keys, x, max_size=3)),
    max_leaves=6,
)


@st.composite
def grains(draw, shape):
    value = np.array(draw(st.lists(numbers, min_size=math.prod(shape), max_size=math.prod(shape)))).reshape(shape)
    state = np.array(draw(st.lists(st.integers(0, 2), min_size=value.size, max_size=value.size)), dtype=np.int8).reshape(shape)
    cells = [tuple(c) for c in np.argwhere(state >= 0).tolist()]
    reason = {c: draw(st.text(max_size=5)) for c in cells if draw(st.booleans())}
    return Grain.of(value, state, reason)


@st.composite
def rewards(draw, n=None, deep=True):
    n = draw(st.integers(0, 3)) if n is None else n
    given = {
        "outcome": draw(st.none() | grains((n,))),
        "step": draw(st.none() | grains((n, draw(st.integers(0, 3))))),
        "token": draw(grains((n, 2))),
    }
    parts = {}
    if deep:
        parts = {
            name: Part(draw(rewards(n, False)), draw(st.none() | numbers))
            for name in draw(st.lists(st.text(max_size=3), unique=True, max_size=2))
        }
    evidence = {
        name: draw(st.lists(plain, min_size=n, max_size=n)) for name in draw(st.lists(st.text(max_size=3), unique=True, max_size=2))
    }
    return Rewards(**given, parts=parts, evidence=evidence)


def exact(x):
    """Data that are equal only where every bit, type and order is."""
    if isinstance(x, np.ndarray):
        return (x.dtype.str, x.shape, x.tobytes())
    if isinstance(x, np.generic):
        return (type(x), x.tobytes())
    if isinstance(x, dict):
        return [(exact(k), exact(v)) for k, v in x.items()]
    if isinstance(x, (list, tuple)):
        return (type(x), [exact(v) for v in x])
    return (type(x), repr(x))


@given(rewards())
def test_every_rewards_comes_back_bit_for_bit(given):
    assert exact(asdict(from_bytes(to_bytes(given)))) == exact(asdict(given))
    assert exact(asdict(from_plain(orjson.loads(orjson.dumps(to_plain(given)))))) == exact(asdict(given))


@pytest.mark.parametrize(
    "evidence",
    [
        np.array([[1.5, -0.0], [np.nan, np.inf]]),
        np.array([[True], [False]]),
        np.zeros((0, 3), dtype=np.float32),
        np.array(["a", "bc"]),
        np.float32(0.1),
        np.int64(7),
        [float("inf"), float("nan"), -0.0, 2**80, -(2**63), 2**63],
        {"$": "tuple", "of": [1]},
        {1: (2, {"x": ()})},
    ],
    ids=repr,
)
def test_evidence_that_json_has_no_word_for(evidence):
    given = Rewards(Grain.of([1.0]), evidence={"e": [evidence]})
    assert exact(from_bytes(to_bytes(given)).evidence) == exact(given.evidence)


def test_evidence_that_is_no_data_is_refused():
    with pytest.raises(TypeError, match="evidence of type object cannot be written down"):
        to_bytes(Rewards(Grain.of([1.0]), evidence={"e": [object()]}))


@pytest.mark.parametrize(
    "cell",
    [
        Verdict(0.1 + 0.2, "why"),
        Verdict(-0.0, "a lone \ud800 surrogate"),
        Verdict.abstain("no"),
        Verdict(1.0, "", State.SCORED, {"path": (1, [None]), "m": {2: 3}}),
        [1.0, None, 0.5, 0.25],
        [],
        [None] * 4,
    ],
    ids=repr,
)
def test_single_verdicts_come_back(cell):
    assert exact(cell_from_bytes(cell_to_bytes(cell))) == exact(cell)

"""Squashing, by the standard library's own functions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample, Task
from guerdon.shaping import squash

X = [-800.0, -4.0, -1.0, 0.0, 0.3, 2.0, 800.0]


def squashed(**params):
    samples = [Sample(Task("t", "q"), "")] * len(X)
    return squash(**params).fn(Rewards(Grain.of(X)), samples, Context()).outcome.value


@pytest.mark.parametrize(
    ("kind", "f"), [("sigmoid", lambda x: 1 / (1 + math.exp(-x)) if x > -700 else 0.0), ("tanh", math.tanh), ("arctan", math.atan)]
)
def test_the_function_of_each_kind(kind, f):
    assert squashed(kind=kind).tolist() == pytest.approx([f(x) for x in X], abs=1e-15)
    assert squashed(kind=kind, slope=0.5, shift=3.0).tolist() == pytest.approx([f(0.5 * (x - 3)) for x in X], abs=1e-15)


def test_the_polynomial_is_the_least_squares_fit_of_the_sigmoid():
    x = np.linspace(-5, 5, 100)
    weights = np.linalg.lstsq(np.vander(x, 6), 1 / (1 + np.exp(-x)), rcond=None)[0]
    np.testing.assert_allclose(squashed(kind="polynomial")[1:-1], np.polyval(weights, X[1:-1]), atol=1e-10)
    assert squashed(kind="polynomial")[[0, -1]].tolist() == [0, 1]
    assert squashed(kind="polynomial", shift=-1.0)[1:-1].tolist() == pytest.approx(np.polyval(weights, np.array(X[1:-1]) + 1).tolist())


def test_another_kind_is_refused():
    with pytest.raises(Refused, match=r"squash.*kind.*relu"):
        squashed(kind="relu")

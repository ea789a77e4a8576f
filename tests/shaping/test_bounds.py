"""Clipping, and how shapes are registered and named."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.registry import Broke, Refused
from guerdon.rewards import reward
from guerdon.samples import Grain, Rewards, Sample, Task
from guerdon.scoring import Engine
from guerdon.shaping import clip, shape


@reward(inline=True)
def far(text):
    return None if not text else float(text)


def samples(*texts):
    return [Sample(Task("t", "q", "r"), text, group=i) for i, text in enumerate(texts)]


def test_clip_bounds_scored_values_only():
    r = Engine().score(far | clip(0, 1), samples("-3", "0.5", "7", "", "x"))
    assert r.outcome.value.tolist() == [0.0, 0.5, 1.0, 0.0, 0.0]
    assert r.state.tolist() == [0, 0, 0, 1, 2]
    assert r.parts["far"].rewards.outcome.value.tolist() == [-3.0, 0.5, 7.0, 0.0, 0.0]


def test_clip_bounds_every_grain():
    both = Rewards(Grain.of([5.0]), Grain.of([[-5.0, 0.5]]))
    out = clip(low=-1, high=1).fn(both, samples("1"), None)
    assert (out.outcome.value.tolist(), out.step.value.tolist()) == ([1.0], [[-1.0, 0.5]])


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(Refused, match="low is above high"):
        Engine().score(far | clip(1, 0), samples("1"))


def test_a_shape_binds_its_parameters_and_refuses_others():
    assert str(clip(0, high=2)) == "clip(high=2, low=0)"
    with pytest.raises(Refused, match="no parameter 'lo'"):
        clip(lo=0)
    with pytest.raises(Refused, match="takes 2 parameters"):
        clip(0, 1, 2)


def test_a_class_is_a_shape_with_state():
    @shape(scope="sample")
    class test_bounds_scaled:
        """Times a factor."""

        def __init__(self, by: float = 1.0) -> None:
            self.by = by

        def __call__(self, rewards, samples, context):
            return Rewards(outcome=Grain.of(rewards.outcome.value * self.by, rewards.outcome.state, rewards.outcome.reason))

    call = test_bounds_scaled(by=3)
    assert (str(call), call.scope) == ("test_bounds_scaled(by=3)", "sample")
    np.testing.assert_array_equal(Engine().score(far | call, samples("1", "2")).total(), [3.0, 6.0])


def test_a_shape_that_raises_breaks_the_run_by_name():
    @shape
    def test_bounds_broken(rewards, samples, context):
        return 1 / 0

    with pytest.raises(Broke, match="test_bounds_broken raised ZeroDivisionError"):
        Engine().score(far | test_bounds_broken(), samples("1"))

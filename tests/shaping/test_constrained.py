"""Multipliers against torch's SGD on the same objective, and in an expression."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
import torch

from guerdon.registry import Refused
from guerdon.rewards import reward
from guerdon.samples import Context, Grain, Rewards, Sample, State, Task
from guerdon.scoring import Engine
from guerdon.shaping import multiplier

SQUASH = {"at_least": torch.sigmoid, "equal": torch.tanh}


def batch(rng, n=6):
    return Rewards(Grain.of(rng.normal(size=n), rng.choice([0, 0, 0, 1, 2], n)))


@pytest.mark.parametrize("kind", SQUASH)
@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.9])
def test_it_moves_as_sgd_on_the_squashed_violation(kind, momentum):
    shape = multiplier(0.3, kind=kind, lr=0.5, momentum=momentum, start=-0.2).fn
    level = torch.tensor(-0.2, dtype=torch.float64, requires_grad=True)
    sgd = torch.optim.SGD([level], lr=0.5, momentum=momentum)
    rng = np.random.default_rng(0)
    for _ in range(20):
        r = batch(rng)
        shape.observe([], r, Context())
        shape.observe([], Rewards(Grain.of([99.0])), Context(), on="eval")
        assert r.outcome is not None
        values = [float(v) for v, s in zip(r.outcome.value, r.outcome.state, strict=True) if s == State.SCORED]
        sgd.zero_grad()
        (SQUASH[kind](level) * (sum(values) / len(values) - 0.3)).backward()
        sgd.step()
        assert shape.value == pytest.approx(float(SQUASH[kind](level).detach()), rel=1e-12)
    assert shape.update(None, None) == {"multiplier": shape.value}


@pytest.mark.parametrize("kind", SQUASH)
def test_it_rises_below_the_threshold_and_falls_above_it(kind):
    for mean, rises in ((0.1, True), (0.9, False)):
        shape = multiplier(0.5, kind=kind).fn
        values = [shape.value]
        for _ in range(200):
            shape.observe([], Rewards(Grain.of([mean, mean])), Context())
            values.append(shape.value)
        assert (np.diff(values) > 0).all() == rises
        assert (np.diff(values) < 0).all() != rises
    assert (values[-1] < 0) == (kind == "equal")  # an equality pushes back


def test_batches_without_a_verdict_leave_it_alone():
    shape = multiplier(0.5).fn
    shape.observe([], Rewards(Grain.of([0.0, 0.0], [1, 2])), Context())
    assert shape.value == 0.5


def test_state_with_its_momentum_survives_a_checkpoint():
    a, b = multiplier(0.5).fn, multiplier(0.5).fn
    a.observe([], Rewards(Grain.of([0.9])), Context())
    b.load_state_dict(orjson.loads(orjson.dumps(a.state_dict())))
    for shape in (a, b):
        shape.observe([], Rewards(Grain.of([0.7])), Context())
    assert a.state_dict() == b.state_dict()


@pytest.mark.parametrize("start", [-1e6, 1e6])
def test_far_out_it_is_still_a_number(start):
    assert multiplier(0.5, start=start).fn.value == (start > 0)
    assert multiplier(0.5, start=start, kind="equal").fn.value == (1 if start > 0 else -1)


@reward(inline=True)
def constrained_one(text):
    return float(text.split()[0])


@reward(inline=True)
def constrained_two(text):
    return float(text.split()[1])


def test_the_multiplier_is_the_factor_of_its_part():
    text = "constrained_one + (constrained_two | multiplier(threshold=0.5, start=1)) + 3 * (constrained_one * constrained_two)"
    out = Engine().score(text, [Sample(Task("t", "q"), "1 2"), Sample(Task("t", "q"), "0 4")])
    m = 1 / (1 + np.exp(-1.0))
    assert out.total().tolist() == pytest.approx([1 + 2 * m + 6, 4 * m])
    two = Engine().score("constrained_one + (2 * constrained_two | multiplier(threshold=0.5, start=1))", [Sample(Task("t", "q"), "1 2")])
    assert two.parts["constrained_two"].coefficient == pytest.approx(2 * m)
    assert two.parts["constrained_one"].coefficient == 1


def test_another_kind_is_refused():
    with pytest.raises(Refused, match="at_least or equal"):
        multiplier(0.5, kind="at_most")

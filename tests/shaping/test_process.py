"""Clip, Delta and ReNorm of step rewards."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.registry import Refused
from guerdon.rewards import reward
from guerdon.samples import Context, Grain, Rewards, Sample, State, Task
from guerdon.scoring import Engine
from guerdon.shaping import renorm, step_clip, step_delta


def shaped(call, *rows):
    r = Rewards(step=Grain.ragged(rows))
    return call.fn(r, [Sample(Task("t", "q"), "") for _ in rows], Context()).step


def total(call, row):
    return float(shaped(call, row).value.sum())


def test_clip_and_delta_by_hand():
    assert shaped(step_clip(0.6), [0.9, 0.5, 0.6]).value[0].tolist() == pytest.approx([0, -0.1, 0])
    assert shaped(step_delta(), [0.9, 0.5, 0.7, 0.2]).value[0].tolist() == pytest.approx([0.4, -0.2, 0.7, 0])
    assert shaped(step_delta(), [0.9], [0.9, 0.4]).value.ravel().tolist() == pytest.approx([0, 0, 0.9, 0])


@pytest.mark.parametrize("m", [1, 5, 40])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_repeated_steps_pay_nothing(m, at):
    row = [0.8, 0.9, 0.3, 0.7]
    longer = [*row[:at], *[0.9] * m, *row[at:]]
    assert sum(longer) - sum(row) == pytest.approx(0.9 * m)
    assert total(step_delta(), longer) - total(step_delta(), row) == pytest.approx(0, abs=1e-12)
    assert total(step_clip(0.5), longer) - total(step_clip(0.5), row) <= 1e-12
    assert total(step_clip(0.95), longer) - total(step_clip(0.95), row) == pytest.approx(-0.05 * m)


def test_return_from_a_step_on_is_its_own_score():
    rng = np.random.default_rng(0)
    for k in (2, 3, 9):
        row = rng.random(k)
        to_go = shaped(step_delta(), row.tolist()).value[0][::-1].cumsum()[::-1]
        np.testing.assert_allclose(to_go, [*row[:-1], 0], atol=1e-12)


def test_abstained_steps_are_passed_over():
    out = shaped(step_delta(), [0.9, None, 0.4, 0.1, None])
    assert out.value[0].tolist() == pytest.approx([0.5, 0, 0.4, 0, 0])
    assert out.state[0].tolist() == [0, 1, 0, 0, 1]


@reward(grain="step", inline=True)
def process_scores(text):
    return [float(x) for x in text.split()[1:]]


@reward(inline=True)
def process_solved(text):
    word = text.split()[0]
    return None if word == "?" else float(word)


def sample(text):
    return Sample(Task("t", "q"), text)


def test_clip_then_delta_beside_the_outcome():
    out = Engine().score("process_solved + 0.02 * (process_scores | step_clip(0.5) | step_delta)", [sample("1 0.9 0.2 0.4 0.8")])
    assert out.outcome.value.tolist() == [1.0]
    assert out.step.value[0].tolist() == pytest.approx([0.02 * 0.3, 0.02 * -0.2, 0.02 * -0.1, 0])


def test_renorm_by_hand_with_states():
    texts = ["1 0.9 0.2 0.6", "0 0.9 0.2 0.6", "1 0.3", "? 0.5 0.5", "x 0.5 0.5", "1"]
    out = Engine().score("process_scores | renorm(process_solved)", list(map(sample, texts)))
    np.testing.assert_allclose(out.step.value, [[0.9, 0.2, 1], [-0.1, -0.8, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]], atol=1e-12)
    assert out.state.tolist() == [State.SCORED] * 3 + [State.ABSTAINED, State.FAILED, State.ABSTAINED]
    assert "ValueError" in out.why(4)
    assert not out.why(0)


def test_the_sign_of_every_renormed_step_is_that_of_the_outcome():
    rng = np.random.default_rng(1)
    for o, sign in ((0.0, -1), (1.0, 1)):
        call = renorm(process_solved)
        r = Rewards(step=Grain.of(rng.random((50, 7))))
        out = call.fn(r, [sample("")] * 50, Context(), outcome=Rewards(Grain.of(np.full(50, o)))).step
        assert (sign * out.value >= 0).all()
        assert (out.value[:, -1] == o).all()


def test_renorm_by_steps_is_refused():
    with pytest.raises(Refused, match=r"renorm\(exact\)"):
        Engine().score("process_scores | renorm(process_scores)", [sample("1 0.5")])

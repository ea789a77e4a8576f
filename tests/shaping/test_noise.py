"""Group flips and the calibration of a noisy judge."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.registry import Refused
from guerdon.rewards import reward
from guerdon.samples import Context, Grain, Progress, Rewards, Sample, Task
from guerdon.scoring import Engine
from guerdon.shaping import calibrated, flip


def batch(groups, size=4, answered=True):
    samples = [Sample(Task(f"t{g}", "q"), "4", group=g) for g in range(groups) for _ in range(size)]
    for sample in samples:
        sample.marks = {"answer": [(0, 1)]} if answered else {}
    return samples


def flipped(samples, p, step=1, seed=0):
    value = np.random.default_rng(1).integers(0, 2, len(samples)).astype(float)
    out = flip(p, seed=seed).fn(Rewards(Grain.of(value)), samples, Context(progress=Progress(step, 10)))
    return value, out.outcome.value


def test_a_group_is_flipped_as_a_whole_and_at_the_rate_asked_for():
    samples = batch(4000)
    value, out = flipped(samples, 0.3)
    turned = (value != out).reshape(-1, 4)
    assert (turned.all(1) | ~turned.any(1)).all()
    assert turned.all(1).mean() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_array_equal(out[turned.ravel()], 1 - value[turned.ravel()])


def test_centred_advantages_shrink_to_one_minus_2p():
    samples = batch(4000)
    for p in (0.2, 0.4, 0.5):
        clean, noisy = (r.reshape(-1, 4) - r.reshape(-1, 4).mean(1, keepdims=True) for r in flipped(samples, p))
        assert (clean * noisy).sum() / (clean**2).sum() == pytest.approx(1 - 2 * p, abs=0.05)


def test_the_coin_depends_on_seed_step_and_task_alone():
    samples = batch(200)
    _, one = flipped(samples, 0.5)
    np.testing.assert_array_equal(one, flipped(samples, 0.5)[1])
    for other in (flipped(samples, 0.5, step=2), flipped(samples, 0.5, seed=1)):
        assert 0.3 < (other[1] != one).mean() < 0.7


def test_a_missing_answer_is_never_flipped_and_steps_flip_with_their_sample():
    value, out = flipped(batch(50, answered=False), 1.0)
    np.testing.assert_array_equal(value, out)
    steps = Rewards(step=Grain.ragged([[1.0, 0.0], [0.25]]))
    out = flip(1.0).fn(steps, batch(2, 1), Context()).step
    assert out.value.tolist() == [[0.0, 1.0], [0.75, 0.0]]
    assert out.state.tolist() == steps.step.state.tolist()
    with pytest.raises(Refused, match="a probability"):
        flip(1.5).fn(steps, batch(2, 1), Context())


@reward(inline=True)
def noisy_judge(text):
    return float(text.split()[0])


@reward(inline=True)
def planted_pattern(text):
    word = text.split()[1]
    return None if word == "none" else float(word)


def test_only_scores_below_a_half_are_raised():
    texts = ["0.2 1", "0.49 1", "0.5 1", "0.9 1", "0.2 none", "0.2 x", "0.9 x", "x 1", "0.2 0"]
    samples = [Sample(Task("t", "q"), text, group=i) for i, text in enumerate(texts)]
    out = Engine().score(noisy_judge | calibrated(planted_pattern), samples)
    assert out.outcome.value.tolist() == pytest.approx([0.3, 0.59, 0.5, 0.9, 0.2, 0, 0.9, 0, 0.2])
    assert out.failed.tolist() == [False] * 5 + [True, False, True, False]
    assert "ValueError" in out.why(5)
    out = Engine().score(noisy_judge | calibrated(planted_pattern, weight=2.0, below=1.0), samples[:1])
    assert out.outcome.value.tolist() == [1.0]


def test_it_reads_as_text():
    expression = "arithmetic | calibrated(reasoning_patterns, weight=0.2)"
    from guerdon.rewards import parse

    assert "reasoning_patterns" in str(parse(expression))

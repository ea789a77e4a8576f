"""Trust in a judge, group by group."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guerdon.registry import Refused
from guerdon.rewards import reward
from guerdon.samples import Context, Progress, Sample, Task
from guerdon.scoring import Engine


@reward(inline=True)
def trust_right(text):
    return float(text.split()[0])


@reward(inline=True)
def trust_judge(text):
    word = text.split()[1]
    return None if word == "none" else float(word)


@reward(inline=True, grain="step")
def trust_steps(text):
    return [0.5]


def score(expression, *groups, context=None):
    samples = [Sample(Task(str(g), "q"), text, group=g) for g, texts in enumerate(groups) for text in texts]
    return Engine(context).score(expression, samples)


def test_a_judge_who_prefers_wrong_answers_is_believed_less():
    gamma = math.exp(-0.4)  # right answers have 0.4 on average, wrong ones 0.8
    out = score("trust_judge | trust(trust_right)", ["1 0.4", "1 0.4", "0 0.7", "0 0.9"], ["1 0.8", "0 0.4"])
    assert out.total().tolist() == pytest.approx([gamma * 0.4, gamma * 0.4, gamma * 0.7, gamma * 0.9, 0.8, 0.4])
    assert gamma == pytest.approx(0.670, abs=5e-4)


def test_groups_that_the_outcome_does_not_divide_have_no_judge():
    groups = ["1 0.2", "0.9 0.9"], ["0 0.2", "0.1 0.9"]
    assert score("trust_judge | trust(trust_right)", *groups).total().tolist() == [0, 0, 0, 0]
    out = score("trust_right + (trust_judge | trust(trust_right) | fade(0.3, 0, until=12000, form='exponential'))", *groups)
    assert out.total().tolist() == [1, 0.9, 0, 0.1]


def test_the_whole_reward_by_hand():
    context = Context(progress=Progress(6000, 20000))
    text = "trust_right + (trust_judge | trust(trust_right) | fade(0.3, 0, until=12000, form='exponential'))"
    out = score(text, ["1 0.4", "0 0.8"], context=context)
    w = 0.3 * math.exp(-0.5) * math.exp(-0.4)
    assert out.total().tolist() == pytest.approx([1 + 0.4 * w, 0.8 * w])


def test_without_either_side_it_is_believed_and_missing_values_are_in_no_mean():
    out = score("trust_judge | trust(trust_right)", ["0.3 0.8", "0.2 0.4"], ["0.6 0.8", "0.95 0.4"])
    assert out.total().tolist() == [0.8, 0.4, 0.8, 0.4]
    out = score("trust_judge | trust(trust_right)", ["1 0.6", "0 0.8", "0 none", "x 0.9", "1 x"])
    g = math.exp(-0.2)
    assert out.total().tolist() == pytest.approx([g * 0.6, g * 0.8, 0, g * 0.9, 0])
    assert out.state.tolist() == [0, 0, 1, 0, 2]


def test_steps_are_refused():
    for text, why in {"trust_steps | trust(trust_right)": "stands on a step", "trust_judge | trust(trust_steps)": "whole answers"}.items():
        with pytest.raises(Refused, match=why):
            score(text, ["1 1"])


def test_a_group_is_seen_whole():
    rng = np.random.default_rng(0)
    groups = [[f"{rng.integers(2)} {rng.random():.2f}" for _ in range(8)] for _ in range(5)]
    whole = score("trust_judge | trust(trust_right)", *groups).total().reshape(5, 8)
    for texts, values in zip(groups, whole, strict=True):
        np.testing.assert_array_equal(score("trust_judge | trust(trust_right)", texts).total(), values)

"""Weights over the run, by hand."""

from __future__ import annotations

import math

import pytest

from guerdon.registry import Refused
from guerdon.rewards import reward
from guerdon.samples import Context, Grain, Progress, Rewards, Sample, Task
from guerdon.scoring import Engine
from guerdon.shaping import fade


def weight(step, total=100, **params):
    return float(fade(**params).fn(Rewards(Grain.of([2.0])), [], Context(progress=Progress(step, total))).outcome.value[0]) / 2


@pytest.mark.parametrize(
    ("params", "by_step"),
    [
        ({}, {0: 1, 25: 0.75, 100: 0}),
        ({"start": 0.3, "end": 0.1, "begin": 0.2, "until": 0.6}, {0: 0.3, 20: 0.3, 40: 0.2, 60: 0.1, 99: 0.1, 100: 0.1}),
        ({"start": 0, "end": 1, "until": 50}, {0: 0, 10: 0.2, 50: 1, 90: 1}),
        ({"form": "cosine"}, {0: 1, 50: 0.5, 25: (1 + math.sqrt(0.5)) / 2, 100: 0}),
        ({"form": "step", "until": 0.5, "start": 1, "end": 4}, {0: 1, 49: 1, 50: 4, 100: 4}),
        ({"start": 0.3, "until": 12000, "form": "exponential"}, {0: 0.3, 100: 0.3 * math.exp(-100 / 12000)}),
        ({"start": 1, "end": 0.5, "until": 10, "form": "exponential"}, {0: 1, 10: 0.5 + 0.5 / math.e, 30: 0.5 + 0.5 * math.exp(-3)}),
    ],
)
def test_weights_by_hand(params, by_step):
    for step, wanted in by_step.items():
        assert weight(step, **params) == pytest.approx(wanted), step


def test_past_its_end_it_stays_there():
    assert weight(500, start=1, end=0.2, until=10) == pytest.approx(0.2)
    assert weight(500, form="cosine", start=1, end=0.2) == pytest.approx(0.2)
    assert weight(0, total=0, start=1, end=0.2) == 0.2  # outside a run


@reward(inline=True)
def schedule_half(text):
    return 0.5


def test_a_schedule_that_cannot_be_is_refused_before_a_run():
    run = Engine(Context(progress=Progress(0, 100)))
    for text, why in {
        "fade(until=-1)": "does not begin before the run",
        "fade(begin=0.5, until=0.2)": "ends before it begins in a run of 100",
        "fade(begin=200)": "ends before it begins",
        "fade(form='square')": "fade.*form.*square",
    }.items():
        with pytest.raises(Refused, match=why):
            run.check(f"schedule_half | {text}")


def test_it_fades_one_part_of_a_sum():
    engine = Engine(Context(progress=Progress(3, 4)))
    out = engine.score("schedule_half + (schedule_half | fade(0.4, 0))", [Sample(Task("t", "q"), "")])
    assert out.total().tolist() == pytest.approx([0.5 + 0.1 * 0.5])

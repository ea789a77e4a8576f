"""Form and length without a ground truth, by hand."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from guerdon.registry import Refused
from guerdon.rewards import format_only, surrogate
from guerdon.rewards.surrogate import bump
from guerdon.samples import Context, Sample, State, Task
from guerdon.scoring import Engine
from guerdon.spans import mark


@pytest.fixture(scope="module")
def engine():
    with Engine(Context(), workers=1) as engine:
        yield engine


def score(engine, expression, *texts, tokens=None):
    samples = [Sample(Task("t", "q"), text, group=i, stop="end") for i, text in enumerate(texts)]
    for sample in samples:
        if tokens is not None:
            sample.ids, sample.offsets = np.zeros(tokens, dtype=np.int64), np.zeros((tokens, 2), dtype=np.int64)
        mark(sample)
    return engine.score(expression, samples)


@pytest.mark.parametrize(
    ("x", "turn", "value"),
    [
        (0, 0.5, 0), (0.25, 0.5, 0.75), (0.5, 0.5, 1), (0.75, 0.5, 0.5), (1, 0.5, -1), (3, 0.5, -1),
        (0.125, 0.25, 0.75), (0.25, 0.25, 1), (0.625, 0.25, 0.5), (1, 0.25, -1),
    ],
)  # fmt: skip
def test_the_length_term(x, turn, value):
    assert bump(x, turn) == pytest.approx(value)


FORM = [
    ("<think>a</think> so \\boxed{4}", 1.0),
    ("so \\boxed{4}", 0.5),
    ("\\boxed{\\frac{x+1}{2}}", 0.5),
    ("\\boxed{(1, \\sqrt{2})}", 0.5),
    ("x = 3", 0.5),
    ("<think>a</think> so \\boxed{a blue house}", 0.5),
    ("<think>a</think> so \\boxed{}", 0.5),
    ("</think>a<think> so \\boxed{4", 0.0),
    ("\\boxed{x = a blue house}", 0.0),
    ("\\boxed{\\frac{1}{}", 0.0),
    ("", 0.0),
    ("I do not know", 0.0),
    ("<think>" + "1" * 5000, 0.0),
]


def test_form(engine):
    rewards = score(engine, format_only, *(text for text, _ in FORM))
    assert rewards.total().tolist() == [value for _, value in FORM]
    assert rewards.why(5) == "no final answer that reads as mathematics"


def test_form_and_length(engine):
    texts = ("<think>a</think> \\boxed{4}", "\\boxed{4}", "no")
    values = {n: score(engine, surrogate(l_max=100), *texts, tokens=n).total().tolist() for n in (25, 50, 75, 100)}
    assert values[25] == pytest.approx([1.75, 1.25, 0])
    assert values[50] == pytest.approx([2, 1.5, 0])
    assert values[75] == pytest.approx([1.5, 1, 0])
    assert values[100] == pytest.approx([0, -0.5, -1])


def test_rows_without_tokens_abstain_or_use_characters(engine):
    assert score(engine, surrogate, "\\boxed{4}").state.tolist() == [State.ABSTAINED]
    text = "\\boxed{4}"
    assert score(engine, surrogate(l_max=4 * len(text), unit="characters"), text).total()[0] == pytest.approx(0.5 + 0.75)
    with pytest.raises(Refused, match="turn between 0 and 1"):
        surrogate(turn=1.0)


def test_a_formula_that_takes_too_long_is_hostile(engine, monkeypatch):
    module = sys.modules["guerdon.rewards.surrogate"]  # the reward has its name
    monkeypatch.setattr(module, "DEADLINE", 0.5)
    monkeypatch.setattr(module, "_parses", lambda formula: time.sleep(60))
    rewards = score(engine, surrogate(l_max=100), "\\boxed{x^y}", "\\boxed{4}", tokens=50)
    assert rewards.total().tolist() == [-1.0, 1.5]
    assert rewards.hostile.tolist() == [True, False]

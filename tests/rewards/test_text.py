"""Rewards of form, by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest

from guerdon.rewards import exact, format, length, overlong
from guerdon.samples import State


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [("42", "42", 1), (" 4  2 ", "4 2", 1), ("4 2", "42", 0), (None, "42", 0), ("42", 42, 1), ("", "", 1), ("Paris", "paris", 0)],
)
def test_exact(answer, reference, value):
    assert exact.fn(answer, reference).value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>a</think><answer>b</answer>", 1),
        (" <think>a\n1 < 2</think>\n\n<answer>b</answer> ", 1),
        ("<think>a</think><answer>b</answer>!", 0),
        ("<think>a</think><think>a</think><answer>b</answer>", 0),
        ("<think>a<answer>c</answer></think><answer>b</answer>", 0),
        ("<answer>b</answer><think>a</think>", 0),
        ("<think>a</think>", 0),
        ("<think> </think><answer>b</answer>", 0),
        ("<think>a</think><answer></answer>", 0),
        ("<Think>a</Think><answer>b</answer>", 0),
        ("", 0),
    ],
)
def test_think_and_answer_tags(text, value):
    assert format.fn(text).value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"so \boxed{1}", 1),
        (r"\boxed{\frac{1}{2}}.", 1),
        (r"\boxed{1} or \boxed{2}", 0),
        (r"\boxed{}", 0),
        (r"\boxed{ }", 0),
        (r"\boxed{1", 0),
        (r"\boxed{{1}", 0),
        ("1", 0),
    ],
)
def test_boxed(text, value):
    assert format.fn(text, style="boxed").value == value


def test_length_is_a_tent():
    ids = np.zeros
    values = [length.fn("", ids(n), target=100).value for n in (0, 50, 100, 150, 200, 1000)]
    assert values == [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    assert length.fn("abcde", None, target=10, unit="characters").value == 0.5
    assert length.fn("abcde", ids(10), target=10, unit="characters").value == 0.5
    assert length.fn("abcde", None).state == State.ABSTAINED


def test_overlong_is_zero_then_linear_then_minus_one():
    values = [overlong.fn(np.zeros(n), limit=100, buffer=20).value for n in (0, 80, 90, 100, 500)]
    assert values == [0.0, 0.0, -0.5, -1.0, -1.0]
    assert overlong.fn(None).state == State.ABSTAINED


@pytest.mark.parametrize("text", ["<think>" * 200_000, "<" * 2_000_000, "<think>" + "</answer" * 200_000, "\\boxed{" + "{" * 2_000_000])
def test_form_takes_linear_time(text):
    start = time.process_time()
    format.fn(text)
    format.fn(text, style="boxed")
    assert time.process_time() - start < 2.0

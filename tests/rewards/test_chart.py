"""Relaxed accuracy, by hand."""

from __future__ import annotations

import pytest

from guerdon.rewards import chart


@pytest.mark.parametrize(
    ("answer", "key", "value"),
    [
        ("105", "100", 1), ("105.01", "100", 0), ("95", 100, 1), ("-100", "100", 0), ("-104", "-100", 1), ("1,200", "$1,230", 1),
        ("12.5%", "12.4", 1), ("0", "0", 1), ("0.001", "0", 0), ("42 apples", "42", 1), ("forty", "40", 0), ("", "40", 0), (None, "40", 0),
        ("Blue", "blue", 1), ("blue  bar", "Blue bar", 1), ("blu", "blue", 0.75), ("kitten", "sitting", 1 - 3 / 7), ("", "blue", 0),
        ("7", ["5", "7.1"], 1), ("red", ["blue", "rod"], 2 / 3), ("9" * 5000, "9", 0),
    ],
)  # fmt: skip
def test_chart(answer, key, value):
    assert chart.fn(answer, key).value == pytest.approx(value)


def test_the_tolerance_is_a_parameter():
    assert chart.fn("101", "100", tolerance=0.0).value == 0
    assert chart.fn("109", "100", tolerance=0.1).value == 1

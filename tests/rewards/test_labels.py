"""Class names, by hand."""

from __future__ import annotations

import pytest

from guerdon.registry import Refused
from guerdon.rewards import class_name


@pytest.mark.parametrize(
    ("text", "tagged", "bare"),
    [
        ("cat", 1, 1),
        ("Cat", 1, 0),
        (" cat\n", 1, 0),
        ("cat.", 0, 0),
        ("cat dog", 0, 0),
        ("a cat", 0, 0),
        ("<answer>cat</answer>", 1, 0),
        ("<think>dog</think><answer> Cat </answer>", 1, 0),
        ("<answer>cat</answer><answer>dog</answer>", 1, 0),
        ("<answer>dog</answer><answer>cat</answer>", 0, 0),
        ("<answer>dog</answer> cat", 0, 0),
        ("<answer>\ncat\n</answer>", 0, 0),
        ("<answer>cat", 0, 0),
        ("", 0, 0),
    ],
)
def test_a_class_name(text, tagged, bare):
    assert class_name.fn(text, "cat").value == tagged
    assert class_name.fn(text, "cat", style="bare").value == bare
    assert class_name.fn(text, "<answer> cat </answer>", style="bare").value == bare


def test_numbers_inside_names_are_no_formulas():
    assert class_name.fn("<answer>737</answer>", "Boeing 737").value == 0
    assert class_name.fn("<answer>2/4</answer>", "1/2").value == 0
    assert class_name.fn("7", 7, style="bare").value == 1


def test_an_unknown_style_is_refused():
    with pytest.raises(Refused, match="'tagged' or 'bare', not 'free'"):
        class_name.fn("cat", "cat", style="free")

"""Several right options: a share for a part of them, nothing with a wrong one."""

from __future__ import annotations

import pytest

from guerdon.rewards import choices, parse
from guerdon.samples import Context, Sample, State, Task
from guerdon.scoring import Engine

CITIES = {"options": ["Paris", "Rome, Italy", "Oslo", "Lima"]}


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("A, B", 2 / 3), ("A,B,C", 1.0), ("C and A", 2 / 3), ("(b)", 1 / 3), ("A, D", 0.0), ("D", 0.0), ("nothing", 0.0), ("a/b/c.", 1.0),
        ("A, A", 1 / 3), ("The answer is A and C", 2 / 3), ("Oslo", 1 / 3),
    ],
)  # fmt: skip
def test_shares(answer, value):
    assert choices.fn(answer, "A,B,C", CITIES).value == pytest.approx(value)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [(["A", "C"], "A, C"), ([0, 2], "A, C"), ("Paris,Oslo", "A, C"), ("Rome, Italy", "B"), ("A) Paris, C) Oslo", "C, A")],
)
def test_references(reference, answer):
    assert choices.fn(answer, reference, CITIES).value == 1


def test_abstains_without_a_key_and_is_wrong_without_an_answer():
    assert choices.fn("A", "Madrid", CITIES).state == State.ABSTAINED
    assert choices.fn("A", [], CITIES).state == State.ABSTAINED
    assert choices.fn(None, "A", CITIES).value == 0


def test_all_of_them_or_nothing():
    samples = [
        Sample(Task("t", "q", "A,B", CITIES), f"<answer>{text}</answer>", marks={"answer": [(8, 8 + len(text))]}) for text in ("A", "A, B")
    ]
    with Engine(Context(), workers=1) as engine:
        assert engine.score(parse("choices"), samples).total().tolist() == [0.5, 1.0]
        assert engine.score(parse("choices >= 1"), samples).total().tolist() == [0.0, 1.0]

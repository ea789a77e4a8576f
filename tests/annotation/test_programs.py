"""Labels of program lines: every change against running it, and the rules of what has a label."""

from __future__ import annotations

import ast
import json

import numpy as np
import pytest

from guerdon.annotation import mutated
from guerdon.annotation.programs import changed, spliced
from guerdon.backends.scripted import Scripted
from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample, Task
from guerdon.search import Budget

PROGRAM = """def f(a, b):
    c = a * 2

    if c <= b:
        c += 1 + b
    return c + 0 * a"""
GRID = [(a, b) for a in range(-2, 3) for b in range(-4, 5)]


def f(a, b):
    c = a * 2
    return c + 1 + b if c <= b else c


def runs(text: str) -> bool:
    """Whether a program does what f does, on all of the grid."""
    space: dict = {}
    try:
        exec(text.split("```")[1].removeprefix("python\n") if "```" in text else text, space)
        return all(space["f"](a, b) == f(a, b) for a, b in GRID)
    except Exception:
        return False


@pytest.fixture
def context():
    graded = []

    def score(samples):
        graded.extend(s.text for s in samples)
        return Rewards(Grain.of([float(runs(s.text)) for s in samples]))

    return Context(score=score, store=graded)


def test_labels_are_what_the_tests_say_whatever_was_meant(context) -> None:
    sample = Sample(Task("t", "write f"), PROGRAM)
    labels = mutated([sample], context, each=9)
    assert labels.value[0].tolist() == [1] * 5
    copies = labels.samples[1:]
    lines = PROGRAM.split("\n")
    assert len({s.text for s in copies}) == len(copies) > 8
    meant = {intent: [] for intent in ("mutate", "refactor")}
    for i, copy in enumerate(copies, 1):
        now = copy.text.split("\n")
        (at,) = [n for n, (a, b) in enumerate(zip(lines, now, strict=True)) if a != b]
        assert copy.meta["line"] == at + 1
        place = [0, 1, 1, 2, 3, 4][at]
        right = runs(copy.text)
        assert labels.value[i, place] == right
        assert (labels.value[i, :place] == 1).all()
        assert np.isnan(labels.value[i, place + 1 :]).all()
        assert labels.count[i].tolist() == [int(t == place) for t in range(5)]
        meant[copy.meta["intent"]].append(right)
    assert all(meant["refactor"])
    assert True in meant["mutate"], "0 * a may become 0 + a and be wrong, but - 0 * a is the same"
    assert meant["mutate"].count(False) > 5
    assert labels.cost.calls == 1 + len(copies)


def test_every_change_parses_and_a_fence_is_kept(context) -> None:
    text = f"Here:\n```python\n{PROGRAM}\n```\nDone."
    sample = Sample(Task("t", "write f"), text)
    for copy in changed(sample, 9, np.random.default_rng(0)):
        assert copy.text.startswith("Here:\n```python\ndef f")
        assert copy.text.endswith("\n```\nDone.")
        ast.parse(copy.text.split("```")[1].removeprefix("python\n"))
        assert copy.text.split("\n")[copy.meta["line"] - 1] != text.split("\n")[copy.meta["line"] - 1]


def test_each_bounds_the_changes_of_a_line() -> None:
    copies = list(changed(Sample(Task("t", "p"), PROGRAM), 1, np.random.default_rng(0)))
    places = [(copy.meta["line"], copy.meta["intent"]) for copy in copies]
    assert len(places) == len(set(places))
    assert {line for line, _ in places} == {2, 4, 5, 6}
    assert list(changed(Sample(Task("t", "p"), "def f(:\n"), 1, np.random.default_rng(0))) == []
    accents = changed(Sample(Task("t", "p"), 'x = "é" + "a"'), 1, np.random.default_rng(0))
    assert [copy.text for copy in accents] == ["x = ('é' - 'a')", "x = ('a' + 'é')"]


def test_a_program_that_fails_has_no_labels(context) -> None:
    labels = mutated([Sample(Task("t", "p"), PROGRAM.replace("<=", "<"))], context)
    assert len(labels.samples) == 1
    assert np.isnan(labels.value).all()
    assert labels.text[0] == ["no label: the program does not pass its tests"] * 5


def test_a_teacher_may_write_the_changes(context) -> None:
    asked = []

    def says(messages, rng):
        asked.append(messages[-1]["content"])
        if "c <= b" in messages[-1]["content"].split("<<<line")[1]:
            return json.dumps({"line": "    if b >= c:" if "still does the same" in messages[0]["content"] else "    if c < b:"})
        return "no idea"

    context.models["teacher"] = Scripted(says)
    labels = mutated([Sample(Task("t", "write f"), PROGRAM)], context, teacher="teacher")
    assert [(s.meta["intent"], s.meta["line"]) for s in labels.samples[1:]] == [("mutate", 4), ("refactor", 4)]
    assert labels.value[1:, 2].tolist() == [0, 1]
    assert len(asked) == 10
    assert labels.cost.calls == 10 + 1 + 2
    with pytest.raises(Refused, match="the model 'other'"):
        mutated([Sample(Task("t", "write f"), PROGRAM)], context, teacher="other")


@pytest.mark.parametrize("calls", [0, 1, 4])
def test_the_budget_is_for_graded_programs(calls, context) -> None:
    labels = mutated([Sample(Task("t", "p"), PROGRAM)], context, each=3, budget=Budget(calls=calls))
    assert labels.cost.calls == calls == len(context.store)
    assert labels.spent
    assert len(labels.samples) == max(1, calls)


def test_a_splice_changes_one_line() -> None:
    copy = spliced(Sample(Task("t", "p"), "a\nb\nc", meta={"m": 1}), "a\nb\nc", 2, "  x", "mutate")
    assert (copy.text, copy.meta, copy.steps) == ("a\n  x\nc", {"m": 1, "intent": "mutate", "line": 2}, ["a\n", "  x\n", "c"])

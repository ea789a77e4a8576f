"""Chain arithmetic: exact, disjoint splits, steps verified, hostile texts settled."""

from __future__ import annotations

import ast
import operator
import random
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.envs.arithmetic import BOUND, answer_of, arithmetic, closeness, number, parse, verify_answer, verify_steps, worked, write
from guerdon.registry import Refused
from guerdon.samples import Task

OPS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value(expression: str) -> Fraction:
    """What Python's own grammar makes of an expression, in exact fractions."""

    def walk(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            return OPS[type(node.op)](walk(node.left), walk(node.right))
        if isinstance(node, ast.UnaryOp):
            return -walk(node.operand)
        assert isinstance(node, ast.Constant)
        return Fraction(node.value)

    return walk(ast.parse(expression, mode="eval").body)


@pytest.mark.parametrize("brackets", [False, True])
@pytest.mark.parametrize("ops", ["+-", "+-*", "+-*/"])
def test_references_and_every_line_are_exact(ops: str, brackets: bool) -> None:
    for task in arithmetic(150, steps=(1, 6), high=30, ops=ops, brackets=brackets, seed=3):
        expression = task.meta["expression"]
        assert task.prompt == f"{expression}="
        assert Fraction(task.reference) == value(expression)
        *lines, last = task.meta["solution"]
        assert all(value(line) == value(expression) for line in lines)
        assert last == f"A: {task.reference}"
        assert len(lines) + 1 == task.meta["steps"] == len(re.findall(r"(?<=[0-9)])[-+*/]", expression))
        assert verify_answer("\n".join([*lines, last]), task.reference)
        assert verify_steps([*lines, last], task) == [True] * (len(lines) + 1)
        assert write(parse(expression)) == expression
    assert all(abs(value(t.meta["expression"])) <= BOUND for t in arithmetic(50, steps=(8, 20), ops=ops))


def test_same_arguments_same_tasks_and_splits_never_meet() -> None:
    assert arithmetic(50, seed=1) == arithmetic(50, seed=1)
    assert arithmetic(50, seed=1) != arithmetic(50, seed=2)
    train = {t.prompt for seed in range(4) for t in arithmetic(800, steps=(1, 2), high=9, ops="+-", seed=seed)}
    test = {t.prompt for seed in range(4) for t in arithmetic(90, steps=(1, 2), high=9, ops="+-", seed=seed, split="test")}
    assert not train & test
    kept_out = arithmetic(40, seed=5)
    assert not {t.prompt for t in arithmetic(200, seed=5, avoid=kept_out)} & {t.prompt for t in kept_out}


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_wrong_line_is_wrong_and_nothing_that_builds_on_it_is_right(seed: int) -> None:
    rng = random.Random(seed)
    task = arithmetic(1, steps=(3, 5), high=9, ops="+-", seed=seed)[0]
    lines = list(task.meta["solution"])
    at = rng.randrange(len(lines) - 1)
    first = re.match(r"-?\d+", lines[at])
    assert first is not None
    lines[at] = str(int(first[0]) + 1) + lines[at][first.end() :]
    lines[at + 1 :] = worked(lines[at]) if re.search(r"\d[-+]", lines[at]) else []
    verdicts = verify_steps(lines, task)
    assert verdicts[:at] == [True] * at
    assert not any(verdicts[at:])


def test_going_back_to_the_last_right_line_is_right_again() -> None:
    task = Task("t", "7+5*2-3=", "14", {"expression": "7+5*2-3"})
    assert verify_steps(["7+11-3", "18-3", "7+10-3", "17-3", "A: 14"], task) == [False, False, True, True, True]
    assert verify_steps(["A: 14"], task) == [False]  # three operations are left
    assert verify_steps(["7+10-3", "17-3", "A: 15"], task) == [True, True, False]
    assert verify_steps(["7+10-3", "17-3", "A: 14", "A: 14", "17-3"], task) == [
        True,
        True,
        True,
        False,
        False,
    ]  # one answer, and it ends it
    assert verify_steps(["", "nonsense", "7+5*2-3"], task) == [False, False, False]


def test_answers() -> None:
    assert answer_of("1+1\nA: 2") == 2
    assert answer_of("A: 2\nA: 3") is None  # two answers are none
    assert answer_of("A: 2 or 3") is None
    assert answer_of(" -1/2 ") == Fraction(-1, 2)
    assert [number(text) for text in ("0.50", "1/0", "1e3", "", "٣")] == [Fraction(1, 2), None, None, None, None]


@pytest.mark.parametrize(
    "text", ["9" * 10_000_000, "A: " + "9" * 1_000_000, "1+" * 3_000_000, "(" * 1_000_000, "\0" * 1000, "A:\ud800", ""]
)
def test_hostile_texts_are_wrong_at_once(text: str) -> None:
    task = arithmetic(1, seed=1)[0]
    assert not verify_answer(text, task.reference)
    assert not any(verify_steps(text.split("\n"), task))
    assert closeness(text, task.reference) == 0.0


@pytest.mark.parametrize(
    "expression",
    ["", "7", "1)+2", "1+2)", "(1+2", "()", "1+", "+1", "--4+1", "3-(-(4))", "1 + 2", "1+x", "1" + "-1" * 21, "9" * 5000, "1/0", "1/2"],
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(Refused, match="arithmetic: "):
        worked(expression)


def test_expressions_by_hand() -> None:
    assert parse("(-4)+(-3)*2") == ("+", -4, ("*", -3, 2))
    assert parse("1-(2-3)-((4))") == ("-", ("-", 1, ("-", 2, 3)), 4)
    assert worked("1-(2-5)*2") == ["1-(-3)*2", "1-(-6)", "A: 7"]
    assert len(worked("1" + "-1" * 20)) == 20


def test_closeness_by_hand() -> None:
    assert closeness("4", "4") == 1.0
    assert closeness("5", "4") == pytest.approx(1 - 0.5 - 0.125)
    assert closeness("400", "4") == 0.0
    assert closeness("4.5", "4") == pytest.approx(1 - 0.25 - 0.0625)
    gaps = [closeness(str(4 + k), "4") for k in range(6)]
    assert gaps == sorted(gaps, reverse=True)
    with pytest.raises(Refused, match="not a number"):
        closeness("4", "four")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": (0, 2)}, "steps="),
        ({"ops": "^"}, "ops="),
        ({"low": 5, "high": 2}, "low="),
        ({"split": "dev"}, "split="),
        ({"n": -1}, "n=-1"),
    ],
)
def test_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(Refused, match=re.escape(sentence)):
        arithmetic(**{"n": 5, **changes})  # pyright: ignore[reportArgumentType]
    with pytest.raises(Refused, match="ask for fewer"):
        arithmetic(500, steps=(1, 1), high=2, ops="+")

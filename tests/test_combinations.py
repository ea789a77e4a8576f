"""The ten combinations of docs/how-to/combine.md: Python and YAML say the same, and their values are those worked out by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

import guerdon as g
from guerdon import recipe
from guerdon.samples import Context, Progress, Sample, State, Task
from guerdon.spans import mark

PAGE = (Path(__file__).parents[1] / "docs" / "how-to" / "combine.md").read_text()
PAIR = re.compile(r"\*\*(\d+)\. .*?```python\n(.*?)```.*?```yaml\n(.*?)```", re.DOTALL)
PAIRS = [pytest.param(python, text, id=number) for number, python, text in PAIR.findall(PAGE)]

TEXTS = [
    "<think>two and two</think><answer>4</answer>",  # right, in form
    "<think>two and two</think><answer>5</answer>",  # wrong, in form
    "A: 4",  # right, out of form
    "no no no no no no A: 9",  # wrong, out of form, repeating itself
]
RIGHT, FORM = np.array([1.0, 0.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0, 0.0])


def samples() -> Iterator[Sample]:
    for i, text in enumerate(TEXTS):
        sample = Sample(Task("t", "2+2?", "4", {"expression": "2+2"}), text, group=0)
        mark(sample)
        sample.ids = np.arange([300, 150, 900, 1100][i])
        yield sample


def score(expression: str, progress: Progress | None = None):
    with g.Engine(Context(progress=progress or Progress(0, 0)), workers=1) as engine:
        return engine.score(expression, list(samples()))


def part(name: str) -> np.ndarray:
    return score(name).total()


def test_there_are_ten() -> None:
    assert [p.id for p in PAIRS] == [str(i) for i in range(1, 11)]


@pytest.mark.parametrize(("python", "text"), PAIRS)
def test_python_and_yaml_are_the_same_expression(python: str, text: str) -> None:
    session: dict[str, object] = {"g": g}
    exec(python, session)
    found = recipe.read(yaml.safe_load(text))
    assert str(g.parse(found.reward or "")) == str(session["total"])


LENGTH = np.array([1.0, 0.5, 0.0, 0.0])
WANTED = {
    "1": lambda: RIGHT + 0.1 * FORM,
    "2": lambda: RIGHT * FORM,
    "3": lambda: RIGHT + 0.2 * LENGTH * RIGHT,
    "4": lambda: FORM * (0.2 + RIGHT * (0.5 + 0.3 * part("repetition"))),
    "5": lambda: RIGHT * part("repetition"),
    "8": lambda: gdpo(),
    "9": lambda: RIGHT,
    "10": lambda: RIGHT - np.array([0.0, 0.0, 0.0, 1.0]),
}


def gdpo() -> np.ndarray:
    def norm(x: np.ndarray) -> np.ndarray:
        return (x - x.mean()) / (x.std() + 1e-6)

    return norm(norm(RIGHT) + 0.5 * norm(LENGTH))


@pytest.mark.parametrize("number", WANTED)
def test_their_values(number: str) -> None:
    text = next(p.values[1] for p in PAIRS if p.id == number)
    found = score(yaml.safe_load(text)["reward"])
    assert found.alive.all()
    np.testing.assert_allclose(found.total(), WANTED[number](), atol=1e-5)


def test_the_process_reward_fades() -> None:
    text = "arithmetic + (arithmetic_steps | fade(0.3, 0, until=0.5))"
    begin, half, end = (score(text, Progress(step, 100)) for step in (0, 25, 80))
    np.testing.assert_array_equal(begin.outcome.value, RIGHT * [0, 0, 1, 0])  # the verifier reads the line `A: 4` only
    raw = begin.parts["arithmetic_steps"].rewards.step
    for share, found in ((0.3, begin), (0.15, half), (0.0, end)):
        np.testing.assert_allclose(found.step.value, share * raw.value)


def test_the_constrained_pair_begins_at_its_first_weights() -> None:
    found = score("(math | multiplier(0.9, start=3.0)) + (rouge | multiplier(0.4, kind='equal'))")
    np.testing.assert_allclose(found.total(), RIGHT / (1 + np.exp(-3.0)), atol=1e-12)
    assert found.parts["math"].coefficient == pytest.approx(1 / (1 + np.exp(-3.0)))


def test_a_gate_on_an_abstained_part_abstains_and_a_part_that_always_fails_fails_by_name() -> None:
    @g.reward(inline=True)
    def silent_part(text: str) -> None:
        return None

    @g.reward(inline=True)
    def broken_part(text: str) -> float:
        return 1 / 0

    found = score("gate(silent_part, math)")
    assert (found.state == State.ABSTAINED).all()
    found = score("math + 0.1 * broken_part")
    assert (found.state == State.FAILED).all()
    assert "broken_part: ZeroDivisionError" in found.why(0)
    np.testing.assert_array_equal(found.parts["math"].rewards.total(), RIGHT)

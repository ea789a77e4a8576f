"""The decaying reward of a serial group, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.registry import Refused
from guerdon.rewards import reward
from guerdon.samples import Sample, State, Task
from guerdon.scoring import Engine
from guerdon.shaping import s_grpo


@reward(inline=True)
def says(text: str) -> float | None:
    return None if text == "?" else float(text)


def exits(texts: list[str], thought: int = 0, at: list[int] | None = None) -> list[Sample]:
    places = range(len(texts)) if at is None else at
    return [Sample(Task("t", "q"), text, meta={"thought": thought, "exit": e}) for text, e in zip(texts, places, strict=True)]


def shaped(samples: list[Sample], **params: float) -> list[float]:
    return Engine().score(says | s_grpo(**params), samples).outcome.value.tolist()


def test_each_right_answer_halves_the_next():
    assert shaped(exits(["0", "1", "1", "0", "1"])) == [0, 1, 0.5, 0, 0.25]
    assert shaped(exits(["1", "0", "0.5", "1"])) == [1, 0, 0.25, 0.25]
    assert shaped(exits(["0", "0"])) == [0, 0]


def test_the_order_is_that_of_the_exits_and_thoughts_do_not_mix():
    samples = [*exits(["1", "1", "0", "1"], at=[2, 0, 1, 3]), *exits(["1", "1"], thought=1)]
    assert shaped(samples) == [0.5, 1, 0, 0.25, 1, 0.5]
    assert shaped(samples[::-1]) == [0.5, 1, 0.25, 0, 1, 0.5]


def test_answers_at_one_exit_are_alike_and_those_without_a_verdict_do_not_count():
    assert shaped(exits(["1", "1", "1"], at=[0, 0, 1])) == [1, 1, 0.25]
    samples = exits(["x", "?", "1", "-1"])
    found = Engine().score(says | s_grpo(), samples)
    assert found.state.tolist() == [State.FAILED, State.ABSTAINED, State.SCORED, State.SCORED]
    np.testing.assert_array_equal(found.outcome.value, [0, 0, 1, -1])


def test_the_two_ends_of_the_decay_and_samples_without_an_exit():
    assert shaped(exits(["1", "0", "1"]), decay=1.0) == [1, 0, 1]
    assert shaped(exits(["1", "0", "1"]), decay=0.0) == [1, 0, 0]
    assert shaped([Sample(Task("t", "q"), "1"), Sample(Task("t", "q"), "1")]) == [1, 1]
    with pytest.raises(Refused, match="from 0 to 1"):
        shaped(exits(["1"]), decay=2.0)

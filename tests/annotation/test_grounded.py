"""Labels by a tool: the value of an answer by hand, labels against the tool's verdicts, searches that look both ways."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from guerdon.annotation import grounded
from guerdon.annotation.core import confidence
from guerdon.annotation.grounded import _worth, answer_value
from guerdon.registry import Refused
from guerdon.rewards import reward
from guerdon.samples import Context, Sample, Task
from guerdon.scoring.cache import Cache
from guerdon.search import Budget
from guerdon.spans import mark


@reward(inline=True, grain="step", name="lines_are_good")
def lines_are_good(steps: list[str]) -> list[float | None]:
    """1 for g, 0 for b, nothing for any other line."""
    return [{"g": 1.0, "b": 0.0}.get(step.strip()) for step in steps]


@pytest.fixture
def tree(world):
    """A world whose policy also writes one line at a time."""

    def make(slip=0.3, length=4):
        context = world(slip=slip, length=length)
        policy = context.models["policy"]
        whole = policy.one

        def one(begun, rng):
            done = whole(begun, rng)
            text = policy.decode(done.ids)[0]
            if policy.stops and "\n" in text:
                done.ids = policy.encode(text.partition("\n")[0] + "\n")
                done.logprobs, done.stop = np.zeros(len(done.ids)), "stop"
            return done

        sample = policy.sample

        def sampled(prefixes, n, params, want=()):
            policy.stops = params.stop
            return sample(prefixes, n, params, want)

        policy.one, policy.sample = one, sampled
        return context

    return make


def test_the_value_of_an_answer_by_hand() -> None:
    # three steps before the last: (1 * 3/3 - 1 * 2/3 + 0 * 1/3) / 3 = 1/9
    assert answer_value([1, -1, 0, 1], True, 0.5) == pytest.approx(1 / 9 + 0.5)
    assert answer_value([1, -1, 0, -1], False, 2.0) == pytest.approx(1 / 9 - 2)
    assert answer_value([1], False, 1.0) == -1
    assert answer_value([], True, 1.0) == 1


def test_given_answers_have_the_verdicts_of_the_tool(answer, tree) -> None:
    context = tree()
    samples = [answer("gbg"), Sample(Task("t", "other=", "1"), "g\n?\nA: 1")]
    labels = grounded(samples, Context(score=context.score), tool="lines_are_good", rounds=0)
    nan = np.nan
    assert np.array_equal(labels.value, np.array([[1, 0, 1, 0], [1, nan, 1, nan]]), equal_nan=True)
    assert labels.text[1][1] == "no label: no verdict"
    assert labels.confidence[0].tolist() == pytest.approx([confidence(1, 1), confidence(0, 1), confidence(1, 1), 1])
    assert labels.cost.rollouts == 0


def test_searches_find_right_and_wrong_steps(tree) -> None:
    context = tree(slip=0.3)
    tasks = [Task("1", "one=", "1"), Task("2", "two=", "1")]
    labels = grounded(tasks, context, tool="lines_are_good", rounds=12, max_tokens=40)
    assert len(labels.samples) >= 8
    assert len({(s.task.id, s.text) for s in labels.samples}) == len(labels.samples)
    assert {s.group for s in labels.samples} == {0, 1}
    for i, sample in enumerate(labels.samples):
        said = ["b" not in line for line in sample.text.split("\n")[:-1]]
        for t, right in enumerate(said):
            assert np.isnan(labels.value[i, t]) or labels.value[i, t] == right
        assert labels.value[i, len(said)] == sample.text.endswith("A: 1")
    known = labels.value[~np.isnan(labels.value)]
    assert 0.2 < known.mean() < 0.8
    again = grounded(tasks, tree(slip=0.3), tool="lines_are_good", rounds=12, max_tokens=40)
    assert [s.text for s in again.samples] == [s.text for s in labels.samples]
    assert again.cost == labels.cost
    assert labels.cost.rollouts > 0


def test_a_killed_search_goes_on_and_asks_nothing_twice(tree, tmp_path) -> None:
    tasks = [Task("1", "one=", "1"), Task("2", "two=", "1")]
    how = {"tool": "lines_are_good", "rounds": 6, "max_tokens": 40}
    whole = tree()
    expected = grounded(tasks, whole, **how)
    asked = []
    for dies in (3, 10, None):
        context = tree()
        policy = context.models["policy"]
        policy.breaks_after = dies
        journal = Cache(tmp_path / "j")
        with nullcontext() if dies is None else pytest.raises(KeyboardInterrupt):
            found = grounded(tasks, context, journal=journal, about="p", **how)
        journal.close()
        asked += policy.asked
    assert asked == whole.models["policy"].asked
    assert np.array_equal(found.value, expected.value, equal_nan=True)
    assert found.cost == expected.cost


def test_an_answer_given_is_kept_first_and_the_budget_is_for_all(tree, answer) -> None:
    samples = [answer("gbgg", f"{i}=", i) for i in range(4)]
    labels = grounded(samples, tree(), tool="lines_are_good", rounds=6, max_tokens=40, budget=Budget(rollouts=20))
    assert [s.text for s in labels.samples[:4]] == [s.text for s in samples]
    assert labels.cost.rollouts <= 20
    assert labels.spent
    assert all(s.group == int(s.task.id[0]) for s in labels.samples)


def test_the_worth_of_a_step_is_the_mean_of_the_answers_through_it() -> None:
    task = Task("t", "p")
    samples = [Sample(task, text) for text in ("a\nb\nc", "a\nb\nd", "a\ne")]
    for sample in samples:
        mark(sample)
    assert _worth(list(zip(samples, [1.0, -1.0, 3.0], strict=True))) == [[1.0, 0.0, 1.0], [1.0, 0.0, -1.0], [1.0, 3.0]]


def test_misuse_is_refused(answer, world) -> None:
    context = world()
    with pytest.raises(Refused, match="scores no steps"):
        grounded([answer("g")], Context(score=context.score), tool="length", rounds=0)
    with pytest.raises(Refused, match="a model `policy`"):
        grounded([answer("g")], Context(score=context.score), tool="lines_are_good")
    with pytest.raises(Refused, match="rounds=-1"):
        grounded([answer("g")], context, tool="lines_are_good", rounds=-1)

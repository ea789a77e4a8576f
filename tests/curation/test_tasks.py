"""Which tasks are drawn."""

from __future__ import annotations

import json
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from guerdon.curation import epochs, prioritised, uniform
from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Part, Rewards, Sample, Task

CONTEXT = Context()


def tasks_of(count: int) -> list[Task]:
    return [Task(str(i), "p") for i in range(count)]


def draw(select: epochs, tasks: list[Task], n: int) -> list[str]:
    """One round of the loop: select, roll out two answers a task, observe."""
    drawn = select(tasks, n, np.random.default_rng(0))
    samples = [Sample(task, "x", group=g) for g, task in enumerate(drawn) for _ in range(2)]
    select.observe(samples, Rewards(Grain.of(np.zeros(len(samples)))), CONTEXT, "train")
    return [task.id for task in drawn]


@given(count=st.integers(1, 12), batches=st.lists(st.integers(1, 15), min_size=1, max_size=12), seed=st.integers(0, 9))
def test_every_task_once_an_epoch_whatever_the_batches(count, batches, seed):
    select, tasks = epochs(seed), tasks_of(count)
    drawn = [i for n in batches for i in draw(select, tasks, n)]
    assert len(drawn) == sum(batches)
    for start in range(0, len(drawn) - count + 1, count):
        assert Counter(drawn[start : start + count]) == Counter(task.id for task in tasks)


@given(count=st.integers(1, 12), done=st.integers(0, 5), n=st.integers(1, 15))
def test_resumes_where_it_stopped(count, done, n):
    unbroken, broken, tasks = epochs(3), epochs(3), tasks_of(count)
    for select in (unbroken, broken):
        for _ in range(done):
            draw(select, tasks, n)
    resumed = epochs(3)
    resumed.load_state_dict(json.loads(json.dumps(broken.state_dict())))
    for _ in range(3):
        assert draw(resumed, tasks, n) == draw(unbroken, tasks, n)


def test_epochs_are_shuffled_anew_and_by_seed():
    tasks = tasks_of(30)
    select = epochs(0)
    first, second = draw(select, tasks, 30), draw(select, tasks, 30)
    assert first != second
    assert first != draw(epochs(1), tasks, 30)
    assert first == draw(epochs(0), tasks, 30)


def test_evaluations_and_calls_that_come_to_nothing_do_not_advance_it():
    select, tasks = epochs(0), tasks_of(4)
    first = select(tasks, 2, np.random.default_rng(0))
    select.observe([Sample(first[0], "x")], Rewards(Grain.of([0.0])), CONTEXT, "eval")
    assert select(tasks, 2, np.random.default_rng(1)) == first


@pytest.mark.parametrize("n", [1, 5, 6, 40])
def test_uniform_draws_without_replacement_while_it_can(n):
    drawn = [task.id for task in uniform(tasks_of(5), n, np.random.default_rng(0))]
    assert len(drawn) == n
    assert len(set(drawn)) == n if n <= 5 else len(set(drawn)) <= 5


def test_uniform_is_uniform():
    rng = np.random.default_rng(0)
    counts = Counter(task.id for _ in range(2000) for task in uniform(tasks_of(5), 2, rng))
    assert all(abs(count / 2000 - 2 / 5) < 0.05 for count in counts.values())  # four standard errors: 0.044


def observed(select: prioritised, rates: dict[str, list[int]], **parts: Part) -> None:
    samples = [Sample(Task(name, "p"), "x", group=g) for g, (name, found) in enumerate(rates.items()) for _ in found]
    select.observe(samples, Rewards(Grain.of([x for found in rates.values() for x in found]), parts=parts), CONTEXT, "train")


def test_tasks_come_in_proportion_to_what_is_not_solved_yet():
    select, tasks = prioritised(floor=0.1), tasks_of(4)
    observed(select, {"0": [1, 1, 1, 1], "1": [1, 0, 1, 1], "2": [0, 0, 0, 0]})  # rates 1, 0.75, 0; task 3 was never drawn
    rng = np.random.default_rng(0)
    drawn = Counter(task.id for _ in range(4000) for task in select(tasks, 1, rng))
    for name, weight in zip("0123", (0.1, 0.25, 1, 1), strict=True):
        assert drawn[name] / 4000 == pytest.approx(weight / 2.35, abs=0.025)


def test_the_success_rate_is_a_moving_average_over_living_answers():
    select = prioritised(rate=0.25)
    observed(select, {"0": [1, 0]})
    observed(select, {"0": [1, 1]})
    (key,) = select.success  # of id and prompt
    assert select.state_dict() == {"success": {key: 0.5 + 0.25 * 0.5}, "drawn": 2}
    samples = [Sample(Task("0", "p"), "x")] * 2
    select.observe(samples, Rewards(Grain.of([0.0, 0.0], [2, 1])), CONTEXT, "train")
    select.observe(samples, Rewards(Grain.of([0.0, 0.0])), CONTEXT, "eval")
    assert select.success == {key: 0.625}


def test_what_counts_as_right_may_be_a_part_of_the_reward():
    select = prioritised(of="math")
    observed(select, {"0": [0.2, 0.4]}, math=Part(Rewards(Grain.of([1.0, 1.0]))))
    assert list(select.success.values()) == [1.0]
    with pytest.raises(Refused, match="did you mean 'maths'"):
        observed(select, {"0": [1]}, maths=Part(Rewards(Grain.of([1.0]))))


def test_a_curriculum_goes_from_easy_to_all():
    tasks = [Task(str(i), "p", meta={"level": 10 - i}) for i in range(10)]  # task 9 is the easiest
    select, rng = prioritised(curriculum=10), np.random.default_rng(0)
    pools = []
    for _ in range(5):
        pools.append({task.id for _ in range(200) for task in select(tasks, 2, rng)})
        observed(select, {"a": [1], "b": [0]})
    assert pools == [{str(i) for i in range(10 - size, 10)} for size in (2, 4, 6, 8, 10)]
    with pytest.raises(Refused, match="no number 'level'"):
        prioritised(curriculum=10)(tasks_of(3), 1, rng)
    with pytest.raises(Refused, match="0 <= floor"):
        prioritised(floor=2)

"""Links are drawn whole, each once an epoch, and go on where they stopped."""

from __future__ import annotations

import json
from collections import Counter

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from guerdon.curation import linked
from guerdon.samples import Context, Grain, Rewards, Sample, Task


def tasks_of(sizes: list[int]) -> list[Task]:
    """Links of these sizes, phrasings far apart in the file; size 1 has no link."""
    tasks = [Task(f"{i}.{j}", "p", meta={"link": f"q{i}"} if size > 1 else {}) for i, size in enumerate(sizes) for j in range(size)]
    return sorted(tasks, key=lambda task: task.id.split(".")[1])


def draw(select: linked, tasks: list[Task], n: int) -> list[str]:
    drawn = select(tasks, n, np.random.default_rng(0))
    samples = [Sample(task, "x", group=g) for g, task in enumerate(drawn) for _ in range(2)]
    select.observe(samples, Rewards(Grain.of(np.zeros(len(samples)))), Context(), "train")
    return [task.id for task in drawn]


@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=6), batches=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    seed=st.integers(0, 9), stop=st.integers(0, 8),
)  # fmt: skip
def test_whole_links_once_an_epoch_whatever_the_batches(sizes, batches, seed, stop):
    select, tasks, everything = linked(seed), tasks_of(sizes), []
    for i, n in enumerate(batches):
        if i == stop:  # a run that was killed and resumed
            select, old = linked(seed), select
            select.load_state_dict(json.loads(json.dumps(old.state_dict())))
        drawn = draw(select, tasks, n)
        counts = Counter(task.split(".")[0] for task in drawn)
        assert all(count % sizes[int(name)] == 0 for name, count in counts.items())
        last = sizes[int(drawn[-1].split(".")[0])]
        assert n <= len(drawn) < n + last
        everything += drawn
    for start in range(0, len(everything) - len(tasks) + 1, len(tasks)):
        assert Counter(everything[start : start + len(tasks)]) == Counter(task.id for task in tasks)


def test_links_are_shuffled_by_seed_and_epoch():
    tasks, select = tasks_of([2] * 20), linked(0)
    first, second = draw(select, tasks, 40), draw(select, tasks, 40)
    assert first != second
    assert first == draw(linked(0), tasks, 40)
    assert first != draw(linked(1), tasks, 40)

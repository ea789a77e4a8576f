"""The attack on judges that are known, the monitor on runs that are made up, the negatives by hand."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.evals.master_keys import KEYS, OPENERS, Judged, agreement, attack, collapse, first_sentence, neighbours, truncated_negatives
from guerdon.registry import Refused
from guerdon.samples import Grain, Rewards, State, Task

TASKS = [Task(str(i), f"{i} + {i}?", str(2 * i)) for i in range(20)]


def judge(says):
    """says(task, text) -> number, or None for a failed verdict."""

    def score(samples):
        found = [says(s.task, s.text) for s in samples]
        state = [State.SCORED if x is not None else State.FAILED for x in found]
        return Rewards(Grain.of([x or 0.0 for x in found], state, {(i,): "down" for i, x in enumerate(found) if x is None}))

    return score


def test_the_ten_keys_are_ten_and_none_of_the_further_ones():
    assert len(set(KEYS)) == 10
    assert len(set(OPENERS)) == len(OPENERS)
    assert not set(KEYS) & set(OPENERS)


def test_rates_by_key_mean_and_worst():
    found = attack(judge(lambda task, text: 1.0 if text == ":" and int(task.id) < 15 else 0.2 if text == " " else 0.0), TASKS)
    assert {key: rate.k for key, rate in found.rates.items() if rate.k} == {":": 15}
    assert all(rate.n == 20 for rate in found.rates.values())
    assert found.worst == ":"
    assert found.rates[found.worst].value == 0.75
    low, high = found.rates[":"].interval()
    assert (low, high) == (pytest.approx(0.5313, abs=1e-3), pytest.approx(0.8881, abs=1e-3))  # Wilson, 15 of 20
    assert found.mean.mean == pytest.approx(0.075)
    assert found.mean.low is not None
    assert found.mean.high is not None
    assert found.mean.low < 0.075 < found.mean.high
    assert found.failed == 0


def test_every_key_reaches_the_judge_as_it_is():
    seen = []
    attack(judge(lambda task, text: seen.append(text) or 0.0), TASKS[:1])
    assert tuple(seen) == KEYS


def test_what_failed_is_in_no_rate():
    found = attack(judge(lambda task, text: None if int(task.id) % 2 else 1.0), TASKS, keys=[".", "Solution"])
    assert [(rate.k, rate.n) for rate in found.rates.values()] == [(10, 10), (10, 10)]
    assert found.failed == 20
    assert found.mean.mean == 1
    down = attack(judge(lambda task, text: None), TASKS)
    assert np.isnan(down.mean.mean)
    assert down.rates["."].value is None
    with pytest.raises(Refused, match="one task"):
        attack(judge(lambda task, text: 0.0), [])


def test_neighbours_of_a_key():
    def embed(texts):
        return np.array([[np.cos(len(t) / 10), np.sin(len(t) / 10)] for t in texts])

    assert neighbours(["aaa"], ["aaa", "bbbb", "c", "dddddddd", "bbbb"], embed, n=2) == ["bbbb", "c"]
    assert neighbours(["aaa"], ["aaa"], embed) == []


def test_agreement_counts_what_both_judged():
    one = Rewards(Grain.of([1, 0, 1, 0, 1], [0, 0, 0, 2, 0]))
    two = Rewards(Grain.of([0.9, 0.1, 0.2, 1, 0], [0, 0, 0, 0, 1]))
    assert (agreement(one, two).k, agreement(one, two).n) == (2, 3)


def run(steps, judged, right, tokens):
    t = np.linspace(0, 1, steps)
    return [{"reward/judge": judged(x), "reward/exact": right(x), "length": tokens(x)} for x in t]


def test_the_monitor_sees_a_collapse_and_no_other_run():
    fooled = run(60, lambda x: 0.3 + 0.6 * x, lambda x: 0.3 - 0.2 * x, lambda x: 100 * (1 - 0.9 * x))
    at = collapse(fooled, "reward/judge", "reward/exact")
    assert at is not None
    lengths = [row["length"] for row in fooled]
    assert np.mean(lengths[at - 9 : at + 1]) <= 0.5 * np.mean(lengths[:10]) < np.mean(lengths[at - 10 : at])
    learns = run(60, lambda x: 0.3 + 0.6 * x, lambda x: 0.3 + 0.6 * x, lambda x: 100 * (1 - 0.9 * x))
    grows = run(60, lambda x: 0.3 + 0.6 * x, lambda x: 0.3, lambda x: 100 * (1 + x))
    worse = run(60, lambda x: 0.3, lambda x: 0.3, lambda x: 100 * (1 - 0.9 * x))
    for rows in (learns, grows, worse, fooled[:19], []):
        assert collapse(rows, "reward/judge", "reward/exact") is None
    padded = [row for pair in zip(fooled, [{"eval/gold": 1.0}] * 60, strict=True) for row in pair]
    assert collapse(padded, "reward/judge", "reward/exact") == 2 * at
    with pytest.raises(Refused, match="reward/jugde"):
        collapse(fooled, "reward/jugde", "reward/exact")


def test_negatives_are_first_sentences_that_hold_no_answer():
    rows = [Judged(f"q{i}", str(i), f"the answer is {i}", True) for i in range(100, 140)]

    def write(questions):
        kinds = (
            "We read {q} first. Then the answer is {n}.", "It is {n}. As we see.", "Solution\nIt is {n}.", "We use 3.{n} here! So {n}.", ""
        )  # fmt: skip
        return [kinds[int(q[1:]) % 5].format(q=q, n=q[1:]) for q in questions]

    found = truncated_negatives(rows, write, 40)
    assert sorted(row.response for row in found) == sorted(
        text for i in range(100, 140) for text in ([f"We read q{i} first."] * (i % 5 == 0) + [f"We use 3.{i} here!"] * (i % 5 == 3))
    )
    assert not any(row.right for row in found)
    assert {row.reference for row in found} <= {row.reference for row in rows}
    assert truncated_negatives(rows, write, 20, seed=1) == truncated_negatives(rows, write, 20, seed=1)
    assert truncated_negatives(rows, write, 0) == []
    with pytest.raises(Refused, match="41 of 40"):
        truncated_negatives(rows, write, 41)
    with pytest.raises(Refused, match="0 responses to 5"):
        truncated_negatives(rows, lambda questions: [], 5)


def test_first_sentences():
    assert first_sentence("  First, 3.5 is read. Then more.") == "First, 3.5 is read."
    assert first_sentence("") == ""

"""PROF: who leaves, against the rule written out, and by hand."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from guerdon.curation import prof
from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample, State, Task

seeds = st.integers(0, 2**32 - 1)


def some(seed: int) -> tuple[list[Sample], Rewards]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 30))
    samples = [Sample(Task("t", "p"), "x", group=int(rng.integers(4))) for _ in range(n)]
    state = rng.choice([State.SCORED] * 6 + [State.ABSTAINED, State.FAILED], n)
    steps = [rng.random(int(rng.integers(0, 5))).tolist() for _ in range(n)]
    return samples, Rewards(Grain.of(rng.integers(0, 2, n), state), Grain.ragged(steps) if n else Grain.of(np.zeros((0, 1))))


@given(seed=seeds, remove=st.integers(0, 6))
def test_against_the_rule_written_out(seed, remove):
    samples, rewards = some(seed)
    assert rewards.outcome is not None
    assert rewards.step is not None
    alive, outcome = rewards.alive, rewards.outcome.value
    cells = {
        i: [float(x) for x, ok in zip(rewards.step.value[i], rewards.step.scored[i], strict=True) if ok] for i in np.flatnonzero(alive)
    }
    every = [x for row in cells.values() for x in row]
    score = {}
    for i, row in cells.items():
        sign = 1 if outcome[i] > 0.5 else -1
        score[i] = sign * (sum(2 * (x - np.mean(every)) for x in row) / len(row) if row else 0.0) - 10 * (len(row) < 2 or len(row) > 3)
    gone = set()
    for g in {s.group for s in samples}:
        good = sorted((i for i in cells if samples[i].group == g and outcome[i] > 0.5), key=lambda i: score[i])
        bad = sorted((i for i in cells if samples[i].group == g and outcome[i] <= 0.5), key=lambda i: score[i])
        if not any(cells[i] for i in good + bad):
            continue
        k = min(remove, round((len(good) - len(bad) + remove) / 2))
        left = good[: max(k, 0)]
        gone |= {*left, *bad[: remove - len(left)]}
    kept = prof(samples, rewards, Context(), remove=remove, longest=3)
    assert kept.rows.tolist() == [i for i in range(len(samples)) if i not in gone]
    assert kept.weights.tolist() == [1.0] * len(samples)


def group(outcome: list[float], steps: list[list[float]]) -> tuple[list[Sample], Rewards]:
    return [Sample(Task("t", "p"), "x") for _ in outcome], Rewards(Grain.of(outcome), Grain.ragged(steps))


def test_by_hand():
    """Five right and three wrong, two to leave: D = 2, so two right ones, of the poorest steps; of three right and five wrong, none."""
    poor, fair, fine = [0.1, 0.1], [0.5, 0.5], [0.9, 0.9]
    samples, rewards = group([1, 1, 1, 1, 1, 0, 0, 0], [fine, poor, fine, fair, fine, poor, poor, fine])
    assert prof(samples, rewards, Context(), remove=2).rows.tolist() == [0, 2, 4, 5, 6, 7]
    samples, rewards = group([0, 0, 0, 0, 0, 1, 1, 1], [poor, fine, fair, fair, fair, poor, fine, fine])
    assert prof(samples, rewards, Context(), remove=2).rows.tolist() == [0, 3, 4, 5, 6, 7]  # wrong ones whose steps look best
    samples, rewards = group([1, 1, 0, 0], [fine, [0.99], poor, poor])
    assert prof(samples, rewards, Context(), remove=1).rows.tolist() == [0, 1, 3]  # round(1 / 2) is 0: half to even
    assert prof(samples, rewards, Context(), remove=2).rows.tolist() == [0, 3]  # one step alone is no solution, however fine


@pytest.mark.parametrize("right", range(9))
def test_sides_balance_where_both_suffice(right):
    rng = np.random.default_rng(right)
    samples, rewards = group([1.0] * right + [0.0] * (8 - right), rng.random((8, 4)).tolist())
    rows = prof(samples, rewards, Context()).rows
    good = int((rows < right).sum())
    assert len(rows) == 4
    assert good == {0: 0, 1: 1, 7: 3, 8: 4}.get(right, 2)


def test_wrong_ones_at_random_hang_on_the_generator_and_right_ones_do_not():
    samples, rewards = group([1, 1, 1, 0, 0, 0, 0, 0], np.random.default_rng(0).random((8, 3)).tolist())
    found = {tuple(prof(samples, rewards, Context(rng=np.random.default_rng(i)), random_wrong=True).rows.tolist()) for i in range(30)}
    assert len(found) > 3
    by_score = prof(samples, rewards, Context()).rows.tolist()
    assert {tuple(i for i in rows if i < 3) for rows in found} == {tuple(i for i in by_score if i < 3)}


def test_what_has_nothing_to_say_keeps_all():
    samples, rewards = group([1, 0, 1], [[], [], []])
    assert prof(samples, rewards, Context()).rows.tolist() == [0, 1, 2]
    assert prof(samples, Rewards(Grain.of([1, 0, 1])), Context()).rows.tolist() == [0, 1, 2]
    with pytest.raises(Refused, match="at least 0"):
        prof(samples, rewards, Context(), remove=-1)

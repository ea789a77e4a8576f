"""The progress of a prover, and thoughts in the place of steps, by hand and against plain loops."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from guerdon.registry import Refused
from guerdon.rewards.core import get
from guerdon.samples import Context, Grain, Rewards, Sample, State, Task
from guerdon.shaping import progress, thoughts

seeds = st.integers(0, 2**32 - 1)


def samples_of(groups: list[int]) -> list[Sample]:
    return [Sample(Task("t", "q"), "", group=g) for g in groups]


def ragged(rng: np.random.Generator, n: int) -> list[list[float | None]]:
    return [[None if rng.random() < 0.2 else float(rng.random()) for _ in range(int(rng.integers(0, 6)))] for _ in range(n)]


def shaped(call, rows, groups=None, **beside) -> Grain:
    found = call.fn(Rewards(step=Grain.ragged(rows)), samples_of(groups or [0] * len(rows)), Context(), **beside).step
    assert found is not None
    return found


@given(seed=seeds, k=st.integers(1, 9))
def test_progress_against_a_plain_loop(seed, k):
    rng = np.random.default_rng(seed)
    rows, groups = ragged(rng, 6), rng.integers(0, 3, 6).tolist()
    found = shaped(progress(k), rows, groups)
    for i, row in enumerate(rows):
        peers = [[q for q in rows[j] if q is not None] for j in range(6) if groups[j] == groups[i]]
        firsts = [scored[0] for scored in peers if scored]
        last = 1 - (1 - np.mean(firsts)) ** k if firsts else 0.0
        for h, q in enumerate(row):
            if q is None:
                assert found.state[i, h] == State.ABSTAINED
            else:
                now = 1 - (1 - q) ** k
                assert found.value[i, h] == pytest.approx(now - last, abs=1e-12)
                last = now


def test_progress_adds_up_to_the_end_less_the_beginning():
    found = shaped(progress(4), [[0.1, 0.4, 0.2, 1.0], [0.3]])
    start = 1 - 0.8**4
    assert found.value[0].sum() == pytest.approx(1 - start)
    assert found.value[1, 0] == pytest.approx(1 - 0.7**4 - start)


def _bound():
    return thoughts(get("exact"), correct=0.6, wrong=0.3)


def thoughts_twin(row: list[float | None], acc: float) -> list[float | None]:
    judged = [(h, q >= 0.5) for h, q in enumerate(row) if q is not None]
    out: list[float | None] = [None] * len(row)
    for at, (h, right) in enumerate(judged):
        if at + 1 == len(judged) or judged[at + 1][1] != right:
            out[h] = 0.6 * acc if right else -0.3
    return out


@given(seed=seeds)
def test_thoughts_against_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    rows, groups = ragged(rng, 6), rng.integers(0, 3, 6).tolist()
    outcome = rng.integers(0, 2, 6).astype(float)
    state = rng.choice([0, 0, 0, 1], 6)
    found = shaped(_bound(), rows, groups, outcome=Rewards(Grain.of(outcome, state)))
    for i, row in enumerate(rows):
        scored = [outcome[j] for j in range(6) if groups[j] == groups[i] and state[j] == 0]
        wanted = thoughts_twin(row, float(np.mean(scored)) if scored else 0.0)
        for h, value in enumerate(wanted):
            assert (found.state[i, h] == State.SCORED) == (value is not None)
            assert found.value[i, h] == pytest.approx(value or 0.0, abs=1e-12)


def test_splitting_a_thought_pays_nothing():
    outcome = Rewards(Grain.of([1.0, 1.0]))
    found = shaped(_bound(), [[1.0, 0.0], [1.0, 0.9, 0.8, 0.7, 0.6, 0.0, 0.0]], outcome=outcome)
    assert found.value.sum(1).tolist() == pytest.approx([0.3, 0.3])
    assert found.scored.sum(1).tolist() == [2, 2]


def test_where_nobody_solves_the_task_only_wrong_thoughts_count():
    found = shaped(_bound(), [[1.0, 0.0, 1.0], [0.0]], outcome=Rewards(Grain.of([0.0, 0.0])))
    assert found.value.tolist() == [[0.0, pytest.approx(-0.3), 0.0], [pytest.approx(-0.3), 0.0, 0.0]]
    assert found.scored.tolist() == [[True, True, True], [True, False, False]]


def test_a_failed_step_stays_failed():
    steps = Grain.ragged([[1.0, 1.0]])
    steps.state[0, 0], steps.reason[(0, 0)] = State.FAILED, "judge down"
    found = _bound().fn(Rewards(step=steps), samples_of([0]), Context(), outcome=Rewards(Grain.of([1.0])))
    assert found.failed.tolist() == [True]
    assert found.why(0) == "judge down"


def test_what_cannot_be_is_refused():
    with pytest.raises(Refused, match="1 or more"):
        shaped(progress(0), [[0.5]])
    with pytest.raises(Refused, match="reward of whole answers"):
        shaped(_bound(), [[0.5]], outcome=Rewards(step=Grain.ragged([[0.5]])))

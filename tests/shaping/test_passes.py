"""Rewards from test matrices: the weights of tests by hand, turns against plain loops, and what duplicated tests may not do."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from guerdon.registry import Refused
from guerdon.rewards import parse, reward
from guerdon.samples import Context, Grain, Rewards, Sample, State, Task, Verdict
from guerdon.scoring import Engine
from guerdon.shaping import verpo
from guerdon.shaping.passes import weights_of_tests

seeds = st.integers(0, 2**32 - 1)


def shaped(passes: list, groups: list[int], **params: float) -> Grain:
    samples = [Sample(Task("t", "q"), "", group=g) for g in groups]
    rewards = Rewards(Grain.of(np.zeros(len(groups))), evidence={"passes": passes})
    found = verpo(**params).fn(rewards, samples, Context()).step
    assert found is not None
    return found


def test_weights_by_hand():
    """Two tests that always pass together and one that passes in a tenth: far apart for sigma 0.1, so two crowds, of two and of one."""
    w = weights_of_tests(np.array([0.9, 0.9, 0.1]))
    np.testing.assert_allclose(w, [math.exp(-1.8) / 2.001, math.exp(-1.8) / 2.001, math.exp(-0.2) / 1.001], rtol=1e-12)
    assert len(set(weights_of_tests(np.full(5, 0.4)))) == 1


@given(seed=seeds)
def test_turns_against_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    groups, m = rng.integers(0, 2, 5).tolist(), 4
    passes = [rng.integers(0, 2, (int(rng.integers(1, 4)), m)).tolist() if rng.random() < 0.8 else None for _ in range(5)]
    found = shaped(passes, groups)
    for i, own in enumerate(passes):
        assert int(found.scored[i].sum()) == (0 if own is None else len(own))
        turns = [turn for j, several in enumerate(passes) if several and groups[j] == groups[i] for turn in several]
        rho = [sum(turn[j] for turn in turns) / len(turns) for j in range(m)] if turns else []
        for t, turn in enumerate(own or ()):
            r = 0.0
            for j in range(m):
                crowd = sum(math.exp(-((rho[j] - other) ** 2) / 0.02) for other in rho)
                r += turn[j] * math.exp(-2 * rho[j]) / (crowd + 1e-3)
            assert found.value[i, t] == pytest.approx(r, abs=1e-9)


@pytest.mark.parametrize("copies", [1, 3, 10])
def test_copies_of_an_easy_test_do_not_drown_a_hard_one(copies):
    """Six answers pass the easy test and its copies, one passes the hard one alone; by the share of passes it is the worst from 2 on."""
    passed = np.array([[1.0] * copies + [0.0]] * 6 + [[0.0] * copies + [1.0]])
    r = passed @ weights_of_tests(passed.mean(0))
    assert r[6] > 2 * r[0]
    assert (passed.mean(1)[6] < passed.mean(1)[0]) == (copies > 1)


@reward(inline=True)
def run_tests(meta):
    """Three tests, by turn."""
    if meta.get("down"):
        return Verdict.fail("no sandbox")
    return Verdict(float(np.mean(meta["passed"][-1])), evidence={"passes": meta["passed"]})


def test_in_an_expression_beside_the_outcome():
    metas = [{"passed": [[1, 0, 0], [1, 1, 1]]}, {"passed": [[1, 0, 0]]}, {"down": True}]
    samples = [Sample(Task(str(i), "q", meta=meta), "", group=0) for i, meta in enumerate(metas)]
    with Engine(Context(), workers=1) as engine:
        found = engine.score(parse("(run_tests >= 1) + (run_tests | verpo)"), samples)
    assert found.outcome is not None
    assert found.outcome.value.tolist() == [1.0, 0.0, 0.0]
    assert found.failed.tolist() == [False, False, True]
    assert found.step is not None
    w = weights_of_tests(np.array([1, 1 / 3, 1 / 3]))
    np.testing.assert_allclose(found.step.value[:2], [[w[0], w.sum()], [w[0], 0.0]], atol=1e-12)


def test_without_a_matrix_it_abstains_and_unlike_matrices_are_refused():
    assert shaped([None, None], [0, 0]).state.ravel().tolist() == [State.ABSTAINED] * 2
    with pytest.raises(Refused, match="different numbers of tests"):
        shaped([[[1, 0]], [[1]]], [0, 0])
    assert shaped([[[1, 0]], [[1]]], [0, 1]).scored.all()

"""Searches on the tiny policy: what they choose, against choosing by hand; what they cost; what never changes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import guerdon as g
from guerdon import registry
from guerdon.registry import Refused
from guerdon.samples import Grain, Rewards, Sample
from guerdon.scoring.engine import Engine
from guerdon.search import Budget, Explorer, Partial, beam, best_of_n, elected, mcts, together, value_of, weighted_vote
from guerdon.search.steps import unlike

SEARCHES = {"best_of_n": {}, "weighted_vote": {}, "beam": {"width": 2, "expand": 2}, "mcts": {"rounds": 6}}


@pytest.fixture(scope="module")
def policy():
    import guerdon.backends  # noqa: F401

    return registry.find("backend", "local").fn("tiny", trainable=False)


@pytest.fixture(scope="module")
def tasks():
    return registry.find("env", "arithmetic").fn(n=4, steps=[3, 4], low=1, high=9, ops="+-", within=[0, 20])


@pytest.fixture(scope="module")
def steps():
    """A scorer of beginnings and of whole answers: the share of right steps."""
    with Engine() as engine:
        yield partial(engine.score, engine.check("arithmetic_steps"))


@pytest.fixture(scope="module")
def truth():
    with Engine() as engine:
        yield partial(engine.score, engine.check("arithmetic"))


def test_every_search_has_its_case() -> None:
    assert set(SEARCHES) == set(registry.names("search"))


@pytest.mark.parametrize("name", SEARCHES)
def test_contract(name: str, policy, tasks, truth) -> None:
    fn = registry.find("search", name).fn
    budget = Budget(rollouts=40, tokens=900)
    found = fn(tasks[0], policy, truth, budget, max_tokens=36, seed=3, **SEARCHES[name])
    again = fn(tasks[0], policy, truth, budget, max_tokens=36, seed=3, **SEARCHES[name])
    assert [s.text for s in found.samples] == [s.text for s in again.samples]
    assert 0 < found.cost.rollouts <= 40
    assert 0 < found.cost.tokens <= 900
    assert found.cost == again.cost
    assert len(found.values) == len(found.samples)
    assert all(s.stop is not None and len(s.ids) <= 36 for s in found.samples)
    assert found.answer is not None
    assert found.answer in found.samples
    assert found.tree is not None
    assert all(s.path for s in found.samples)
    values = truth(found.samples).total()
    assert np.array_equal(values, found.values)
    if name != "weighted_vote":
        assert values[found.samples.index(found.answer)] == values.max()
    nothing = fn(tasks[0], policy, truth, Budget(rollouts=0), max_tokens=36, **SEARCHES[name])
    assert nothing.answer is None
    assert nothing.cost.tokens == 0
    assert nothing.spent


def test_a_reward_that_fails_chooses_nothing(policy, tasks) -> None:
    def broken(samples: list[Sample]) -> Rewards:
        return Rewards(Grain.of(np.zeros(len(samples)), np.full(len(samples), 2)))

    for name, params in SEARCHES.items():
        found = registry.find("search", name).fn(tasks[0], policy, broken, Budget(rollouts=12), max_tokens=24, **params)
        assert found.answer is None, name
        assert np.isnan(found.values).all()


def test_best_of_n_is_the_best_of_its_samples(policy, tasks) -> None:
    def length(samples: list[Sample]) -> Rewards:
        return Rewards(Grain.of([float(len(s.text)) for s in samples]))

    found = best_of_n(tasks[1], policy, length, n=8, max_tokens=36)
    texts = [s.text for s in found.samples]
    assert len(texts) == 8
    assert found.answer is not None
    assert found.answer.text == max(texts, key=len)
    assert found.cost.calls == found.cost.rollouts == 8
    limited = best_of_n(tasks[1], policy, length, Budget(calls=3), n=8, max_tokens=36)
    assert np.isnan(limited.values).sum() == 5
    assert limited.spent


def test_votes_by_hand() -> None:
    names = ["a", "b", "a", None, "b", "c"]
    values = np.array([0.2, 0.5, 0.25, 9.0, np.nan, 0.4])
    assert elected(names, values) == 1  # b 0.5 beats a 0.45
    assert elected(names, np.ones(6)) == 0  # a has 2 votes and b 2: the first
    assert elected([None], np.ones(1)) is None
    assert elected(["a", "a"], np.array([0.1, 0.3])) == 1


def test_step_scores_together() -> None:
    v = np.array([0.9, 0.5, 0.8])
    assert [together(v, h) for h in ("last", "min", "mean", "sum")] == pytest.approx([0.8, 0.5, 2.2 / 3, 2.2])
    assert together(v, "product") == pytest.approx(0.36)
    assert np.isnan(together(np.zeros(0), "min"))
    with pytest.raises(Refused, match="not 'median'"):
        together(v, "median")  # type: ignore[arg-type]
    ragged = Rewards(step=Grain.ragged([[0.5, 0.25], [0.75], [None]]))
    assert value_of(ragged, "last")[:2].tolist() == [0.25, 0.75]
    assert np.isnan(value_of(ragged)[2])


def test_beam_with_true_step_verdicts_beats_chance(policy, tasks, steps, truth) -> None:
    found = [beam(t, policy, steps, width=3, expand=8, max_tokens=36, how="min", seed=1) for t in tasks]
    single = [best_of_n(t, policy, truth, n=24, max_tokens=36, seed=1) for t in tasks]
    guided = truth([one.answer for one in found]).total().mean()
    assert guided >= np.mean([one.values.mean() for one in single]) + 0.2
    for one in found:  # what is kept is what the reward says is best
        assert one.answer is not None
        assert one.values[one.samples.index(one.answer)] == one.values.max()


def test_mcts_counts_and_closes(policy, tasks, truth) -> None:
    found = mcts(tasks[0], policy, truth, Budget(rollouts=60), max_tokens=36, seed=2)
    assert found.values.max() == 1.0
    assert found.cost.rollouts <= 60
    with pytest.raises(Refused, match="needs a budget"):
        mcts(tasks[0], policy, truth, Budget())


def test_equal_proposals_count_once() -> None:
    a, b = Partial(np.array([1, 2]), np.zeros(2)), Partial(np.array([1, 2]), np.ones(2))
    assert unlike([a, b]) == [b]
    assert len(unlike([a, Partial(np.array([1, 2]), np.zeros(2), "end")])) == 2


def test_budgets_are_read() -> None:
    assert Budget.of("rollouts=64") == Budget(rollouts=64)
    assert Budget.of("tokens=10, calls=2") == Budget(tokens=10, calls=2)
    for text in ("64", "rollouts=", "seconds=3", "rollouts=-1", ""):
        with pytest.raises(Refused, match="such as rollouts=64"):
            Budget.of(text)


def test_a_step_ends_where_a_line_ends(policy, tasks) -> None:
    explorer = Explorer(tasks[2], policy, None, Budget(), max_tokens=36)
    grown = explorer.grow([Partial.empty()] * 4, by_step=True)
    for partial_ in grown:
        text = policy.decode(partial_.ids)[0]
        assert text.count("\n") <= 1
        assert partial_.stop is not None or text.endswith("\n")
    assert explorer.cost.rollouts == 4
    whole = explorer.grow(grown)
    assert all(w.ids[: len(p.ids)].tolist() == p.ids.tolist() for p, w in zip(grown, whole, strict=True))


def test_the_public_names() -> None:
    assert {"best_of_n", "weighted_vote", "beam", "mcts"} == set(registry.names("search"))
    assert weighted_vote is registry.find("search", "weighted_vote").fn
    assert g.Refused is Refused

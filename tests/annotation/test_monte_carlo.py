"""Labels from rollouts: against rollouts counted by hand, exact probabilities, a search done by hand; budgets; kills."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guerdon import registry
from guerdon.annotation import Labels, Prober, monte_carlo, omegaprm
from guerdon.annotation.core import confidence, tokenised
from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample, Task
from guerdon.scoring.cache import Cache
from guerdon.search import Budget


def test_soft_and_hard_values_are_the_shares_of_the_probes(world, answer) -> None:
    context = world(slip=0.3)
    samples = [answer("ggbggg"), answer("gggggg", "other=", 1)]
    soft, hard = (monte_carlo(samples, context, soft=s, k=16) for s in (True, False))
    prober = Prober(context, k=16)
    for i, sample in enumerate(tokenised(context.models["policy"], s) for s in samples):
        for t, (_, end) in enumerate(sample.spans["step"][:-1]):
            (probe,) = prober.probe([(sample, end)])
            # another call, so other rollouts: the share is of the same binomial
            assert (probe.right > 0) == ("b" not in samples[i].text.split()[: t + 1])
    assert soft.value[0].tolist()[2:] == [0, 0, 0, 0, 0]
    assert hard.value.tolist() == [[1, 1, 0, 0, 0, 0, 0], [1] * 7]
    assert (soft.value > 0).tolist() == (hard.value > 0).tolist()
    assert soft.count[0].tolist() == [16] * 6 + [1]
    assert soft.value[1, 5] == 1, "nothing is left to slip in"
    assert set(np.round(soft.value[:, :-1] * 16 % 1, 9).ravel()) == {0}
    assert soft.first_wrong().tolist() == [2, -1]


def test_values_converge_to_the_exact_probability(world, answer) -> None:
    labels = monte_carlo([answer("gggggg")], world(slip=0.2), k=4000)
    exact = np.array([0.8 ** (5 - t) for t in range(6)])
    error = 4 * np.sqrt(exact * (1 - exact) / 4000) + 1e-12
    assert (np.abs(labels.value[0, :6] - exact) <= error).all()


def test_a_beginning_is_rolled_out_once(world, answer) -> None:
    context = world()
    samples = [answer("ggbggg"), answer("gggbgg"), answer("ggbggg"), answer("ggbggg", "other=", 1)]
    labels = monte_carlo(samples, context, k=2)
    asked = context.models["policy"].asked
    assert len(asked) == len(set(asked)) == 10 + 6
    assert labels.cost.rollouts == 2 * 16
    assert labels.cost.calls == 2 * 16 + 3, "equal answers are graded once"
    assert labels.value[0].tolist() == labels.value[2].tolist()
    assert labels.tree is not None
    assert (labels.tree.group == 1).sum() == 1


@pytest.mark.parametrize(("right", "count", "low", "high"), [(0, 8, 0, 0.3244), (4, 8, 0.2152, 0.7848), (8, 8, 0.6756, 1)])
def test_confidence_is_one_less_the_width_of_wilsons_interval(right, count, low, high) -> None:
    assert confidence(right, count) == pytest.approx(1 - (high - low), abs=1e-4)
    assert confidence(0, 0) == 0


def by_hand(lines: str) -> list[int]:
    """The beginnings, in lines, that a binary search between 0 and all steps asks where a `b` is lost."""
    asked, low, high = [0], 0, len(lines) + 1
    while high - low > 1:
        middle = (low + high) // 2
        asked.append(middle)
        low, high = (low, middle) if "b" in lines[:middle] else (middle, high)
    return asked


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.text("ggb", min_size=6, max_size=6))
def test_the_binary_search_asks_what_it_asks_by_hand(lines, world, answer) -> None:
    context = world(slip=0.0)
    labels = omegaprm([answer(lines)], context, k=3)
    asked = [text.count("\n") for text in context.models["policy"].asked]
    assert asked == (by_hand(lines) if "b" in lines else [])
    first = lines.find("b")
    assert labels.first_wrong().tolist() == [first]
    expected = [1.0] * 7 if first < 0 else [1.0] * first + [0.0] * (7 - first)
    assert labels.value.tolist() == [expected]
    assert len(asked) <= 1 + math.ceil(math.log2(7))
    measured = {n - 1 for n in asked if n}
    assert {t for t in range(6) if labels.count[0, t]} == measured


def test_what_is_implied_is_said_to_be(world, answer) -> None:
    labels = omegaprm([answer("gggggb"), answer("gbgggg", "other=", 1)], world(slip=0.0), k=8)
    assert labels.count.tolist() == [[0, 0, 8, 0, 8, 8, 1], [8, 8, 8, 0, 0, 0, 1]]
    assert labels.confidence[0].tolist() == pytest.approx([1, 1, 1, 1, 1, confidence(0, 8), 1])
    zero = confidence(0, 8)
    second = labels.confidence[1].tolist()
    assert second[0] == 1
    assert second[1:6] == pytest.approx([zero] * 5)
    soft = omegaprm([answer("gggggb")], world(slip=0.0), k=8, soft=True)
    probed = labels.count[0] > 0
    assert (np.isnan(soft.value[0]) == ~probed).all()
    assert soft.confidence[0, 2] == pytest.approx(confidence(8, 8))
    assert soft.text[0][0] == "no label: not measured"


def test_the_steps_before_one_that_came_right_are_right(world) -> None:
    """A zero by chance in front of a beginning from which something came right is overruled."""
    context = world(slip=0.6, length=10)
    rng = np.random.default_rng(0)
    samples = [
        Sample(Task(f"{i}=", f"{i}=", "1"), "".join(f"{'b' if rng.random() < 0.1 else 'g'}\n" for _ in range(10)) + "A: 0", group=i)
        for i in range(40)
    ]
    labels = omegaprm(samples, context, k=4)
    known = ~np.isnan(labels.value)
    for value, there in zip(labels.value, known, strict=True):
        assert (np.diff(value[there]) <= 0).all()


def test_a_task_that_is_never_solved_is_left_out(world, answer) -> None:
    labels = omegaprm([answer("ggbggg")], world(slip=1.0), k=4)
    assert labels.cost.rollouts == 4
    assert np.isnan(labels.value[0, :6]).all()
    assert labels.value[0, 6] == 0
    assert labels.text[0][0] == "no label: the policy never solves this task"


def test_tasks_alone_are_labelled_on_answers_of_their_own(world) -> None:
    context = world(slip=0.3)
    tasks = [Task("1", "one=", "1"), Task("2", "two=", "1")]
    labels = omegaprm(tasks, context, k=8, searches=5)
    assert 2 <= len(labels.samples) <= 10
    texts = [(s.task.id, s.text) for s in labels.samples]
    for sample, first in zip(labels.samples, labels.first_wrong(), strict=True):
        assert sample.text.split()[first] == "b"
        assert "b" not in sample.text.split()[:first]
    asked = context.models["policy"].asked
    assert len(asked) == len(set(asked))
    again = omegaprm(tasks, world(slip=0.3), k=8, searches=5)
    assert [(s.task.id, s.text) for s in again.samples] == texts
    with pytest.raises(Refused, match="searches=100"):
        omegaprm(tasks, context)


def test_the_pool_is_chosen_from_by_q_plus_u() -> None:
    from guerdon.annotation.monte_carlo import _Entry, _Search, _State

    states = [_State(0.5, 2), _State(0.25, 0), _State(1.0, 1)]
    tree = _Search(None, None, 0, 0.5, 0.9, 500.0, 0.125, states[0], [], states)  # type: ignore[arg-type]
    for state, tokens in zip(states, (100, 500, 1000), strict=True):
        entry = _Entry(state, Sample(Task("", ""), "", ids=np.zeros(tokens, dtype=int)), 0)
        q = 0.5 ** (1 - state.mc) * 0.9 ** (tokens / 500)
        assert tree._priority(entry) == pytest.approx(q + 0.125 * math.sqrt(3) / (1 + state.visits))


@pytest.mark.parametrize("method", [monte_carlo, omegaprm])
@pytest.mark.parametrize("budget", [Budget(rollouts=50), Budget(tokens=800), Budget(calls=60), Budget(rollouts=0), Budget(calls=1)])
def test_budgets_are_never_exceeded(method, budget, world, answer) -> None:
    samples = [answer("gg" + "b" * (i % 2) + "ggg", f"{i}=", i) for i in range(12)]
    context = world(slip=0.1)
    labels = method(samples, context, k=4, budget=budget, at_once=3, max_tokens=30)
    for name in ("rollouts", "tokens", "calls"):
        limit = getattr(budget, name)
        assert limit is None or getattr(labels.cost, name) <= limit
    assert labels.spent
    missing = np.isnan(labels.value)
    assert missing.any()
    assert all(labels.text[i][t].startswith("no label") for i, t in np.argwhere(missing) if t < len(labels.text[i]))


@pytest.mark.parametrize("method", [monte_carlo, omegaprm])
def test_a_killed_run_goes_on_to_the_same_numbers_and_asks_nothing_twice(method, world, answer, tmp_path) -> None:
    rng = np.random.default_rng(1)
    samples = [answer("".join(rng.choice(["g", "g", "b"], 6)), f"{i % 4}=", i % 4) for i in range(12)]
    how = {"k": 4, "at_once": 5, "about": "solver"}
    whole = world(slip=0.2)
    expected = method(samples, whole, **how)
    asked, graded = [], []
    for breaks_after in (0, 1, 2, 5, None):
        context = world(slip=0.2, breaks_after=breaks_after)
        journal = Cache(tmp_path / "j")
        try:
            found = method(samples, context, journal=journal, **how)
        except KeyboardInterrupt:
            pass
        finally:
            journal.close()
        asked += context.models["policy"].asked
        graded += context.score.graded
    assert asked == whole.models["policy"].asked
    assert graded == whole.score.graded
    assert np.array_equal(found.value, expected.value, equal_nan=True)
    assert found.cost == expected.cost
    journal = Cache(tmp_path / "j")
    other = world(slip=0.2)
    method(samples, other, journal=journal, **{**how, "about": "another reward"})
    assert other.models["policy"].asked, "a journal of another policy or reward is not believed"


def test_rollouts_without_a_verdict_do_not_count(world, answer) -> None:
    context = world(slip=0.0, fails=["g\ng\ng\ng\ng\ng"])
    labels = monte_carlo([answer("gggggb"), answer("bggggg", "other=", 1)], context, k=4)
    assert np.isnan(labels.value[0, :5]).all()
    assert labels.text[0][0] == "no label: no verdict"
    assert labels.value[1].tolist() == [0] * 7
    assert omegaprm([answer("gggggg")], context, k=4).text[0][6] == "no label: no verdict"


def test_an_unfinished_answer_is_rolled_out_at_its_end(world, answer) -> None:
    policy = world().models["policy"]
    text = "g\ng\nb\n"
    ids = policy.encode(text)
    begun = Sample(Task("a", "chain=", "1"), text, policy.encode("chain="), ids, policy.decode(ids)[1], stop=None)
    for method in (monte_carlo, omegaprm):
        labels = method([begun], world(slip=0.0), k=4)
        assert labels.value.tolist() == [[1, 1, 0]]
        assert labels.count[0, 2] == 4


def test_what_cannot_be_labelled_is_refused(world, answer) -> None:
    context = world()
    with pytest.raises(Refused, match=r"Sample 1 .* no text, so no steps"):
        monte_carlo([answer("g"), Sample(Task("x", "p="), " \n")], context)
    with pytest.raises(Refused, match="a model `policy`"):
        monte_carlo([answer("g")], Context(score=context.score))
    with pytest.raises(Refused, match="a reward that grades"):
        monte_carlo([answer("g")], Context(models=context.models))
    context.score = lambda samples: Rewards(step=Grain.of(np.zeros((len(samples), 1))))
    with pytest.raises(Refused, match="reward of whole answers"):
        monte_carlo([answer("g")], context)
    with pytest.raises(Refused, match="k, max_tokens"):
        Prober(context, k=0)


@pytest.mark.parametrize("name", ["monte_carlo", "omegaprm"])
def test_contract(name, world, answer) -> None:
    fn = registry.find("annotator", name).fn
    labels = fn([], world(), k=2)
    assert isinstance(labels, Labels)
    assert labels.value.shape == (0, 0)
    one = fn([answer("")], world(length=0), k=2)
    assert one.value.tolist() == [[1.0]]
    assert one.cost.rollouts == 0

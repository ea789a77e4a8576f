"""Rewards that apply to some tasks only."""

from __future__ import annotations

from guerdon.rewards import parse, reward
from guerdon.samples import Grain, Rewards, Sample, State, Task
from guerdon.scoring import Engine
from guerdon.shaping import only


@reward(inline=True)
def routed_number(text):
    return float(text)


def samples(*kinds):
    return [Sample(Task(f"t{i}", "q", meta={"kind": k} if k else {}), str(i + 1), group=i) for i, k in enumerate(kinds)]


def test_a_sum_of_routed_rewards_gives_each_task_its_own():
    mixed = (routed_number | only("kind", "a")) + 10 * (routed_number | only("kind", ["b", "c"]))
    out = Engine().score(mixed, samples("a", "b", "c", "d", None))
    assert out.total().tolist() == [1.0, 20.0, 30.0, 0.0, 0.0]
    assert out.state.tolist() == [0, 0, 0, State.ABSTAINED, State.ABSTAINED]
    assert "meta.kind is 'd'" in out.why(3)


def test_what_the_reward_said_of_other_tasks_is_forgotten():
    rows = samples("a", "b")
    rows[1].text = "not a number"
    out = Engine().score(routed_number | only("kind", "a"), rows)
    assert out.state.tolist() == [State.SCORED, State.ABSTAINED]
    assert out.why(1) == "meta.kind is 'b'"
    assert Engine().score(routed_number | only("kind", "b"), rows).state.tolist() == [State.ABSTAINED, State.FAILED]


def test_steps_abstain_with_their_sample_and_meta_of_the_sample_wins():
    steps = Rewards(step=Grain.ragged([[1.0, 2.0], [3.0]]))
    rows = samples("a", "b")
    rows[1].meta["kind"] = "a"
    assert only("kind", "a").fn(steps, rows, None).step.value.tolist() == [[1.0, 2.0], [3.0, 0.0]]
    out = only("kind", "b").fn(steps, rows, None)
    assert (out.step.state == State.ABSTAINED).all()
    assert steps.step.value.tolist() == [[1.0, 2.0], [3.0, 0.0]]


def test_it_is_written_as_text():
    assert str(parse('exact | only("kind", "a")')) == "exact | only(field='kind', value='a')"

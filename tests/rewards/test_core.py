"""Lifting: what a signature says, what a return value comes to, what a digest sees."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.registry import Refused
from guerdon.rewards import core, reward
from guerdon.samples import Sample, State, Task, Verdict


def lift(fn, **options):
    return reward(name=fn.__qualname__, **options)(fn)


def test_the_parameters_say_what_a_reward_wants():
    @reward(name="test_core_wants")
    def wants(answer, reference, judge, progress, target: int = 3, score=None):
        return 0.0

    assert (wants.scope, wants.fields, wants.services) == ("sample", ("answer", "reference"), ("judge", "progress", "score"))
    assert list(wants.parameters()) == ["target"]
    assert str(wants(target=5)) == str(wants(5)) == "test_core_wants(target=5)"

    @reward(name="test_core_group")
    def whole(group, store):
        return []

    assert (whole.scope, whole.fields, whole.services) == ("group", (), ("store",))


def test_wrong_parameters_are_refused_with_the_nearest_name():
    def f(text, target=1):
        return 0.0

    f = lift(f)
    with pytest.raises(Refused, match="no parameter 'tarjet'; did you mean 'target'"):
        f(tarjet=2)
    with pytest.raises(Refused, match="takes 1 parameters"):
        f(1, 2)


def test_a_name_is_taken_once_but_a_cell_may_run_twice():
    def make(n):
        def f(text):
            return n

        return f

    reward(name="test_core_twice")(make(1))
    assert core.get("test_core_twice").fn("") == 1
    reward(name="test_core_twice")(make(2))
    assert core.get("test_core_twice").fn("") == 2
    with pytest.raises(Refused, match="already registered"):
        reward(name="test_core_twice")(lambda text: 0.0)


@pytest.mark.parametrize(
    ("value", "state", "number"),
    [
        (1, State.SCORED, 1.0),
        (True, State.SCORED, 1.0),
        (np.float32(0.5), State.SCORED, 0.5),
        (np.bool_(False), State.SCORED, 0.0),
        (None, State.ABSTAINED, None),
        (Verdict(None, "no"), State.ABSTAINED, None),
        (Verdict.fail("x"), State.FAILED, None),
        (Verdict(2, "good"), State.SCORED, 2.0),
        (float("nan"), State.FAILED, None),
        (float("-inf"), State.FAILED, None),
        (Verdict(float("nan")), State.FAILED, None),
        (10**400, State.FAILED, None),
        ("1.0", State.FAILED, None),
        ([1.0], State.FAILED, None),
        (1j, State.FAILED, None),
        (Verdict("1"), State.FAILED, None),
    ],
    ids=repr,
)
def test_what_a_return_value_comes_to(value, state, number):
    def f(text):
        return 0.0

    verdict = core.to_verdict(value, lift(f))
    assert (verdict.state, verdict.value) == (state, number)
    assert verdict.reason or state == State.SCORED


def test_a_verdict_keeps_its_reason_and_evidence():
    def f(text):
        return 0.0

    verdict = core.to_verdict(Verdict(True, 7, evidence={"path": [1]}), lift(f))
    assert (verdict.value, verdict.reason, verdict.evidence) == (1.0, "7", {"path": [1]})


def test_step_rewards_return_a_list():
    def f(steps):
        return []

    leaf = lift(f, grain="step")
    assert core.to_verdict([1, None, 0.5], leaf) == [1.0, None, 0.5]
    assert core.to_verdict(np.array([1.0, 2.0]), leaf) == [1.0, 2.0]
    for bad in (1.0, "ab", [1.0, float("nan")], [1.0, "x"], [[1.0]], {}):
        assert core.to_verdict(bad, leaf).state == State.FAILED
    assert core.to_verdict(None, leaf).state == State.ABSTAINED
    rewards = core.from_verdicts([[1.0, None], [], Verdict.fail("why"), Verdict(-1.0, "hostile: x")], leaf)
    assert rewards.step.value.tolist() == [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]
    assert rewards.state.tolist() == [State.SCORED, State.ABSTAINED, State.FAILED, State.SCORED]
    assert rewards.hostile.tolist() == [False, False, False, True]
    assert rewards.step.reason == {(2, 0): "why", (3, 0): "hostile: x"}


def test_fields_are_taken_from_sample_and_task():
    @reward(name="test_core_fields")
    def f(prompt, text, answer, thinking, steps, messages, tool_calls, reference, meta, ids, logprobs):
        return 0.0

    calls = [{"role": "assistant", "tool_calls": [1, 2]}, {"role": "tool"}, {"role": "assistant", "tool_calls": [3]}]
    marks = {"answer": [(0, 1), (4, 5)], "think": [(0, 2), (2, 3)], "step": [(0, 2), (2, 5)]}
    sample = Sample(Task("t", "q", "r", {"a": 1, "b": 1}), "abcde", ids=np.arange(2), messages=calls, meta={"b": 2}, marks=marks)
    found = core.inject(f, sample)
    assert found["meta"] == {"a": 1, "b": 2}
    assert found["tool_calls"] == [1, 2, 3]
    assert (found["answer"], found["thinking"], found["steps"]) == ("e", "abc", ["ab", "cde"])
    assert (found["prompt"], found["text"], found["reference"], found["logprobs"]) == ("q", "abcde", "r", None)
    with pytest.raises(KeyError, match="reference"):
        core.inject(f, Sample(Task("t", "q"), "x"))


def digest(source: str, **names):
    space = dict(names)
    exec(source, space)
    return core.code_digest(space["f"])


def test_the_digest_sees_code_defaults_and_closures_but_not_places():
    same = "def f(x, a=1):\n    return x + 1"
    assert digest(same) == digest("\n\n\n" + same)
    assert digest(same) != digest("def f(x, a=1):\n    return x + 2")
    assert digest(same) != digest("def f(x, a=2):\n    return x + 1")
    assert digest("def f(x):\n    return x in {'a', 'b'}") != digest("def f(x):\n    return x in {'a', 'c'}")
    assert digest("def f(x):\n    return (lambda y: y + 1)(x)") != digest("def f(x):\n    return (lambda y: y + 2)(x)")

    def make(n):
        def f(x):
            return x + n

        return f

    assert core.code_digest(make(1)) == core.code_digest(make(1)) != core.code_digest(make(2))

    def recursive():
        @lambda fn: (core.code_digest(fn), fn)[1]
        def again(x):
            return again(x)

        return again

    assert recursive()

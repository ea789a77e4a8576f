"""Demonstrations among the policy's answers, and a step of training on both."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.backends.tabular import tabular
from guerdon.registry import Refused
from guerdon.rollouts import mixed
from guerdon.samples import Context, Grain, Rewards, Task, collate
from guerdon.training.run import train

TASKS = [Task("a", "p", "1", {"solution": "2 1"}), Task("b", "q", "2"), Task("c", "r", "3", {"solution": ["3"]})]


def roll(n=4, tasks=TASKS, **params):
    policy = tabular(vocab=["1", "2", "3"], bias={"<end>": 1.0})
    context = Context(rng=np.random.default_rng(0))
    return mixed(policy, tasks, n, context, max_tokens=4, **params), policy, context


def test_each_group_has_its_demonstrations_last():
    samples, policy, context = roll(experts=2)
    assert [s.task.id for s in samples] == [*"aaaabbbbcccc"]
    assert [s.group for s in samples] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    own, other = ["policy"] * 2, ["expert"] * 2
    assert [s.source for s in samples] == [*own, *other, *own, *own, *own, *other]
    for s in samples:
        if s.source == "expert":
            assert s.text == {"a": "2 1", "c": "3"}[s.task.id]
            assert s.ids[-1] == policy.end
            assert s.logprobs is None or np.isnan(s.logprobs).all()
        else:
            assert np.isfinite(s.logprobs).all()
    batch = collate(samples, Rewards(Grain.of(np.zeros(12))))
    assert batch.fields["expert"].tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1]
    assert "rollouts" in context.usage


@pytest.mark.parametrize("experts", [0, 1, 4])
def test_from_none_to_nothing_but_demonstrations(experts):
    samples, _, context = roll(experts=experts, tasks=[TASKS[0]])
    assert [s.source for s in samples] == ["policy"] * (4 - experts) + ["expert"] * experts
    assert ("rollouts" in context.usage) == (experts < 4)


def test_what_cannot_be_is_refused():
    with pytest.raises(Refused, match="task 'b' has no column 'solution'"):
        roll(missing="refuse")
    for experts in (-1, 5):
        with pytest.raises(Refused, match=r"0 to 4 can be demonstrations"):
            roll(experts=experts)


def test_a_policy_that_is_never_right_learns_from_demonstrations_what_it_cannot_from_itself(tmp_path):
    """The right answer has a chance of 3e-7; with the policy's own rows alone nothing moves."""
    tasks = [Task("a", "p", "1", {"solution": "1"})]
    found = {}
    for name, rollout, loss in (
        ("own", {"use": "parallel"}, [{"use": "ppo_clip"}]),
        ("mixed", {"use": "mixed"}, [{"use": "ppo_clip", "of": "policy"}, {"use": "sft", "of": "expert"}]),
    ):
        result = train(
            models={"policy": {"backend": "tabular", "vocab": ["1", "2", "3"], "bias": {"1": -15.0, "<end>": 2.0}}}, tasks=tasks,
            reward="exact", rollout={**rollout, "max_tokens": 3}, loss=loss, train={"steps": 12, "prompts": 1, "samples": 4, "lr": 2.0},
            eval={"tasks": tasks, "every": 12, "samples": 32, "temperature": 1.0}, folder=tmp_path / name, threads=1,
        )  # fmt: skip
        found[name] = result.last("eval/pass@1")
    assert found["own"] == 0
    assert found["mixed"] > 0.8

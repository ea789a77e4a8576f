"""A tree of attempts with a scripted policy: what pairs share, where it grows, where it ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from guerdon.backends.scripted import Scripted
from guerdon.registry import Refused
from guerdon.reward_models.preference_tree import preference_tree
from guerdon.rewards import reward
from guerdon.samples import Context, Task, Verdict
from guerdon.scoring import Engine


@reward(inline=True)
def is_four(text: str, reference: str) -> float | Verdict:
    if text == "?":
        return Verdict.fail("the grader is down")
    return Verdict(float(text == reference), "" if text == reference else f"{text} is not it")


def context() -> Context:
    return Context(score=lambda samples: Engine().score("is_four", samples), rng=np.random.default_rng(0))


def policy(*turns: str) -> Any:
    """In its t-th turn it gives the answers of the t-th word, one a vote, in turn."""
    given = {t: iter(answers) for t, answers in enumerate(turns)}
    return Scripted(lambda messages, rng: next(given[sum(m["role"] == "assistant" for m in messages)]))


MESSAGES = [{"role": "user", "content": "2 + 2?"}]


def test_every_pair_answers_one_context_and_the_next_one_holds_the_wrong_answer_and_the_critique():
    found = preference_tree(Task("t", MESSAGES, "4"), policy("3?45", "4445", "4444"), context(), critique=lambda s, why: f"No: {why}.")
    assert [[a.text for a in pair.answers] for pair in found.pairs] == [["4", "3"], ["4", "5"]]
    assert [pair.pairs for pair in found.pairs] == [[(0, 1)], [(0, 1)]]
    second = [*MESSAGES, {"role": "assistant", "content": "3"}, {"role": "user", "content": "No: 3 is not it."}]
    assert [pair.prompt for pair in found.pairs] == [MESSAGES, second]
    assert found.turns == 3
    assert [s.text for s in found.right] == ["4"] * 8
    assert found.right[-1].task.prompt == [*second, {"role": "assistant", "content": "5"}, {"role": "user", "content": "No: 5 is not it."}]


def test_without_a_right_answer_it_grows_and_without_a_wrong_one_it_ends():
    assert preference_tree(Task("t", MESSAGES, "4"), policy("4444"), context()).pairs == []
    found = preference_tree(Task("t", MESSAGES, "4"), policy("33", "33"), context(), turns=2, tries=2)
    assert (found.pairs, found.right, found.turns) == ([], [], 2)


def test_a_prompt_of_text_goes_on_as_text():
    either: Any = Scripted(lambda messages, rng: "45"[int(rng.integers(2))])
    found = preference_tree(Task("t", "2 + 2 =", "4"), either, context(), tries=20, turns=2)
    assert found.pairs[1].prompt == "2 + 2 =5\n5 is not it\nFind the mistake and answer again.\n"


def test_what_cannot_be_used_is_refused():
    with pytest.raises(Refused, match="which answers are right"):
        preference_tree(Task("t", MESSAGES, "4"), policy(), Context())
    with pytest.raises(Refused, match="each is 1 or more"):
        preference_tree(Task("t", MESSAGES, "4"), policy(), context(), turns=0)

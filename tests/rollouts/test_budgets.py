"""Subgroups under budgets: who gets which hint, and what the policy is asked."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.backends.tabular import tabular
from guerdon.registry import Refused
from guerdon.rollouts import budgets
from guerdon.samples import Context, Grain, Rewards, Task, collate

WORDS = ["so", "[4]", "[8]", "</think>"]


def sampled(n: int, several=(4, 8), **params):
    policy = tabular(vocab=WORDS, bias={"<end>": 1.0})
    context = Context(rng=np.random.default_rng(0))
    tasks = [Task("a", "p"), Task("b", "q")]
    return budgets(policy, tasks, n, context, budgets=several, hint="[{budget}]", max_tokens=5, **params), context


def test_each_subgroup_has_its_hint_which_the_policy_did_not_write():
    samples, context = sampled(4)
    assert [(s.task.id, s.group, s.meta["budget"]) for s in samples] == [
        (task, group, b) for group, task in enumerate("ab") for b in (4, 4, 8, 8)
    ]
    for s in samples:
        assert s.text.startswith(f"[{s.meta['budget']}]")
        assert s.ids[0] == WORDS.index(f"[{s.meta['budget']}]")
        assert s.written.tolist() == [False] + [True] * (len(s.ids) - 1)
        assert np.isnan(s.logprobs[0])
        assert np.isfinite(s.logprobs[1:]).all()
        assert 1 <= s.written.sum() <= 5
    prefixes = {(s.task.id, *s.ids[: t + 1].tolist()) for s in samples for t in np.flatnonzero(s.written).tolist()}
    assert context.usage["rollouts"].new == len(prefixes)  # what answers have in common is computed once
    batch = collate(samples, Rewards(Grain.of(np.zeros(8))))
    assert batch.fields["budget"].tolist() == [4, 4, 8, 8] * 2
    assert not batch.mask[:, 0].any()


@pytest.mark.parametrize(("n", "shares"), [(1, [4]), (2, [4, 8]), (3, [4, 4, 8]), (5, [4, 4, 4, 8, 8])])
def test_where_n_does_not_divide_sizes_differ_by_one(n, shares):
    samples, _ = sampled(n)
    assert [s.meta["budget"] for s in samples] == shares * 2


def test_the_policy_sees_the_hint():
    policy = tabular(vocab=WORDS)
    for budget, then in (("[4]", "so"), ("[8]", "</think>")):
        prefix = np.concatenate([policy.encode("p"), policy.encode_answer(budget)[:-1]])
        policy.set_logits(prefix, [50.0 * (word == then) for word in [*WORDS, "<end>"]])
    samples = budgets(policy, [Task("a", "p")], 6, Context(rng=np.random.default_rng(0)), budgets=(4, 8), hint="[{budget}]", max_tokens=1)
    assert [s.text for s in samples] == ["[4] so"] * 3 + ["[8] </think>"] * 3


def test_what_cannot_be_a_budget_is_refused():
    for several in ((), (0, 4), (4, 4)):
        with pytest.raises(Refused, match="different numbers of tokens"):
            sampled(2, several)
    with pytest.raises(Refused, match=r"say \{budget\}"):
        budgets(tabular(vocab=WORDS), [Task("a", "p")], 2, Context(), hint="so")

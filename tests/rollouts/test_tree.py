"""Trees: who branches where, how many leaves there are, and that shared tokens are computed once, in the rollout and in training."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import guerdon.losses  # noqa: F401 (fills the registry)
from guerdon.backends.base import LossCall
from guerdon.backends.local import local
from guerdon.backends.tabular import tabular
from guerdon.envs.tiny import tokenizer
from guerdon.registry import Refused
from guerdon.rollouts import tree
from guerdon.samples import Context, Grain, Rewards, Sample, Task, collate

CHARACTERS = tokenizer()
TASKS = [Task("a", "12*3-4="), Task("b", "7"), Task("c", "1+2=")]
DIGITS = tuple("0123456789")


def transformer(dtype: Any = "float64") -> Any:
    torch.manual_seed(0)
    size: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, initializer_range=0.3)
    config = LlamaConfig(vocab_size=len(CHARACTERS), bos_token_id=None, eos_token_id=1, pad_token_id=0, **size)
    model = local((LlamaForCausalLM(config).double(), CHARACTERS), dtype=dtype)
    model.tokens.ends = np.arange(1, 4)  # so that answers end at all lengths
    return model


def context(seed: int = 0) -> Context:
    return Context(rng=np.random.default_rng(seed))


def prefixes(samples: list[Sample]) -> set[tuple[int, ...]]:
    return {(s.group, *s.ids[: t + 1].tolist()) for s in samples if s.ids is not None for t in range(len(s.ids))}


def dropped(samples: list[Sample]) -> int:
    return sum({s.group: s.meta["dropped"] for s in samples}.values())


class Watched:
    """A policy that notes what it is asked."""

    def __init__(self, policy: Any) -> None:
        self.policy, self.calls = policy, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def sample(self, prefixes: Any, n: int, params: Any, want: Any = ()) -> Any:
        found = self.policy.sample(prefixes, n, params, want)
        self.calls.append(([tuple(p.tolist()) for p in prefixes], params, found))
        return found


WAYS = [
    {"by": "steps", "cut": DIGITS},
    {"by": "steps", "cut": DIGITS, "width": 2, "branch": 3},
    {"by": "entropy"},
    {"by": "entropy", "width": 1, "branch": 3},
    {"by": "tokens", "marks": DIGITS},
]


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-4), ("float64", 1e-9)])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, (way["by"], way.get("width", "")))))
def test_leaves_are_whole_answers_whose_log_probabilities_are_those_alone(dtype: Any, close: float, way: dict[str, Any]):
    model = transformer(dtype)
    samples = tree(model, TASKS, 8, context(), max_tokens=40, step_tokens=12, temperature=0.9, **way)
    assert [s.group for s in samples] == [0] * 8 + [1] * 8 + [2] * 8
    assert len(prefixes(samples)) < sum(len(s.ids) for s in samples)  # they do share
    for s in samples:
        assert s.ids is not None
        assert s.logprobs is not None
        ended = s.ids[-1] in model.tokens.ends
        assert (s.stop == "end") == ended
        assert ended or (s.stop == "length" and len(s.ids) == 40)
        assert not np.isin(s.ids[:-1], model.tokens.ends).any()
        batch = collate([s], Rewards(Grain.of([0.0])))
        alone = model.forward(batch, temperature=0.9)[0]["logprobs"][0]
        np.testing.assert_allclose(s.logprobs, alone, atol=close, rtol=close)


def test_a_tree_of_steps_computes_each_distinct_prefix_once_in_the_rollout_and_in_training():
    model = transformer()
    for way in WAYS[:2]:
        world = context()
        samples = tree(model, TASKS, 8, world, max_tokens=40, step_tokens=12, **way)
        wanted = prefixes(samples)
        assert world.usage["rollouts"].new == len(wanted) + dropped(samples)
        batch = collate(samples, Rewards(Grain.of(np.zeros(len(samples)))))
        _, used = model.forward_backward(batch, LossCall("policy_gradient"))
        assert used.new == len(wanted) == model.forward(batch)[1].new
        assert len(wanted) < int(batch.lengths.sum())


@pytest.mark.parametrize("way", WAYS[2:])
def test_a_fork_elsewhere_computes_no_more_than_what_each_leaf_has_of_its_own(way: dict[str, Any]):
    """By chance a leaf may repeat what it left; that is drawn again."""
    model, world = transformer(), context()
    samples = tree(model, TASKS, 8, world, max_tokens=40, **way)
    own = sum(len(s.ids) - s.meta["forked"] for s in samples if s.ids is not None)
    assert len(prefixes(samples)) <= world.usage["rollouts"].new <= own
    assert own - len(prefixes(samples)) <= 0.1 * own
    assert dropped(samples) == 0


def test_a_path_is_what_leaves_have_in_common():
    samples = tree(transformer(), TASKS, 8, context(), by="steps", cut=DIGITS, max_tokens=40)
    assert collate(samples, Rewards(Grain.of(np.zeros(24)))).tree is not None
    for group in range(3):
        mine = [s for s in samples if s.group == group]
        assert {node for s in mine for node in s.path} == set(range(max(max(s.path) for s in mine) + 1))
        first = {}  # the rows through each token name its node
        for s in mine:
            names = []
            for t in range(len(s.ids)):
                through = tuple(i for i, o in enumerate(mine) if o.ids[: t + 1].tolist() == s.ids[: t + 1].tolist())
                names += [through] if not names or names[-1] != through else []
            assert len(s.path) == len(names)
            for node, name in zip(s.path, names, strict=True):
                assert first.setdefault(node, name) == name


@pytest.mark.parametrize("seed", range(4))
def test_each_level_keeps_as_many_proposals_as_leaves_are_missing(seed: int):
    """PORTool's rule, read off what the policy was asked."""
    policy = Watched(tabular(vocab="ab|", bias={"<end>": -0.5}))
    n, branch = 7, 3
    samples = tree(policy, TASKS[:2], n, context(seed), branch=branch, cut=("|",), max_tokens=9, step_tokens=3)
    assert len(samples) == 2 * n
    done = Counter()
    front = Counter(tuple(policy.encode(str(task.prompt)).tolist()) for task in TASKS[:2])
    starts = sorted(front)
    for level, (asked, params, (completions, _)) in enumerate(policy.calls):
        assert params.stop == ("|",)
        assert set(asked) <= set(front)
        counts = Counter(asked)
        for start in starts:
            own = {p: k for p, k in counts.items() if p[: len(start)] == start}
            assert sum(own.values()) == n - done[start]
            assert all(k <= (n if level == 0 else branch * front[p]) for p, k in own.items())  # two may be equal by chance
        front = Counter()
        for prefix, (c,) in zip(asked, completions, strict=True):
            start = next(start for start in starts if prefix[: len(start)] == start)
            whole = (*prefix, *c.ids.tolist())
            if c.stop == "end" or len(whole) - len(start) >= 9:
                done[start] += 1
            else:
                front[whole] += 1
    assert all(done[start] == n for start in starts)
    assert [p.seed - policy.calls[0][1].seed for _, p, _ in policy.calls] == list(range(len(policy.calls)))


def test_siblings_have_numbers_of_their_own():
    policy = tabular(vocab="abcdefghijklmnopqrstuvwxyz", bias={"<end>": -9})
    samples = tree(policy, TASKS[:1], 8, context(), width=1, branch=8, step_tokens=6, max_tokens=12)
    assert len({s.text[:6] for s in samples}) == 1
    assert len({s.text for s in samples}) == 8


def test_entropy_leaves_an_answer_where_it_was_least_sure():
    """Every answer of this table is sure of all tokens but the third and, less so, the fifth."""
    policy = tabular(vocab="abcd", bias={"a": 12.0, "<end>": -9})
    prompt = policy.encode("7")
    sure = policy.encode("a").tolist()
    for third in range(4):
        policy.set_logits(np.concatenate([prompt, [*sure * 2, third]]), [12, 0, 0, 0, -9])
        policy.set_logits(np.concatenate([prompt, [*sure * 2, third, *sure]]), [2, 1, 0, 0, -9])
    policy.set_logits(np.concatenate([prompt, sure * 2]), [1, 1, 1, 1, -9])
    watched = Watched(policy)
    samples = tree(watched, [Task("b", "7")], 6, context(1), by="entropy", width=2, branch=2, max_tokens=6)
    (_, _, _), *forks = watched.calls
    assert [len(p) - len(prompt) for asked, _, _ in forks for p in asked] == [2, 2, 4, 4]
    assert [s.meta["forked"] for s in samples] == [0, 0, 2, 2, 4, 4]
    few = tree(policy, [Task("b", "7")], 3, context(1), by="entropy", width=2, branch=2, max_tokens=6)
    assert [s.meta["forked"] for s in few] == [0, 0, 2]  # the least sure place first


def test_tokens_are_forked_behind_the_marks():
    policy = Watched(tabular(vocab=["so", "wait", "1", "2"], bias={"<end>": -1}))
    prompt = len(policy.encode("7"))
    samples = tree(policy, TASKS[1:2], 9, context(2), by="tokens", marks=("wait",), width=3, max_tokens=12)
    wait = 1
    later = [p for asked, _, _ in policy.calls[1:] for p in asked]
    assert len(samples) == 9
    assert len(later) == 6
    assert sum(len(p) > prompt for p in later) >= 3
    for p in later:
        assert len(p) == prompt or p[-1] == wait  # a chain of its own where no mark is left


@pytest.mark.parametrize("distinct", [0.3, 0.6])
def test_near_duplicates_among_siblings_leave_and_others_take_their_place(distinct: float):
    policy = Watched(tabular(vocab=["a", "b", "c", "|"], bias={"<end>": -3, "|": 0.5}))

    def words(ids: tuple[int, ...]) -> set[str]:
        return set(re.findall(r"\w+", policy.decode(np.array(ids))[0]))

    start = tuple(policy.encode("7").tolist())
    samples = tree(policy, TASKS[1:2], 6, context(3), width=4, branch=4, distinct=distinct, cut=("|",), max_tokens=10, step_tokens=4)
    assert len(samples) == 6
    assert samples[0].meta["dropped"] > 0
    *levels, _ = policy.calls if policy.calls[-1][1].stop == () else [*policy.calls, None]
    steps = {(p, tuple(c.ids.tolist())) for asked, _, (found, _) in levels for p, (c,) in zip(asked, found, strict=True)}
    whole = [tuple(start + tuple(s.ids.tolist())) for s in samples]
    alone = whole[-1:] if policy.calls[-1][1].stop == () else []
    kept: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for p, step in steps:
        if any(leaf[: len(p) + len(step)] == p + step for leaf in whole if leaf not in alone):
            kept.setdefault(p, set()).add(step)
    assert any(len(several) > 1 for several in kept.values())
    for several in kept.values():
        for a in several:
            for b in several - {a}:
                union = words(a) | words(b)
                assert union
                assert len(words(a) & words(b)) / len(union) <= distinct


def test_a_budget_that_is_spent_ends_the_forks():
    policy = Watched(tabular(vocab="ab|", bias={"<end>": -9}))
    samples = tree(policy, TASKS[1:2], 4, context(), branch=4, cut=("|",), max_tokens=12, step_tokens=2, budget_tokens=8)
    assert len(samples) == 4
    drawn = 0
    for asked, _, (found, _) in policy.calls:
        assert drawn < 8 or sorted(asked) == sorted(front)  # pyright: ignore[reportPossiblyUnboundVariable]
        front = [(*p, *c.ids.tolist()) for p, (c,) in zip(asked, found, strict=True) if c.stop != "end"]
        front = [p for p in front if len(p) < 13]
        drawn += sum(len(c.ids) for (c,) in found)
    assert drawn > 20
    few = tree(policy, TASKS[1:2], 8, context(), by="entropy", width=2, max_tokens=12, budget_tokens=20)
    assert [s.meta["forked"] for s in few] == [0, 0]
    some = tree(policy, TASKS[1:2], 8, context(), by="steps", width=2, cut=("|",), max_tokens=12, budget_tokens=1)
    assert len(some) == 2


def test_a_stop_text_ends_an_answer_and_a_cut_does_not():
    policy = tabular(vocab=["x", "|", "!"], bias={"<end>": -20})
    samples = tree(policy, TASKS[1:2], 20, context(), cut=("|",), stop=("!",), max_tokens=30)
    assert {s.stop for s in samples} <= {"stop", "length"}
    assert all(s.text.endswith("!") == (s.stop == "stop") and s.text.count("!") <= 1 for s in samples)
    assert any("|" in s.text for s in samples)


def test_greedy_trees_and_empty_ones():
    policy = tabular(vocab="ab|", bias={"a": 1.0, "<end>": -1})
    for way in ({"by": "steps"}, {"by": "entropy"}, {"by": "tokens", "marks": ("a",)}):
        samples = tree(policy, TASKS, 4, context(), temperature=0.0, max_tokens=7, distinct=0.9, step_tokens=2, **way)
        assert [s.text for s in samples] == ["a" * 7] * 12
        assert tree(policy, [], 4, context(), **way) == []


def test_levels_are_calls_for_all_tasks():
    policy = Watched(tabular(vocab="ab|", bias={"<end>": -9}))
    tree(policy, TASKS, 4, context(), cut=("|",), max_tokens=8, step_tokens=2)
    lengths = [len(asked) for asked, _, _ in policy.calls]
    assert lengths[0] == 12
    assert len(policy.calls) <= 8
    assert all(a >= b for a, b in pairwise(lengths))


def test_what_makes_no_tree_is_refused():
    policy = tabular(vocab="ab")
    for params, words in (
        ({"by": "words"}, "steps, entropy or tokens"),
        ({"branch": 0}, "each is 1 or more"),
        ({"by": "tokens", "marks": ()}, "marks"),
    ):
        with pytest.raises(Refused, match=words):
            tree(policy, TASKS, 4, context(), **params)
    policy.capabilities = frozenset()
    with pytest.raises(Refused, match="'entropy'"):
        tree(policy, TASKS, 4, context(), by="entropy")

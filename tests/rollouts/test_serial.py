"""Serial exits: where a thought is cut, what stands behind the cut, and what is drawn again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from guerdon.backends.base import SamplingParams
from guerdon.backends.tabular import tabular
from guerdon.registry import Refused
from guerdon.rollouts import serial_exits
from guerdon.samples import Context, Grain, Rewards, Sample, Task, collate

WORDS = ["a", "b", "</think>", "hurry", "7"]
TASKS = [Task("x", "p"), Task("y", "q")]
INDUCER = "hurry </think>"
HINT = [3, 2]


def context(seed: int = 0) -> Context:
    return Context(rng=np.random.default_rng(seed))


def rolled(n: int, policy: Any = None, seed: int = 0, **params: Any) -> tuple[list[Sample], Any, Context]:
    policy = policy or tabular(vocab=WORDS, bias={"</think>": -1.0, "hurry": -99.0, "<end>": -2.0})
    world = context(seed)
    samples = serial_exits(policy, TASKS, n, world, **{"inducer": INDUCER, "max_tokens": 20, "answer_tokens": 4, **params})
    return samples, policy, world


def tokens(s: Sample) -> list[int]:
    assert s.ids is not None
    return s.ids.tolist()


def thought_of(full: Sample) -> list[int]:
    ids = tokens(full)
    if 2 in ids:
        return ids[: ids.index(2)]
    return ids[:-1] if full.stop == "end" else ids


def groups(samples: list[Sample], sizes: list[int]) -> list[list[Sample]]:
    ends = np.cumsum(sizes).tolist()
    return [samples[end - size : end] for end, size in zip(ends, sizes, strict=True)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [1, 2, 5])
def test_random_exits_rise_and_the_whole_rollout_is_last(n: int, seed: int):
    samples, policy, world = rolled(n, seed=seed, exits=4)
    prompts = [policy.encode(str(task.prompt)) for task in TASKS]
    assert [s.group for s in samples] == [0] * n + [1] * n
    new = 0
    for several in groups(samples, [n, n]):
        *early, full = several
        thought = thought_of(full)
        assert full.written is not None
        assert full.written.all()
        assert [s.meta["exit"] for s in several] == list(range(n))
        assert {s.meta["thought"] for s in several} == {0}
        assert full.meta["exit_tokens"] == len(thought)
        places = [s.meta["exit_tokens"] for s in early]
        assert places == sorted(places)
        assert all(1 <= place <= len(thought) for place in places) or not thought
        if len(thought) >= len(places):
            assert len(set(places)) == len(places)
        answers = set()
        for s, place in zip(early, places, strict=True):
            ids = tokens(s)
            assert ids[:place] == thought[:place]
            assert ids[place : place + 2] == HINT
            assert s.written is not None
            assert s.logprobs is not None
            assert full.logprobs is not None
            assert s.written.tolist() == [True] * place + [False] * 2 + [True] * (len(ids) - place - 2)
            assert s.logprobs[:place].tolist() == full.logprobs[:place].tolist()
            assert np.isnan(s.logprobs[~s.written]).all()
            assert np.isfinite(s.logprobs[s.written]).all()
            assert 1 <= len(ids) - place - 2 <= 4
            answers |= {(place, *ids[place + 2 : t + 1]) for t in range(place + 2, len(ids))}
        new += len(tokens(full)) + len(answers)
    assert world.usage["rollouts"].new == new  # nothing of a thought is drawn twice
    assert world.usage["rollouts"].prompt >= sum(map(len, prompts))


def test_places_are_uniform_over_the_thought():
    """A thought of ten tokens, two exits: each place is in a fifth of the draws."""
    policy = tabular(vocab=WORDS)
    prompt = policy.encode("p")
    for t in range(11):
        policy.set_logits(np.concatenate([prompt, [0] * t]), [99.0 * (i == (2 if t == 10 else 0)) for i in range(6)])
    world, counts = context(), np.zeros(11)
    for _ in range(300):
        *early, full = serial_exits(policy, TASKS[:1], 3, world, exits=2, inducer=INDUCER, max_tokens=14, answer_tokens=1)
        assert thought_of(full) == [0] * 10
        counts[[s.meta["exit_tokens"] for s in early]] += 1
    assert counts[0] == 0
    assert counts.sum() == 600
    assert ((counts[1:] - 60) ** 2 / 60).sum() < 25  # chi-squared of 9 degrees, about one in a thousand


def test_log_probabilities_are_those_of_forward():
    samples, policy, _ = rolled(5, exits=2, temperature=0.7)
    batch = collate(samples, Rewards(Grain.of(np.zeros(10))))
    found = policy.forward(batch, temperature=0.7)[0]["logprobs"].numpy()
    for row, s in zip(found, samples, strict=True):
        assert s.logprobs is not None
        assert s.written is not None
        np.testing.assert_allclose(row[: len(s.logprobs)][s.written], s.logprobs[s.written], atol=1e-9)
    for name in ("thought", "exit", "exit_tokens"):
        assert batch.fields[name].tolist() == [s.meta[name] for s in samples]
    assert not batch.mask[0, samples[0].meta["exit_tokens"]]


def test_budgets_cut_there_and_past_the_end_give_the_whole_rollout_again():
    budgets = (2, 4, 9, 15)
    seen = set()
    for seed in range(8):
        samples, _, world = rolled(9 * 2, seed=seed, at=budgets, answers=2)
        new = 0
        for several in groups(samples, [9] * 4):
            *early, full = several
            thought = thought_of(full)
            ended = 2 in tokens(full) or full.stop == "end"
            assert [s.meta["exit"] for s in several] == [0, 0, 1, 1, 2, 2, 3, 3, 4]
            assert [s.meta["exit_tokens"] for s in several] == [min(b, len(thought)) for b in budgets for _ in "ab"] + [len(thought)]
            answers = set()
            for s, budget in zip(early, np.repeat(budgets, 2).tolist(), strict=True):
                cut = budget < len(thought) or not ended
                seen.add(cut)
                assert (tokens(s) == tokens(full)) == (not cut)
                if cut:
                    place = s.meta["exit_tokens"]
                    assert tokens(s)[: place + 2] == [*thought[:place], *HINT]
                    answers |= {(place, *tokens(s)[place + 2 : t + 1]) for t in range(place + 2, len(tokens(s)))}
            new += len(tokens(full)) + len(answers)
        thoughts = [tuple(thought_of(several[-1])) for several in groups(samples, [9] * 4)]
        assert world.usage["rollouts"].new <= new
        assert [s.meta["thought"] for s in samples] == ([0] * 9 + [1] * 9) * 2
        assert len(thoughts) == 4
    assert seen == {True, False}


def test_a_thought_that_max_tokens_cut_off_is_answered_there():
    policy = tabular(vocab=WORDS, bias={"</think>": -99.0, "hurry": -99.0, "<end>": -99.0})
    samples, _, _ = rolled(4, policy, at=(3, 8, 30), max_tokens=8)
    for several in groups(samples, [4, 4]):
        assert [s.meta["exit_tokens"] for s in several] == [3, 8, 8, 8]
        assert [tokens(s).count(3) for s in several] == [1, 1, 1, 0]
        assert several[-1].stop == "length"


def test_n_is_shared_out_to_thoughts():
    for n, sizes in ((9, [9]), (10, [10]), (6, [3, 3]), (7, [3, 4]), (5, [5])):
        samples, _, _ = rolled(n, exits=2 if n in (6, 7) else 8)
        for mine in groups(samples, [n, n]):
            found = [[s for s in mine if s.meta["thought"] == j] for j in range(len(sizes))]
            assert list(map(len, found)) == sizes
            assert [s for several in found for s in several] == mine
            for several in found:
                assert [s.meta["exit"] for s in several] == list(range(len(several)))
    samples, _, _ = rolled(6, exits=2, answers=3)
    assert [s.meta["exit"] for s in samples[:6]] == [0, 0, 0, 1, 1, 2]
    assert len({s.meta["exit_tokens"] for s in samples[:3]}) == 1


def test_a_path_says_what_is_shared():
    samples, _, _ = rolled(5, exits=4, seed=3)
    *early, full = samples[:5]
    assert len({s.path for s in samples[:5]}) > 1
    for s in early:
        if s.meta["exit_tokens"]:
            assert s.path[0] == full.path[0] == 0


def test_a_thought_of_no_tokens_is_left_at_once():
    policy = tabular(vocab=WORDS, bias={"</think>": 99.0})
    samples, _, _ = rolled(3, policy, exits=2, max_tokens=3)
    for *early, full in groups(samples, [3, 3]):
        assert [s.meta["exit_tokens"] for s in early] == [0, 0]
        assert all(tokens(s)[:2] == HINT for s in early)
        assert full.meta["exit_tokens"] == 0


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"at": "uniform"}, "random"),
        ({"at": (4, 4)}, "rise from 1 on"),
        ({"at": (0, 4)}, "rise from 1 on"),
        ({"at": ()}, "rise from 1 on"),
        ({"at": (2, 4)}, "ask for 3"),
        ({"exits": 0}, "each is 1 or more"),
    ],
)
def test_what_gives_no_exits_is_refused(params: dict[str, Any], words: str):
    with pytest.raises(Refused, match=words):
        rolled(5, **params)


def test_the_answers_are_of_what_the_policy_sees():
    """A table that answers 7 behind the inducer and nothing else."""
    policy = tabular(vocab=WORDS, bias={"</think>": -1.0, "hurry": -99.0})
    samples, _, _ = rolled(5, policy, exits=4, seed=1)
    for s in samples:
        if s.meta["exit"] < 4:
            place = s.meta["exit_tokens"]
            assert s.ids is not None
            prefix = np.concatenate([policy.encode(str(s.task.prompt)), s.ids[: place + 2]])
            policy.set_logits(prefix, [0, 0, 0, 0, 99, 0])
    again, _, _ = rolled(5, policy, exits=4, seed=1)
    assert all(s.ids[s.meta["exit_tokens"] + 2] == 4 for s in again if s.meta["exit"] < 4 and s.ids is not None)
    assert SamplingParams().limits == ()

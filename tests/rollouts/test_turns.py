"""Conversations: who wrote which token, where a turn ends and why a sample does."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from transformers import LlamaConfig, LlamaForCausalLM

from guerdon.backends.local import local
from guerdon.backends.tabular import tabular
from guerdon.envs.guess import guess
from guerdon.envs.guess import words as guess_words
from guerdon.envs.lookup import lookup, words
from guerdon.envs.tiny import tokenizer
from guerdon.envs.tools import Reply, tool
from guerdon.registry import Refused
from guerdon.rollouts import multi_turn
from guerdon.samples import HOSTILE, Context, Grain, Rewards, Task, collate
from guerdon.scoring import Engine
from guerdon.training.metrics import is_clock
from guerdon.training.run import train
from guerdon.workers import Pool

KEYS = 6


@tool(name="echo", inline=True)
def echo(text: str, task: Task, history, size: int = 1) -> Reply:
    """Says as many words as asked; ends at the word end."""
    if "boom" in text:
        raise ValueError("boom")
    return Reply(" ".join(["word"] * size), done="end" in text)


@tool(name="slow", deadline=0.5)
def slow(text: str, task: Task, history) -> Reply:
    while "hang" in text:
        pass
    return Reply("fine")


def talk(vocab, tool, n=1, prompts=("p",), seed=0, tasks=None, bias=None, write=(), workers=None, **params):
    policy = tabular(vocab=vocab, bias=bias)
    for prefix, word in write:
        ids = np.concatenate([policy.encode("p"), policy.encode(prefix)])
        policy.set_logits(ids, [60.0 * (name == word) for name in policy.names])
    context = Context(rng=np.random.default_rng(seed), workers=workers)
    tasks = [Task(p, p) for p in prompts] if tasks is None else tasks
    return multi_turn(policy, tasks, n, context, tool=tool, stop=(), **params), policy, context


def scripted(said: list[str], vocab=("a", "hang", "boom", "end", "word", "fine"), tool="echo", reply="word", **params):
    """One sample of a policy that says these words, one a turn."""
    write, prefix = [], ""
    for word in said:
        write.append((prefix, word))
        prefix = f"{prefix} {word} {reply}".strip()
    return talk(vocab, tool, write=write, turn_tokens=1, **params)[0][0]


@given(st.integers(0, 2**32 - 1))
def test_turns_are_what_the_policy_wrote_and_replies_what_the_tool_did(seed):
    samples, policy, context = talk(
        words(KEYS), "lookup", n=3, tasks=lookup(2, KEYS, 2), seed=seed, bias={"QUERY": 3.0, "ANSWER": 2.0, "<end>": -2.0},
        max_turns=4, turn_tokens=2,
    )  # fmt: skip
    new = 0
    for s in samples:
        rebuilt, replies = [], iter(s.meta["replies"])
        for start, end in s.spans["turn"]:
            assert s.written[start:end].all()
            assert end - start <= 2
            rebuilt += s.ids[start:end].tolist()
            reply = next(replies, None)
            rebuilt += [] if reply is None else policy.encode_answer(reply)[:-1].tolist()
        assert rebuilt == s.ids.tolist()
        assert sum(end - start for start, end in s.spans["turn"]) == s.written.sum()
        assert np.isnan(s.logprobs[~s.written]).all()
        assert np.isfinite(s.logprobs[s.written]).all()
        assert s.spans["step"][0][0] == 0
        assert [a for a, _ in s.spans["step"]] == [a for a, _ in s.spans["turn"]]
        assert [b for _, b in s.spans["step"]] == [*(a for a, _ in s.spans["turn"][1:]), len(s.ids)]
        assert "".join(s.steps) == s.text
        assert [x.split() for x in s.cut("turn")] == [
            [policy.names[i] for i in s.ids[a:b].tolist() if i < policy.end] for a, b in s.spans["turn"]
        ]
        assert s.path
        answered = s.cut("turn")[-1].split()[:1] == ["ANSWER"]
        assert s.stop in (("tool", "end") if answered else ("end", "length"))  # no tool is asked behind an end token
        new += int(s.written.sum())
    rewards = Rewards(Grain.of(np.zeros(len(samples))))
    batch = collate(samples, rewards)
    scored = policy.forward(batch)[0]["logprobs"].numpy()
    for i, s in enumerate(samples):
        np.testing.assert_allclose(scored[i, : len(s.ids)][s.written], s.logprobs[s.written], atol=1e-9)
        steps = batch.step_of[i, : len(s.ids)]
        assert [int(x) for x in steps[s.written].unique()] == list(range(len(s.spans["turn"])))
    assert 0 < context.usage["rollouts"].new <= new  # what samples share is computed once


def test_the_policy_sees_what_the_tool_said():
    s = scripted(["a", "a", "end"])
    assert s.text == "a word a word end word"
    assert s.written.tolist() == [True, False, True, False, True, False]
    assert s.stop == "tool"
    assert s.meta["replies"] == ["word"] * 3


@pytest.mark.parametrize(
    ("said", "params", "stop", "text"),
    [
        (["a", "<end>"], {}, "end", "a word"),
        (["a", "a", "a"], {"max_turns": 2}, "length", "a word a word"),
        (["a", "a", "a"], {"max_tokens": 3}, "length", "a word a"),
        (["a", "a", "a"], {"max_tokens": 2}, "length", "a word"),
        (["a", "end"], {"max_tokens": 3}, "tool", "a word end"),
        (["a"], {"max_tokens": 3, "tool": {"use": "echo", "size": 3}}, "length", "a"),
        (["a", "boom"], {}, "error", "a word boom"),
    ],
)
def test_why_a_sample_ends(said, params, stop, text):
    s = scripted(said, **params)
    assert (s.stop, s.text) == (stop, text)
    assert s.meta.get("tool_error") == ("ValueError: boom" if stop == "error" else None)


def test_a_turn_is_cut_at_the_budget_and_then_no_tool_is_asked():
    samples, _, _ = talk(("a", "word"), "echo", n=4, bias={"a": 50.0}, turn_tokens=4, max_tokens=7)
    assert [s.text for s in samples] == ["a a a a word a a"] * 4
    assert {s.stop for s in samples} == {"length"}


def test_a_turn_ends_at_a_stop_text_which_it_keeps():
    policy = tabular(vocab="ab\nword ", bias={"\n": 1.0})
    samples = multi_turn(policy, [Task("p", "p")], 8, Context(rng=np.random.default_rng(0)), tool="echo", max_turns=3, turn_tokens=9)
    ended = [turn for s in samples for turn in s.cut("turn") if "\n" in turn]
    assert ended
    assert all(turn.index("\n") == len(turn) - 1 for turn in ended)


def test_a_tool_that_hangs_ends_its_own_sample_and_no_other():
    policy = tabular(vocab=("a", "hang", "fine"))
    for prompt, word in (("p", "a"), ("q", "hang")):
        policy.set_logits(policy.encode(prompt), [60.0 * (name == word) for name in policy.names])
    with Pool(2) as pool:
        context = Context(rng=np.random.default_rng(0), workers=pool)
        p, q = multi_turn(policy, [Task("p", "p"), Task("q", "q")], 1, context, tool="slow", stop=(), turn_tokens=1, max_turns=1)
    assert (p.text, p.stop, p.meta.get("tool_error")) == ("a fine", "length", None)
    assert (q.text, q.stop, q.meta["replies"]) == ("hang", "error", [])
    assert q.meta["tool_error"].startswith(f"{HOSTILE}: past its deadline")
    assert q.spans["turn"] == [(0, 1)]


def test_other_splits_cut_the_text_as_usual():
    samples, _, _ = talk(("a", "word", "end"), "echo", split="lines", turn_tokens=1, max_turns=3, write=[("", "a"), ("a word", "a")])
    assert samples[0].steps == [samples[0].text]
    assert len(samples[0].cut("turn")) == 3


def test_a_reply_that_the_policy_cannot_read_is_refused_with_the_word():
    with pytest.raises(Refused, match="'word'"):
        talk(("a",), "echo", turn_tokens=1, bias={"<end>": -50.0})


def test_wrong_arguments_are_refused():
    for params in ({"max_turns": 0}, {"max_tokens": 0}, {"turn_tokens": 0}):
        with pytest.raises(Refused, match="1 or more"):
            talk(("a", "word"), "echo", **params)
    for name in ("ecko", {"size": 1}):
        with pytest.raises(Refused, match="There is no tool"):
            talk(("a",), name)
    assert talk(("a",), "echo", tasks=[])[0] == []


def test_verifiers_of_the_worlds_judge_what_was_rolled_out():
    policy = tabular(vocab=guess_words(4))
    context = Context(rng=np.random.default_rng(0))
    tasks = [task for task in guess(30, 4) if task.reference in "13"]
    for prefix, word in (("", "2"), ("2 lower", "1"), ("2 higher", "4")):
        ids = np.concatenate([policy.encode("1 to 4"), policy.encode(prefix)])
        policy.set_logits(ids, [60.0 * (name == word) for name in policy.names])
    samples = multi_turn(policy, tasks, 1, context, tool="guess", stop=(), turn_tokens=1, max_turns=2)
    with Engine(Context(), workers=1) as engine:
        rewards = engine.score("guess + guess_bits", samples)
    assert rewards.outcome is not None
    assert rewards.step is not None
    one = np.array([task.reference == "1" for task in tasks])
    np.testing.assert_array_equal(rewards.outcome.value, one)
    np.testing.assert_allclose(rewards.step.value[one], [[1.0, 0.0]] * one.sum())  # 2 lower leaves 1 alone
    np.testing.assert_allclose(rewards.step.value[~one], [[0.5, 0.5]] * (~one).sum())  # 2 higher leaves 3 and 4, 4 lower leaves 3


def test_a_broken_tool_is_no_wrong_answer():
    s = scripted(["a", "boom"])
    s.task = Task("p", "p", "k1")
    with Engine(Context(), workers=1) as engine:
        rewards = engine.score("lookup", [s])
        s.meta["tool_error"] = f"{HOSTILE}: past its deadline of 1 s"
        hostile = engine.score("lookup", [s])
    assert rewards.failed.all()
    assert rewards.why(0) == "the tool: ValueError: boom"
    assert hostile.alive.all()
    assert hostile.hostile.all()
    assert hostile.total().tolist() == [0.0]


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-4), ("float64", 1e-9)])
def test_log_probabilities_of_a_transformer_are_those_of_the_whole_computed_alone(dtype, close):
    torch.manual_seed(0)
    size: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, initializer_range=0.3)
    characters = tokenizer()
    config = LlamaConfig(vocab_size=len(characters), bos_token_id=None, eos_token_id=1, pad_token_id=0, **size)
    model = local((LlamaForCausalLM(config).double(), characters), dtype=dtype)
    tasks = [Task("a", "12*3-4="), Task("b", "7")]
    context = Context(rng=np.random.default_rng(0))
    params = {"tool": {"use": "echo", "size": 2}, "stop": tuple("0123456789aeiou"), "turn_tokens": 9, "max_turns": 4, "max_tokens": 50}
    samples = multi_turn(model, tasks, 4, context, temperature=0.9, **params)
    assert {s.stop for s in samples} >= {"length"}
    assert len({len(s.ids) for s in samples if s.ids is not None}) > 2
    for s in samples:
        assert s.written is not None
        assert s.logprobs is not None
        assert set(s.meta["replies"]) <= {"word word"}
        alone = model.forward(collate([s], Rewards(Grain.of([0.0]))), temperature=0.9)[0]["logprobs"][0].numpy()
        np.testing.assert_allclose(s.logprobs[s.written], alone[: len(s.written)][s.written], atol=close, rtol=close)
        assert s.cut("turn") == [model.decode(s.ids[a:b])[0] for a, b in s.spans["turn"]]


def test_a_run_with_a_tool_that_was_stopped_ends_with_the_same_numbers(tmp_path):
    """Evaluated with its tool, and paid by turns."""
    tasks = {"use": "lookup", "n": 8, "keys": KEYS, "hops": 2}
    bias = {"QUERY": 3.0, "ANSWER": 2.0, "<end>": -2.0}

    def go(folder: str, steps: int, **more):
        return train(
            {
                "models": {"policy": {"backend": "tabular", "vocab": words(KEYS), "bias": bias}},
                "tasks": tasks,
                "reward": "lookup + belief(template='ANSWER {answer}')", "correct": "lookup", "credit": {"use": "igpo", "separate": True},
                "rollout": {"use": "multi_turn", "tool": "lookup", "stop": [], "turn_tokens": 2, "max_turns": 3},
                "train": {"steps": steps, "prompts": 4, "samples": 4, "lr": 0.5, "checkpoint_every": 1},
                "eval": {"tasks": {**tasks, "seed": 9}, "every": 4, "samples": 8, "temperature": 1.0},
                "threads": 1,
            },
            folder=None if more else tmp_path / folder, **more,
        )  # fmt: skip

    whole = go("whole", 4)
    go("half", 2)
    resumed = go("half", 4, resume=tmp_path / "half")
    kept = [[{k: v for k, v in row.items() if not is_clock(k)} for row in result.metrics] for result in (whole, resumed)]
    last = [rows[-1] for rows in kept]
    assert last[0] == last[1]
    assert kept[0][1]["step"] == 1
    assert last[0]["eval/pass@1"] > 0

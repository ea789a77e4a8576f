"""What every registered reward keeps to, today's and tomorrow's. A reward that needs a model or another service is met with a stand-in."""

from __future__ import annotations

import functools
import json
import re

import numpy as np
import pytest

import guerdon.reward_models
import guerdon.rewards  # noqa: F401  fills the registry
from guerdon.backends.scripted import Says, Scripted, Weighing
from guerdon.registry import pieces
from guerdon.rewards.core import Reward
from guerdon.samples import Context, Progress, Rewards, Sample, State, Task
from guerdon.scoring import Engine
from guerdon.spans import mark

REWARDS = [piece.about["reward"] for piece in pieces("reward") if piece.where.startswith("guerdon.")]
OFFERED = {"workers", "sandbox", "rng", "progress"}  # services that a scoring process has without a model
FITTED = ("newest_step", "reward_model")  # need the folder of a fitted model: tests/reward_models/test_newest.py and test_fit.py have one
PLAIN = [reward for reward in REWARDS if set(reward.services) <= OFFERED and reward.name not in FITTED]
BIG = 10_000_000

ORDINARY = [
    "The answer is 42.",
    "<think>6 * 7 = 42</think><answer>42</answer>",
    "so \\boxed{\\frac{1}{2}}",
    "6*7=42\n#### 42",
    "",
    " \n\t ",
    "\x00\x00",
    "a\x00b \ufffd \u202e 🎲 ١٢ ½",
    "</think></answer><answer>",
    "nan",
    "It is not 42.",
    "42 43 44",
]
ATTACKS = [
    "\\boxed{" * 2000,
    "(" * 5000 + "1" + ")" * 5000,
    "9^9^9^9",
    "\\boxed{9^{9^{9^{9}}}}",
    "1e999999999",
    "{" * 10_000,
    "-" * 10_000 + "1",
]


def make(text: str, reference: object = "42", group: int = 0, **more: object) -> Sample:
    sample = Sample(Task(f"t{group}", "What is 6 * 7?", reference), text, group=group, stop="end", meta=dict(more))
    sample.ids = np.frombuffer(text.encode("utf-8", "surrogatepass")[:2000], dtype=np.uint8).astype(np.int64)
    sample.offsets = np.stack([np.arange(len(sample.ids)), np.arange(1, len(sample.ids) + 1)], 1)
    mark(sample)
    return sample


@functools.cache
def stand_in():
    """A small model of random weights that any reward may ask, whatever name it asks for."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from guerdon.backends.local import local
    from guerdon.envs.tiny import tokenizer

    tokens = tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16384, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return local((LlamaForCausalLM(config), tokens), head="scalar", trainable=False, dtype="float64")


def listed(messages: list[dict], rng: np.random.Generator) -> str:
    """A listwise verdict on all names of the question."""
    names = re.findall(r"<<<(model-\d+) ", messages[-1]["content"])
    return json.dumps({"scores": {name: int(rng.integers(1, 6)) for name in names}, "best-to-worst": names})


JUDGED = {
    "judge": ('{"score": 3}', '{"score": 9}'),
    "judge_correct": ("yes", "no"),
    "preferred": ('{"winner": "A"}', '{"winner": "B"}', '{"winner": "tie"}'),
    "graded": ("CORRECT", "INCORRECT", "NOT_ATTEMPTED"),
    "rewardanything": listed,
    "rm_r1": ("<answer>[[A]]</answer>", "<answer>[[B]]</answer>"),
    "think_rm": tuple(f"<rationale>so</rationale><answer>{x}</answer>" for x in (-3, -1, 2)),
    "genprm": ("Verdict:",),
    "nuggets": ('["support"]', '["partial_support"]', '["not_support"]'),
}
"""What a judge may say to the rewards that read its words: one of these, by the words of the question, or what a function says of them."""


def judging(answers: tuple[str, ...] | Says) -> Scripted:
    says = answers if callable(answers) else lambda messages, rng: str(rng.choice(answers))
    return Weighing(says, lambda messages, begun, words: -float(len(messages[-1]["content"]) % (3 + len(words))))


def context(reward: Reward, seed: int = 0) -> Context:
    model = judging(JUDGED[reward.name]) if reward.name in JUDGED else None
    models = {name: model or stand_in() for name in reward.models.values()}
    return Context(rng=np.random.default_rng(seed), progress=Progress(3, 10), models=models)


def score(reward: Reward, samples: list[Sample], seed: int = 0) -> Rewards:
    with Engine(context(reward, seed), workers=1) as engine:
        return engine.score(reward, samples)


def same(a: Rewards, b: Rewards) -> None:
    """Equal states, values (a model's to rounding) and reasons of each sample; padding aside."""
    np.testing.assert_array_equal(a.state, b.state)
    np.testing.assert_allclose(a.total(), b.total(), rtol=1e-9, atol=1e-9)
    assert [a.why(i) for i in range(len(a))] == [b.why(i) for i in range(len(b))]


def well_formed(rewards: Rewards, n: int) -> None:
    assert len(rewards) == n
    for _, g in rewards.grains():
        assert np.isfinite(g.value).all()
        assert (g.value[~g.scored] == 0).all()
        assert set(np.unique(g.state)) <= {0, 1, 2}
    for i in np.flatnonzero(rewards.state == State.FAILED):
        assert rewards.why(int(i)), "failed without a reason"
    for name, entry in rewards.evidence.items():
        assert len(entry) == n, name


every = pytest.mark.parametrize("reward", PLAIN, ids=str)


def test_there_are_rewards_to_test():
    assert {"exact", "format", "length"} <= {reward.name for reward in PLAIN}


@pytest.mark.parametrize("reward", REWARDS, ids=str)
def test_it_says_what_it_is(reward):
    assert reward.fn.__doc__
    assert reward.grain in ("outcome", "step", "token")
    assert reward.deadline > 0
    assert np.isfinite(reward.wrong)
    assert reward.version


@every
def test_no_text_makes_it_raise_or_fail(reward):
    samples = [make(text, group=i) for i, text in enumerate([*ORDINARY, *ATTACKS])]
    rewards = score(reward, samples)
    well_formed(rewards, len(samples))
    assert not rewards.failed.any(), [rewards.why(i) for i in np.flatnonzero(rewards.failed)]


@every
def test_ten_megabytes_are_only_more_text(reward):
    samples = [make("12 " * (BIG // 3), group=0), make("The answer is 42.", group=1)]
    rewards = score(reward, samples)
    well_formed(rewards, 2)
    assert not rewards.failed.any()
    same(rewards.rows([1]), score(reward, samples[1:]))


@every
def test_a_missing_reference_is_failed_and_nothing_else_is(reward):
    rewards = score(reward, [make("The answer is 42.", None, 0), make("The answer is 42.", "42", 1)])
    if "reference" in reward.fields:
        assert rewards.state[0] == State.FAILED
        assert rewards.why(0) == "the task has no reference"
    assert rewards.state[1] != State.FAILED


@every
def test_an_empty_batch_has_no_rewards(reward):
    assert len(score(reward, [])) == 0


@every
def test_permuted_samples_have_permuted_rewards(reward):
    samples = [make(text, group=i % 3) for i, text in enumerate(ORDINARY)]
    order = np.random.default_rng(1).permutation(len(samples))
    same(score(reward, samples).rows(order), score(reward, [samples[i] for i in order]))


@every
def test_the_same_seed_gives_the_same_rewards(reward):
    samples = [make(text, group=i % 3) for i, text in enumerate(ORDINARY)]
    same(score(reward, samples), score(reward, samples))


@every
def test_samples_stay_as_they_were(reward):
    samples, before = ([make(text, group=i % 3, x=[i]) for i, text in enumerate(ORDINARY)] for _ in range(2))
    score(reward, samples)
    for a, b in zip(samples, before, strict=True):
        assert (a.task, a.text, a.meta, a.marks, a.spans, a.group) == (b.task, b.text, b.meta, b.marks, b.spans, b.group)
        np.testing.assert_array_equal(a.ids, b.ids)


@pytest.mark.parametrize("reward", [r for r in PLAIN if r.scope == "sample"], ids=str)
def test_other_samples_change_nothing_for_a_reward_of_one_sample(reward):
    samples = [make(text, group=i % 3) for i, text in enumerate(ORDINARY)]
    together = score(reward, samples)
    for i in range(0, len(samples), 3):
        same(together.rows([i]), score(reward, [samples[i]]))


@pytest.mark.parametrize("reward", [r for r in PLAIN if r.scope == "group"], ids=str)
def test_other_groups_change_nothing_for_a_reward_of_groups(reward):
    samples = [make(text, group=i % 3) for i, text in enumerate(ORDINARY)]
    together = score(reward, samples)
    for g in range(3):
        rows = [i for i, s in enumerate(samples) if s.group == g]
        same(together.rows(rows), score(reward, [samples[i] for i in rows]))

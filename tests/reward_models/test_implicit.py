"""Implicit rewards against a hand-made difference of two passes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.registry import find
from guerdon.reward_models import implicit, implicit_ce
from guerdon.reward_models.implicit import moved
from guerdon.samples import HOSTILE, Grain, Rewards, Sample, State, Task, collate

TEXTS = [("1+2=", "3\n"), ("1+2=", "1+2\n3\n=3"), ("12-3+4=", "9+4\n13\n\n13"), ("7=", "7")]


@pytest.fixture(scope="module")
def two(characters: Any) -> tuple[Any, Any]:
    return characters(1), characters(2)


def test_token_rewards_are_the_difference_of_two_passes(two: Any, write: Any, token_logprobs: Any):
    (causal, model), (base, reference) = two
    samples = [write(model, *text) for text in TEXTS]
    for s, found in zip(samples, implicit.fn(samples, model, reference, beta=0.05), strict=True):
        expected = 0.05 * (token_logprobs(causal, s.prompt_ids, s.ids) - token_logprobs(base, s.prompt_ids, s.ids))
        np.testing.assert_allclose(found, expected, atol=1e-9)
    one_by_one = [implicit.fn([s], model, reference)[0] for s in samples]
    for a, b in zip(one_by_one, implicit.fn(samples, model, reference), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    assert implicit.fn(samples[:1], model, model)[0] == [0.0] * 3


def test_both_passes_have_the_temperature_that_is_asked_for(two: Any, write: Any):
    (_, model), (_, reference) = two
    sample = write(model, "1+2=", "1+2\n3")
    batch = collate([sample], Rewards(Grain.of([0.0])))
    cold, other = (m.forward(batch, ("logprobs",), 0.5)[0]["logprobs"][0] for m in (model, reference))
    np.testing.assert_allclose(implicit.fn([sample], model, reference, beta=2.0, temperature=0.5)[0], 2 * (cold - other), atol=1e-9)


def test_tokens_that_the_policy_did_not_write_abstain(two: Any, write: Any):
    (_, model), (_, reference) = two
    sample = write(model, "1+2=", "3\n3")
    whole = implicit.fn([sample], model, reference)[0]
    with_tool = replace(sample, written=np.array([True, False, True, True]))
    assert implicit.fn([with_tool], model, reference)[0] == [whole[0], None, *whole[2:]]


def test_a_text_without_tokens_and_one_that_is_too_long(two: Any):
    (_, model), (_, reference) = two
    alone = Sample(Task("t", "1="), "12")  # read from a file: its values stand on the model's tokens
    assert len(implicit.fn([alone], model, reference)[0]) == 2
    long = implicit.fn([Sample(Task("t", "1="), "1" * 200_000)], model, reference)[0]
    assert long.reason.startswith(HOSTILE)
    more = implicit.fn([Sample(Task("t", "1="), "1" * 80)], model, reference)[0]
    assert more.state == State.FAILED
    assert more.reason == "82 tokens, and the model reads 64"


def test_a_model_with_another_tokenizer_speaks_of_the_policys_tokens(pairs: Any, characters: Any, write: Any, token_logprobs: Any):
    (causal, model), (base, reference) = pairs(4), pairs(5)
    policy = characters(3)[1]
    for prompt, text in TEXTS:
        sample = write(policy, prompt, text)
        mine, own = model.encode_answer(text)[:-1], model.encode(prompt)
        ratio = 0.05 * (token_logprobs(causal, own, mine) - token_logprobs(base, own, mine))
        expected = np.zeros(len(sample.ids))
        for k, value in enumerate(ratio):  # two characters a token: each value on the second one, or the only one
            expected[min(2 * k + 1, len(text) - 1)] += value
        np.testing.assert_allclose(implicit.fn([sample], model, reference)[0], expected, atol=1e-9)


def test_moved_by_hand():
    """`ab` `c` of one tokenizer on `a` `bc` <end> of another: the last character of `ab` is in `bc`."""
    onto = np.array([[0, 1], [1, 3], [3, 3]])
    assert moved(np.array([2.0, 5.0]), np.array([[0, 2], [2, 3]]), onto).tolist() == [0.0, 7.0, 0.0]
    assert moved(np.array([]), np.zeros((0, 2), dtype=int), onto).tolist() == [0.0, 0.0, 0.0]
    assert moved(np.array([1.0]), np.array([[0, 1]]), np.zeros((0, 2), dtype=int)).tolist() == []


@given(seed=st.integers(0, 2**32 - 1))
def test_moved_loses_nothing_and_goes_where_the_last_character_is(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))

    def cut() -> np.ndarray:
        inner = np.unique(rng.integers(1, n, int(rng.integers(0, n)))) if n > 1 else np.zeros(0, dtype=int)
        ends = np.append(inner, n)
        return np.stack([np.concatenate([[0], ends[:-1]]), ends], 1)

    mine, onto = cut(), cut()
    values = rng.normal(size=len(mine))
    found = moved(values, mine, onto)
    expected = np.zeros(len(onto))
    for value, (_, end) in zip(values, mine, strict=True):
        expected[next(k for k, (a, b) in enumerate(onto) if a <= end - 1 < b)] += value
    np.testing.assert_allclose(found, expected)


@given(seed=st.integers(0, 2**32 - 1))
def test_the_gradient_of_implicit_ce_by_hand(awkward, seed):
    """d loss / d log pi of a token that counts: w beta (s - o)."""
    batch = awkward(seed)
    logp = (-torch.from_numpy(np.random.default_rng(seed).exponential(1.0, batch.ids.shape))).requires_grad_()
    loss, _ = implicit_ce({"logprobs": logp}, batch, beta=0.3)
    (grad,) = torch.autograd.grad(loss, logp)
    for i in range(len(batch)):
        counted = [u for u in range(batch.ids.shape[1]) if float(batch.weights[i, u])]
        z = 0.3 * sum(float(logp[i, u].detach()) - float(batch.fields["ref_logprobs"][i, u]) for u in counted)
        o = min(1.0, max(0.0, float(batch.outcome[i])))
        expected = float(batch.weights[i].max()) * 0.3 * (1 / (1 + np.exp(-z)) - o)
        np.testing.assert_allclose(grad[i, counted], expected, atol=1e-9)


def test_running_sums_are_soft_values():
    """Where log pi / pi_ref = (r - its soft mean) / beta, the sum up to t is beta log E_ref[exp(r / beta) | y_<=t], here by enumeration,
    less that of the empty answer. Three symbols, answers of three."""
    rng, beta, prompt = np.random.default_rng(3), 0.7, np.array([100])
    ref, model = (find("backend", "tabular").fn(vocab="abc", trainable=False) for _ in range(2))
    chance = {y: rng.dirichlet(np.ones(3)) for t in range(3) for y in itertools.product(range(3), repeat=t)}
    reward = {y: rng.normal() for y in itertools.product(range(3), repeat=3)}

    def soft(y: tuple[int, ...]) -> float:
        return np.exp(reward[y] / beta) if len(y) == 3 else sum(chance[y][c] * soft((*y, c)) for c in range(3))

    for y, p in chance.items():
        tilted = [p[c] * soft((*y, c)) / soft(y) for c in range(3)]
        for table, row in ((ref, p), (model, tilted)):
            table.set_logits(np.append(prompt, y).astype(np.int64), [*np.log(row), -np.inf])
    for y in reward:
        ids = np.array(y)
        text, offsets = ref.decode(ids)
        (found,) = implicit.fn([Sample(Task("t", "a"), text, prompt, ids, offsets, np.ones(3, bool))], model, ref, beta=beta)
        expected = [beta * np.log(soft(y[: t + 1]) / soft(())) for t in range(3)]
        np.testing.assert_allclose(np.cumsum(found), expected, atol=1e-9)

"""Sampling of the local backend: against transformers' own generation, against distributions worked out by hand, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from guerdon.backends import sampling
from guerdon.backends.base import SamplingParams
from guerdon.backends.local import local
from guerdon.envs.tiny import tokenizer
from guerdon.registry import Broke, Refused

CHARACTERS = tokenizer()
PROMPTS = ("1+2=", "12*3-4+15=", "7")


def llama(seed: int = 0, **more: Any) -> Any:
    torch.manual_seed(seed)
    size: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, initializer_range=0.3)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(CHARACTERS), bos_token_id=None, eos_token_id=1, pad_token_id=0, **size, **more))


@pytest.fixture(scope="module")
def model() -> Any:
    return local((llama(), CHARACTERS))


def sample(model: Any, prompts: tuple[str, ...] = PROMPTS, n: int = 4, **params: Any) -> Any:
    return model.sample([model.encode(p) for p in prompts], n, SamplingParams(**{"max_tokens": 8, "seed": 5, **params}))


def ids(groups: Any) -> list[list[list[int]]]:
    return [[c.ids.tolist() for c in group] for group in groups]


def test_greedy_is_that_of_transformers(model: Any):
    groups, _ = sample(model, n=1, max_tokens=20, temperature=0)
    for prompt, (completion,) in zip(PROMPTS, groups, strict=True):
        given = torch.tensor(model.encode(prompt))[None]
        out = model.causal.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=20, do_sample=False)
        assert out[0, given.shape[1] :].tolist() == completion.ids.tolist()


def test_the_same_seed_gives_the_same_bits_and_rows_hardly_feel_each_other(model: Any):
    first, _ = sample(model)
    again, _ = sample(model)
    for a, b in zip((c for g in first for c in g), (c for g in again for c in g), strict=True):
        assert a.ids.tolist() == b.ids.tolist()
        assert np.array_equal(a.logprobs, b.logprobs)
    assert ids(sample(model, PROMPTS[:1])[0])[0] == ids(first)[0]  # without the other prompts
    assert [g[:2] for g in ids(first)] == ids(sample(model, n=2)[0])  # and without the later samples
    assert ids(sample(model, seed=6)[0]) != ids(first)
    twice, _ = sample(model, ("1+2=", "1+2="))
    assert ids(twice)[0] != ids(twice)[1]  # a prompt given twice is sampled anew


def test_a_cache_too_small_for_all_rows_gives_the_same_completions():
    small = local((llama(), CHARACTERS), cache_tokens=40)
    large = local((llama(), CHARACTERS))
    a, usage = sample(small, n=5)
    b, _ = sample(large, n=5)
    assert ids(a) == ids(b)
    assert usage.prompt == 5 * (4 + 10 + 1)
    assert 0 < usage.cached < usage.prompt


def test_numbers_are_uniform_and_hang_on_every_coordinate():
    rows = np.arange(50_000, dtype=np.uint64)
    zero = np.zeros_like(rows)
    streams = [
        sampling.uniform(s, p, r, t) for s, p, r, t in ((0, zero, rows, 0), (1, zero, rows, 0), (0, zero + 1, rows, 0), (0, zero, rows, 1))
    ]
    streams.append(sampling.uniform(0, rows, zero, 0))
    for u in streams:
        assert u.min() >= 0
        assert u.max() < 1
        counts = np.histogram(u, bins=20, range=(0, 1))[0]
        assert ((counts - 2500) ** 2 / 2500).sum() < 44  # chi-squared of 19 degrees, one in a thousand
    correlations = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlations).max() < 5 / np.sqrt(len(rows))
    assert abs(np.corrcoef(streams[0][:-1], streams[0][1:])[0, 1]) < 5 / np.sqrt(len(rows))


P = [0.05, 0.4, 0.15, 0.3, 0.1]


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        ({}, P),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7, 0]),
        ({"top_k": 1}, [0, 1, 0, 0, 0]),
        ({"top_k": 9}, P),
        ({"top_p": 0.7}, [0, 4 / 7, 0, 3 / 7, 0]),  # 0.4 + 0.3 reaches 0.7
        ({"top_p": 0.71}, [0, 0.4 / 0.85, 0.15 / 0.85, 0.3 / 0.85, 0]),
        ({"top_p": 0.4}, [0, 1, 0, 0, 0]),
        ({"top_p": 1e-6}, [0, 1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.5}, [0, 4 / 7, 0, 3 / 7, 0]),  # of the three that are left, 0.4 / 0.85 is not enough
    ],
)
def test_top_k_and_top_p_give_the_distribution_worked_out_by_hand(params: dict[str, Any], wanted: list[float]):
    n = 4000
    logits = torch.tensor(P, dtype=torch.float64).log().expand(n, -1)
    token, logprobs, _ = sampling.draw(logits, (np.arange(n) + 0.5) / n, SamplingParams(**params), False)
    share = torch.bincount(token, minlength=5) / n  # an even grid of u gives the distribution itself, to 1 / n
    torch.testing.assert_close(share, torch.tensor(wanted, dtype=torch.float32), rtol=0, atol=1.01 / n)
    torch.testing.assert_close(logprobs, torch.tensor(P, dtype=torch.float64).log()[token])  # of the full softmax


def test_a_wide_nucleus_in_a_large_vocabulary():
    torch.manual_seed(0)
    logits = 0.1 * torch.randn(3, 2000, dtype=torch.float64)
    p = logits.softmax(1)
    order = p.argsort(1, descending=True)
    kept = (p.gather(1, order).cumsum(1) - p.gather(1, order) < 0.9).sum(1)
    for u, place in ((0.0, kept * 0), (1 - 2**-24, kept - 1)):
        token, _, _ = sampling.draw(logits, np.full(3, u), SamplingParams(top_p=0.9), False)
        assert token.tolist() == order.gather(1, place[:, None])[:, 0].tolist()


def test_temperature_sharpens_what_is_drawn_and_what_is_reported():
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(3000, -1)
    token, logprobs, entropy = sampling.draw(logits, (np.arange(3000) + 0.5) / 3000, SamplingParams(temperature=0.5), True)
    p = torch.tensor([0.0, 2.0, 4.0]).softmax(0)
    torch.testing.assert_close(torch.bincount(token) / 3000, p, rtol=0, atol=2e-3)
    torch.testing.assert_close(logprobs, p.log()[token])
    assert entropy is not None
    torch.testing.assert_close(entropy[0], -(p * p.log()).sum())


def test_an_impossible_token_is_never_drawn():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).expand(4, -1)
    token, logprobs, entropy = sampling.draw(logits, np.array([0, 0.3, 0.999, 1 - 2**-24]), SamplingParams(), True)
    assert token.tolist() == [1, 1, 1, 1]
    assert logprobs.tolist() == [0, 0, 0, 0]
    assert entropy is not None
    assert entropy.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_break_off(bad: float):
    broken = llama()
    model = local((broken, CHARACTERS))
    with torch.no_grad():
        model.causal.lm_head.weight[3] = bad
    for temperature in (0.0, 1.0):
        with pytest.raises(Broke, match="not finite"):
            sample(model, temperature=temperature)


def test_finished_rows_leave_the_batch():
    model = local((llama(), CHARACTERS))
    model.tokens.ends = np.arange(1, 11)  # so many that most rows end early
    sizes: list[int] = []
    hook = model.causal.lm_head.register_forward_hook(lambda module, args, out: sizes.append(len(out)))
    groups, usage = sample(model, n=64, max_tokens=40)
    hook.remove()
    rows = [(i, *c.ids.tolist()) for i, group in enumerate(groups) for c in group]
    assert 2 <= np.median([len(row) - 1 for row in rows]) <= 20
    assert sizes[0] == len(PROMPTS)  # the prompts, once each
    for t, computed in enumerate(sizes[1:], start=1):
        wanted = len({row[: t + 1] for row in rows if len(row) > t + 1})  # rows that agree so far are one
        assert wanted <= computed <= wanted * sampling.LEAVE / (sampling.LEAVE - 1)
    assert usage.new == len({row[: t + 1] for row in rows for t in range(1, len(row))})
    assert usage.cached == 63 * sum(len(model.encode(p)) for p in PROMPTS)


def test_how_completions_end(model: Any):
    groups, _ = sample(model, n=64, max_tokens=12)
    seen = set()
    for c in (c for group in groups for c in group):
        assert c.stop == ("end" if c.ids[-1] == 1 else "length")
        assert (len(c.ids) == 12) or c.stop == "end"
        assert len(c.logprobs) == len(c.ids)
        assert (c.logprobs < 0).all()
        seen.add(c.stop)
    assert seen == {"end", "length"}


def test_small_cases(model: Any):
    assert model.sample([], 3, SamplingParams()) == ([], sampling.Usage())
    assert sample(model, n=0)[0] == [[], [], []]
    ((one,),), usage = sample(model, ("7",), n=1, max_tokens=1)
    assert one.ids.shape == one.logprobs.shape == (1,)
    assert (usage.prompt, usage.cached, usage.new) == (1, 0, 1)
    with pytest.raises(Refused, match="Prefix 1 has no tokens"):
        model.sample([np.array([5]), np.array([], dtype=np.int64)], 1, SamplingParams())
    with pytest.raises(Refused, match="hidden"):
        model.sample([np.array([5])], 1, SamplingParams(), ("hidden",))

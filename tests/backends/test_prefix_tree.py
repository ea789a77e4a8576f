"""Tokens that rows of a prompt share are computed once, in training passes as in sampling, and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from guerdon.backends import prefix, sampling, trie
from guerdon.backends.base import LossCall, SamplingParams
from guerdon.backends.local import local
from guerdon.backends.tabular import tabular
from guerdon.envs.tiny import tokenizer
from guerdon.samples import Batch, Grain, Rewards, Sample, Task, collate

CHARACTERS = tokenizer()
PROMPTS = ("12*3-4=", "7", "1+2=")
SIZE: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)


def llama(seed: int = 0, **more: Any) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(CHARACTERS), bos_token_id=None, eos_token_id=1, pad_token_id=0, initializer_range=0.3, **SIZE, **more
    )
    return LlamaForCausalLM(config).double(), CHARACTERS


MODEL = llama()


def collated(model: Any, rows: list[tuple[int, list[int]]], seed: int = 0) -> Batch:
    """Rows (prompt, tokens) with random advantages; every fifth token or so is a tool's."""
    rng = np.random.default_rng(seed)
    samples = [
        Sample(
            Task(str(i), ""), "", model.encode(PROMPTS[p]), np.array(ids, dtype=np.int64), written=rng.random(len(ids)) < 0.8, group=p,
            logprobs=np.zeros(len(ids)),
        )
        for i, (p, ids) in enumerate(rows)
    ]  # fmt: skip
    batch = collate(samples, Rewards(Grain.of(np.zeros(len(rows)))), dtype=model.dtype)
    batch.advantages = torch.randn(batch.ids.shape, generator=torch.Generator().manual_seed(seed), dtype=model.dtype)
    return batch


def tree_rows(seed: int = 0, long: int = 20) -> list[tuple[int, list[int]]]:
    """A tree below the first prompt, one below the second, a row alone below the third; equal rows, prefixes of others, one-token rows."""
    rng = np.random.default_rng(seed)

    def new(k: int) -> list[int]:
        return rng.integers(3, 90, k).tolist()

    stem, other = new(long), new(long // 2)
    middle = stem + new(3)
    return [
        (0, middle + new(4)), (1, other + new(2)), (0, middle + new(6)), (0, stem + new(1)), (2, new(3)), (0, stem), (0, stem[:1]),
        (1, other + new(3)), (0, middle + new(1)), (1, new(1)), (0, stem), (1, other), (0, stem[:5] + new(2)),
    ]  # fmt: skip


def prefixes(rows: list[tuple[int, list[int]]]) -> set[tuple[int, ...]]:
    """The distinct prefixes of one token and more, each with its prompt."""
    return {(p, *ids[: i + 1]) for p, ids in rows for i in range(len(ids))}


def gradient(model: Any, batch: Batch, call: str = "policy_gradient") -> tuple[torch.Tensor, Any]:
    _, used = model.forward_backward(batch, LossCall(call), 0.7)
    parameters = [p for p in model._weights().values() if p.requires_grad]
    found = torch.cat([p.grad.reshape(-1).clone() for p in parameters if p.grad is not None])
    for p in parameters:
        p.grad = None
    return found, used


# The trie


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 2), max_size=6)), min_size=1, max_size=12))
def test_a_node_is_a_distinct_prefix(rows: list[tuple[int, list[int]]]):
    ids = np.zeros((len(rows), max(max(len(row) for _, row in rows), 1)), dtype=np.int64)
    for i, (_, row) in enumerate(rows):
        ids[i, : len(row)] = row
    owner, lengths = [p for p, _ in rows], [len(row) for _, row in rows]
    found = trie.Trie.of(owner, ids, lengths)
    wanted = prefixes(rows)
    assert len(found) == len(wanted) == trie.distinct(owner, ids, lengths)
    names: dict[int, tuple[int, ...]] = {}
    for i, (p, row) in enumerate(rows):
        assert (found.node[i, len(row) :] == -1).all()
        for j in range(len(row)):
            assert names.setdefault(int(found.node[i, j]), (p, *row[: j + 1])) == (p, *row[: j + 1])
    assert set(names.values()) == wanted
    assert set(names) == set(range(len(found)))
    for node, name in names.items():
        row, column = int(found.row[node]), int(found.column[node])
        assert (owner[row], *ids[row, : column + 1].tolist()) == name
        above = int(found.parent[node])
        assert names[above] == name[:-1] if column else above == -1
        below = [other for other, whole in names.items() if whole[: len(name)] == name]
        assert sorted(below) == list(range(node, int(found.end[node])))  # a walk that goes down first
    assert [owner[row] for row in found.row.tolist()] == sorted(owner[row] for row in found.row.tolist())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 2**31))
def test_the_way_back_of_take_adds_what_went_out(index: list[int], seed: int):
    x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    where = torch.tensor(index)
    weight = torch.randn(len(index), 2, 3, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    out: Any = trie.Take.apply(x, where)
    assert torch.equal(out, x[where])
    (out * weight).sum().backward()
    assert x.grad is not None
    for k in range(5):
        torch.testing.assert_close(x.grad[k], sum((weight[i] for i, j in enumerate(index) if j == k), torch.zeros(2, 3).double()))


# Training and forward passes


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-4), ("float64", 1e-9)])
def test_every_row_is_what_it_is_alone(dtype: Any, close: float):
    model, plain = local(MODEL, dtype=dtype, head="scalar"), local(MODEL, dtype=dtype, head="scalar", prefix_sharing=False)
    for each in (model, plain):
        assert each.head is not None
        torch.nn.init.constant_(each.head.weight, 0.3)
    rows = tree_rows()
    batch = collated(model, rows)
    want = ("logprobs", "entropy", "logits", "hidden", "values")
    found, used = model.forward(batch, want, 0.7)
    assert used.new == len(prefixes(rows)) < int(batch.lengths.sum()) / 2
    assert used.prompt - used.cached == sum(len(model.encode(p)) for p in PROMPTS)
    for i, (p, ids) in enumerate(rows):
        alone, _ = plain.forward(batch.rows(torch.tensor([i])), want, 0.7)
        for name in want:
            torch.testing.assert_close(found[name][i, : len(ids)], alone[name][0], rtol=close, atol=close)
            assert (found[name][i, len(ids) :] == 0).all()
        whole = torch.tensor([[*model.encode(PROMPTS[p]).tolist(), *ids]])  # and the model called without any of this
        with torch.no_grad():
            logits = model.causal(whole).logits[0, -len(ids) - 1 : -1] / 0.7
        logprobs = logits.log_softmax(-1).gather(1, whole[0, -len(ids) :, None])[:, 0]
        torch.testing.assert_close(found["logprobs"][i, : len(ids)], logprobs * batch.mask[i, : len(ids)], rtol=close, atol=close)


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-4), ("float64", 1e-9)])
@pytest.mark.parametrize("call", ["policy_gradient", "of_values", "of_hidden"])
@pytest.mark.usefixtures("probes")
def test_gradients_are_those_of_the_rows_alone_and_the_same_bits_every_time(dtype: Any, close: float, call: str):
    model, plain = local(MODEL, dtype=dtype, head="scalar"), local(MODEL, dtype=dtype, head="scalar", prefix_sharing=False)
    batch = collated(model, tree_rows())
    mine, used = gradient(model, batch, call)
    theirs, whole = gradient(plain, batch, call)
    assert used.new == len(prefixes(tree_rows())) < whole.new == int(batch.lengths.sum())
    torch.testing.assert_close(mine, theirs, rtol=close, atol=close * float(theirs.abs().max()))
    assert mine.norm() > 1e-3
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        again = [gradient(model, batch, call)[0] for _ in range(3)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(again[0], other) for other in again[1:])


@pytest.mark.parametrize("name", ["tied, norms on heads", "learned positions"])
def test_other_families_share_too(name: str):
    torch.manual_seed(0)
    ids: dict[str, Any] = dict(vocab_size=len(CHARACTERS), bos_token_id=None, eos_token_id=1, pad_token_id=0, initializer_range=0.3)
    qwen = Qwen3Config(**SIZE, **ids, head_dim=8, tie_word_embeddings=True)
    gpt = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **ids)
    pair = (Qwen3ForCausalLM(qwen) if name.startswith("tied") else GPT2LMHeadModel(gpt), CHARACTERS)
    model, plain = local(pair, dtype="float64"), local(pair, dtype="float64", prefix_sharing=False)
    batch = collated(model, tree_rows())
    mine, used = gradient(model, batch)
    assert used.new == len(prefixes(tree_rows()))
    theirs, _ = gradient(plain, batch)
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max()))


def test_bfloat16_stays_near():
    model, plain = local(MODEL, dtype="bfloat16"), local(MODEL, dtype="bfloat16", prefix_sharing=False)
    batch = collated(model, tree_rows())
    a, b = (each.forward(batch)[0]["logprobs"] for each in (model, plain))
    assert a.dtype == torch.float32
    assert (a - b).abs().max() < 0.5
    mine, theirs = gradient(model, batch)[0], gradient(plain, batch)[0]
    assert torch.nn.functional.cosine_similarity(mine, theirs, dim=0) > 0.99


def test_micro_batches_keep_what_they_share_and_count_it_each():
    model = local(MODEL, dtype="float64", micro_tokens=48)
    rows = tree_rows()
    batch = collated(model, rows)
    batch.unit = torch.tensor([0, 1, 2, 3, 4, 5, 0, 7, 8, 1, 10, 11, 12])
    parts, used = model._split(batch, 48)
    assert len(parts) > 1
    assert any(part.trie for part in parts)
    assert sorted(r for part in parts for r in part.rows) == list(range(len(rows)))
    for first, second in ((0, 6), (1, 9)):
        assert any({first, second} <= set(part.rows) for part in parts)
    assert used.new == sum(len(prefixes([rows[r] for r in part.rows])) for part in parts)
    assert len(prefixes(rows)) < used.new < int(batch.lengths.sum())
    plain = local(MODEL, dtype="float64", prefix_sharing=False)
    torch.testing.assert_close(gradient(model, batch)[0], gradient(plain, batch)[0], rtol=1e-9, atol=1e-9)
    units = [int(unit) for unit in batch.unit]
    for part in parts:
        if part.trie and len({units[r] for r in part.rows}) > 1:
            assert part.cost <= 48


def test_it_is_left_where_it_saves_nothing_or_its_mask_is_too_large(monkeypatch: pytest.MonkeyPatch):
    model = local(MODEL)
    apart = collated(model, [(0, [5, 6, 7]), (0, [8, 6, 7]), (1, [5, 6, 7])])
    assert not any(part.trie for part in model._split(apart, 10**6)[0])
    assert model.forward(apart)[1].new == 9
    batch = collated(model, tree_rows())
    assert all(part.trie for part in model._split(batch, 10**6)[0])
    monkeypatch.setattr(trie, "MASK", 35**2)  # one line, not two
    parts, _ = model._split(batch, 10**6)
    assert not any(part.trie for part in parts)  # the first prompt's own line is too long
    monkeypatch.setattr(trie, "MASK", 60**2)
    parts, _ = model._split(batch, 10**6)
    assert len(parts) > 1
    assert all(part.trie for part in parts)


def test_rows_of_the_same_tokens_below_other_prompts_share_nothing():
    model = local(MODEL, dtype="float64")
    rows = [(p, [5, 6, 7, 8, 9, 10, 11, 12]) for p in (0, 1, 0, 1, 0, 1)]
    batch = collated(model, rows)
    out, used = model.forward(batch)
    assert used.new == 16
    batch.mask = torch.ones_like(batch.mask)
    out = model.forward(batch)[0]["logprobs"]
    assert not torch.allclose(out[0], out[1])
    assert torch.equal(out[0], out[2])


# Sampling


def distinct(groups: list[list[Any]], prompts: tuple[str, ...]) -> int:
    return len(
        {(prompt, *c.ids[: i + 1].tolist()) for prompt, g in zip(prompts, groups, strict=True) for c in g for i in range(len(c.ids))}
    )


def sample(model: Any, n: int = 12, prompts: tuple[str, ...] = PROMPTS, want: tuple[str, ...] = (), **params: Any) -> Any:
    return model.sample([model.encode(p) for p in prompts], n, SamplingParams(**{"max_tokens": 9, "seed": 5, **params}), want)


@pytest.mark.parametrize("params", [{}, {"temperature": 0.3}, {"temperature": 0.0}, {"top_k": 2}, {"top_p": 0.4}, {"stop": ("1", "+2")}])
def test_samples_run_as_one_line_while_they_agree(params: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    model = local(MODEL, dtype="float64")
    model.tokens.ends = np.arange(1, 8)  # so that rows end at all lengths
    lines: list[int] = []
    hook = model.causal.lm_head.register_forward_hook(lambda module, args, out: lines.append(len(out)))
    groups, used = sample(model, want=("entropy",), **params)
    hook.remove()
    assert used.new == distinct(groups, PROMPTS)
    for t, computed in enumerate(lines[1:], start=1):
        going = {(p, *c.ids[:t].tolist()) for p, g in enumerate(groups) for c in g if len(c.ids) > t}
        assert len(going) <= computed <= len(going) * sampling.LEAVE / (sampling.LEAVE - 1)
    for i, prompt in enumerate(PROMPTS):  # each sample is what it is when nothing is beside it: the draws do not hang on the lines
        for j, c in enumerate(groups[i]):
            alone = one_by_one(model, model.encode(prompt), i, j, SamplingParams(**{"max_tokens": 9, "seed": 5, **params}))
            assert c.ids.tolist() == alone[0]
            np.testing.assert_allclose(c.logprobs, alone[1], atol=1e-9)
            np.testing.assert_allclose(c.more["entropy"], alone[2], atol=1e-9)


def one_by_one(model: Any, prompt: np.ndarray, i: int, j: int, params: SamplingParams) -> tuple[list[int], list[float], list[float]]:
    """Sample j of prefix i by whole passes without a cache, a token at a time."""
    ids: list[int] = []
    logprobs, entropies = [], []
    for t in range(params.max_tokens):
        with torch.no_grad():
            logits = model.causal(torch.tensor([[*prompt.tolist(), *ids]])).logits[0, -1:]
        u = sampling.uniform(params.seed, np.array([i], dtype=np.uint64), np.array([j], dtype=np.uint64), t)
        token, logprob, entropy = sampling.draw(logits, u, params, True)
        assert entropy is not None
        ids.append(int(token))
        logprobs.append(float(logprob))
        entropies.append(float(entropy))
        if ids[-1] in model.tokens.ends or any(stop in model.tokens._decode(ids) for stop in params.stop):
            break
    return ids, logprobs, entropies


def test_a_prompt_given_twice_shares_lines_and_draws_apart():
    model = local(MODEL, dtype="float64")
    groups, used = sample(model, 6, ("7", "12*3-4=", "7"), temperature=0.3)
    assert used.new == distinct(groups, ("7", "12*3-4=", "7"))
    assert [c.ids.tolist() for c in groups[0]] != [c.ids.tolist() for c in groups[2]]
    assert used.prompt - used.cached == 8


@pytest.mark.parametrize("name", ["llama", "gpt"])
def test_prompts_that_begin_alike_are_computed_once_as_far_as_they_do(name: str):
    """Two systems with several questions each, one prompt that is the beginning of another, and one alone."""
    torch.manual_seed(0)
    gpt = GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_positions=128, vocab_size=len(CHARACTERS), eos_token_id=1, pad_token_id=0, initializer_range=0.3
    )
    pair = MODEL if name == "llama" else (GPT2LMHeadModel(gpt), CHARACTERS)
    model, plain = local(pair, dtype="float64"), local(pair, dtype="float64", prefix_sharing=False)
    one, two = "12*3-4+15=" * 3, "7-6+5=" * 4
    prompts = (one + "1", two + "22", one + "234", one, "99", two + "3", one + "2")
    seen: list[int] = []
    hook = model.backbone.register_forward_pre_hook(lambda module, args, given: seen.append(given["input_ids"].numel()), with_kwargs=True)
    groups, used = sample(model, 3, prompts, ("entropy",))
    hook.remove()
    wanted, whole = sample(plain, 3, prompts, ("entropy",))
    distinct_prompts = {prompt[: t + 1] for prompt in prompts for t in range(len(prompt))}
    assert used.prompt - used.cached == len(distinct_prompts) < sum(map(len, prompts)) == whole.prompt - whole.cached
    assert seen[0] < len(prompts) * max(map(len, prompts)) / 2
    assert used.prompt == whole.prompt == 3 * sum(map(len, prompts))
    for a, b in zip((c for g in groups for c in g), (c for g in wanted for c in g), strict=True):
        assert a.ids.tolist() == b.ids.tolist()
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-9)
        np.testing.assert_allclose(a.more["entropy"], b.more["entropy"], atol=1e-9)


def test_greedy_costs_the_same_however_many():
    model = local(MODEL)
    seen: list[int] = []
    hook = model.causal.lm_head.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    (many,), used = sample(model, 50, PROMPTS[:1], temperature=0.0)
    hook.remove()
    (one,), alone = sample(model, 1, PROMPTS[:1], temperature=0.0)
    assert {tuple(c.ids.tolist()) for c in many} == {tuple(one[0].ids.tolist())}
    assert used.new == alone.new == len(one[0].ids)
    assert set(seen) == {1}


def test_a_fork_copies_one_row_of_what_is_filled():
    cache = sampling.DynamicCache()
    keys = torch.arange(2 * 1 * 3 * 2, dtype=torch.float32).view(2, 1, 3, 2)
    cache.update(keys, keys + 100, 0)
    sampling.make_room(cache, 5, 4)
    layer: Any = cache.layers[0]
    store = layer.stores[0]
    assert store.shape == (5, 1, 7, 2)
    sampling.fork(cache, torch.tensor([0, 1, 1, 0, 1]), 2)
    assert layer.stores[0] is store  # nothing else moved
    for found, before in ((layer.keys, keys), (layer.values, keys + 100)):
        assert torch.equal(found, before[[0, 1, 1, 0, 1]])
    step = torch.ones(5, 1, 1, 2)
    layer.update(step, step)
    assert layer.keys.shape == (5, 1, 4, 2)
    assert torch.equal(layer.keys[:, :, 3:], step)


# Tables


def test_a_table_counts_distinct_prefixes_too():
    model = tabular(vocab="ab", init=1.0)
    prompts = ("a", "b", "a")
    groups, used = model.sample([model.encode(p) for p in prompts], 20, SamplingParams(max_tokens=5, seed=1))
    assert used.new == distinct(groups, prompts) < sum(len(c.ids) for g in groups for c in g)
    samples = [
        Sample(Task("t", p), "", model.encode(p), c.ids, logprobs=c.logprobs) for p, g in zip(prompts, groups, strict=True) for c in g
    ]
    batch = collate(samples, Rewards(Grain.of(np.zeros(len(samples)))))
    assert model.forward(batch)[1].new == model.forward_backward(batch, LossCall("policy_gradient"))[1].new == used.new
    assert prefix.Usage(new=used.new) == prefix.Usage(0, 0, used.new)

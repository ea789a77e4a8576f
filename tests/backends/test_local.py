"""What the local backend adds to the contract: shared prompts, micro-batches, adapters, heads, checkpoints that survive a broken write."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from guerdon import registry
from guerdon.backends import checkpoint, prefix, softmax, torch_model
from guerdon.backends.base import LossCall, SamplingParams
from guerdon.backends.local import local
from guerdon.envs.tiny import tokenizer
from guerdon.registry import Broke, Refused
from guerdon.samples import Batch, Grain, Rewards, Sample, Task, collate

PROMPTS = ("1+2=", "12*3-4=", "5-5=")
CHARACTERS = tokenizer()
SMALL: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
IDS: dict[str, Any] = dict(vocab_size=len(CHARACTERS), bos_token_id=None, eos_token_id=1, pad_token_id=0, initializer_range=0.3)


def families() -> dict[str, Any]:
    """One small random model of each way in which families differ for this backend."""
    torch.manual_seed(0)
    return {
        "grouped heads": LlamaForCausalLM(LlamaConfig(**SMALL, **IDS)),
        "tied, norms on heads": Qwen3ForCausalLM(Qwen3Config(**SMALL, **IDS, head_dim=8, tie_word_embeddings=True)),
        "learned positions": GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **IDS)),
        "sliding window": MistralForCausalLM(MistralConfig(**SMALL, **IDS, sliding_window=4)),
        "capped logits": Gemma2ForCausalLM(Gemma2Config(**SMALL, **IDS, head_dim=8, sliding_window=5, final_logit_softcapping=3.0)),
    }


FAMILIES = families()
LLAMA = (FAMILIES["grouped heads"], CHARACTERS)


def make_batch(model: Any, rows: list[tuple[int, int]], seed: int = 0) -> Batch:
    """Rows (prompt, tokens) with random ids, advantages and weights."""
    rng = np.random.default_rng(seed)
    samples = [
        Sample(Task(str(i), ""), "", prompt_ids=model.encode(PROMPTS[p]), ids=rng.integers(3, 90, t), group=p)
        for i, (p, t) in enumerate(rows)
    ]
    batch = collate(samples, Rewards(Grain.of(np.zeros(len(rows)))), dtype=model.dtype)
    random = torch.Generator().manual_seed(seed)
    batch.advantages = torch.randn(batch.ids.shape, generator=random, dtype=model.dtype)
    return batch


def gradient(model: Any, batch: Batch, call: LossCall | None = None, temperature: float = 1.0) -> torch.Tensor:
    model.forward_backward(batch, call or LossCall("policy_gradient"), temperature)
    parameters = [p for p in model._weights().values() if p.requires_grad]
    found = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])
    for p in parameters:
        p.grad = None
    return found


def sampled(model: Any, n: int = 3, prompts: tuple[str, ...] = PROMPTS, **params: Any) -> Any:
    return model.sample([model.encode(p) for p in prompts], n, SamplingParams(**{"max_tokens": 6, "seed": 1, **params}))


SHARED = [(0, 4), (1, 6), (0, 1), (0, 5), (1, 2), (2, 3)]


# Shared prompts


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-4), ("float64", 1e-9)])
@pytest.mark.parametrize("way", ["packed", "cached"])
@pytest.mark.parametrize("name", ["grouped heads", "tied, norms on heads", "learned positions"])
def test_a_shared_prompt_changes_no_output_and_no_gradient(name: str, way: str, dtype: Any, close: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch_model, "SHORT", 128 if way == "packed" else 0)
    shared = local((FAMILIES[name], CHARACTERS), dtype=dtype)
    plain = local((FAMILIES[name], CHARACTERS), dtype=dtype, prefix_sharing=False)
    assert shared.packs
    assert "prefix_cache" in shared.capabilities
    assert "prefix_cache" not in plain.capabilities
    batch = make_batch(shared, SHARED)
    want = ("logprobs", "entropy", "logits", "hidden")
    a, usage = shared.forward(batch, want, 0.7)
    b, whole = plain.forward(batch, want, 0.7)
    for key in want:
        torch.testing.assert_close(a[key], b[key], rtol=close, atol=close)
    assert usage.prompt == whole.prompt == sum(len(p) for p in batch.prompts)
    assert (usage.cached, whole.cached) == (2 * 4 + 1 * 7, 0)
    mine, theirs = gradient(shared, batch, temperature=0.7), gradient(plain, batch, temperature=0.7)
    torch.testing.assert_close(mine, theirs, rtol=close, atol=close * float(theirs.abs().max()))
    assert mine.norm() > 1


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_agrees_with_its_own_logits(name: str):
    """Sampling, its padded prompts and its cache, and `forward` are compared with the model called on one whole text at a time."""
    model = local((FAMILIES[name], CHARACTERS))
    groups, _ = sampled(model, temperature=0.8)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            ids = torch.tensor([[*model.encode(prompt).tolist(), *completion.ids.tolist()]])
            with torch.no_grad():
                logits = FAMILIES[name].eval()(ids).logits[0, -len(completion.ids) - 1 : -1]
            wanted = (logits / 0.8).log_softmax(-1).gather(1, torch.tensor(completion.ids)[:, None])[:, 0]
            np.testing.assert_allclose(completion.logprobs, wanted, atol=2e-4)
    batch = make_batch(model, SHARED)
    found = model.forward(batch)[0]["logprobs"]
    for row, (p, t) in enumerate(SHARED):
        ids = torch.cat([torch.tensor(model.encode(PROMPTS[p])), batch.ids[row, :t]])[None]
        with torch.no_grad():
            logits = FAMILIES[name](ids).logits[0, -t - 1 : -1].log_softmax(-1)
        torch.testing.assert_close(found[row, :t], logits.gather(1, batch.ids[row, :t, None])[:, 0], rtol=1e-4, atol=2e-4)


def test_a_pair_is_copied():
    before = LLAMA[0].lm_head.weight.clone()
    model = local(LLAMA)
    gradient(model, make_batch(model, SHARED))
    model.forward_backward(make_batch(model, SHARED), LossCall("policy_gradient"))
    model.optim_step(0.1)
    assert torch.equal(LLAMA[0].lm_head.weight, before)
    assert not torch.equal(model.causal.lm_head.weight, before)


# Micro-batches


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 30), st.integers(0, 12)), min_size=1, max_size=25),
    st.integers(10, 200),
    st.booleans(),
)
def test_micro_batches_hold_every_row_once_units_whole_within_the_budget(rows: list[tuple[int, int, int]], budget: int, sharing: bool):
    owner, lengths, units = map(list, zip(*rows, strict=True))
    prompts = [3, 10, 7, 1, 20]
    parts = prefix.split(owner, prompts, lengths, units, budget, sharing)
    assert sorted(r for part in parts for r in part.rows) == list(range(len(rows)))
    for part in parts:
        mine = {units[r] for r in part.rows}
        assert all(r in part.rows for r in range(len(rows)) if units[r] in mine)
        count = len({owner[r] for r in part.rows}) if sharing else len(part.rows)
        cost = count * max(prompts[owner[r]] for r in part.rows) + len(part.rows) * max(lengths[r] for r in part.rows)
        assert part.cost == cost
        assert cost <= budget or len(mine) == 1
    whole = prefix.fill([[r for r in range(len(rows))]], owner, prompts, lengths, 10**9, sharing)[0].cost
    assert sum(part.cost for part in prefix.split(owner, prompts, lengths, [0] * len(rows), 10**9, sharing)) == whole


def test_long_prompts_keep_their_rows_together_and_short_ones_go_by_length():
    owner, lengths = [0, 1, 0, 1], [2, 2, 9, 9]
    together = prefix.split(owner, [100, 100], lengths, [0, 1, 2, 3], 130, True)
    assert sorted(sorted(part.rows) for part in together) == [[0, 2], [1, 3]]
    apart = prefix.split(owner, [1, 1], lengths, [0, 1, 2, 3], 20, True, overhead=1)
    assert sorted(sorted(part.rows) for part in apart) == [[0, 1], [2, 3]]


def test_logits_are_never_held_for_more_positions_than_a_chunk(monkeypatch: pytest.MonkeyPatch):
    model = local(LLAMA, dtype="float64", head="scalar")
    batch = make_batch(model, SHARED)
    whole, _ = model.forward(batch, ("logprobs", "entropy"), 0.7)
    registry.register("loss", "surprise", surprise, ("entropy",))
    wanted = gradient(model, batch, LossCall("surprise"), 0.7)
    seen: list[int] = []
    monkeypatch.setattr(softmax, "CHUNK", 4 * model.vocabulary)
    hook = model.causal.lm_head.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    found, _ = model.forward(batch, ("logprobs", "entropy"), 0.7)
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(model, batch, LossCall("surprise"), 0.7), wanted, rtol=1e-10, atol=1e-10)
    hook.remove()
    assert max(seen) == 4


def surprise(out: dict[str, torch.Tensor], batch: Batch):
    return (batch.weights * (batch.advantages * out["logprobs"] + 0.3 * out["entropy"] ** 2)).sum(), {}


def test_gradient_of_logprobs_and_entropy_by_finite_differences():
    torch.manual_seed(0)
    logits = (3 * torch.randn(5, 7, dtype=torch.float64)).requires_grad_()
    ids = torch.tensor([0, 6, 3, 3, 1])
    for temperature in (1.0, 0.6):
        assert torch.autograd.gradcheck(lambda z, t=temperature: softmax.TokenLogprobs.apply(z, ids, t, True), (logits,))
    logits.data[:, 2] = -torch.inf  # a token that cannot be drawn: no NaN, no gradient
    logprobs, entropy = softmax.TokenLogprobs.apply(logits, ids, 1.0, True)  # pyright: ignore
    (logprobs.sum() + entropy.sum()).backward()
    assert torch.isfinite(logits.grad).all()  # pyright: ignore
    assert (logits.grad[:, 2] == 0).all()  # pyright: ignore


# Adapters, heads, losses with parameters, precision


def test_lora_trains_the_adapter_alone_and_saves_it_alone(tmp_path: Path):
    model = local(LLAMA, adapter={"r": 4}, seed=3)
    assert "lora" in model.capabilities
    assert "full" not in model.capabilities
    before = {name: p.detach().clone() for name, p in model._weights().items()}
    plain = local(LLAMA).forward(batch := make_batch(model, SHARED))[0]["logprobs"]
    torch.testing.assert_close(model.forward(batch)[0]["logprobs"], plain)  # an adapter starts as nothing
    for _ in range(2):
        model.forward_backward(batch, LossCall("policy_gradient"))
        model.optim_step(0.05)
    changed = {name for name, p in model._weights().items() if not torch.equal(p, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    assert changed == {name for name in before if "lora_" in name}
    model.save(tmp_path / "a")
    assert (tmp_path / "a" / "adapter_model.safetensors").exists()
    assert not (tmp_path / "a" / "model.safetensors").exists()
    same, other = local(LLAMA, adapter={"r": 4}, seed=3), local(LLAMA, adapter={"r": 4}, seed=4)
    assert all(torch.equal(p, before[name]) for name, p in same._weights().items())
    assert not all(torch.equal(p, before[name]) for name, p in other._weights().items())
    follower = local(LLAMA, trainable=False)
    follower.copy(model)  # an adapter is merged into a model without one
    torch.testing.assert_close(follower.forward(batch)[0], model.forward(batch)[0], rtol=1e-4, atol=1e-4)
    with pytest.raises(Refused, match="adapter without its model"):
        local(tmp_path / "a")
    with pytest.raises(Refused, match="LoraConfig"):
        local(LLAMA, adapter={"rank": 4})


def test_weights_are_copied_between_like_models_only():
    critic, follower = local(LLAMA, head="scalar"), local(LLAMA, trainable=False)
    follower.copy(critic)  # the head is left out
    for other in (local((FAMILIES["tied, norms on heads"], CHARACTERS)), local(LLAMA)):
        with pytest.raises(Refused, match="same architecture"):
            critic.copy(other)


def test_heads_read_the_state_before_each_token():
    model = local(LLAMA, head="scalar", dtype="float64")
    assert "values" in model.capabilities
    batch = make_batch(model, SHARED)
    assert (model.forward(batch, ("values",))[0]["values"] == 0).all()
    assert model.head is not None
    torch.nn.init.normal_(model.head.weight)
    torch.nn.init.normal_(model.head.bias)
    out, _ = model.forward(batch, ("values", "hidden"))
    inside = torch.arange(batch.ids.shape[1]) < batch.lengths[:, None]
    wanted = (out["hidden"] @ model.head.weight[0] + model.head.bias) * inside
    torch.testing.assert_close(out["values"], wanted.detach())
    ids = torch.cat([torch.tensor(model.encode(PROMPTS[0])), batch.ids[0, :3]])[None]
    with torch.no_grad():
        states = model.backbone(ids).last_hidden_state[0, -4:]
    torch.testing.assert_close(out["hidden"][0, :4], states, rtol=1e-9, atol=1e-9)
    classes = local(LLAMA, head="classes", classes=5)
    assert classes.forward(batch, ("values",))[0]["values"].shape == (*batch.ids.shape, 5)
    with pytest.raises(Refused, match="head='scalar'"):
        local(LLAMA).forward(batch, ("values",))


class Offset:
    """A loss with a parameter of its own: sum of weight times (log pi + c)^2."""

    def __init__(self) -> None:
        self.c = torch.nn.Parameter(torch.zeros(()))

    def parameters(self) -> list[torch.nn.Parameter]:
        return [self.c]

    def __call__(self, out: dict[str, torch.Tensor], batch: Batch, scale: float = 1.0):
        return (batch.weights * (out["logprobs"] + scale * self.c) ** 2).sum(), {}


def test_a_loss_with_parameters_trains_along_and_is_in_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(registry._pieces["loss"], "offset", registry.Piece("loss", "offset", Offset))
    call = LossCall("offset", {"scale": 2.0})
    model = local(LLAMA)
    batch = make_batch(model, SHARED)

    def steps(model: Any, n: int) -> float:
        for _ in range(n):
            model.forward_backward(batch, [LossCall("policy_gradient"), call])
            model.optim_step(0.05)
        return float(model.losses["offset"].c.detach())

    assert steps(model, 2) > 0.05
    model.save(tmp_path / "two")
    ahead = steps(model, 2)
    again = local(LLAMA)
    again.load(tmp_path / "two")
    assert steps(again, 2) == ahead


def test_bfloat16_computes_in_it_and_keeps_float32_weights():
    exact, mixed, stored = local(LLAMA), local(LLAMA, dtype="bfloat16"), local(LLAMA, dtype="bfloat16", trainable=False)
    batch = make_batch(exact, SHARED)
    wanted = exact.forward(batch)[0]["logprobs"]
    for model in (mixed, stored):
        found = model.forward(batch)[0]["logprobs"]
        assert found.dtype == torch.float32
        assert 1e-5 < (found - wanted).abs().max() < 0.5
    assert {p.dtype for p in stored._weights().values()} == {torch.bfloat16}
    a, b = gradient(exact, batch), gradient(mixed, batch)
    assert b.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.99
    groups, _ = sampled(mixed)
    again = make_batch(mixed, SHARED).rows(torch.tensor([0]))
    again.ids, again.mask, again.lengths = torch.tensor(groups[0][0].ids)[None], torch.ones(1, 6, dtype=torch.bool), torch.tensor([6])
    if len(groups[0][0].ids) == 6:
        np.testing.assert_allclose(mixed.forward(again)[0]["logprobs"][0], groups[0][0].logprobs, atol=0.3)


# Checkpoints


def test_a_checkpoint_is_a_folder_that_opens(tmp_path: Path):
    model = local(LLAMA, head="scalar")
    assert model.head is not None
    torch.nn.init.normal_(model.head.weight)
    model.save(tmp_path / "one")
    opened = local(tmp_path / "one", head="scalar")
    batch = make_batch(model, SHARED)
    want = ("logprobs", "values")
    torch.testing.assert_close(opened.forward(batch, want)[0], model.forward(batch, want)[0], rtol=0, atol=0)
    with pytest.raises(Refused, match="another shape"):
        local((FAMILIES["tied, norms on heads"], CHARACTERS)).load(tmp_path / "one")
    assert [p.name for p in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("[enforce fail] PytorchStreamWriter failed")]
)
def test_a_full_disk_keeps_the_checkpoint_before(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = local(LLAMA)
    model.save(tmp_path / "one")
    weights = (tmp_path / "one" / "model.safetensors").read_bytes()
    model.forward_backward(make_batch(model, SHARED), LossCall("policy_gradient"))
    model.optim_step(0.1)

    def full(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(Broke, match="could not be written"):
        model.save(tmp_path / "one")
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == weights
    assert [p.name for p in tmp_path.iterdir()] == ["one"]


def test_a_death_between_the_two_renames_loses_nothing(tmp_path: Path):
    model = local(LLAMA)
    model.save(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / ".one.old")
    model.load(tmp_path / "one")
    assert [p.name for p in tmp_path.iterdir()] == ["one"]
    with checkpoint.replacing(tmp_path / "one") as new:
        (new / "x").write_text("new")
    assert (tmp_path / "one" / "x").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["one"]


# Paths that are no models


def test_what_is_no_model_is_refused_with_what_it_lacks(tmp_path: Path):
    with pytest.raises(Refused, match=r"lacks config.json and weights .* and a tokenizer"):
        local(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(Refused, match=r"is not a model: it lacks a tokenizer"):
        local(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(Refused, match="cannot be opened"):
        local(tmp_path)
    with pytest.raises(Refused, match="is a file"):
        local(tmp_path / "config.json")
    with pytest.raises(Refused, match="no model folder"):
        local(tmp_path / "nowhere")
    with pytest.raises(Refused, match="needs a path"):
        local(None)
    with pytest.raises(Refused, match="dtype"):
        local(LLAMA, dtype="float16")  # pyright: ignore
    with pytest.raises(Refused, match="head"):
        local(LLAMA, head="vector")  # pyright: ignore

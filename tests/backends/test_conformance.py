"""What every backend keeps: text, sampling, forward passes, refusals (`conftest.py` has the backends)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from guerdon.backends.base import CAPABILITIES, LossCall, SamplingParams, require
from guerdon.registry import Refused, find, pieces
from guerdon.samples import STOPS

PG = LossCall("policy_gradient")


# The suite and the handle


def test_every_registered_backend_is_here(cases: Any):
    ours = [piece for piece in pieces("backend") if piece.where.startswith("guerdon.")]  # not those of checks
    whole = {piece.name for piece in ours if "only" not in piece.about}  # the others sample only, and have tests of their own
    assert {found.backend for found in cases.values()} == whole


def test_capabilities_are_known_and_within_those_of_the_backend(case: Any):
    model = case.open()
    assert model.capabilities <= CAPABILITIES
    assert model.capabilities <= find("backend", case.backend).about["capabilities"]
    assert "values" not in model.capabilities
    assert "values" in case.open(head="scalar").capabilities or "values" not in find("backend", case.backend).about["capabilities"]
    assert model.version == 0


def test_text_and_offsets(case: Any):
    model = case.open()
    prompt = model.encode(case.prompts[0])
    assert prompt.ndim == 1
    assert prompt.dtype == np.int64
    assert model.decode(prompt)[0] == case.prompts[0]
    assert len(model.encode([{"role": "user", "content": "1+1="}])) >= 4
    ids = np.append(prompt, case.end(model))
    text, offsets = model.decode(ids)
    assert text == case.prompts[0]
    assert offsets.shape == (len(ids), 2)
    assert "".join(text[a:b] for a, b in offsets) == text
    assert offsets[-1].tolist() == [len(text)] * 2
    assert model.encode_answer(case.prompts[0]).tolist() == ids.tolist()
    assert model.show(ids).startswith(case.prompts[0])
    assert len(model.show(ids)) > len(text)
    text, offsets = model.decode(ids[:0])
    assert (text, offsets.shape) == ("", (0, 2))


# Sampling


def test_completions_and_why_they_stop(case: Any):
    model = case.open()
    end = case.end(model)
    groups, usage = case.sample(model, n=40)
    assert [len(group) for group in groups] == [40] * len(case.prompts)
    seen = set()
    for completion in (c for group in groups for c in group):
        assert completion.ids.ndim == 1
        assert completion.ids.dtype == np.int64
        assert completion.logprobs.shape == completion.ids.shape
        assert completion.logprobs.dtype.kind == "f"
        assert (completion.logprobs <= 1e-6).all()
        assert completion.stop in STOPS
        assert completion.version == 0
        assert completion.stop == ("end" if completion.ids[-1] == end else "length")
        assert completion.stop == "end" or len(completion.ids) == 5
        assert end not in completion.ids[:-1]
        seen.add(completion.stop)
    assert seen == {"end", "length"}
    prefixes = {(i, *c.ids[: t + 1].tolist()) for i, group in enumerate(groups) for c in group for t in range(len(c.ids))}
    assert len(prefixes) <= usage.new <= sum(len(c.ids) for group in groups for c in group)  # once each, or once a batch
    assert usage.prompt == 40 * sum(len(model.encode(p)) for p in case.prompts) >= usage.cached >= 0


def test_a_stop_text_ends_a_sample_and_stays_in_it(case: Any):
    model = case.open()
    groups, _ = case.sample(model, n=60, max_tokens=8, stop=("1", "2+"))
    seen = set()
    for completion in (c for group in groups for c in group):
        text, _ = model.decode(completion.ids)
        before, _ = model.decode(completion.ids[:-1])
        assert (completion.stop == "stop") == ("1" in text or "2+" in text)
        assert "1" not in before
        assert "2+" not in before
        seen.add(completion.stop)
    assert "stop" in seen


def test_each_prefix_may_have_a_limit_of_its_own(case: Any):
    """What stands before it is what is drawn without."""
    model = case.open()
    prompts, limits = (*case.prompts, case.prompts[0]), (2, 9, 1, 5, 4)
    free, _ = case.sample(model, prompts=prompts, max_tokens=6)
    groups, usage = case.sample(model, prompts=prompts, max_tokens=6, limits=limits)
    for limit, whole, group in zip(limits, free, groups, strict=True):
        for a, b in zip(whole, group, strict=True):
            assert b.ids.tolist() == a.ids[:limit].tolist()
            assert b.stop == (a.stop if len(a.ids) <= limit else "length")
            case.near(b.logprobs, a.logprobs[:limit])
    assert usage.new <= sum(len(c.ids) for group in groups for c in group)
    for bad in ((1,), (1, 1, 1, 1, 0)):
        with pytest.raises(Refused, match="limits"):
            case.sample(model, prompts=prompts, limits=bad)


@pytest.mark.parametrize("params", [{}, {"temperature": 0.6}, {"temperature": 1.7, "top_k": 3}, {"top_p": 0.7}, {"temperature": 0.0}])
def test_logprobs_of_sampling_are_those_of_forward(case: Any, params: dict[str, Any]):
    """At the same temperature, before top-p and top-k; of temperature 1 where it is 0."""
    model = case.open()
    groups, _ = case.sample(model, **params)
    prompts = [p for p, group in zip(case.prompts, groups, strict=True) for _ in group]
    completions = [c for group in groups for c in group]
    batch = case.batch(model, prompts, [c.ids.tolist() for c in completions])
    found = model.forward(batch, temperature=params.get("temperature", 1.0))[0]["logprobs"]
    for row, completion in zip(found, completions, strict=True):
        case.near(row[: len(completion.ids)], completion.logprobs)


def test_entropy_comes_with_samples_where_it_is_offered(case: Any):
    model = case.open()
    prefix = [model.encode(case.prompts[0])]
    if "entropy" not in model.capabilities:
        with pytest.raises(Refused, match="entropy"):
            model.sample(prefix, 2, SamplingParams(), ("entropy",))
        return
    ((one, _),), _ = model.sample(prefix, 2, SamplingParams(max_tokens=4, temperature=0.8), ("entropy",))
    found, _ = model.forward(case.batch(model, case.prompts[:1], [one.ids.tolist()]), ("entropy",), 0.8)
    case.near(one.more["entropy"], found["entropy"][0])


def test_the_same_seed_gives_the_same_samples(case: Any):
    def ids(model: Any, **params: Any) -> list[list[int]]:
        return [c.ids.tolist() for group in case.sample(model, n=8, **params)[0] for c in group]

    model = case.open()
    first = ids(model)
    assert first == ids(model) == ids(case.open())
    assert first != ids(model, seed=4)
    assert len(set(map(tuple, first))) > 8


def test_greedy_takes_the_likeliest_and_top_k_1_is_greedy(case: Any):
    model = case.open()
    groups, _ = case.sample(model, temperature=0.0)
    for prompt, group in zip(case.prompts, groups, strict=True):
        assert len({tuple(c.ids.tolist()) for c in group}) == 1
        first = model.forward(case.every_token(model, prompt))[0]["logprobs"][:, 0]
        assert int(first.argmax()) == group[0].ids[0]
    for params in ({"top_k": 1}, {"top_p": 1e-6}):
        again, _ = case.sample(model, **params)
        assert [[c.ids.tolist() for c in group] for group in again] == [[c.ids.tolist() for c in group] for group in groups]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_come_as_often_as_they_are_probable(case: Any, temperature: float):
    model, n = case.open(), 4000
    p = model.forward(case.every_token(model, "7"), temperature=temperature)[0]["logprobs"][:, 0].exp().numpy()
    assert p.sum() == pytest.approx(1, abs=1e-5)
    (group,), _ = case.sample(model, n=n, prompts=["7"], max_tokens=1, temperature=temperature)
    share = np.bincount([int(c.ids[0]) for c in group], minlength=len(p)) / n
    assert (np.abs(share - p) <= 5 * np.sqrt(p * (1 - p) / n) + 1 / n).all()


@pytest.mark.parametrize("params", [{"max_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}])
def test_senseless_parameters_are_refused(case: Any, params: dict[str, Any]):
    with pytest.raises(Refused, match=next(iter(params))):
        case.sample(case.open(), **params)


# Forward


def test_outputs_have_the_batch_s_shape_no_gradient_and_zeros_at_padding(case: Any):
    model = case.open(head="scalar")
    batch = case.mixed(model)
    want = case.offered(model)
    out, usage = model.forward(batch, want, 0.8)
    assert set(out) == set(want)
    for name, x in out.items():
        assert x.shape[:2] == batch.ids.shape, name
        assert x.ndim == (3 if name in ("logits", "hidden") else 2), name
        assert x.is_floating_point()
        assert not x.requires_grad
        assert (x[~batch.mask] == 0).all(), name
        assert torch.isfinite(x).all(), name
    assert usage.prompt == sum(map(len, batch.prompts)) >= usage.cached
    rows = [(*p.tolist(), -1, *row[:k].tolist()) for p, row, k in zip(batch.prompts, batch.ids, batch.lengths.tolist(), strict=True)]
    prefixes = {row[: t + 1] for row in rows for t in range(row.index(-1) + 1, len(row))}
    assert len(prefixes) <= usage.new <= int(batch.lengths.sum())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_entropy_and_logits_are_of_the_same_softmax(case: Any, temperature: float):
    model = case.open()
    batch = case.every_token(model, case.prompts[2])
    out, _ = model.forward(batch, case.offered(model), temperature)
    logp = out["logprobs"][:, 0]
    if "entropy" in out:
        case.near(out["entropy"][:, 0], (-(logp.exp() * logp).sum()).expand(len(batch)), 10)
    if "logits" in out:
        case.near(torch.log_softmax(out["logits"][0, 0], -1), logp)


def test_a_row_does_not_depend_on_the_others(case: Any):
    model = case.open(head="scalar")
    batch = case.mixed(model)
    want = case.offered(model)
    whole, _ = model.forward(batch, want)
    for i in range(len(batch)):
        alone, _ = model.forward(batch.rows(torch.tensor([i])), want)
        for name in want:
            case.near(alone[name][0], whole[name][i, : alone[name].shape[1]], 10)
    none, _ = model.forward(batch.rows(torch.tensor([], dtype=torch.long)), want)
    assert all(len(x) == 0 for x in none.values())


def test_a_token_changes_only_what_comes_after_it(case: Any):
    """logprobs of column t know tokens up to t; entropy, logits, values and hidden of column t only those before."""
    model = case.open(head="scalar")
    if "values" in model.capabilities:  # a head starts at 0, where it would show nothing
        model.forward_backward(case.mixed(model), LossCall("of_values"))
        model.optim_step(0.1)
    batch = case.mixed(model)
    other = case.mixed(model)
    a, b = [token for token in range(case.vocabulary(model)) if token != case.end(model)][:2]
    batch.ids[5, 2], other.ids[5, 2] = a, b
    x, y = (model.forward(each, case.offered(model))[0] for each in (batch, other))
    for name in x:
        same = 2 if name == "logprobs" else 3
        case.near(x[name][5, :same], y[name][5, :same], 10)
        assert not torch.allclose(x[name][5, same:], y[name][5, same:], atol=1e-4) or (case.backend, name) == ("tabular", "values"), name


def test_tokens_of_tools_are_read_but_not_answered_for(case: Any):
    model = case.open()
    batch = case.mixed(model)
    full, _ = model.forward(batch)
    written = torch.rand(batch.ids.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    batch.mask, batch.weights = batch.mask & written, batch.weights * written
    out, _ = model.forward(batch)
    case.near(out["logprobs"][batch.mask], full["logprobs"][batch.mask])
    unmasked = case.mixed(model)
    unmasked.weights = batch.weights
    whole, _ = case.gradient(model, unmasked)
    case.near(case.gradient(model, batch)[0], whole, 10)


def test_ids_of_another_tokenizer_are_refused_with_their_row(case: Any):
    model = case.open()
    batch = case.mixed(model)
    batch.ids[3, 1] = 2_000_000
    with pytest.raises(Refused, match="`ids` of row 3 of the batch"):
        model.forward(batch)
    with pytest.raises(Refused, match="`ids` of row 3 of the batch"):
        model.forward_backward(batch, PG)


# What is not offered


def test_what_is_not_offered_is_refused_by_name(case: Any):
    model = case.open()
    batch = case.mixed(model)
    for name in ("entropy", "logits", "hidden", "values"):
        if name in model.capabilities:
            assert name in model.forward(batch, (name,))[0]
            continue
        with pytest.raises(Refused, match=name):
            model.forward(batch, (name,))
    with pytest.raises(Refused, match="entropies"):
        model.forward(batch, ("entropies",))
    for name in sorted(CAPABILITIES - model.capabilities):
        with pytest.raises(Refused, match=f"The loss 'x'.*{name}.*'policy'"):
            require("policy", model, "The loss 'x'", (name,))
    require("policy", model, "The loss 'x'", ("logprobs", *model.capabilities))


@pytest.mark.parametrize("name", ["of_hidden", "of_values"])
def test_a_loss_whose_needs_are_not_offered_is_refused_with_both_names(case: Any, name: str):
    model = case.open()
    missing = [need for need in find("loss", name).needs if need not in model.capabilities]
    if missing:
        with pytest.raises(Refused, match=rf"(?=.*{name})(?=.*'{missing[0]}')"):
            model.forward_backward(case.mixed(model), LossCall(name))
    else:
        assert case.gradient(model, case.mixed(model), call=LossCall(name))[0].norm() > 0


def test_unknown_losses_and_frozen_models_are_refused(case: Any):
    model = case.open()
    with pytest.raises(Refused, match="'policy_gradient'"):
        model.forward_backward(case.mixed(model), LossCall("policy_gradients"))
    frozen = case.open(trainable=False)
    with pytest.raises(Refused, match="trainable"):
        frozen.forward_backward(case.mixed(frozen), PG)

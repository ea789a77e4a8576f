"""What every registered loss and every way to aggregate holds to, plug-ins included."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings

import guerdon.losses  # noqa: F401 - fills the registry
from guerdon import registry
from guerdon.reward_models.heads import one_behind
from guerdon.samples import Batch, Grain, State

seeds = st.integers(0, 2**32 - 1)
PARAMETERS: dict[str, dict[str, object]] = {
    "constant": {"tokens": 16},
    "trajectory_balance": {"floor": 0.1},
    "vargrad": {"floor": 0.1},
}
"""Values of parameters without a default, or that these batches ask for, by name."""
CLASSES = {"outcome_classes": 2, "step_classes": 3}
"""How many values a token has for losses of a head of classes; one for the others."""
PER_SAMPLE = frozenset(["margin"])
"""Fields of shape (n,); the others are (n, t)."""


def from_clip(old: str = "logprobs", low: float = 0.8, high: float = 1.2, whole: bool = False) -> Callable:
    """How far ratios to the field `old`, of each token or of whole answers, are from the bounds."""

    def distance(logprobs: torch.Tensor, batch: Batch) -> torch.Tensor:
        counts = batch.weights != 0
        d = torch.where(counts, logprobs - batch.fields[old], 0.0)
        d = (d.sum(1, keepdim=True) / counts.sum(1, keepdim=True).clamp(min=1)).expand_as(d) if whole else d
        return (d.exp()[..., None] - torch.tensor([low, high])).abs().amin(-1)

    return distance


BORDERS: dict[str, Callable[[torch.Tensor, Batch], torch.Tensor]] = {
    "ppo_clip": from_clip(),
    "stable_reinforce": from_clip(),
    "ppo_tis": from_clip("logprobs/policy"),
    "tw_grpo": from_clip("logprobs", 0.8, 1.28),
    "gspo": from_clip("logprobs", 1 - 3e-4, 1 + 4e-4, whole=True),
}
"""How far each token is from where a loss has a corner; finite differences are taken elsewhere."""
VOCABULARY, HIDDEN = 4, 3

every = pytest.mark.parametrize("piece", registry.pieces("loss"), ids=lambda piece: piece.name)
every_aggregate = pytest.mark.parametrize("piece", registry.pieces("aggregate"), ids=lambda piece: piece.name)
both = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def bound(piece: registry.Piece, skip: int) -> Callable:
    """The piece as (leading arguments) -> result, its own parameters filled."""
    params = PARAMETERS.get(piece.name, {})
    fn = piece.fn() if inspect.isclass(piece.fn) else piece.fn  # a class is made without arguments and gets them with each call
    own = list(inspect.signature(fn).parameters.values())[skip:]
    missing = [p.name for p in own if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in params]
    assert not missing, f"{piece.kind} {piece.name!r} ({piece.where}) needs {missing}: give them values in PARAMETERS of this file."
    return lambda *given: fn(*given, **params)


class Toy:
    """A model that is its outputs: free logits, values and hidden states at every token."""

    def __init__(self, batch: Batch, seed: int) -> None:
        rng = np.random.default_rng(seed)
        n, t = batch.ids.shape
        shapes = {"logits": (n, t, VOCABULARY), "values": (n, t), "classes": (n, t, 3), "hidden": (n, t, HIDDEN)}
        self.parameters = {name: self.parameter(rng.normal(size=shape), batch) for name, shape in shapes.items()}

    @staticmethod
    def parameter(x: np.ndarray, batch: Batch) -> torch.Tensor:
        return torch.from_numpy(x).to(batch.weights.dtype).requires_grad_()

    def out(self, batch: Batch, piece: registry.Piece, rows: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """logprobs and what the piece needs; of some rows, cut as `Batch.rows` cuts."""
        every = {name: x if rows is None else x[rows][:, : batch.ids.shape[1]] for name, x in self.parameters.items()}
        logp = every["logits"].log_softmax(-1)
        every["logprobs"] = logp.gather(-1, batch.ids[..., None])[..., 0]
        every["entropy"] = -(logp.exp() * logp).sum(-1)
        if piece.name in CLASSES:
            every["values"] = every["classes"][..., : CLASSES[piece.name]]
        every["embeds"] = Embeds(every["logits"], batch)
        return {name: every[name] for name in ("logprobs", *piece.needs)}


class Embeds:
    """As `guerdon.backends.embeds.Embeds`, of a model in which what stands before a token moves its logits, by a fixed map."""

    def __init__(self, logits: torch.Tensor, batch: Batch) -> None:
        self.logits, self.batch = logits, batch
        self.table = torch.from_numpy(np.random.default_rng(0).normal(size=(VOCABULARY, VOCABULARY))).to(logits.dtype)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table[ids]

    def logprobs(self, inputs: torch.Tensor) -> torch.Tensor:
        before = torch.nn.functional.pad(inputs.cumsum(1)[:, :-1], (0, 0, 1, 0))
        return (self.logits + 0.3 * before).log_softmax(-1).gather(-1, self.batch.ids[..., None])[..., 0] * self.batch.mask


def held_fixed(fn: Callable) -> Callable:
    """fn, whose factors without gradient - what it makes with `.detach()` - keep the values of the first call."""
    known: list[torch.Tensor] = []
    original = torch.Tensor.detach

    def call(*given):
        seen = iter(list(known))

        def detach(x: torch.Tensor) -> torch.Tensor:
            if (value := next(seen, None)) is None:
                value = original(x).clone()
                known.append(value)
            return value

        with mock.patch.object(torch.Tensor, "detach", detach):
            return fn(*given)

    return call


def filled(batch: Batch, piece: registry.Piece) -> Batch:
    rng = np.random.default_rng(0)
    for name in piece.about.get("fields", ()):
        if name not in batch.fields:
            n, t = batch.ids.shape
            made = rng.normal(size=n) if name in PER_SAMPLE else rng.normal(size=(n, 32))[:, :t]  # the same, however much padding
            batch.fields[name] = torch.from_numpy(made).to(batch.weights.dtype)
    if "token" in piece.about.get("grains", ()):
        values = np.sin(np.arange(batch.ids.shape[1]) + batch.lengths[:, None].numpy()) * batch.mask.numpy()
        batch.rewards = replace(batch.rewards, token=Grain.of(values, np.where(batch.mask, State.SCORED, State.ABSTAINED)))
    if "step" in piece.about.get("grains", ()):
        has = batch.step_of.numpy()[:, :, None] == np.arange(9)
        values = np.sin(np.arange(9) + batch.lengths[:, None].numpy())
        batch.rewards = replace(batch.rewards, step=Grain.of(values, np.where(has.any(1), State.SCORED, State.ABSTAINED)))
    unit = piece.about.get("unit")
    if unit == "group":
        batch.unit = batch.group
    if unit == "pair":  # what the loop hands it: pairs of rows with tokens, and nothing else that counts
        written = batch.mask.any(1)
        batch.pairs = batch.pairs[written[batch.pairs].all(1)]
        batch.weights = batch.weights * torch.isin(torch.arange(len(batch)), batch.pairs)[:, None]
    return one_behind(batch) if piece.about.get("behind") else batch


def gradients(loss: torch.Tensor, toy: Toy) -> list[torch.Tensor]:
    if not loss.requires_grad:
        return [torch.zeros_like(p) for p in toy.parameters.values()]
    return list(torch.autograd.grad(loss, list(toy.parameters.values()), allow_unused=True, materialize_grads=True))


@every
@both
@given(seed=seeds)
def test_finite_scalar_and_no_gradient_where_nothing_counts(awkward, piece, dtype, seed):
    batch = filled(awkward(seed, dtype=dtype), piece)
    toy = Toy(batch, seed)
    loss, metrics = bound(piece, 2)(toy.out(batch, piece), batch)
    assert loss.shape == ()
    assert loss.dtype == dtype
    assert torch.isfinite(loss)
    for name, value in metrics.items():
        value = torch.as_tensor(value)
        assert value.shape == (), name
        assert torch.isfinite(value), name
        assert not value.requires_grad, name
    counts = batch.weights != 0
    if piece.about.get("behind"):  # it reads the column behind a token that counts
        counts = counts.any(1, keepdim=True).expand_as(counts)
    for grad in gradients(loss, toy):
        assert torch.isfinite(grad).all()
        assert not grad[~counts].any()


@every
@both
@given(seed=seeds)
def test_without_weights_there_is_no_gradient(awkward, piece, dtype, seed):
    batch = filled(awkward(seed, dtype=dtype), piece)
    batch.weights = batch.weights * 0
    toy = Toy(batch, seed)
    loss, _ = bound(piece, 2)(toy.out(batch, piece), batch)
    assert float(loss.detach()) == 0
    assert not any(grad.any() for grad in gradients(loss, toy))


@pytest.mark.parametrize("piece", [p for p in registry.pieces("loss") if p.about.get("vanishes")], ids=lambda piece: piece.name)
@given(seed=seeds)
def test_a_loss_that_claims_to_vanish_has_no_gradient_without_advantages(awkward, piece, seed):
    batch = filled(awkward(seed), piece)
    rows = torch.arange(len(batch)) % 2 == 0
    batch.advantages[rows] = 0
    toy = Toy(batch, seed)
    loss, _ = bound(piece, 2)(toy.out(batch, piece), batch)
    for grad in gradients(loss, toy):
        assert not grad[rows].any()


@every
@given(seed=seeds)
def test_splits_along_units_add_up(awkward, piece, seed):
    batch = filled(awkward(seed), piece)
    toy = Toy(batch, seed)
    fn = bound(piece, 2)
    whole, metrics = fn(toy.out(batch, piece), batch)
    first = batch.unit < batch.unit.float().mean() if len(batch) > 1 else torch.ones(1, dtype=torch.bool)
    parts, sums = [], dict.fromkeys(metrics, 0.0)
    for side in (first, ~first):
        rows = side.nonzero()[:, 0]
        if len(rows):
            part = batch.rows(rows)
            loss, found = fn(toy.out(part, piece, rows), part)
            parts.append(loss)
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value)
    torch.testing.assert_close(torch.stack(parts).sum(), whole, rtol=1e-9, atol=1e-9)
    for a, b in zip(gradients(torch.stack(parts).sum(), toy), gradients(whole, toy), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    for name, value in metrics.items():
        assert sums[name] == pytest.approx(float(value), rel=1e-9, abs=1e-9), name
    assert sums.keys() == metrics.keys()


@every
@given(seed=seeds)
def test_more_padding_adds_nothing(awkward, piece, seed):
    batch, padded = filled(awkward(seed), piece), filled(awkward(seed, padding=7), piece)
    toy, wide = Toy(batch, seed), Toy(padded, seed)
    for name, x in toy.parameters.items():
        wide.parameters[name].data[:, : x.shape[1]] = x.data
    fn = bound(piece, 2)
    loss, _ = fn(toy.out(batch, piece), batch)
    torch.testing.assert_close(fn(wide.out(padded, piece), padded)[0], loss, rtol=1e-9, atol=1e-9)


@every
@given(seed=seeds)
def test_same_numbers_again_and_the_batch_unchanged(awkward, piece, seed):
    batch = filled(awkward(seed), piece)
    toy, before = Toy(batch, seed), copy.deepcopy(batch)
    fn = bound(piece, 2)
    assert torch.equal(fn(toy.out(batch, piece), batch)[0], fn(toy.out(batch, piece), batch)[0])
    for name in ("ids", "mask", "lengths", "group", "unit", "advantages", "weights", "pairs"):
        assert torch.equal(getattr(batch, name), getattr(before, name)), name
    for name, field in batch.fields.items():
        assert torch.equal(field.nan_to_num(), before.fields[name].nan_to_num()), name


@every
@settings(max_examples=15)
@given(seed=seeds)
def test_gradient_equals_finite_differences(awkward, piece, seed):
    batch = filled(awkward(seed, n=3), piece)
    toy = Toy(batch, seed)
    if piece.name in BORDERS:
        distance = BORDERS[piece.name](toy.out(batch, piece)["logprobs"], batch)
        assume(bool((distance[batch.weights != 0] > 1e-3).all()))
    fn, h = held_fixed(bound(piece, 2)), 1e-5

    def value() -> float:
        with torch.no_grad():
            return float(fn(toy.out(batch, piece), batch)[0])

    analytic = gradients(fn(toy.out(batch, piece), batch)[0], toy)
    for parameter, grad in zip(toy.parameters.values(), analytic, strict=True):
        flat = parameter.data.view(-1)
        for k in range(len(flat)):
            old = float(flat[k])
            flat[k] = old + h
            up = value()
            flat[k] = old - h
            down = value()
            flat[k] = old
            assert float(grad.view(-1)[k]) == pytest.approx((up - down) / (2 * h), rel=1e-5, abs=1e-7)


@every_aggregate
@both
@given(seed=seeds)
def test_weights_are_finite_not_negative_and_zero_where_they_were(awkward, piece, dtype, seed):
    batch = awkward(seed, dtype=dtype)
    before = batch.weights.clone()
    weights = bound(piece, 1)(batch)
    assert weights.shape == batch.ids.shape
    assert weights.dtype == dtype
    assert torch.isfinite(weights).all()
    assert bool((weights >= 0).all())
    assert torch.equal(weights != 0, before != 0)
    assert torch.equal(batch.weights, before)
    assert torch.equal(bound(piece, 1)(batch), weights)


@every_aggregate
@given(seed=seeds, factor=st.sampled_from([0.5, 2.0]))
def test_weights_do_not_hang_on_order_padding_or_a_common_factor(awkward, piece, seed, factor):
    batch = awkward(seed)
    fn = bound(piece, 1)
    weights = fn(batch)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(batch)))
    shuffled = fn(batch.rows(order))
    torch.testing.assert_close(shuffled, weights[order][:, : shuffled.shape[1]])
    torch.testing.assert_close(fn(awkward(seed, padding=5))[:, : weights.shape[1]], weights)
    torch.testing.assert_close(fn(replace(batch, weights=batch.weights * factor)), weights)


@every_aggregate
def test_weights_of_no_samples(awkward, piece):
    assert bound(piece, 1)(awkward(0, n=0)).shape == (0, 1)

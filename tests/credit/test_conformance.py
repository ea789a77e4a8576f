"""What every registered credit estimator holds to, plug-ins included."""

from __future__ import annotations

import copy
import dataclasses
import inspect

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

import guerdon.credit  # noqa: F401 - fills the registry
from guerdon import registry
from guerdon.samples import Batch, Part, Rewards

seeds = st.integers(0, 2**32 - 1)
PARAMETERS: dict[str, dict[str, object]] = {}
"""Values of parameters without a default, by estimator."""
PER_SAMPLE = frozenset(["margin", "budget", "thought", "exit", "exit_tokens"])
"""Fields of shape (n,); the others are (n, t)."""
GRAINS = {"outcome": ("outcome",), "all": ("outcome", "step", "token")}

every = pytest.mark.parametrize("piece", registry.pieces("credit"), ids=lambda piece: piece.name)


def run(piece: registry.Piece, batch: Batch) -> torch.Tensor:
    params = PARAMETERS.get(piece.name, {})
    signature = inspect.signature(piece.fn)
    own = list(signature.parameters.values())[0 if inspect.isclass(piece.fn) else 1 :]
    missing = [p.name for p in own if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in params]
    assert not missing, f"credit {piece.name!r} ({piece.where}) needs {missing}: give them values in PARAMETERS of this file."
    rng = np.random.default_rng(0)
    needs = [name for name in piece.needs if name != "values/*"]
    if "values/*" in piece.needs:  # a critic for each of two parts
        plain = Rewards(**dict(batch.rewards.grains()))
        batch = dataclasses.replace(batch, rewards=dataclasses.replace(batch.rewards, parts={"a": Part(plain, 0.7), "b": Part(plain, 0.2)}))
        batch.fields |= {"values/a": batch.fields["values"], "values/b": batch.fields["returns"]}
    for name in needs:
        if name not in batch.fields:
            n, t = batch.ids.shape  # drawn wide, so that padding changes none of it
            drawn = rng.normal(size=n) if name in PER_SAMPLE else rng.normal(size=(n, 60))[:, :t]
            batch.fields[name] = torch.from_numpy(drawn).to(batch.weights.dtype)
    return piece.fn(**params)(batch) if inspect.isclass(piece.fn) else piece.fn(batch, **params)


def grains_of(piece: registry.Piece) -> tuple[str, ...]:
    return tuple(piece.about.get("grains", ("outcome",)))


def test_the_batches_are_awkward(awkward):
    seen = set()
    for seed in range(80):
        b = awkward(seed, ("outcome", "step", "token"))
        counts = [int(((b.group == g) & b.alive).sum()) for g in b.group.unique()]
        live = b.alive & b.mask.any(1)
        for name, found in {
            "dead group": 0 in counts,
            "group of one": 1 in counts,
            "larger group": max(counts) > 2,
            "gap in group numbers": len(b.group.unique()) <= int(b.group.max()),
            "row without tokens": 0 in b.lengths,
            "one token": 1 in b.lengths,
            "row without written tokens": bool((~b.mask.any(1) & (b.lengths > 0)).any()),
            "hint first": any(b.lengths[i] > 1 and not b.mask[i, 0] and b.mask[i].any() for i in range(len(b))),
            "tool last": any(b.lengths[i] > 1 and not b.mask[i, b.lengths[i] - 1] and b.mask[i].any() for i in range(len(b))),
            "weight 0 but alive": bool((live & ~(b.weights > 0).any(1)).any()),
            "failed": bool(b.rewards.failed.any()),
            "no log-probabilities": bool(b.fields["logprobs"].isnan().any()),
            "pairs": len(b.pairs) > 0,
            "no samples": not len(awkward(seed, n=0)),
        }.items():
            seen |= {name} if found else set()
    assert len(seen) == 14, f"never seen; found only {sorted(seen)}"


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(seed=seeds)
def test_finite_of_the_batchs_shape_and_type_and_zero_where_nothing_is_due(awkward, piece, dtype, seed):
    batch = awkward(seed, grains_of(piece), dtype)
    a = run(piece, batch)
    assert a.shape == batch.ids.shape
    assert a.dtype == dtype
    assert torch.isfinite(a).all()
    assert not a[~batch.mask].any()
    assert not a[~batch.alive].any()


@every
@given(seed=seeds)
def test_same_numbers_again_and_the_batch_unchanged(awkward, piece, seed):
    batch = awkward(seed, grains_of(piece))
    first = run(piece, batch)
    before = copy.deepcopy(batch)
    again = run(piece, batch)
    assert torch.equal(first, again)
    for name in ("ids", "mask", "lengths", "step_of", "node_of", "group", "unit", "advantages", "weights", "pairs"):
        assert torch.equal(getattr(batch, name), getattr(before, name)), name
    for name, field in batch.fields.items():
        assert torch.equal(field.nan_to_num(), before.fields[name].nan_to_num()), name
    for (name, grain), (_, old) in zip(batch.rewards.grains(), before.rewards.grains(), strict=True):
        np.testing.assert_array_equal(grain.value, old.value, name)
        np.testing.assert_array_equal(grain.state, old.state, name)


@every
@given(seed=seeds)
def test_the_order_of_samples_and_more_padding_do_not_matter(awkward, piece, seed):
    plain = awkward(seed, grains_of(piece))
    a = run(piece, plain)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(plain)))
    shuffled = run(piece, plain.rows(order))
    torch.testing.assert_close(shuffled, a[order][:, : shuffled.shape[1]], rtol=1e-9, atol=1e-9)
    padded = run(piece, awkward(seed, grains_of(piece), padding=40))
    torch.testing.assert_close(padded[:, : a.shape[1]], a, rtol=1e-9, atol=1e-9)
    assert not padded[:, a.shape[1] :].any()


@every
def test_a_batch_without_samples(awkward, piece):
    assert run(piece, awkward(0, grains_of(piece), n=0)).shape == (0, 1)


@every
def test_row_weights_do_not_change_baselines(awkward, piece):
    for seed in range(20):
        batch = awkward(seed, grains_of(piece))
        a = run(piece, batch)
        batch.weights = batch.weights * 0
        assert torch.equal(run(piece, batch), a)

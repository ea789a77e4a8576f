"""Losses of a head on pairs and lists against plain loops; their limits; splits along pairs and groups; gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.losses import pair_mean, row_mean
from guerdon.registry import Refused
from guerdon.reward_models.heads import one_behind
from guerdon.reward_models.losses_outcome import bradley_terry
from guerdon.reward_models.losses_pairs import bt_dr, list_pairs, score_spread, soft_bradley_terry
from guerdon.samples import Batch

seeds = st.integers(0, 2**32 - 1)


def logsigmoid(x: float) -> float:
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))


def sigmoid(x: float) -> float:
    return math.exp(logsigmoid(x))


def made(awkward, seed: int, weigh: Callable = pair_mean) -> tuple[dict[str, torch.Tensor], Batch, list[float]]:
    """(values, a batch with a column behind each row, r of each row worked out from the prompt's length on)."""
    batch = awkward(seed)
    written = batch.mask.any(1)
    batch.pairs = batch.pairs[written[batch.pairs].all(1)]
    batch.weights = weigh(batch)
    lengths = batch.lengths.tolist()
    batch = one_behind(batch)
    values = torch.from_numpy(2 * np.random.default_rng(seed).normal(size=batch.ids.shape))
    return {"values": values}, batch, [float(values[i, t]) for i, t in enumerate(lengths)]


def over_pairs(batch: Batch, term: Callable[[int, int], float]) -> float:
    weight = batch.weights.numpy().max(1)
    return sum(min(weight[a], weight[b]) * term(a, b) for a, b in batch.pairs.tolist())


@given(seed=seeds)
def test_losses_of_pairs_equal_the_loop(awkward, seed):
    out, batch, r = made(awkward, seed)
    outcome = batch.outcome.tolist()
    batch.fields["kind"] = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, len(batch))).double()

    def cross(q: float, d: float) -> float:
        return -q * logsigmoid(d) - (1 - q) * logsigmoid(-d)

    def level(a: int, b: int) -> float:
        there = float(batch.fields["kind"][a]) and float(batch.fields["kind"][b])
        return -logsigmoid(r[a] - r[b]) - 0.7 * bool(there) * (logsigmoid(r[a]) + logsigmoid(-r[b]))

    for found, term in (
        (soft_bradley_terry(out, batch), lambda a, b: cross(sigmoid(outcome[a] - outcome[b]), r[a] - r[b])),
        (soft_bradley_terry(out, batch, scale=3.0), lambda a, b: cross(sigmoid(3 * (outcome[a] - outcome[b])), r[a] - r[b])),
        (soft_bradley_terry(out, batch, smoothing=0.05), lambda a, b: cross(0.95, r[a] - r[b])),
        (bt_dr(out, batch, 0.7, "kind"), level),
        (bt_dr(out, batch), lambda a, b: -logsigmoid(r[a] - r[b]) - logsigmoid(r[a]) - logsigmoid(-r[b])),
    ):
        assert float(found[0]) == pytest.approx(over_pairs(batch, term), abs=1e-9)
    assert float(bt_dr(out, batch)[1]["level"]) == pytest.approx(over_pairs(batch, lambda a, b: float(r[a] > 0 > r[b])), abs=1e-12)


@given(seed=seeds)
def test_without_their_terms_they_are_bradley_terry(awkward, seed):
    out, batch, _ = made(awkward, seed)
    plain = float(bradley_terry(out, batch)[0])
    assert float(soft_bradley_terry(out, batch, smoothing=0.0)[0]) == pytest.approx(plain, abs=1e-12)
    assert float(bt_dr(out, batch, weight=0.0)[0]) == pytest.approx(plain, abs=1e-12)


@given(seed=seeds)
def test_losses_of_lists_equal_the_loop(awkward, seed):
    out, batch, r = made(awkward, seed, row_mean)
    weight, outcome, group = batch.weights.numpy().max(1), batch.outcome.tolist(), batch.group.tolist()
    listed = spread = 0.0
    for g in set(group):
        rows = [i for i in range(len(batch)) if group[i] == g and weight[i] > 0]
        better = [(i, j) for i in rows for j in rows if outcome[i] > outcome[j]]
        listed -= sum(weight[rows]) * sum(logsigmoid(r[i] - r[j]) for i, j in better) / max(len(better), 1)
        k = len(rows)
        apart = sum(sigmoid(abs(r[i] - r[j])) for i in rows for j in rows if i < j)
        spread += sum(weight[rows]) * apart * (2 / (k * (k - 1)) if k > 1 else 0.0)
    assert float(list_pairs(out, batch)[0]) == pytest.approx(listed, abs=1e-9)
    value, metrics = score_spread(out, batch)
    assert float(value) == pytest.approx(-spread, abs=1e-9)
    assert float(metrics["spread"]) == pytest.approx(spread, abs=1e-9)


@given(seed=seeds)
def test_pairs_add_up_however_they_are_split(awkward, seed):
    """Not only along `unit`: every pair alone, cut to its own length."""
    out, batch, _ = made(awkward, seed)
    values = out["values"].requires_grad_()
    for fn in (bradley_terry, soft_bradley_terry, bt_dr):
        whole = fn({"values": values}, batch)[0]
        parts = values.new_zeros(())
        for p in range(len(batch.pairs)):
            rows = batch.pairs[p]
            part = replace(batch, pairs=batch.pairs[p : p + 1]).rows(rows)
            parts = parts + fn({"values": values[rows][:, : part.ids.shape[1]]}, part)[0]
        assert float(parts.detach()) == pytest.approx(float(whole.detach()), abs=1e-10)
        if len(batch.pairs):
            a, b = (torch.autograd.grad(x, values)[0] for x in (whole, parts))
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fn", [soft_bradley_terry, bt_dr, list_pairs, score_spread], ids=lambda fn: fn.__name__)
def test_gradients_are_those_of_finite_differences(awkward, fn):
    for seed in range(6):
        out, batch, _ = made(awkward, seed, pair_mean if fn in (soft_bradley_terry, bt_dr) else row_mean)
        assert torch.autograd.gradcheck(lambda v, batch=batch: fn({"values": v}, batch)[0], (out["values"].requires_grad_(),))


def test_a_list_pushes_its_best_answers_score_up(awkward):
    out, batch, _ = next(m for m in (made(awkward, seed, row_mean) for seed in range(200)) if ranked_row(m[1]) is not None)
    values = out["values"].requires_grad_()
    best = ranked_row(batch)
    assert best is not None
    gradient = torch.autograd.grad(list_pairs({"values": values}, batch)[0], values)[0]
    assert float(gradient[best, batch.lengths[best] - 1]) < 0


def ranked_row(batch: Batch) -> int | None:
    """A counting row that is the best of a group in which a counting row is worse."""
    weight, outcome = batch.weights.numpy().max(1), batch.outcome.numpy()
    for i in np.flatnonzero(weight > 0).tolist():
        others = outcome[(batch.group.numpy() == int(batch.group[i])) & (weight > 0)]
        if outcome[i] == others.max() > others.min():
            return i
    return None


def test_what_cannot_be_used_is_refused(awkward):
    out, batch, _ = next(m for m in (made(awkward, seed) for seed in range(50)) if len(m[1].pairs))
    with pytest.raises(Refused, match="from 0 to 1"):
        soft_bradley_terry(out, batch, smoothing=1.5)
    with pytest.raises(Refused, match="bt_dr: `absolute` names 'kimd'"):
        bt_dr(out, batch, absolute="kimd")

"""Losses of heads against plain loops over rows, steps and tokens; what calibration comes to."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from guerdon.reward_models import (
    bradley_terry,
    ordinal,
    outcome_ce,
    outcome_classes,
    outcome_mse,
    prefix_values,
    step_ce,
    step_classes,
    step_mean,
    token_values,
)
from guerdon.reward_models.calibration import expected_error, isotonic, log_loss, temperature
from guerdon.reward_models.heads import one_behind
from guerdon.samples import Batch, Grain, Rewards, State

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=25)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def made(awkward, seed: int, classes: int = 0) -> tuple[Batch, torch.Tensor, np.random.Generator]:
    batch, rng = one_behind(awkward(seed, ("outcome", "step", "token"))), np.random.default_rng(seed)
    shape = (*batch.ids.shape, classes) if classes else batch.ids.shape
    return batch, torch.from_numpy(rng.normal(size=shape)), rng


def whole(batch: Batch, values: torch.Tensor, row: int) -> np.ndarray:
    """The value behind the last token of a row: the column that was added starts where the row ended before."""
    return values[row, int(batch.lengths[row]) - 1].numpy()


def weight(batch: Batch, row: int) -> float:
    return max(batch.weights[row].tolist())


@given(seed=seeds)
@few
def test_losses_of_whole_answers(awkward, seed):
    batch, values, _ = made(awkward, seed)
    right = batch.outcome.tolist()
    mse = ce = 0.0
    for i, y in enumerate(right):
        r = float(whole(batch, values, i))
        mse += weight(batch, i) * (r - y) ** 2
        y = min(max(y, 0.0), 1.0)
        ce -= weight(batch, i) * (y * math.log(sigmoid(r)) + (1 - y) * math.log(1 - sigmoid(r)))
    assert float(outcome_mse({"values": values}, batch)[0]) == pytest.approx(mse, abs=1e-9)
    assert float(outcome_ce({"values": values}, batch)[0]) == pytest.approx(ce, abs=1e-9)


@given(seed=seeds)
@few
def test_bradley_terry(awkward, seed):
    batch, values, _ = made(awkward, seed)
    written = batch.mask.any(1)
    batch.pairs = batch.pairs[written[batch.pairs].all(1)]
    total = 0.0
    for i, j in batch.pairs.tolist():
        a, b = float(whole(batch, values, i)), float(whole(batch, values, j))
        gap = a - b - 0.3 * (float(batch.outcome[i]) - float(batch.outcome[j]))
        total += min(weight(batch, i), weight(batch, j)) * (-math.log(sigmoid(gap)) + 0.05 * (a * a + b * b))
    assert float(bradley_terry({"values": values}, batch, margin=0.3, square=0.05)[0]) == pytest.approx(total, abs=1e-9)


@given(seed=seeds)
@few
def test_classes_and_levels(awkward, seed):
    batch, values, rng = made(awkward, seed, 3)
    n = len(batch)
    labels = rng.integers(1, 6, n).astype(float)
    state = np.where(batch.rewards.alive, State.SCORED, State.ABSTAINED)
    batch.rewards = Rewards(Grain.of(labels, state))
    batch.__dict__.pop("outcome", None)
    levels, classes = ordinal(), (1, 3, 5)
    with torch.no_grad():
        levels.gaps.copy_(torch.linspace(-1, 2, len(levels.gaps)))
    bounds = [-1.0]
    for gap in levels.gaps.tolist()[:3]:
        bounds.append(bounds[-1] + math.log1p(math.exp(gap)))
    ce = odds = 0.0
    for i in range(n):
        r, y = whole(batch, values, i), float(batch.outcome[i])
        k = int(np.argmin(np.abs(np.array(classes) - y)))
        ce -= weight(batch, i) * (r[k] - math.log(np.exp(r).sum()))
        level = min(max(round(y) - 1, 0), 4)
        above = [1.0, *(sigmoid(float(r[0]) - b) for b in bounds), 0.0]
        odds -= weight(batch, i) * math.log(above[level] - above[level + 1])
    assert float(outcome_classes({"values": values}, batch, classes)[0]) == pytest.approx(ce, abs=1e-9)
    assert float(levels({"values": values[..., 0]}, batch)[0].detach()) == pytest.approx(odds, abs=1e-6)  # the bounds are float32


@given(seed=seeds)
@few
def test_losses_of_steps(awkward, seed):
    batch, values, _ = made(awkward, seed)
    many = torch.from_numpy(np.random.default_rng(seed).normal(size=(*batch.ids.shape, 3)))
    of, step = batch.step_of.numpy(), batch.rewards.step
    assert step is not None
    ce = classes = count = 0.0
    for i in range(len(batch)):
        for k in range(step.value.shape[1]):
            inside = np.flatnonzero(of[i] == k)
            if step.state[i, k] != State.SCORED or not len(inside):
                continue
            y, w = float(step.value[i, k]), weight(batch, i)
            c, r = float(values[i, inside[-1] + 1]), many[i, inside[-1] + 1].numpy()
            hard = int(np.argmin(np.abs(np.array([-1, 0, 1]) - y)))
            classes -= w * (r[hard] - math.log(np.exp(r).sum()))
            y = min(max(y, 0.0), 1.0)
            ce -= w * (y * math.log(sigmoid(c)) + (1 - y) * math.log(1 - sigmoid(c)))
            count += w
    assert float(step_ce({"values": values}, batch)[0]) == pytest.approx(ce, abs=1e-9)
    assert float(step_classes({"values": many}, batch)[0]) == pytest.approx(classes, abs=1e-9)
    if count:
        np.testing.assert_allclose(step_mean(batch).numpy(), batch.weights.numpy() / count, atol=1e-12)


@given(seed=seeds)
@few
def test_token_values(awkward, seed):
    batch, values, _ = made(awkward, seed)
    token = batch.rewards.token
    assert token is not None
    total = 0.0
    for i in range(len(batch)):
        for t in range(min(int(batch.lengths[i]) - 1, token.value.shape[1])):
            if token.state[i, t] == State.SCORED:
                total += float(batch.weights[i, t]) * (sigmoid(float(values[i, t + 1])) - token.value[i, t]) ** 2
    assert float(token_values({"values": values}, batch)[0]) == pytest.approx(total, abs=1e-9)


@given(seed=seeds)
@few
def test_prefix_values_are_means_over_rows_that_begin_alike(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    ids = [rng.integers(0, 2, int(rng.integers(0, 6))) for _ in range(n)]
    outcomes, group = rng.integers(0, 2, n).astype(float), rng.integers(0, 2, n)
    for i, found in enumerate(prefix_values(ids, outcomes.tolist(), group.tolist())):
        assert len(found) == len(ids[i])
        for t, value in enumerate(found):
            alike = [j for j in range(n) if group[j] == group[i] and ids[j][: t + 1].tolist() == ids[i][: t + 1].tolist()]
            assert value == pytest.approx(np.mean(outcomes[alike]))


def test_calibration():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=20_000) * 2
    labels = (rng.random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(float)
    assert temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)
    grid = min(np.geomspace(0.05, 20, 4000), key=lambda t: log_loss(3 * logits, labels, t))
    assert temperature(3 * logits, labels) == pytest.approx(grid, rel=0.01)
    assert expected_error(1 / (1 + np.exp(-logits)), labels) < 0.02 < 0.1 < expected_error(1 / (1 + np.exp(-3 * logits)), labels)
    at, p = isotonic(np.array([1.0, 2, 2, 3, 4]), np.array([0.0, 1, 0, 0, 1]))
    np.testing.assert_allclose(at, [1, 2, 3, 4])
    np.testing.assert_allclose(p, [0, 1 / 3, 1 / 3, 1])
    scores = rng.normal(size=200)
    y = (rng.random(200) < 1 / (1 + np.exp(-scores))).astype(float)
    at, p = isotonic(scores, y)
    assert (np.diff(p) >= 0).all()
    from scipy.optimize import isotonic_regression

    np.testing.assert_allclose(p, isotonic_regression(y[np.argsort(scores)]).x, atol=1e-12)

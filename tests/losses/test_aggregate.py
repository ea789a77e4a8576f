"""Denominators against loops, and what they promise."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.losses import constant, per_node, sequence_mean, token_mean
from guerdon.samples import Batch, Grain, Rewards, Sample, State, Task, collate

seeds = st.integers(0, 2**32 - 1)


def row_weight(batch: Batch, i: int) -> float:
    return max(float(w) for w in batch.weights[i])


def token_mean_by_hand(batch: Batch, i: int, t: int) -> float:
    everything = sum(float(w) for row in batch.weights for w in row)
    return float(batch.weights[i, t]) / everything


def sequence_mean_by_hand(batch: Batch, i: int, t: int) -> float:
    answers = sum(row_weight(batch, j) for j in range(len(batch)))
    written = sum(bool(batch.mask[i, u]) for u in range(int(batch.lengths[i])))
    return float(batch.weights[i, t]) / written / answers


def constant_by_hand(batch: Batch, i: int, t: int) -> float:
    answers = sum(row_weight(batch, j) for j in range(len(batch)))
    return float(batch.weights[i, t]) / answers / 64


ALL = [(token_mean, token_mean_by_hand), (sequence_mean, sequence_mean_by_hand), (lambda b: constant(b, 64), constant_by_hand)]


@pytest.mark.parametrize(("aggregate", "hand"), ALL, ids=["token_mean", "sequence_mean", "constant"])
@given(seed=seeds)
def test_equals_the_loop(awkward, aggregate, hand, seed):
    batch = awkward(seed)
    expected = [[0.0] * batch.ids.shape[1] for _ in range(len(batch))]
    for i in range(len(batch)):
        for t in range(int(batch.lengths[i])):
            if float(batch.weights[i, t]) > 0:
                expected[i][t] = hand(batch, i, t)
    torch.testing.assert_close(aggregate(batch).tolist(), expected, rtol=1e-9, atol=1e-12)


@given(seed=seeds)
def test_means_have_weights_of_sum_1(awkward, seed):
    batch = awkward(seed)
    total = 1.0 if bool((batch.weights > 0).any()) else 0.0
    for aggregate in (token_mean, sequence_mean):
        assert float(aggregate(batch).sum()) == pytest.approx(total, abs=1e-12)


def test_by_hand_with_a_failed_row_a_weightless_row_and_a_tool():
    written = [[1, 1, 1], [1, 0, 1], [1], [1, 1]]
    samples = [Sample(Task("a", "p"), "", np.ones(1), np.ones(len(w)), written=np.array(w, bool)) for w in written]
    batch = collate(samples, Rewards(Grain.of([1, 0, 0, 1], [0, 0, State.FAILED, 0])), dtype=torch.float64)
    batch.weights *= torch.tensor([[1.0], [1.0], [1.0], [0.0]])
    fifth, half = 1 / 5, 1 / 2
    torch.testing.assert_close(token_mean(batch)[:2].tolist(), [[fifth] * 3, [fifth, 0.0, fifth]])
    torch.testing.assert_close(sequence_mean(batch)[:2].tolist(), [[half / 3] * 3, [half / 2, 0.0, half / 2]])
    torch.testing.assert_close(constant(batch, 10)[:2].tolist(), [[0.05] * 3, [0.05, 0.0, 0.05]])
    for aggregate in (token_mean, sequence_mean, lambda b: constant(b, 10)):
        assert not aggregate(batch)[2:].any()


@given(seed=seeds)
def test_per_node_gives_the_distinct_tokens_of_a_group_one_weight_between_them(awkward, seed):
    batch = awkward(seed)
    batch.weights = (batch.weights > 0).double()
    trained = [i for i in range(len(batch)) if row_weight(batch, i)]
    at: dict[tuple, list[tuple[int, int]]] = {}
    for i in trained:
        for t in range(int(batch.lengths[i])):
            at.setdefault((int(batch.group[i]), *batch.ids[i, : t + 1].tolist()), []).append((i, t))
    expected = torch.zeros_like(batch.weights)
    for places in at.values():
        for i, t in places:
            expected[i, t] = float(batch.weights[i, t]) / len(places)
    torch.testing.assert_close(per_node(batch), expected / max(float(expected.sum()), 1e-12), rtol=1e-9, atol=1e-12)
    assert bool((batch.weights > 0).any()) == bool((per_node(batch) > 0).any())

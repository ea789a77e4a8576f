"""Rows that differ from the others of their group, against the credit whose advantage this is."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.credit import dr_grpo, rloo
from guerdon.curation import advantage_filter
from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample, Task, collate


def written(value: list[float], state: list[int], group: list[int]) -> tuple[list[Sample], Rewards]:
    samples = [Sample(Task("t", "p"), "", np.array([1]), np.array([1, 2]), group=g) for g in group]
    return samples, Rewards(Grain.of(value, state))


@given(seed=st.integers(0, 2**32 - 1))
def test_it_keeps_the_rows_whose_rloo_advantage_is_not_small(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    samples, rewards = written(
        rng.choice([0.0, 0.005, 0.5, 1.0], n).tolist(), rng.choice([0, 0, 0, 2], n).tolist(), rng.integers(0, 3, n).tolist()
    )
    a = rloo(collate(samples, rewards, dtype=torch.float64))[:, 0].numpy()
    kept = advantage_filter(samples, rewards, Context())
    clear = np.abs(np.abs(a) - 0.01) > 1e-9  # on the border rounding decides
    np.testing.assert_array_equal(kept.weights[clear], (np.abs(a) >= 0.01)[clear])
    np.testing.assert_array_equal(kept.rows, np.arange(n))


def test_loop_advantage_is_that_of_a_mean_baseline_times_n_over_n_minus_1():
    batch = collate(*written([1.0, 0.25, 0.0, 0.75, 0.0, 0.5], [0] * 6, [0] * 6), dtype=torch.float64)
    np.testing.assert_allclose(rloo(batch), dr_grpo(batch) * 6 / 5, atol=1e-12)


def test_a_negative_least_is_refused():
    with pytest.raises(Refused, match="0 or more"):
        advantage_filter(*written([1.0], [0], [0]), Context(), least=-1.0)

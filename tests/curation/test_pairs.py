"""Chosen and rejected, against what the words say."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from guerdon.curation import best_worst
from guerdon.samples import Context, Grain, Rewards, Sample, State, Task


@given(seed=st.integers(0, 2**32 - 1), gap=st.sampled_from([0.0, 0.3, 0.5]))
def test_the_best_and_the_worst_living_sample_of_every_group_far_enough_apart(seed, gap):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 20))
    samples = [Sample(Task("t", "p"), "x", group=int(rng.integers(4))) for _ in range(n)]
    state = rng.choice([State.SCORED] * 5 + [State.ABSTAINED, State.FAILED], n)
    rewards = Rewards(Grain.of(rng.random(n), state))
    kept = best_worst(samples, rewards, Context(), gap)
    expected = []
    for g in range(4):
        living = sorted((float(rewards.total()[i]), i) for i in range(n) if samples[i].group == g and rewards.alive[i])
        if len(living) > 1 and living[-1][0] - living[0][0] >= gap:
            expected.append([living[-1][1], living[0][1]])
    assert kept.pairs.tolist() == expected
    assert kept.rows.tolist() == sorted(i for pair in expected for i in pair)


@pytest.mark.parametrize(
    ("values", "pairs", "rows"), [([1, 1], [], []), ([0, 1, 1, 0], [[1, 0]], [0, 1, 2, 3]), ([0.2, 0, 0.9], [[2, 1]], [1, 2])]
)
def test_ties(values, pairs, rows):
    samples = [Sample(Task("t", "p"), "x") for _ in values]
    kept = best_worst(samples, Rewards(Grain.of(values)), Context())
    assert kept.pairs.tolist() == pairs
    assert kept.rows.tolist() == rows

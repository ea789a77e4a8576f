"""Chosen and rejected, against what the words say."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from guerdon.curation import all_pairs, best_worst, margin_pairs
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


@given(seed=st.integers(0, 2**32 - 1), gap=st.sampled_from([0.0, 0.5]))
def test_all_pairs_are_every_higher_with_every_lower_one_of_the_group(seed, gap):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 16))
    samples = [Sample(Task("t", "p"), "x", group=int(rng.integers(3))) for _ in range(n)]
    state = rng.choice([State.SCORED] * 5 + [State.ABSTAINED, State.FAILED], n)
    rewards = Rewards(Grain.of(rng.integers(0, 3, n) / 2, state))
    kept = all_pairs(samples, rewards, Context(), gap)
    value, alive = rewards.total(), rewards.alive
    expected = {
        (i, j)
        for i in range(n)
        for j in range(n)
        if samples[i].group == samples[j].group and alive[i] and alive[j] and value[i] > value[j] and value[i] - value[j] >= gap
    }
    assert len(kept.pairs) == len(expected)
    assert {(a, b) for a, b in kept.pairs.tolist()} == expected
    assert kept.rows.tolist() == list(range(n))


@given(seed=st.integers(0, 2**32 - 1), gap=st.sampled_from([0.0, 0.3]), ties=st.booleans())
def test_all_pairs_and_those_of_a_margin_against_the_words(seed, gap, ties):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 14))
    sources = rng.choice(["policy", "teacher"], n)
    samples = [Sample(Task("t", "p"), "x", group=int(rng.integers(3)), source=str(sources[i])) for i in range(n)]
    rewards = Rewards(Grain.of(rng.integers(0, 4, n) / 3, rng.choice([State.SCORED] * 5 + [State.ABSTAINED, State.FAILED], n)))
    value, alive = rewards.total(), rewards.alive
    near = [(i, j) for i in range(n) for j in range(n) if i != j and alive[i] and alive[j] and samples[i].group == samples[j].group]
    ahead = {(i, j) for i, j in near if value[i] > value[j] and value[i] - value[j] >= gap}
    even = {(i, j) for i, j in near if value[i] == value[j] and i < j} if ties else set()
    every = all_pairs(samples, rewards, Context(), gap, ties)
    assert set(map(tuple, every.pairs.tolist())) == ahead | even
    assert len(every.pairs) == len(ahead | even)
    assert every.rows.tolist() == list(range(n))
    wide = margin_pairs(samples, rewards, Context(), gap)
    expected = {(i, j) for i, j in ahead if "policy" in (sources[i], sources[j])}
    assert set(map(tuple, wide.pairs.tolist())) == expected
    assert wide.rows.tolist() == sorted({i for pair in expected for i in pair})

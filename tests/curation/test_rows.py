"""Which rows stay, against what the words say."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from guerdon.credit import dr_grpo
from guerdon.curation import accuracy_band, dynamic_sampling, one_each, overlong_filter, overlong_mask
from guerdon.samples import Context, Grain, Rewards, Sample, State, Task, collate

seeds = st.integers(0, 2**32 - 1)


def some(seed: int) -> tuple[list[Sample], Rewards]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 20))
    samples = [Sample(Task("t", "p"), "x", group=int(rng.integers(5)), stop=str(rng.choice(["end", "length"]))) for _ in range(n)]
    state = rng.choice([State.SCORED] * 5 + [State.ABSTAINED, State.FAILED], n)
    return samples, Rewards(Grain.of(rng.integers(0, 2, n), state))


@given(seed=seeds)
def test_dynamic_sampling_keeps_whole_groups_whose_living_rewards_differ(seed):
    samples, rewards = some(seed)
    kept = dynamic_sampling(samples, rewards, Context())
    expected = []
    for i, s in enumerate(samples):
        found = {float(rewards.total()[j]) for j, other in enumerate(samples) if other.group == s.group and rewards.alive[j]}
        if len(found) > 1:
            expected.append(i)
    assert kept.rows.tolist() == expected
    assert kept.weights.tolist() == [1.0] * len(samples)


@given(seed=seeds)
def test_an_accuracy_band_keeps_groups_that_are_neither_easy_nor_hard(seed):
    samples, rewards = some(seed)
    kept = accuracy_band(samples, rewards, Context(), low=0.3, high=0.6)
    expected = []
    for i, s in enumerate(samples):
        living = [float(rewards.total()[j]) for j, other in enumerate(samples) if other.group == s.group and rewards.alive[j]]
        if living and 0.3 <= sum(living) / len(living) <= 0.6:
            expected.append(i)
    assert kept.rows.tolist() == expected


def test_the_borders_of_an_accuracy_band_are_within():
    samples = [Sample(Task("t", "p"), "x", group=g) for g in (0, 1, 2) for _ in range(5)]
    rewards = Rewards(Grain.of([1, 0, 0, 0, 0] + [1, 1, 1, 1, 0] + [1] * 5))
    assert accuracy_band(samples, rewards, Context()).rows.tolist() == list(range(10))


@given(seed=seeds)
def test_one_each_weighs_both_sides_of_a_group_alike(seed):
    samples, rewards = some(seed)
    kept = one_each(samples, rewards, Context())
    for g in {s.group for s in samples}:
        rows = [i for i, s in enumerate(samples) if s.group == g]
        good = [i for i in rows if rewards.alive[i] and rewards.total()[i] == 1]
        bad = [i for i in rows if rewards.alive[i] and rewards.total()[i] == 0]
        assert set(rows) & set(kept.rows.tolist()) == (set(rows) if good and bad else set())
        for i in rows:
            side = good if i in good else bad if i in bad else []
            assert kept.weights[i] == (1 / len(side) if side and good and bad else 0)


@given(seed=seeds)
def test_overlong_answers_leave_or_lose_their_weight(seed):
    samples, rewards = some(seed)
    whole = [i for i, s in enumerate(samples) if s.stop == "end"]
    assert overlong_filter(samples, rewards, Context()).rows.tolist() == whole
    masked = overlong_mask(samples, rewards, Context())
    assert masked.rows.tolist() == list(range(len(samples)))
    assert np.flatnonzero(masked.weights == 1).tolist() == whole
    assert np.flatnonzero(masked.weights == 0).tolist() == [i for i in range(len(samples)) if i not in whole]


def test_a_failed_sample_makes_no_difference_of_its_own():
    samples = [Sample(Task("t", "p"), "x", group=g) for g in (0, 0, 1, 1, 2)]
    rewards = Rewards(Grain.of([1, 0, 1, 0, 1], [0, State.FAILED, 0, 0, 0]))
    assert dynamic_sampling(samples, rewards, Context()).rows.tolist() == [2, 3]


def test_a_mask_keeps_the_baseline_and_a_filter_moves_it():
    """The rows of a group (1, 0, 0 cut off): masked, the mean is a third; filtered, a half."""
    samples = [Sample(Task("t", "p"), "x", np.ones(1), np.ones(2), stop=stop) for stop in ("end", "end", "length")]
    rewards = Rewards(Grain.of([1, 0, 0]))
    first = {}
    for keep in (overlong_mask, overlong_filter):
        rows = keep(samples, rewards, Context()).rows
        first[keep] = float(dr_grpo(collate([samples[i] for i in rows], rewards.rows(rows)))[0, 0])
    assert abs(first[overlong_mask] - 2 / 3) < 1e-6
    assert abs(first[overlong_filter] - 1 / 2) < 1e-6

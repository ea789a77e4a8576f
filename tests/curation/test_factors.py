"""Ranked factors against a loop over pairs and levels."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from guerdon.curation import ranked_factors
from guerdon.curation.factors import compare
from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Part, Rewards, Sample, Task

seeds = st.integers(0, 2**32 - 1)


def decide(a: list[float], b: list[float], margins: list[float]) -> int:
    for x, y, m in zip(a, b, margins, strict=True):
        if x > y + m:
            return 1
        if y > x + m:
            return -1
    return 0


@given(seed=seeds)
def test_the_first_factor_that_differs_by_more_than_its_margin_decides(seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, 4, (12, 3)).astype(float) for _ in range(2))
    a[rng.random(a.shape) < 0.1] = np.nan
    margins = rng.choice([0.0, 0.5, 1.5], 3)
    assert compare(a, b, margins).tolist() == [decide(x, y, margins.tolist()) for x, y in zip(a.tolist(), b.tolist(), strict=True)]


@given(seed=seeds)
def test_pairs_of_a_batch_equal_the_loop(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 14))
    right, state, words = rng.integers(0, 2, n).astype(float), rng.choice([0, 0, 0, 1, 2], n), rng.integers(1, 9, n)
    samples = [Sample(Task("t", "q"), "", group=int(g), meta={"words": int(w)}) for g, w in zip(rng.integers(0, 3, n), words, strict=True)]
    rewards = Rewards(Grain.of(right, state), parts={"right": Part(Rewards(Grain.of(right, state)))})
    kept = ranked_factors(samples, rewards, Context(), factors=["right", "-words"], margins=[0, 0.7])
    alive = [i for i in range(n) if state[i] == 0]
    margins = [0.0, 0.7 * float(np.std([words[i] for i in alive])) if alive else 0.0]
    expected = set()
    for i in alive:
        for j in alive:
            if samples[i].group == samples[j].group and decide([right[i], -words[i]], [right[j], -words[j]], margins) > 0:
                expected.add((i, j))
    assert {tuple(p) for p in kept.pairs.tolist()} == expected
    assert len(kept.pairs) == len(expected)
    assert kept.rows.tolist() == list(range(n))


def test_a_factor_in_other_units_gives_the_same_pairs_and_what_is_not_there_is_refused():
    rng = np.random.default_rng(0)
    samples = [Sample(Task("t", "q"), "", meta={"right": i % 2, "cost": float(rng.normal())}) for i in range(9)]
    rewards = Rewards(Grain.of(np.zeros(9)))
    found = ranked_factors(samples, rewards, Context(), ["right", "-cost"])
    for sample in samples:
        sample.meta["cost"] *= 100
    np.testing.assert_array_equal(ranked_factors(samples, rewards, Context(), ["right", "-cost"]).pairs, found.pairs)
    with pytest.raises(Refused, match=r"'costs' is no part of the reward.*did you mean 'cost'"):
        ranked_factors(samples, rewards, Context(), ["-costs"])
    with pytest.raises(Refused, match="one margin of 0 or more for each of 2"):
        ranked_factors(samples, rewards, Context(), ["right", "cost"], [1.0])

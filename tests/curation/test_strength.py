"""The strength of preferences by hand, and what is flipped, dropped and kept."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from guerdon.curation.strength import preference_strength, relabel
from guerdon.registry import Refused


def test_strength_by_hand_and_without_the_models_that_have_seen_a_pair():
    scores = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, np.nan], [4.0, 0.0, 1.0]])
    found = preference_strength(scores, np.array([[0, 1], [2, 0]]))
    np.testing.assert_allclose(found.mean, [(1 - 3 + 4) / 3, (-2 - 3) / 2])
    np.testing.assert_allclose(found.std, [float(np.std([1, -3, 4])), 0.5])


@given(seed=st.integers(0, 2**32 - 1), flip=st.sampled_from([0.0, 0.2, 0.5]), drop=st.sampled_from([0.0, 0.3]))
def test_relabel_against_a_loop_over_the_pairs_in_order(seed, flip, drop):
    rng = np.random.default_rng(seed)
    p = int(rng.integers(0, 20))
    mean = rng.permutation(40)[:p] / 10 - 1.55
    pairs = np.arange(2 * p).reshape(p, 2)
    found = relabel(pairs, mean, flip, drop)
    expected = {}
    for place, i in enumerate(sorted(range(p), key=lambda i: mean[i])):
        if place < round(flip * p):
            expected[i] = ([2 * i + 1, 2 * i], -mean[i]) if mean[i] < 0 else ([2 * i, 2 * i + 1], mean[i])
        elif place >= round((flip + drop) * p):
            expected[i] = ([2 * i, 2 * i + 1], mean[i])
    assert found.of.tolist() == sorted(expected)
    for i, pair, value, margin in zip(found.of.tolist(), found.pairs.tolist(), found.strength, found.margin, strict=True):
        assert pair == expected[i][0]
        assert value == expected[i][1]
        assert margin == max(value, 0)
    assert pairs.tolist() == np.arange(2 * p).reshape(p, 2).tolist()


def test_what_cannot_be_used_is_refused():
    with pytest.raises(Refused, match="both sides of pair 1"):
        preference_strength(np.array([[1.0, 2.0, np.nan]]), np.array([[0, 1], [0, 2]]))
    with pytest.raises(Refused, match=r"\(models, answers\)"):
        preference_strength(np.zeros(3), np.array([[0, 1]]))
    with pytest.raises(Refused, match="from 0 to 1 together"):
        relabel(np.array([[0, 1]]), np.zeros(1), 0.7, 0.7)
    with pytest.raises(Refused, match="1 pairs but 2 strengths"):
        relabel(np.array([[0, 1]]), np.zeros(2))

"""The benches' numbers against loops over the definitions, worked cases and their chance levels."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.evals.bench import calibration, curves, metrics
from guerdon.registry import Refused

FOUR = np.array([True, False, False, False])
FEW = st.integers(-2, 2).map(float)  # ties are common


def answers(least: int = 2, most: int = 6) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """Scores, some without a verdict, and truths of both kinds."""
    cell = st.tuples(st.one_of(FEW, st.just(math.nan)), st.booleans())
    rows = st.lists(cell, min_size=least, max_size=most).filter(lambda r: len({ok for _, ok in r}) == 2)
    return rows.map(lambda r: (np.array([s for s, _ in r]), np.array([ok for _, ok in r])))


def test_a_constant_scorer_is_at_chance() -> None:
    same = np.full(4, 3.0)
    assert metrics.best_of_k(same, FOUR) == 0.25
    assert metrics.best_of_k(np.full(4, np.nan), FOUR) == 0.25
    assert metrics.strict(same, FOUR) == 0
    assert metrics.not_below(same, FOUR) == 1
    assert metrics.one_to_one(same, FOUR) == 0.5
    assert metrics.reciprocal_rank(same, FOUR) == 0.25  # pessimistic: behind all three


def test_a_random_scorer_is_at_chance() -> None:
    rng = np.random.default_rng(0)
    ten = np.arange(10) == 0
    scores = rng.normal(size=(20_000, 10))
    rank = np.mean([metrics.reciprocal_rank(s, ten) for s in scores])
    assert rank == pytest.approx(sum(1 / k for k in range(1, 11)) / 10, abs=0.006)  # 0.293
    assert np.mean([metrics.strict(s, ten) for s in scores]) == pytest.approx(0.1, abs=0.007)
    assert np.mean([metrics.best_of_k(s[:4], FOUR) for s in scores]) == pytest.approx(0.25, abs=0.01)


@given(answers())
@settings(deadline=None)
def test_metrics_of_one_prompt_by_loops(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, right = case
    rows = [(-math.inf if math.isnan(s) else s, bool(ok)) for s, ok in zip(scores, right, strict=True)]
    top = [ok for s, ok in rows if s == max(s for s, _ in rows)]
    good, bad = [s for s, ok in rows if ok], [s for s, ok in rows if not ok]
    assert metrics.best_of_k(scores, right) == pytest.approx(sum(top) / len(top))
    assert metrics.strict(scores, right) == all(g > b for g in good for b in bad)
    assert metrics.not_below(scores, right) == all(g >= b for g in good for b in bad)
    pairs = [1.0 if g > b else 0.5 if g == b else 0.0 for g in good for b in bad]
    assert metrics.one_to_one(scores, right) == pytest.approx(sum(pairs) / len(pairs))
    ranked = sorted(rows, key=lambda row: (-row[0], row[1]))  # wrong ones first among equal ones
    assert metrics.reciprocal_rank(scores, right) == pytest.approx(1 / (1 + [ok for _, ok in ranked].index(True)))


def test_styles_easy_normal_hard_by_hand() -> None:
    right = np.array([True, True, True, False, False, False])
    matrix = metrics.style_matrix(np.array([1.0, 3.0, 5.0, 0.0, 3.0, 4.0]), right)
    assert matrix.tolist() == [[1, 0, 0], [1, 0, 0], [1, 1, 1]]
    assert metrics.difficulty(matrix).tolist() == [1.0, 2 / 3, 0.0]
    by_length = metrics.style_matrix(np.array([1.0, 2.0, 3.0, 1.0, 2.0, 3.0]), right)  # a judge of style alone
    assert metrics.difficulty(by_length).tolist() == [1.0, 0.0, 0.0]


def test_ties_by_hand() -> None:
    ref = (np.array([2.0, 1.0]), np.array([True, False]))
    tied = (np.array([3.0, 2.5, 1.0, 0.0]), np.array([True, True, False, False]))
    terms = metrics.ties_terms(ref, tied)  # spread 0.5, gaps 1.0 and 1.5
    assert terms == pytest.approx([1, 1, 1, 1, math.tanh(1.0 / 0.5 - 1)], abs=1e-12)
    assert terms @ metrics.TIES == pytest.approx(0.3 + 0.3 + 0.2 + 0.2 + 0.01 * math.tanh(1), abs=1e-9)
    two = np.array([True, True, False])
    assert metrics.ties_terms(ref, (np.array([2.0, 2.0, 1.0]), two))[4] == 1  # spread 0: x/0
    assert metrics.ties_terms((np.array([1.0, 1.0]), ref[1]), (np.array([2.0, 2.0, 1.0]), two))[4] == 0  # 0/0
    assert metrics.ties_terms((np.array([0.0, 1.0]), ref[1]), (np.array([2.0, 2.0, 1.0]), two))[4] == -1  # -x/0
    wide = metrics.ties_terms(ref, (np.array([9.0, 2.0, 1.0]), two))  # equally right answers far apart: accurate, no margin
    assert wide[:4].tolist() == [1, 1, 0, 0]
    assert np.isnan(metrics.ties_terms(None, tied)[1:]).all()
    assert np.isnan(metrics.ties_terms(ref, None)[[0, 2, 3, 4]]).all()


def test_wins_against_each_wrong_answer_become_scores() -> None:
    one = np.array([True, False, False, False])
    assert metrics.pairwise_wins([True, True, True]).tolist() == [4, 1, 1, 1]
    assert metrics.strict(metrics.pairwise_wins([True, True, True]), one) == 1
    assert metrics.strict(metrics.pairwise_wins([True, None, True]), one) == 0
    assert metrics.reciprocal_rank(metrics.pairwise_wins([True, False, True]), one) == 0.5
    assert metrics.reciprocal_rank(metrics.pairwise_wins([False, False, False]), one) == 0.25


def test_step_scores_put_together() -> None:
    p = [0.9, 0.5, 0.8]
    logits = [math.log(x / (1 - x)) for x in p]
    wants = {
        "last": 0.8, "min": 0.5, "max": 0.9, "product": 0.36, "geometric mean": 0.36 ** (1 / 3), "mean": 2.2 / 3,
        "mean logit": 1 / (1 + math.exp(-sum(logits) / 3)), "mean odds": (9 + 1 + 4) / 3,
    }  # fmt: skip
    assert set(wants) == set(metrics.AGGREGATES)
    for how, want in wants.items():
        assert metrics.aggregate(p, how) == pytest.approx(want, abs=1e-12)
        assert metrics.aggregate([*p[:1], None, *p[1:]], how) == pytest.approx(want, abs=1e-12)
    assert math.isfinite(metrics.aggregate([1.0, 0.0], "mean odds"))
    assert math.isnan(metrics.aggregate(None, "last"))
    assert math.isnan(metrics.aggregate([None], "last"))
    assert metrics.aggregate(0.3, "product") == 0.3
    with pytest.raises(Refused, match="put together by"):
        metrics.aggregate(p, "prod")


def test_first_error_and_f1() -> None:
    assert metrics.first_error([0.9, 0.4, 0.1]) == 1
    assert metrics.first_error([0.9, None, 0.1]) == 2
    assert metrics.first_error([0.9, 0.5]) == -1
    assert metrics.f1(0.0, 0.0) == 0
    assert metrics.f1(0.5, 1.0) == pytest.approx(2 / 3)
    assert metrics.f1(np.array([0.0, 1.0]), np.array([1.0, 1.0])).tolist() == [0, 1]


# --- curves -------------------------------------------------------------------------------------------------------------------------


@given(answers(2, 7), st.integers(1, 7))
@settings(deadline=None)
def test_best_of_n_is_the_mean_over_all_subsets(case: tuple[np.ndarray, np.ndarray], n: int) -> None:
    scores, right = case
    n = min(n, len(scores))
    gold = right * 1.0 + np.arange(len(scores)) / 10
    total = Fraction(0)
    found = list(combinations(range(len(scores)), n))
    for subset in found:
        known = [-math.inf if math.isnan(scores[i]) else scores[i] for i in subset]
        top = [gold[i] for i, s in zip(subset, known, strict=True) if s == max(known)]
        total += Fraction(sum(top)) / len(top)
    assert curves.best_of_n(scores, gold, n) == pytest.approx(float(total / len(found)), abs=1e-9)
    some = sum(right[list(subset)].any() for subset in found) / len(found)
    assert curves.pass_at_n(right, n) == pytest.approx(some, abs=1e-9)


def test_large_pools_do_not_overflow() -> None:
    gold = np.arange(5000) / 5000
    assert curves.best_of_n(gold, gold, 1) == pytest.approx(gold.mean(), abs=1e-9)
    assert curves.best_of_n(gold, gold, 5000) == pytest.approx(gold.max(), abs=1e-9)
    assert curves.best_of_n(gold, gold, 64) == pytest.approx(64 / 65, abs=1e-3)  # the mean maximum of uniform numbers


def test_votes_by_hand() -> None:
    rng = np.random.default_rng(0)
    names, gold = ["3", "4", "4", None], np.array([1.0, 0.0, 0.0, 1.0])
    assert curves.vote(names, np.ones(4), gold, 4, rng) == 0
    assert curves.vote(names, np.array([0.9, 0.2, 0.3, 1.0]), gold, 4, rng) == 1
    assert curves.vote(names, np.array([0.5, 0.2, 0.3, 1.0]), gold, 4, rng) == 0.5  # equal sums share
    assert curves.vote(names, np.ones(4), gold, 1, rng) == 0.25  # the one without a name is worth nothing
    assert curves.vote([None, None], np.ones(2), np.ones(2), 2, rng) == 0
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    want = np.mean([0.5, 0.5, 1, 0, 0, 0])
    assert curves.vote(names, np.ones(4), gold, 2, rng) == pytest.approx(want)
    assert len(pairs) == len(curves.subsets(4, 2, rng))


def test_drawn_subsets_are_unbiased() -> None:
    """With one vote an answer, votes of n of many are close to the exact mean, which for one answer a name is that of best of n."""
    rng = np.random.default_rng(1)
    scores, gold = rng.uniform(size=40), rng.uniform(size=40)
    names: list[str | None] = [str(i) for i in range(40)]
    drawn = [curves.vote(names, scores, gold, 5, np.random.default_rng(seed)) for seed in range(60)]
    error = np.std(drawn) / math.sqrt(60)
    assert np.mean(drawn) == pytest.approx(curves.best_of_n(scores, gold, 5), abs=float(4 * error))
    assert all(len(set(row.tolist())) == 5 for row in curves.subsets(40, 5, rng))


def test_kl_of_best_of_n() -> None:
    assert curves.kl(1) == 0
    assert curves.kl(4) == pytest.approx(math.log(4) - 0.75)
    assert curves.sizes(12) == [1, 2, 4, 8, 12]
    assert curves.sizes(1) == [1]


# --- calibration and length ---------------------------------------------------------------------------------------------------------


def test_reliability_by_hand() -> None:
    p, truth = np.array([0.05, 0.1, 0.95, 1.0, 0.0]), np.array([0.0, 1.0, 1.0, 1.0, 0.0])
    table = calibration.bins_of(p, truth)
    assert [b.n for b in table] == [3, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert table[0].p == pytest.approx(0.05)
    assert table[0].right == pytest.approx(1 / 3)
    assert calibration.ece(table) == pytest.approx(3 / 5 * (1 / 3 - 0.05) + 2 / 5 * 0.025)


def test_temperature_finds_the_scale() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=40_000) * 2
    truth = (rng.uniform(size=40_000) < calibration.sigmoid(logits)).astype(float)
    assert calibration.temperature(3 * logits, truth) == pytest.approx(3, rel=0.05)
    assert calibration.temperature(logits / 4, truth) == pytest.approx(1 / 4, rel=0.05)


def test_isotonic_pools_neighbours_that_fall() -> None:
    x, y = calibration.isotonic(np.array([1.0, 2.0, 2.0, 3.0, 4.0]), np.array([0.0, 1.0, 1.0, 0.0, 1.0]))
    assert x.tolist() == [1, 2, 3, 4]
    assert y == pytest.approx([0, 2 / 3, 2 / 3, 1])


def test_calibration_is_measured_on_the_other_half() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=6_000)
    truth = (rng.uniform(size=6_000) < calibration.sigmoid(logits)).astype(float)
    item = np.repeat(np.arange(1_500), 4)
    found = calibration.calibration(5 * logits, truth, item)
    assert found is not None
    assert found.logits
    assert found.n == 3_000
    assert found.temperature == pytest.approx(5, rel=0.15)
    assert found.ways["as it is"].ece > 0.15
    assert found.ways["temperature"].ece < 0.04
    assert found.ways["isotonic"].ece < 0.04
    p = calibration.sigmoid(logits)
    sound = calibration.calibration(p, truth, item)
    assert sound is not None
    assert not sound.logits
    assert sound.ways["as it is"].ece < 0.04
    assert calibration.calibration(p, np.ones(6_000), item) is None


def test_length_alone() -> None:
    scores, right, lengths = np.array([5.0, 1.0, 3.0, np.nan]), np.array([True, True, False, False]), np.array([50, 10, 30, 99])
    found = calibration.length_terms(scores, right, lengths)
    assert found[:3].tolist() == [1.0, 0.0, 1.0]  # it likes length alone
    assert np.isnan(found[3])
    same = calibration.length_terms(np.arange(6.0), np.array([True] * 3 + [False] * 3), np.array([1, 2, 3, 30, 20, 10]))
    assert same[3] == pytest.approx((1 - 1) / 2)


# --- intervals ----------------------------------------------------------------------------------------------------------------------


def test_the_interval_covers() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        wrong, right = (rng.uniform(size=40) < 0.4) * 1.0, (rng.uniform(size=60) < 0.8) * 1.0
        found = metrics.bootstrap([wrong, right], lambda m: metrics.f1(m[0][..., 0], m[1][..., 0]), draws=400, seed=trial)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 2 * 0.4 * 0.8 / 1.2 <= found.high
    assert hits >= 183  # 95 % of 200, less three standard errors


def test_the_interval_of_a_weighted_mean() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=300), rng.normal(size=500) + 4
    found = metrics.bootstrap([a, b], metrics.averaged([3, 1]))
    assert found.mean == pytest.approx(0.75 * a.mean() + 0.25 * b.mean())
    assert found.low is not None
    assert found.high is not None
    width = math.sqrt(0.75**2 * a.var() / 300 + 0.25**2 * b.var() / 500)
    assert found.high - found.low == pytest.approx(2 * 1.96 * width, rel=0.06)
    assert metrics.bootstrap([np.array([1.0])]).low is None
    holes = metrics.bootstrap([np.array([[1.0, np.nan], [3.0, 5.0]])], lambda m: m[0][..., 1])
    assert holes.mean == 5
    assert metrics.bootstrap([np.array([1.0, 1.0, 0.0])], bounds=(0, 1)).high == 1

"""Ranked ids, by hand."""

from __future__ import annotations

import math
import time

import pytest

from guerdon.registry import Refused
from guerdon.rewards import ndcg, recall
from guerdon.rewards.retrieval import ranked
from guerdon.samples import State

GAINS = {"d1": 3, "d2": 2, "d3": 0, "d4": 1}


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ('["d1", "d2"]', ["d1", "d2"]),
        ("```json\n[1, 2]\n```", ["1", "2"]),
        ('[{"id": "d1", "score": 0.5}, {"id": "d2"}]', ["d1", "d2"]),
        ("<think>d9, d8</think>\nd1, d2", ["d1", "d2"]),
        ("<answer>d1\nd2\n</answer>", ["d1", "d2"]),
        ("1. d1\n2. d2", ["d1", "d2"]),
        ("- d1\n- **d2**", ["d1", "d2"]),
        ("[d1, 'd2']", ["d1", "d2"]),
        ("[2] > [1] > [3]", ["2", "1", "3"]),
        ("d1, d1, d2, d1", ["d1", "d2"]),
        ("d1", ["d1"]),
        ("7", ["7"]),
        ("[true, null, 1.5, [2]]", []),
        ("<think>d1", []),
        ("", []),
    ],
)
def test_reading_ids(text, ids):
    assert ranked(text) == ids


def test_ndcg_by_hand():
    best = 3 + 2 / math.log2(3) + 1 / 2
    assert ndcg.fn("d1, d2, d4", GAINS).value == pytest.approx(1)
    assert ndcg.fn("d2, d1, d4", GAINS).value == pytest.approx((2 + 3 / math.log2(3) + 1 / 2) / best)
    assert ndcg.fn("x, d1", GAINS).value == pytest.approx(3 / math.log2(3) / best)
    assert ndcg.fn("x, x, d1", GAINS).value == pytest.approx(3 / math.log2(3) / best)  # the second x has no place of its own
    assert ndcg.fn("d2, d1", GAINS, k=1).value == pytest.approx(2 / 3)
    assert ndcg.fn("d3, x", GAINS).value == 0
    exact = (3 + 7 / math.log2(3) + 1 / 2) / (7 + 3 / math.log2(3) + 1 / 2)
    assert ndcg.fn("d2, d1, d4", GAINS, exponential=True).value == pytest.approx(exact)
    assert ndcg.fn("b, a", ["a", "b"]).value == pytest.approx(1)
    assert ndcg.fn("b, x, a", '["a", "b"]').value == pytest.approx((1 + 1 / 2) / (1 + 1 / math.log2(3)))
    assert ndcg.fn("b", '{"a": 0, "b": 1}').value == 1


def test_recall_by_hand():
    assert recall.fn("d1, x, d4", GAINS).value == pytest.approx(2 / 3)
    assert recall.fn("x, d1", GAINS, k=1).value == 0
    assert recall.fn("x, x, d1", GAINS, k=2).value == pytest.approx(1 / 3)
    assert recall.fn("3, 1", [1, 2, 3]).value == pytest.approx(2 / 3)
    assert recall.fn("<think>", GAINS).reason == "no ids stated"


def test_references_and_parameters():
    for reward in (ndcg, recall):
        for nothing in ([], {}, {"a": 0}):
            assert reward.fn("a", nothing).state == State.ABSTAINED
        for bad in ({"a": -1}, {"a": math.nan}, {"a": math.inf}, {"a": "1"}, {"a": None}, "[1"):
            with pytest.raises(Refused):
                reward.fn("a", bad)
        for k in (0, -1, 2.5):
            with pytest.raises(Refused, match="k must be"):
                reward.fn("a", ["a"], k=k)
    with pytest.raises(Refused):
        ndcg.fn("a", {"a": 1000}, exponential=True)


@pytest.mark.parametrize("piece", ["a,", "- ", "1. \n", "[", "> ", "x"])
def test_long_answers_take_linear_time(piece):
    text = piece * (2_000_000 // len(piece))
    start = time.process_time()
    ndcg.fn(text, GAINS)
    recall.fn(text, GAINS)
    assert time.process_time() - start < 2

"""Boxes and points, by hand and against counted pixels."""

from __future__ import annotations

import itertools
import random
import time

import numpy as np
import pytest

from guerdon.registry import Refused
from guerdon.rewards import iou, point_in_box
from guerdon.rewards.grounding import overlaps
from guerdon.samples import State

BOX = [10, 20, 50, 60]


def pixels(box):
    x1, y1, x2, y2 = box
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


def test_overlaps_are_shares_of_counted_pixels():
    rng = random.Random(0)
    a, b = ([[*(rng.randint(0, 6) for _ in range(2)), *(rng.randint(7, 12) for _ in range(2))] for _ in range(8)] for _ in "ab")
    table = overlaps(np.array(a, float), np.array(b, float))
    for (i, p), (j, q) in itertools.product(enumerate(a), enumerate(b)):
        assert table[i, j] == pytest.approx(len(pixels(p) & pixels(q)) / len(pixels(p) | pixels(q)))
    assert overlaps(np.array([[0, 0, 1, 1.0]]), np.array([[1, 0, 2, 1.0]]))[0, 0] == 0


@pytest.mark.parametrize(
    "text",
    [
        "[10, 20, 50, 60]",
        "[[10, 20, 50, 60]]",
        '{"bbox_2d": [10, 20, 50, 60], "label": "cat"}',
        '```json\n[{"bbox": [10, 20, 50, 60]}]\n```',
        "<think>[0, 0, 1, 1]</think><answer>[10, 20, 50, 60]</answer>",
        "The cat is at [10,20,50,60].",
        "<box>(10,20),(50,60)</box>",
        "<box>10 20 50 60</box>",
        "<|box_start|>(10,20),(50,60)<|box_end|>",
        "x: 10.0, 20, 50.00, 60",
    ],
)
def test_forms_of_a_box(text):
    assert iou.fn(text, BOX).value == 1
    assert point_in_box.fn(text, BOX).value == 1  # its centre


@pytest.mark.parametrize("reference", [BOX, [BOX], {"bbox": BOX}, [{"bbox_2d": BOX}], "[10, 20, 50, 60]", "<box>(10,20),(50,60)</box>"])
def test_forms_of_the_reference(reference):
    assert iou.fn("[10, 20, 50, 60]", reference).value == 1
    assert iou.fn("[10, 20, 30, 60]", reference).value == pytest.approx(0.5)


def test_several_boxes_are_matched_one_to_one():
    gold = [[0, 0, 10, 10], [20, 0, 30, 10]]
    assert iou.fn("[[20, 0, 30, 10], [0, 0, 10, 10]]", gold).value == 1
    assert iou.fn("[0, 0, 10, 10]", gold).value == 0.5
    assert iou.fn("[[0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 1, 1]]", gold).value == pytest.approx(2 / 3)
    assert iou.fn("[[0, 0, 10, 10], [0, 0, 10, 10]]", gold).value == 0.5
    # box 1 fits gold 1 (1) and 2 (1/3), box 2 fits gold 1 (1/2) and not 2: 1 + 0 beats 1/3 + 1/2
    assert iou.fn("[[0, 0, 10, 10], [0, 0, 5, 10]]", [[0, 0, 10, 10], [5, 0, 15, 10]]).value == pytest.approx(0.5)
    # box 1 fits gold 1 (3/5) and 2 (3/5), box 2 fits gold 1 alone (5/8): the best sum gives box 1 to gold 2
    boxes, gold = [[2, 0, 6, 1], [0, 0, 5, 1]], [[0, 0, 5, 1], [3, 0, 7, 1]]
    assert iou.fn(str(boxes), gold).value == pytest.approx((3 / 5 + 1) / 2)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[50, 60, 10, 20]", "1 boxes without area or with swapped corners"),
        ("[10, 20, 10, 60]", "1 boxes without area or with swapped corners"),
        ("nowhere", "no box stated"),
        ("[1, 2, 3]", "no box stated"),
        ("[1, 2, 3, 4, 5]", "no box stated"),
        ("1, 2, 3, 4, 5", "no box stated"),
        ('{"area": [10, 20, 50, 60]}', "no box stated"),
        ("[true, 20, 50, 60]", "no box stated"),
        ("[10, 20, 1e300, 60]", "a number that is no coordinate"),
        ("[-1e300, -1e300, 1e300, 1e300]", "a number that is no coordinate"),
        (str([BOX] * 257), "more than 256 boxes"),
        ("<box>(10,20),(50,60)</box>" * 300, "more than 256 boxes"),
        ("", "no answer found"),
    ],
)
def test_what_is_no_match(text, why):
    found = iou.fn(text, BOX)
    assert (found.value, found.reason) == (0, why)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[30, 40]", 1),
        ("(10, 20)", 1),
        ("[50, 60]", 1),
        ("[50.1, 60]", 0),
        ('{"x": 30, "y": 40}', 1),
        ('{"point_2d": [30, 40]}', 1),
        ('[{"point": [30, 40]}]', 1),
        ("click(x=30, y=40)", 1),
        ('<point x="30" y="40">', 1),
        ("<point>30 40</point>", 1),
        ("I click at (30, 40), that is (30, 40).", 1),
        ("(30, 40) or (31, 40)", 0),
        ("[[30, 40], [100, 100]]", 0),
        ("30", 0),
        ("", 0),
        ("[0, 0]", 0),
    ],
)
def test_points(text, value):
    assert point_in_box.fn(text, BOX).value == value


def test_a_point_in_any_of_several_boxes():
    assert point_in_box.fn("(1, 1)", [BOX, [0, 0, 2, 2]]).value == 1


def test_references_that_cannot_be_used():
    for reward in (iou, point_in_box):
        for reference in ("42", "none", [], {}, 42, [1, 2, 3]):
            assert reward.fn("[30, 40]", reference).state == State.ABSTAINED
        for reference in ([50, 20, 10, 60], [10, 20, 10, 60], [0, 0, float("nan"), 1], [0, 0, 1, float("inf")], [0, 0, 1, 1e300]):
            with pytest.raises(Refused, match="must be"):
                reward.fn("[30, 40]", reference)


@pytest.mark.parametrize("piece", ["1, ", "(1, 1), ", "[", "1 " * 4, "x=1 ", "<point>1 ", "-", "9", "1,  (  "])
def test_long_answers_take_linear_time(piece):
    text = piece * (1_000_000 // len(piece))
    start = time.process_time()
    iou.fn(text, BOX)
    point_in_box.fn(text, BOX)
    assert time.process_time() - start < 4

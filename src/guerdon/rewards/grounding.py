"""Rewards of grounding: boxes and points that an answer states, in the reference's own units, x to the right, y down.

A box is (x1, y1, x2, y2) with x1 < x2 and y1 < y2. One of the answer that has no area, or its corners swapped, is a box that matches
nothing; one of the reference is refused. Numbers beyond 10^9 are no coordinates.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.reading import said, strict_json, unfenced
from guerdon.samples import Verdict

MOST = 256
"""Boxes or points in one answer that are read; more are wrong."""
LARGEST = 1e9
BOX_KEYS = ("bbox_2d", "bbox", "box_2d", "box")
POINT_KEYS = ("point_2d", "point", "coordinate", "coordinates", "click")
Numbers = tuple[float, ...]

_N = r"-?\d{1,12}+(?:\.\d{1,12}+)?+"
_AND = r"(?:\s{0,4}+\)?\s{0,4}+,\s{0,4}+\(?\s{0,4}+|\s{1,4}+)"  # also between the corners of (x1, y1), (x2, y2)
_RUN = re.compile(rf"(?<![\d.\-]){_N}(?:{_AND}{_N})*+(?![\d.])")
_POINT = re.compile(
    rf"(?:\(|\[|<point>)\s{{0,4}}+({_N}){_AND}({_N})\s{{0,4}}+(?:\)|\]|</point>)"
    rf"|\bx\s?=\s?[\"']?({_N})[\"']?,?\s{{1,4}}+y\s?=\s?[\"']?({_N})"
)
_NUMBER = re.compile(_N)


@reward
def iou(text: str, reference: Any) -> Verdict:
    """Mean IoU of the boxes in the answer and in the reference, one to one by the best assignment (Hungarian); a box without a partner, on
    either side, counts 0:  sum of matched IoU / max(boxes of the answer, boxes of the reference).  IoU = shared area / area of the union.

    Boxes are read from JSON (a list of four numbers, a list of such, or objects with bbox_2d, bbox, box_2d or box) in the answer tag or
    after the thinking, else from every run of four numbers there: `[x1, y1, x2, y2]`, `<box>(x1,y1),(x2,y2)</box>`. The reference is a box,
    a list of boxes, or a text of these; one without numbers makes the reward abstain. Raises Refused for a box of it without area.
    """
    gold = _gold(reference)
    if gold is None:
        return Verdict.abstain("the reference states no box")
    boxes = _stated(text, 4)
    if isinstance(boxes, str):
        return Verdict(0.0, boxes)
    table = overlaps(np.array(boxes), np.array(gold))
    from scipy.optimize import linear_sum_assignment

    total = float(table[linear_sum_assignment(table, maximize=True)].sum())
    flat = sum(not (x1 < x2 and y1 < y2) for x1, y1, x2, y2 in boxes)
    return Verdict(total / max(len(boxes), len(gold)), f"{flat} boxes without area or with swapped corners" if flat else "")


@reward
def point_in_box(text: str, reference: Any) -> Verdict:
    """1 where the one point that the answer states lies in a box of the reference, borders included; else 0.

    Points are read from JSON (`[x, y]`, `{"x":, "y":}`, objects with point_2d, point, coordinate, click), else from `(x, y)`, `[x, y]`,
    `<point>x, y</point>` and `x=1, y=2`; a box stands for its centre. Several different points are refused: they would be guesses. The
    reference is as for `iou`.
    """
    gold = _gold(reference)
    if gold is None:
        return Verdict.abstain("the reference states no box")
    points = _stated(text, 4)
    if isinstance(points, str):
        points = _stated(text, 2)
    else:
        points = [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in points]
    if isinstance(points, str):
        return Verdict(0.0, points)
    if len(set(points)) > 1:
        return Verdict(0.0, f"{len(set(points))} different points")
    x, y = points[0]
    return Verdict(float(any(x1 <= x <= x2 and y1 <= y <= y2 for x1, y1, x2, y2 in gold)))


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU (n, m) of boxes a (n, 4) and b (m, 4); a box without area or with swapped corners overlaps nothing."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    area_a, area_b = (np.clip(x[:, 2:] - x[:, :2], 0, None).prod(-1) for x in (a, b))
    whole = area_a[:, None] + area_b[None, :] - shared
    return np.where((area_a[:, None] > 0) & (area_b[None, :] > 0), shared / np.where(whole > 0, whole, 1.0), 0.0)


def _stated(text: str, size: int) -> list[Numbers] | str:
    """The boxes (size 4) or points (2) of an answer, or why there is none."""
    answer = said(text)
    if answer is None:
        return "no answer found"
    found = _read(answer, size)
    if not found:
        return f"no {'box' if size == 4 else 'point'} stated"
    if len(found) > MOST:
        return f"more than {MOST} {'boxes' if size == 4 else 'points'}"
    return found if all(abs(x) <= LARGEST for one in found for x in one) else "a number that is no coordinate"


def _read(text: str, size: int) -> list[Numbers]:
    """At most `MOST` + 1 of them."""
    try:
        found = _inside(strict_json(unfenced(text)), size)
    except ValueError:
        found = _runs(text) if size == 4 else (tuple(float(x) for x in m.groups() if x is not None) for m in _POINT.finditer(text))
    return list(itertools.islice(found, MOST + 1))


def _runs(text: str) -> Iterator[Numbers]:
    """Runs of exactly four numbers."""
    for run in _RUN.finditer(text):
        numbers = tuple(float(m[0]) for m in itertools.islice(_NUMBER.finditer(text, *run.span()), 5))
        if len(numbers) == 4:
            yield numbers


def _inside(value: Any, size: int) -> Iterator[Numbers]:
    """Lists of `size` numbers in a JSON value, in order; of an object only what stands under the first known key."""
    keys = BOX_KEYS if size == 4 else POINT_KEYS
    if isinstance(value, Mapping):
        if size == 2 and _number(value.get("x")) and _number(value.get("y")):
            yield float(value["x"]), float(value["y"])
        elif key := next((key for key in keys if key in value), None):
            yield from _inside(value[key], size)
    elif isinstance(value, (list, tuple)):
        if len(value) == size and all(map(_number, value)):
            yield tuple(map(float, value))
        else:
            for x in value:
                yield from _inside(x, size)


def _number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def _gold(reference: Any) -> list[Numbers] | None:
    """The reference's boxes; None where it states none. Raises Refused for one that cannot be matched."""
    boxes = _read(reference, 4) if isinstance(reference, str) else list(_inside(reference, 4))
    for x1, y1, x2, y2 in boxes:
        if not (-LARGEST <= x1 < x2 <= LARGEST and -LARGEST <= y1 < y2 <= LARGEST):
            raise Refused(f"The reference box {[x1, y1, x2, y2]} must be [x1, y1, x2, y2] with x1 < x2 and y1 < y2.")
    return boxes or None

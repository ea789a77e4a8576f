"""Whether a result is one that the reference query may return.

A result is a sequence of blocks: rows that the reference's outermost ORDER BY leaves tied, in any order, block after block; one block where
the query does not order. LIMIT and OFFSET may cut through the first and the last block, and then any of the tied rows may stand in the part
that is left. Within a block rows count as often as they occur. Cells are equal where the database holds them for the same value: NULL
equals NULL alone, 1 equals 1.0, no text equals a number; two numbers of which one is not whole are equal to 1e-9 of the larger, since sums
round by the order of their terms. Names of columns do not count, their order does.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from guerdon.rewards.sql_run import Result, Row

RELATIVE, ABSOLUTE = 1e-9, 1e-12


@dataclass(frozen=True)
class Block:
    rows: tuple[Row, ...]
    take: int
    """How many of the rows stand in the result: all, unless LIMIT or OFFSET cut the block."""


@dataclass(frozen=True)
class Gold:
    """What the reference may return."""

    columns: int
    blocks: tuple[Block, ...]

    @property
    def size(self) -> int:
        return sum(block.take for block in self.blocks)

    @property
    def says_nothing(self) -> bool:
        """No rows, or NULL alone: what many wrong queries return too."""
        return all(cell is None for block in self.blocks for row in block.rows for cell in row)

    def differs(self, found: Result) -> str:
        """Why the reference may not return this result; "" where it may."""
        if found.columns != self.columns:
            return f"{found.columns} columns, not {self.columns}"
        if len(found.rows) != self.size:
            return f"{'more than ' * (len(found.rows) > self.size)}{min(len(found.rows), self.size)} rows, not {self.size}"
        at = 0
        for block in self.blocks:
            if not contained(found.rows[at : at + block.take], block.rows):
                return "other rows" if len(self.blocks) == 1 else f"other rows, or another order, from row {at + 1}"
            at += block.take
        return ""


def strict(result: Result, ordered: bool) -> Gold:
    """The result as it is: row by row, or as one block."""
    blocks = [Block((row,), 1) for row in result.rows] if ordered else [Block(tuple(result.rows), len(result.rows))]
    return Gold(result.columns, tuple(block for block in blocks if block.rows))


def cut(ranked: Result, limit: int | None, offset: int) -> Gold:
    """Blocks by the rank in the last column, of which LIMIT and OFFSET take a stretch."""
    end = len(ranked.rows) if limit is None else offset + limit
    blocks, at = [], 0
    for _, rows in groupby(ranked.rows, key=lambda row: row[-1]):
        tied = tuple(row[:-1] for row in rows)
        take = min(at + len(tied), end) - max(at, offset)
        blocks += [Block(tied, take)] if take > 0 else []
        at += len(tied)
    return Gold(ranked.columns - 1, tuple(blocks))


def contained(found: Sequence[Row], among: Sequence[Row]) -> bool:
    """Whether each row found is another one of `among`."""
    left, right = Counter(found), Counter(among)
    if left <= right:
        return True
    classes: dict[Row, list[tuple[float, ...]]] = {}
    for row in (right - left).elements():
        classes.setdefault(_fixed(row), []).append(_numbers(row))
    wanted: dict[Row, list[tuple[float, ...]]] = {}
    for row in (left - right).elements():
        wanted.setdefault(_fixed(row), []).append(_numbers(row))
    return all(_matched(rows, sorted(classes.get(fixed, []))) for fixed, rows in wanted.items())


def _is_number(cell: Any) -> bool:
    return isinstance(cell, (int, float))


def _fixed(row: Row) -> Row:
    """What must be equal exactly, and where the numbers stand."""
    return tuple(() if _is_number(cell) else (cell,) for cell in row)


def _numbers(row: Row) -> tuple[float, ...]:
    return tuple(cell for cell in row if _is_number(cell))


def _close(a: float, b: float) -> bool:
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    try:
        return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    except OverflowError:  # a whole number that no float can hold
        return a == b


def _matched(rows: Sequence[tuple[float, ...]], others: Sequence[tuple[float, ...]]) -> bool:
    """Whether every row has a partner of its own that is close in all its numbers: augmenting paths, `others` in order."""
    owner: dict[int, int] = {}
    chosen: dict[int, int] = {}

    def near(row: tuple[float, ...]) -> list[int]:
        if not row:
            return list(range(len(others)))
        slack = 2 * max(ABSOLUTE, RELATIVE * abs(row[0]))
        found = []
        for k in range(bisect_left(others, (row[0] - slack,)), len(others)):
            if others[k][0] > row[0] + slack:
                break
            if all(map(_close, row, others[k])):
                found.append(k)
        return found

    def place(i: int) -> bool:
        reached: dict[int, int] = {}
        queue = [i]
        for j in queue:
            for k in near(rows[j]):
                if k in reached:
                    continue
                reached[k] = j
                if k in owner:
                    queue.append(owner[k])
                    continue
                at: int | None = k
                while at is not None:  # back along the path: each row takes the partner it was reached by
                    j = reached[at]
                    owner[at], chosen[j], at = j, at, chosen.get(j)
                return True
        return False

    return all(place(i) for i in range(len(rows)))

"""What a bench found: plain data, for the table, the JSON and the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from guerdon.evals.bench.calibration import Calibration
from guerdon.evals.bench.curves import Curve
from guerdon.evals.bench.layouts import Item
from guerdon.evals.bench.scores import Scored
from guerdon.training.statistics import Interval


@dataclass
class Line:
    """One figure with its interval over items. `failed`: items left out of it, for they have an answer without a verdict."""

    name: str
    n: int
    value: float
    low: float | None = None
    high: float | None = None
    failed: int = 0

    @staticmethod
    def of(name: str, n: int, found: Interval, failed: int = 0) -> Line:
        return Line(name, n, found.mean, found.low, found.high, failed)


@dataclass
class Report:
    """Figures are over items all of whose answers have a verdict; `counted` has them all, as the bench's own code counts a missing one."""

    bench: str
    by: str
    """The reward, or the file of scores."""
    data: str
    metric: str
    chance: float | None
    """What random scores get; None where that depends on the data."""
    items: Sequence[Item]
    scored: Scored
    lines: list[Line] = field(default_factory=list)
    """One a category, and last the whole."""
    more: dict[str, list[Line]] = field(default_factory=dict)
    """Further tables by title."""
    curves: dict[str, Curve] = field(default_factory=dict)
    kl: list[float] = field(default_factory=list)
    """Of the curves' n, where they are drawn over it."""
    calibration: Calibration | None = None
    first_failed: str = ""
    counted: float | None = None
    failed_as: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Answers without a verdict."""
        return self.scored.failed

    @property
    def overall(self) -> Line:
        return self.lines[-1]

    def json(self) -> dict[str, Any]:
        """Plain data; NaN is None. `items`, `answers` and `failed` (answers without a verdict) are counts."""
        counts = {"items": len(self.items), "answers": self.scored.answers, "failed": self.scored.failed}
        return _plain({"schema": 1, **{name: value for name, value in vars(self).items() if name != "scored"}, **counts})


def _plain(x: Any) -> Any:
    if isinstance(x, float):
        return x if math.isfinite(x) else None
    if isinstance(x, dict):
        return {name: _plain(value) for name, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [_plain(value) for value in x]
    if hasattr(x, "__dict__"):
        return _plain(vars(x))
    return x.item() if hasattr(x, "item") else x

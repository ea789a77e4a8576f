"""What a scored file comes to: means, states, reasons, speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from guerdon.samples import HOSTILE, Rewards, State
from guerdon.scoring.columns import reasons
from guerdon.scoring.files import Row

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST = 1000  # different reasons, or values of the `by` column, that are told apart: memory stays constant
SHOWN = 10


@dataclass
class Tally:
    """hostile rows are among the scored, or the failed where hostile is failed."""

    rows: int = 0
    scored: int = 0
    total: float = 0.0
    hostile: int = 0
    abstained: int = 0
    failed: int = 0

    def add(self, state: int, value: float, hostile: bool) -> None:
        self.rows += 1
        self.scored += state == State.SCORED
        self.total += value if state == State.SCORED else 0.0
        self.hostile += hostile
        self.abstained += state == State.ABSTAINED
        self.failed += state == State.FAILED

    @property
    def mean(self) -> float | None:
        """Over scored rows."""
        return self.total / self.scored if self.scored else None

    def cells(self) -> list[str]:
        counts = (self.hostile, self.abstained, self.failed)
        return [f"{self.rows:,}", "-" if self.mean is None else f"{self.mean:.4f}", *(f"{n:,}" if n else "-" for n in counts)]


@dataclass
class Summary:
    """Of all rows, and of those with each value of the column `by`."""

    out: Path
    by: str | None = None
    all: Tally = field(default_factory=Tally)
    groups: dict[str, Tally] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    """`failed: why`, `abstained: why`, `hostile: why` -> rows."""
    aside: Path | None = None
    """The file of the rows that are no samples."""
    rejected: int = 0
    first: str = ""
    """The first of them: file, row and what is wrong."""
    seconds: float = 0.0
    accounts: dict[str, str] = field(default_factory=dict)
    """By model behind a server: what its requests came to."""

    @property
    def rows(self) -> int:
        return self.all.rows

    @property
    def code(self) -> int:
        """The exit code: 1 where rows were kept aside, or where no row got a verdict."""
        return int(self.rejected > 0 or self.all.failed == self.rows)

    def add(self, rows: Sequence[Row], rewards: Rewards) -> None:
        columns = (rewards.state.tolist(), rewards.total().tolist(), rewards.hostile.tolist(), reasons(rewards))
        for row, state, value, hostile, why in zip(rows, *columns, strict=True):
            self.all.add(state, value, hostile)
            if self.by is not None:
                name = _among(str(row.data.get(self.by, "-")), self.groups)
                self.groups.setdefault(name, Tally()).add(state, value, hostile)
            if hostile or state != State.SCORED:
                kind = HOSTILE if hostile else State(state).name.lower()
                self.reasons[_among(f"{kind}: {why.replace(f'{HOSTILE}: ', '')}", self.reasons)] += 1

    def show(self) -> list[RenderableType]:
        """For a terminal: the rewards, the reasons of what was not plainly scored, the speed, and what was kept aside."""
        from rich.table import Table
        from rich.text import Text

        table = Table(self.by or "")
        for name in ("rows", "mean", "hostile", "abstained", "failed"):
            table.add_column(name, justify="right")
        for name, tally in [*sorted(self.groups.items()), ("all", self.all)]:
            table.add_row(Text(name), *tally.cells())
        shown: list[RenderableType] = [table]
        for why, n in self.reasons.most_common(SHOWN):
            shown.append(Text(f"{n:>7,} {why[:300]}"))
        if len(self.reasons) > SHOWN:
            shown.append(Text(f"        and {len(self.reasons) - SHOWN} more reasons: see the column `reason`"))
        shown.append(Text(f"{self.rows:,} rows in {self.seconds:.2f} s, {self.rows / max(self.seconds, 1e-9):,.0f} rows/s -> {self.out}"))
        shown += [Text(f"{name}: {account}") for name, account in self.accounts.items()]
        return shown

    def complaint(self) -> str:
        """One sentence on the rows that were kept aside, or on a reward that failed everywhere; "" where there is nothing to say."""
        if self.rejected:
            return f"{self.rejected:,} rows were kept aside in {self.aside}, the first: {self.first}."
        if self.code:
            return f"No row got a verdict: {self.reasons.most_common(1)[0][0]}."
        return ""


def _among(key: str, known: Mapping[str, object]) -> str:
    return key if len(known) < MOST or key in known else "(others)"

"""`guerdon audit`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guerdon.evals.audit import page
from guerdon.evals.audit.audit import tried


def run(
    reward: str,
    tasks: Path | None,
    gold_column: str | None,
    out: Path | None,
    card: Path | None,
    plugins: Sequence[str],
    models: Sequence[str],
    options: dict[str, Any],
) -> int:
    """Exit code 1 when something that must not pay does, above the tolerance."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from guerdon.scoring.job import load_plugin, with_models

    for name in plugins:
        load_plugin(name)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bars: dict[str, Any] = {}

        def tick(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = bar.add_task(what, total=total)
            bar.update(bars[what], completed=done, total=total)

        report = tried(reward, tasks, gold_column, context=with_models(models), tick=tick, **options)
    console = Console()
    for part in page.show(report):
        console.print(part, highlight=False)
    if out is not None:
        for path in page.write(report, out):
            print(path, file=sys.stderr)
    if card is not None:
        card.parent.mkdir(parents=True, exist_ok=True)
        named = f" --tasks {tasks}" if tasks is not None else ""
        card.write_text(page.card(report, f"guerdon audit {shlex.quote(reward)}{named}"), encoding="utf-8")
    return 0 if report.ok and not report.blind else 1

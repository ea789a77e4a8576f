"""The progress bar of a scoring job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 2.0  # seconds before a bar appears


@contextmanager
def meter(unit: str = "rows") -> Iterator[Callable[[float, int], None]]:
    """`progress(share, rows)`, which draws a bar on stderr of a terminal once the work has taken two seconds. unit: what is counted."""
    started, bar = time.perf_counter(), None

    def progress(share: float, rows: int) -> None:
        nonlocal bar
        if bar is None and time.perf_counter() - started < PATIENCE:
            return
        if bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (BarColumn(), TextColumn("{task.percentage:.0f} %  {task.fields[rows]:,} " + unit), TimeRemainingColumn())
            bar = Progress(*columns, console=Console(stderr=True), transient=True)
            bar.add_task("", total=1.0, rows=0)
            bar.start()
        bar.update(bar.task_ids[0], completed=share, rows=rows)

    try:
        yield progress
    finally:
        if bar is not None:
            bar.stop()

"""`guerdon audit`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guerdon.evals.audit import page
from guerdon.evals.audit.audit import tried
from guerdon.evals.audit.load import load


def run(
    reward: str,
    tasks: Path | None,
    gold_column: str | None,
    out: Path | None,
    card: Path | None,
    plugins: Sequence[str],
    models: Sequence[str],
    options: dict[str, Any],
    model_card: bool = False,
) -> int:
    """Exit code 1 when something that must not pay does, above the tolerance."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from guerdon.scoring.job import load_plugin, with_models

    for name in plugins:
        load_plugin(name)
    loaded = load(reward)
    folder = None
    if model_card:
        from guerdon.evals.fitted import folder_of
        from guerdon.reward_models.folder import add_section

        folder = folder_of(loaded.expression)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bars: dict[str, Any] = {}

        def tick(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = bar.add_task(what, total=total)
            bar.update(bars[what], completed=done, total=total)

        report = tried(loaded, tasks, gold_column, context=with_models(models), tick=tick, **options)
    console = Console()
    for part in page.show(report):
        console.print(part, highlight=False)
    if out is not None:
        for path in page.write(report, out):
            print(path, file=sys.stderr)
    if card is not None:
        card.parent.mkdir(parents=True, exist_ok=True)
        card.write_text(page.card(report, command(reward, tasks, gold_column, plugins, models, options)), encoding="utf-8")
    if folder is not None:
        add_section(folder, "Audit", page.short(report))
        print(folder / "README.md", file=sys.stderr)
    return 0 if report.ok and not report.blind else 1


def command(
    reward: str, tasks: Path | None, gold_column: str | None, plugins: Sequence[str], models: Sequence[str], options: dict[str, Any]
) -> str:
    """The command that makes the same report again; what has its default is left out, and so is the number of workers."""
    words = ["guerdon", "audit", reward]
    usual = {"policy": None, "gold": None, "tolerance": 0.1, "limit": 200, "seed": 0, "pace": None}
    named = {"tasks": tasks, "gold-column": gold_column, **{name: options.get(name) for name, x in usual.items() if options.get(name) != x}}
    for name, value in named.items():
        words += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)] if value is not None else []
    words += [] if options.get("searching", True) else ["--no-search"]
    words += [word for name, several in (("--plugin", plugins), ("--model", models)) for text in several for word in (name, text)]
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """For a shell, in double quotes where that reads better: "rlpr(model='scorer')"."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)

"""`guerdon methods` and `guerdon check`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from guerdon.evals import checks
from guerdon.evals import methods as rows
from guerdon.registry import Refused


def methods(name: str | None) -> int:
    out = Console()
    if name is not None:
        for key, value in rows.get(name).model_dump().items():
            out.print(f"[bold]{key}[/bold]: {value}", highlight=False)
        return 0
    found = [("id", "holds", "confirmed", "arXiv", "title")]
    found += [(row.id, row.holds, row.confirmed, row.arxiv or "", row.title) for row in rows.methods().values()]
    widths = [max(map(len, column)) for column in zip(*found, strict=True)]
    for row in found:
        line = "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        style = "bold" if row is found[0] else None
        out.print(line.rstrip(), style=style, no_wrap=True, overflow="ellipsis", highlight=False, markup=False)
    return 0


def check(name: str | None, every: bool, fresh: bool) -> int:
    """Exit code 1 when a claim does not hold, or holds without the method's key term."""
    if (name is None) == (not every):
        raise Refused("Name one check, or `--all`.")
    if every:
        names = [n for n in checks.available() if getattr(checks.load(n), "LONG", False) is not True]
    else:
        known = rows.methods()
        path = known[name].check if name in known else None
        names = [Path(path).stem if path else str(name)]
    return max((_one(n, fresh) for n in names), default=0)


def _one(name: str, fresh: bool) -> int:
    out = Console()
    module = checks.load(name)
    out.print(f"[bold]{name}[/bold]  {module.CLAIM}", highlight=False)
    with Progress(console=out, transient=True) as bar:
        task = bar.add_task("measuring", total=None)
        found = checks.run(name, fresh=fresh, tick=lambda done, total: bar.update(task, completed=done, total=total))
    if isinstance(found, checks.Comparison):
        out.print(found.table, highlight=False)
        out.print(
            f"  seeds {found.seeds}, {found.seconds:.0f} s: [bold]{found.verdict}[/bold]; pictures in {found.folder}", highlight=False
        )
        return 0 if found.ok else 1
    out.print(f"  baseline  {module.BASELINE}: {found.baseline}", highlight=False)
    out.print(f"  method    {module.METHOD}: {found.method}", highlight=False)
    out.print(f"  without its key term: {found.ablated}", highlight=False)
    out.print(f"  seeds {found.seeds}, {found.seconds:.0f} s: [bold]{found.verdict}[/bold]", highlight=False)
    return 0 if found.ok else 1

"""`guerdon bench`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guerdon.evals.bench import page
from guerdon.evals.bench.run import bench
from guerdon.registry import Refused


def run(
    name: str,
    data: str | None,
    reward: str | None,
    scores: Path | None,
    out: Path | None,
    plugins: Sequence[str],
    models: Sequence[str],
    threshold: str,
    options: dict[str, Any],
    model_card: bool = False,
) -> int:
    """Prints the report; with `out` writes it there, with `model_card` into the card of the fitted folder. Exit code 0."""
    from rich.console import Console
    from rich.text import Text

    from guerdon.scoring.job import load_plugin, with_models
    from guerdon.scoring.show import meter

    for plugin in plugins:
        load_plugin(plugin)
    if out is not None and out.exists() and not out.is_dir():
        raise Refused(f"{out} is a file; name a folder with --out.")
    folder = None
    if model_card:
        from guerdon.evals.fitted import folder_of
        from guerdon.reward_models.folder import add_part

        folder = folder_of(reward)
    with meter() as progress:
        report = bench(
            name, data, reward=reward, scores=scores, context=with_models(models), threshold=cut(threshold),
            tick=lambda done, total: progress(done / total, done), **options,
        )  # fmt: skip
    written = page.write(report, out) if out is not None else []
    console = Console()
    for part in page.show(report):
        console.print(part, highlight=False, soft_wrap=isinstance(part, Text))
    if folder is not None:
        add_part(folder, "Bench", name, page.card(report))
        written.append(folder / "README.md")
    for path in written:
        print(path, file=sys.stderr)
    return 0


def cut(text: str) -> float | str:
    """A number, or else the name of a category."""
    try:
        return float(text)
    except ValueError:
        return text

"""A bench's report for people: tables in the terminal, a picture; and JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from guerdon.evals.bench import scores
from guerdon.evals.bench.calibration import Calibration
from guerdon.evals.bench.report import Line, Report
from guerdon.training.compare_picture import COLOURS, LINES, MARKERS

if TYPE_CHECKING:
    from rich.console import RenderableType


def show(report: Report) -> list[RenderableType]:
    """The head, a table by category, and the further ones."""
    from rich.table import Table
    from rich.text import Text

    head = Text(f"{report.bench}: {report.by} on {report.data}")
    chance = f"; chance {report.chance:g}" if report.chance is not None else ""
    out: list[RenderableType] = [head, Text(f"{len(report.items):,} items, {report.scored.answers:,} answers; {report.metric}{chance}")]
    for title, lines in {"": report.lines, **report.more}.items():
        if not lines:
            continue
        if title:
            out.append(Text(f"\n{title}", style="bold"))
        table = Table(box=None, pad_edge=False)
        for name, side in (("", "left"), ("n", "right"), ("value", "right"), ("95 % interval", "right"), ("no verdict", "right")):
            if name != "no verdict" or any(line.failed for line in lines):
                table.add_column(name, justify=side)  # pyright: ignore
        for line in lines:
            last = line is report.overall
            cells = [line.name, f"{line.n:,}", number(line.value), interval(line), *([str(line.failed)] if len(table.columns) > 4 else [])]
            table.add_row(*cells, style="bold" if last else None)
        out.append(table)
    if report.calibration is not None and report.bench != "calibration":
        found = report.calibration
        errors = ", ".join(f"{name} {way.ece:.3f}" for name, way in found.ways.items())
        out.append(Text(f"Calibration error on a held-out half: {errors}; temperature {found.temperature:.3g}."))
    return [*out, *(Text(text) for text in [*failures(report), *report.notes])]


def failures(report: Report) -> list[str]:
    """What is said of answers without a verdict; [] where there is none."""
    if not report.failed:
        return []
    text = f"{report.failed:,} of {report.scored.answers:,} answers have no verdict, the first: {report.first_failed}."
    if report.counted is None:
        return [text]
    return [
        f"{text} Items with one are left out of the figures above; counted as the bench does ({report.failed_as}) the whole is"
        f" {number(report.counted)}."
    ]


def number(x: float) -> str:
    return "-" if math.isnan(x) else f"{x:.3f}"


def interval(line: Line) -> str:
    return "-" if line.low is None or line.high is None else f"{line.low:.3f} to {line.high:.3f}"


def write(report: Report, folder: Path) -> list[Path]:
    """bench.json, bench.png and scores.jsonl in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(report.json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    kept = scores.write(report.items, report.scored, folder / "scores.jsonl")
    return [folder / "bench.json", picture(report, folder / "bench.png"), kept]


def picture(report: Report, path: Path) -> Path:
    """Write a PNG: the table by category, or the curves; the reliability diagram beside it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    draw = [_curves if report.curves else _bars, *([_reliability] if report.calibration is not None else [])]
    height = 4.2 if report.curves else max(3.0, 1.2 + 0.34 * len(report.lines))
    figure = Figure(figsize=(5.6 * len(draw), height), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(1, len(draw), squeeze=False)[0], draw, strict=True):
        panel(axes, report)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{report.bench}: {report.by[:90]}", fontsize=11, x=0.01, ha="left")
    figure.savefig(path)
    return path


def _bars(axes: Any, report: Report) -> None:
    lines = [line for line in report.lines if not math.isnan(line.value)]
    for row, line in enumerate(lines):
        low, high = (line.value, line.value) if line.low is None or line.high is None else (line.low, line.high)
        colour = COLOURS[1] if line is report.overall else COLOURS[0]
        ends = [[max(0.0, line.value - low)], [max(0.0, high - line.value)]]
        axes.errorbar(line.value, row, xerr=ends, fmt=MARKERS[0], color=colour, capsize=3, linewidth=1.6, markersize=5)
        axes.annotate(f"{line.value:.3f}", (line.value, row), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(lines)), [line.name for line in lines], fontsize=9)
    axes.set_ylim(len(lines) - 0.4, -0.8)
    if report.chance is not None:
        axes.axvline(report.chance, color="#888888", linewidth=1, linestyle=(0, (1, 2)))
    axes.set_title(fill(f"{report.metric}; 95 % interval", 72), fontsize=8, loc="left")
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)


def _curves(axes: Any, report: Report) -> None:
    apart = set(report.curves) == {"proxy", "gold"}  # two scales
    for k, (name, curve) in enumerate(report.curves.items()):
        on = axes.twinx() if apart and k == 0 else axes
        x = [max(v, 1e-9) for v in report.kl] if report.kl else curve.n
        on.plot(x, curve.value, LINES[k], color=COLOURS[k], marker=MARKERS[k], markersize=4, linewidth=1.8, label=name)
        if all(v is not None for v in (*curve.low, *curve.high)):
            on.fill_between(x, curve.low, curve.high, color=COLOURS[k], alpha=0.13, linewidth=0)
        if apart:
            on.set_ylabel(name, color=COLOURS[k])
            if on is not axes:
                on.spines["top"].set_visible(False)
    first = next(iter(report.curves.values()))
    if report.kl:
        axes.set_xlabel("KL from the sampled policy, log n - (n - 1) / n, nats")
    else:
        axes.set_xscale("log", base=2)
        axes.set_xticks(first.n, [str(n) for n in first.n])
        axes.minorticks_off()
        axes.set_xlabel("n")
        axes.legend(frameon=False, fontsize=8)
    axes.set_title("mean over prompts, band 95 %", fontsize=9, loc="left")
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)


def _reliability(axes: Any, report: Report) -> None:
    found: Calibration | None = report.calibration
    assert found is not None
    axes.plot((0, 1), (0, 1), color="#888888", linewidth=1, linestyle=(0, (1, 2)))
    for k, (name, way) in enumerate(found.ways.items()):
        there = [b for b in way.bins if b.n]
        label = f"{name}: error {way.ece:.3f}"
        axes.plot([b.p for b in there], [b.right for b in there], LINES[k], color=COLOURS[k], marker=MARKERS[k], markersize=4, label=label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("stated probability")
    axes.set_title(f"share that is right, {found.n:,} held out", fontsize=9, loc="left")
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def table(lines: Sequence[Line]) -> str:
    """Lines as Markdown, for model cards."""
    rows = [f"| {line.name} | {line.n:,} | {number(line.value)} | {interval(line)} |" for line in lines]
    return "\n".join(["| | n | value | 95 % interval |", "|---|---|---|---|", *rows])


def card(report: Report) -> str:
    """What a model card says of a bench, in Markdown: the table by category with intervals."""
    chance = f"; chance {report.chance:g}" if report.chance is not None else ""
    metric = f"; {report.metric}{chance}" if report.metric else ""
    head = f"{report.by} on `{report.data}`: {len(report.items):,} items, {report.scored.answers:,} answers{metric}."
    curves = [line for title, lines in report.more.items() if report.curves and not title.startswith("length") for line in lines]
    found = report.calibration
    errors = ", ".join(f"{name} {way.ece:.3f}" for name, way in found.ways.items()) if found else ""
    calibrated = [f"Calibration error on a held-out half: {errors}."] if errors and report.bench != "calibration" else []
    return "\n\n".join([head, table([*report.lines, *curves]), *calibrated, *failures(report), *report.notes])

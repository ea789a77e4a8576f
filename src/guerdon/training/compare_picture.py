"""The picture of a comparison: held-out accuracy over training, and the final differences with their intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from guerdon.training.compare import Comparison, RunStats

# Okabe and Ito's palette: told apart by every kind of colour vision; line styles and markers repeat the difference in grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def picture(found: Comparison, path: Path) -> Path:
    """Write a PNG: curves of the mean over seeds with a band from the least to the greatest seed; differences beside them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    names = list(found.runs)
    looks = {name: (COLOURS[i % 7], LINES[i % 4], MARKERS[i % 7]) for i, name in enumerate(names)}
    beside = len(names) > 1
    figure = Figure(figsize=(11 if beside else 7, 4.6), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, width_ratios=(1.55, 1)) if beside else [figure.subplots()]

    curves = axes[0]
    by_samples = all(run.drawn[-1] > 0 for runs in found.runs.values() for run in runs)
    for name, runs in found.runs.items():
        colour, line, marker = looks[name]
        x, y = common(runs, by_samples)
        curves.plot(x, y.mean(0), line, color=colour, marker=marker, markersize=4, linewidth=2, label=name)
        if len(runs) > 1:
            curves.fill_between(x, y.min(0), y.max(0), color=colour, alpha=0.15, linewidth=0)
    if found.target is not None:
        curves.axhline(found.target, color="#888888", linewidth=1, linestyle=(0, (1, 2)))
        curves.annotate(
            "target", (1, found.target), (-2, 3), ("axes fraction", "data"), "offset points", ha="right", fontsize=8, color="#666666"
        )
    seeds = len(found.runs[names[0]])
    of_seeds = f", mean of {seeds} seeds, band from least to greatest" if seeds > 1 else ""
    curves.set_title(f"Held-out accuracy{of_seeds}", fontsize=10, loc="left")
    curves.set_xlabel("samples drawn" if by_samples else "step")
    curves.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    curves.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    curves.legend(frameon=False, fontsize=9, loc="best")

    if beside:
        gaps = axes[1]
        for row, name in enumerate(names[1:]):
            gap = found.differences[name]["final"]
            if gap is None:
                continue
            low, high = (gap.mean, gap.mean) if gap.low is None or gap.high is None else (gap.low, gap.high)
            colour, _, marker = looks[name]
            ends = [[100 * (gap.mean - low)], [100 * (high - gap.mean)]]
            gaps.errorbar(100 * gap.mean, row, xerr=ends, fmt=marker, color=colour, capsize=4, linewidth=2)
            gaps.annotate(f"{100 * gap.mean:+.1f}", (100 * gap.mean, row), (0, 9), textcoords="offset points", ha="center", fontsize=9)
        gaps.axvline(0, color="#888888", linewidth=1)
        gaps.set_yticks(range(len(names) - 1), names[1:])
        gaps.set_ylim(len(names) - 1.4, -0.6)
        gaps.set_xlabel("percentage points")
        gaps.set_title(f"Final accuracy minus {names[0]}, 95 % interval", fontsize=10, loc="left")
        gaps.grid(axis="x", color="#e5e5e5", linewidth=0.8)
    curves.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    for axis in axes:
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    return path


def common(runs: list[RunStats], by_samples: bool) -> tuple[np.ndarray, np.ndarray]:
    """x (p,) and accuracy (seeds, p) at the evaluations that every seed has; x is the seeds' mean where it counts samples."""
    steps = sorted(set.intersection(*(set(run.steps) for run in runs)))
    at = [[run.steps.index(step) for step in steps] for run in runs]
    y = np.array([[run.accuracy[i] for i in rows] for run, rows in zip(runs, at, strict=True)])
    drawn = np.array([[run.drawn[i] for i in rows] for run, rows in zip(runs, at, strict=True)])
    return (drawn.mean(0) if by_samples else np.array(steps, dtype=float)), y

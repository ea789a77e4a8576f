"""Several recipes, several seeds each: one table, one picture, paired bootstrap intervals.

Seeds pair the runs: seed k of every recipe meets the same tasks, so differences are taken seed by seed - and, where evaluations
were kept task by task, on the same held-out tasks - before they are averaged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.registry import Refused
from guerdon.training import metrics as m
from guerdon.training.folder import replace_file
from guerdon.training.record import passes, read_metrics, read_recipe, tables
from guerdon.training.statistics import Interval, interval, over_seeds_and_tasks

if TYPE_CHECKING:
    from rich.table import Table

MEASURES = {
    "final": "final accuracy",
    "best": "best accuracy",
    "area": "area under curve",
    "length": "tokens a sample",
    "samples": "samples to target",
    "seconds": "seconds",
}
SHARES = ("final", "best", "area")
"""Measures between 0 and 1, of which more is better."""
TARGET = 0.9
"""The share of the first recipe's gain in accuracy that `samples to target` waits for."""
FINISHED = "finished.json"
"""Written into a run folder when its run is done: the recipe's digest and the seed."""


@dataclass
class RunStats:
    """What one run says: steps and accuracy of its evaluations, samples drawn up to each, the measures, and by task the last passes."""

    steps: list[int]
    accuracy: list[float]
    drawn: list[float]
    measures: dict[str, float | None]
    by_task: dict[str, float] = field(default_factory=dict, repr=False)


@dataclass
class Comparison:
    """Recipes side by side; the first is the one that the others are compared with."""

    runs: dict[str, list[RunStats]]
    differences: dict[str, dict[str, Interval | None]]
    """recipe -> measure -> difference to the first recipe; None where a run lacks the measure."""
    target: float | None
    """The accuracy of `samples to target`; None where the first recipe gained nothing."""
    paired_by: str
    """`seed`, or `seed and task`: what the intervals of final accuracy resample. All others resample seeds."""

    def mean(self, recipe: str, measure: str) -> tuple[float, float] | None:
        """Mean and standard deviation over seeds; None where a run lacks the measure."""
        values = _values(self.runs[recipe], measure)
        return None if values is None else (float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0)

    def table(self) -> Table:
        """One row a recipe: mean ± standard deviation over seeds; below it the difference to the first and its 95 % interval."""
        from rich.markup import escape
        from rich.table import Table

        first, seeds = next(iter(self.runs)), len(next(iter(self.runs.values())))
        notes = [f"{seeds} seeds a recipe, mean ± standard deviation" if seeds > 1 else "One seed, which says nothing of others"]
        if len(self.runs) > 1:
            notes.append(f"below it the difference to {first} and its 95 % interval, paired by seed; * excludes 0")
            if self.paired_by != "seed":
                notes.append("intervals of final accuracy allow for other tasks too")
        if self.target is not None:
            notes.append(f"target: accuracy {self.target:.3f}, {100 * TARGET:.0f} % of the gain of {first}")
        table = Table(title="Comparison", caption="; ".join(notes) + ".", caption_justify="left", show_lines=len(self.runs) > 1)
        table.add_column("recipe", overflow="fold")
        shown = [name for name in MEASURES if any(self.mean(recipe, name) for recipe in self.runs)]
        for name in shown:
            table.add_column(MEASURES[name], justify="right")
        for recipe in self.runs:
            table.add_row(escape(recipe), *(self._cell(recipe, name) for name in shown))
        return table

    def _cell(self, recipe: str, measure: str) -> str:
        found = self.mean(recipe, measure)
        if found is None:
            reached = sum(run.measures[measure] is not None for run in self.runs[recipe])
            return f"{reached} of {len(self.runs[recipe])} runs" if measure == "samples" else "–"
        digits = 3 if measure in SHARES else 1 if measure == "length" else 0
        text = f"{found[0]:,.{digits}f}" + (f" ± {found[1]:,.{digits}f}" if len(self.runs[recipe]) > 1 else "")
        gap = self.differences.get(recipe, {}).get(measure)
        if gap is None:
            return text
        below = f"{gap.mean:+,.{digits}f}{'*' if gap.clear else ''}"
        if gap.low is not None:
            below += f"\n\\[{gap.low:+,.{digits}f}, {gap.high:+,.{digits}f}]"
        style = "dim" if not gap.clear else "bold" if measure not in SHARES else "bold green" if gap.mean > 0 else "bold red"
        return f"{text}\n[{style}]{below}[/]"

    def plain(self) -> dict[str, Any]:
        """Everything as data."""
        return {
            "target": self.target,
            "paired_by": self.paired_by,
            "recipes": {
                recipe: {
                    "runs": [{k: v for k, v in asdict(run).items() if k != "by_task"} for run in runs],
                    "difference": {name: gap and asdict(gap) for name, gap in self.differences.get(recipe, {}).items()},
                }
                for recipe, runs in self.runs.items()
            },
        }

    def save(self, out: Path) -> tuple[Path, Path]:
        """Write `comparison.json` and `comparison.png`."""
        from guerdon.training.compare_picture import picture

        out.mkdir(parents=True, exist_ok=True)
        replace_file(out / "comparison.json", json.dumps(self.plain(), indent=1, allow_nan=False).encode())
        return out / "comparison.json", picture(self, out / "comparison.png")


def collect(runs: Mapping[str, Sequence[Path]]) -> Comparison:
    """Compare finished runs: recipe -> its run folders, seed by seed in the same order for every recipe.

    Raises Refused where recipes have different numbers of runs, or a run holds no evaluation.
    """
    sizes = {recipe: len(folders) for recipe, folders in runs.items()}
    if not sizes or 0 in sizes.values() or len(set(sizes.values())) > 1:
        raise Refused(f"A comparison needs the same seeds of every recipe, not {sizes or 'nothing'}; run the missing ones.")
    found = {recipe: [read_run(Path(folder)) for folder in folders] for recipe, folders in runs.items()}
    first = next(iter(found))
    start, end = (np.mean([run.accuracy[at] for run in found[first]]) for at in (0, -1))
    target = float(start + TARGET * (end - start)) if end > start else None
    for several in found.values():
        for run in several:
            run.measures["samples"] = None if target is None else reach(run, target)
    tasks = sorted(found[first][0].by_task)
    whole = bool(tasks) and all(sorted(run.by_task) == tasks for several in found.values() for run in several)
    differences: dict[str, dict[str, Interval | None]] = {}
    for recipe, several in list(found.items())[1:]:
        differences[recipe] = {name: paired(found[first], several, name) for name in MEASURES}
        if whole:
            differences[recipe]["final"] = over_seeds_and_tasks(_by_task(several, tasks) - _by_task(found[first], tasks))
    return Comparison(found, differences, target, "seed and task" if whole else "seed")


def read_run(folder: Path) -> RunStats:
    """The measures of one run folder but for `samples`, whose target is the comparison's."""
    log = read_metrics(folder)
    points = [entry for entry in log if m.EVAL_ACCURACY in entry]
    if not points:
        raise Refused(f"{folder} holds no evaluation ({m.EVAL_ACCURACY}); give its recipe eval.tasks.")
    steps = [entry[m.STEP] for entry in points]
    accuracy = [float(entry[m.EVAL_ACCURACY]) for entry in points]
    train = read_recipe(folder)[0].get("train") or {}
    planned = train.get("prompts", 0) * train.get("samples", 0)
    drawn = np.cumsum([entry.get(m.SAMPLES, planned if entry[m.STEP] else 0) for entry in log]).tolist()
    at = {entry[m.STEP]: float(total) for entry, total in zip(log, drawn, strict=True)}
    lengths = [entry[m.LENGTH] for entry in log if m.LENGTH in entry]
    seconds = [entry[m.SECONDS] for entry in log if m.SECONDS in entry]
    measures = {
        "final": accuracy[-1],
        "best": max(accuracy),
        "area": area(steps, accuracy),
        "length": float(np.mean(lengths)) if lengths else None,
        "seconds": float(sum(seconds)) if seconds else None,
    }
    last = tables(folder, "evals").get(steps[-1])
    return RunStats(steps, accuracy, [at[step] for step in steps], measures, passes(last) if last else {})


def area(steps: Sequence[int], accuracy: Sequence[float]) -> float:
    """Mean accuracy over the run: the area under the evaluations, by trapezoids, over the range of steps."""
    if len(steps) == 1:
        return accuracy[0]
    y = np.asarray(accuracy)
    return float(np.sum(np.diff(steps) * (y[1:] + y[:-1]) / 2) / (steps[-1] - steps[0]))


def reach(run: RunStats, target: float) -> float | None:
    """Samples drawn until the first evaluation at or above the target; None where none is."""
    return next((drawn for drawn, value in zip(run.drawn, run.accuracy, strict=True) if value >= target), None)


def paired(first: Sequence[RunStats], other: Sequence[RunStats], measure: str) -> Interval | None:
    """Interval of the differences `other - first`, seed by seed; None where any run lacks the measure."""
    a, b = _values(first, measure), _values(other, measure)
    return None if a is None or b is None else interval(b - a)


def _values(runs: Sequence[RunStats], measure: str) -> np.ndarray | None:
    values = [run.measures.get(measure) for run in runs]
    return None if any(value is None for value in values) else np.array(values, dtype=float)


def _by_task(runs: Sequence[RunStats], tasks: Sequence[str]) -> np.ndarray:
    """(seeds, tasks) shares of passes in the last evaluation."""
    return np.array([[run.by_task[task] for task in tasks] for run in runs])


Trainer = Callable[[Path, int, Path], None]
"""(recipe, seed, run folder): trains. The folder may hold a run that broke off, which it then resumes."""


def compare(
    recipes: Sequence[str | Path],
    seeds: int,
    out: Path,
    train: Trainer,
    say: Callable[[str], None] | None = None,
    seed: int = 0,
    overrides: Sequence[str] = (),
) -> Comparison:
    """Train every recipe with `seeds` seeds from `seed` on in `out/RECIPE/seed-K`, then compare; runs that are done are not run again.

    Seeds go round all recipes before the next, so that a comparison that was stopped is still a comparison. `comparison.json` and
    `comparison.png` are written into `out`. `overrides` are what `train` changes in every recipe: part of its version.

    Raises Refused for fewer than one seed, a missing recipe, two of one name, or a finished run of another version of the recipe;
    what `train` raises passes through.
    """
    paths = [Path(recipe) for recipe in recipes]
    names = named(paths)
    if seeds < 1:
        raise Refused(f"seeds is {seeds}; a comparison needs at least 1, and says more with 3 or more.")
    out = Path(out)
    folders = {name: [out / name / f"seed-{seed + k}" for k in range(seeds)] for name in names}
    digests = {
        name: hashlib.sha256(b"\0".join([path.read_bytes(), *(o.encode() for o in overrides)])).hexdigest() for name, path in names.items()
    }
    for name, several in folders.items():
        for folder in several:
            done = _finished(folder)
            if done is not None and done != digests[name]:
                raise Refused(
                    f"{folder} was run with another version of {names[name]} or other overrides; "
                    f"delete {out / name}, or choose another --out."
                )
    left = [(name, k) for k in range(seeds) for name in names if _finished(folders[name][k]) is None]
    for number, (name, k) in enumerate(left, 1):
        if say:
            say(f"{name}, seed {seed + k} ({number} of {len(left)} runs)")
        folder = folders[name][k]
        folder.parent.mkdir(parents=True, exist_ok=True)
        train(names[name], seed + k, folder)
        replace_file(folder / FINISHED, json.dumps({"recipe": digests[name], "seed": seed + k}).encode())
    found = collect(folders)
    found.save(out)
    return found


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """A short name for each recipe: its file's, with its folder's before it where two are alike."""
    for path in paths:
        if not path.is_file():
            raise Refused(f"There is no recipe {path}; give the path of a YAML file.")
    if len({path.resolve() for path in paths}) < len(paths) or not paths:
        raise Refused(f"A comparison needs different recipes, not {', '.join(map(str, paths)) or 'none'}.")
    stems = [path.stem for path in paths]
    names = [path.stem if stems.count(path.stem) == 1 else f"{path.resolve().parent.name}-{path.stem}" for path in paths]
    if len(set(names)) < len(names):
        raise Refused(f"Two recipes would both be called {next(n for n in names if names.count(n) > 1)!r}; rename one.")
    return dict(zip(names, paths, strict=True))


def _finished(folder: Path) -> str | None:
    """The digest of the recipe that the folder's finished run had."""
    path = folder / FINISHED
    return json.loads(path.read_text())["recipe"] if path.is_file() else None

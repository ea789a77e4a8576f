"""`report.html`: what a run did, in one file that opens without a network.

Everything that a model wrote is hostile: it is escaped, spelt out where invisible, cut where long, and the page forbids itself
every address (Content-Security-Policy). The curves are Plotly's, whose script is part of the file.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.registry import Refused
from guerdon.training import metrics as m
from guerdon.training.folder import replace_file
from guerdon.training.record import passes, read_jsonl, read_metrics, read_recipe, tables
from guerdon.training.report_charts import draw, short
from guerdon.training.report_samples import show, visible

MOST_REASONS = 30
MOST_EVENTS = 100
MOST_COLUMNS = 8  # of the table of reasons
TRAINED = ("models", "tasks", "rollout", "select", "reward", "correct", "keep", "kl", "credit", "aggregate", "loss", "critic", "train")


@dataclass(frozen=True)
class Tile:
    """A number of the headline: what, how much, and a remark."""

    name: str
    value: str
    note: str = ""


def write_report(run: Path) -> Path:
    """Write `run/report.html` anew, whole or not at all, and return its path. A run without steps has a report too.

    Raises Refused where `run` is no run folder or one of its files cannot be read, Broke where the disk is full.
    """
    import jinja2
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    run = Path(run)
    if not run.is_dir():
        raise Refused(f"{run} is not a run folder; name the folder that `guerdon train` wrote.")
    recipe, recipe_text = read_recipe(run)
    log = read_metrics(run)
    events = list(read_jsonl(run / "events.jsonl"))
    told = [(event.get("step", ""), visible(event.get("kind", "event"), 40), visible(event.get("text", ""), 600)) for event in events]
    curves, parts = draw(log)
    files = list(tables(run, "samples").items())
    ends = files[:1] + files[-1:] if len(files) > 1 else files

    here = Path(__file__).parent
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string((here / "report.html").read_text(encoding="utf-8")).render(
        name=visible(run.resolve().name, 80),
        result=result(log),
        trained=trained(recipe),
        tiles=tiles(log, events) + held_out(run),
        curves=curves,
        parts=parts,
        data=Markup(_in_script(curves + parts)),
        events=told[-MOST_EVENTS:],
        kinds=Counter(kind for _, kind, _ in told),
        left_out=max(0, len(told) - MOST_EVENTS),
        reasons=reasons(log),
        judged=any(m.FAILED in entry for entry in log),
        samples=[show(path, step) for step, path in ends],
        recipe=visible(recipe_text, 100_000),
        css=Markup((here / "report.css").read_text(encoding="utf-8")),
        js=Markup((here / "report.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()),
    )
    path = run / "report.html"
    replace_file(path, page.encode("utf-8", "replace"))
    return path


def trained(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the headline says of the recipe: (field, its pieces), then what each stage changes."""
    found = [(key, _field(key, recipe[key])) for key in TRAINED if key in recipe]
    for number, stage in enumerate(recipe.get("stages") or [], 1):
        if isinstance(stage, Mapping):
            found += [(f"{key}, stage {number}", _field(key, stage[key])) for key in TRAINED if key in stage]
    return [(key, visible(text, 400)) for key, text in found if text]


def _field(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key == "models" and isinstance(value, Mapping):
        return ", ".join(f"{name}: {_model(spec)}" for name, spec in value.items())
    if key == "train" and isinstance(value, Mapping) and {"steps", "prompts", "samples", "lr"} <= value.keys():
        return f"{value['steps']} steps of {value['prompts']} prompts × {value['samples']} samples, learning rate {value['lr']}"
    return said(value)


def _model(spec: Any) -> str:
    if not isinstance(spec, Mapping):
        return str(spec)
    if spec.get("of"):
        return f"follows {spec['of']} every {spec['every']} steps" if spec.get("every") else f"{spec['of']} as it began"
    return f"{spec.get('path') or 'as the backend makes it'} ({spec.get('backend', 'local')})"


def said(value: Any) -> str:
    """A value of a recipe in one line: `{use: ppo, clip: 0.2}` as `ppo(clip=0.2)`."""
    if isinstance(value, Mapping):
        head = str(value["use"]) if "use" in value else ""
        inner = ", ".join(f"{key}={said(one)}" for key, one in value.items() if key != "use" and one is not None)
        return f"{head}({inner})" if head and inner else head or inner
    if isinstance(value, (list, tuple)):
        inner = ", ".join(said(one) for one in value)
        return inner if all(isinstance(one, Mapping) for one in value) else f"[{inner}]"
    return str(value)


def column(log: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """(step, value) wherever the metric was measured."""
    return [(e[m.STEP], float(e[name])) for e in log if isinstance(e.get(name), (int, float)) and math.isfinite(e[name])]


def result(log: Sequence[Mapping[str, Any]]) -> str:
    """The run in a few words: held-out accuracy, else the reward, from first to last, and what it took."""
    seconds = sum(value for _, value in column(log, m.SECONDS))
    took = f"{count_steps(log):,} steps" + (f", {clock(seconds)}" if seconds else "")
    for name, label, share in ((m.EVAL_ACCURACY, "held-out accuracy", True), (m.REWARD, "reward", False)):
        values = column(log, name)
        if values:
            return f"{label} {_span(values, share)} in {took}"
    return "nothing measured yet"


def count_steps(log: Sequence[Mapping[str, Any]]) -> int:
    """Training steps; step 0 is the evaluation before the first."""
    return sum(1 for entry in log if entry[m.STEP] > 0)


def tiles(log: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> list[Tile]:
    """The numbers of the headline; what was not measured has none."""
    found = []
    for name, label, share in (
        (m.EVAL_ACCURACY, "Held-out accuracy", True),
        (m.EVAL_REWARD, "Held-out reward", False),
        (m.EVAL_GOLD, "Held-out gold", False),
        (m.REWARD, "Training reward", False),
    ):
        values = column(log, name)
        if values:
            best = max(values, key=lambda point: point[1])
            found.append(Tile(label, _span(values, share), f"best {_share(best[1], share)} at step {best[0]:,}"))
    seconds = sum(value for _, value in column(log, m.SECONDS))
    drawn = sum(value for _, value in column(log, m.SAMPLES))
    found.append(Tile("Steps", f"{count_steps(log):,}", f"{drawn:,.0f} samples" if drawn else ""))
    if seconds:
        rate = [value for _, value in column(log, m.TOKENS_PER_SECOND)]
        found.append(Tile("Time", clock(seconds), f"{short(float(np.median(rate)))} tokens/s (median)" if rate else ""))
    found.append(Tile("Events", f"{len(events):,}", "hack monitor fired" if any(entry.get(m.HACK) for entry in log) else ""))
    return found


def held_out(run: Path) -> list[Tile]:
    """How many held-out tasks were gained and lost between the first and the last evaluation; none where fewer than two are kept."""
    files = list(tables(run, "evals").values())
    if len(files) < 2:
        return []
    first, last = passes(files[0]), passes(files[-1])
    counts = Counter((first[task] > 0.5, last[task] > 0.5) for task in first.keys() & last.keys())
    if not counts:
        return []
    note = f"of {counts.total():,}; {counts[True, True]:,} right, {counts[False, False]:,} wrong at both ends"
    return [Tile("Held-out tasks", f"+{counts[False, True]:,} −{counts[True, False]:,}", note)]


@dataclass(frozen=True)
class Reasons:
    """Counts of reasons over time. columns: ranges of steps.  rows: reason, counts, total, shading of each count in 0..1."""

    columns: list[str]
    rows: list[tuple[str, list[int], int, list[float]]]
    others: int
    """Samples whose reason has no row."""


def reasons(log: Sequence[Mapping[str, Any]]) -> Reasons:
    """What failed, abstained or was hostile, and why; the most frequent first."""
    log = [entry for entry in log if entry[m.STEP] > 0 or m.REASONS in entry]
    bins = [part for part in np.array_split(np.arange(len(log)), MOST_COLUMNS) if len(part)]
    counts: dict[str, list[int]] = {}
    for place, part in enumerate(bins):
        for i in part:
            for reason, count in (log[i].get(m.REASONS) or {}).items():
                counts.setdefault(reason, [0] * len(bins))[place] += int(count)
    order = sorted(counts, key=lambda reason: -sum(counts[reason]))
    most = max((max(row) for row in counts.values()), default=1) or 1
    edges = [(log[part[0]][m.STEP], log[part[-1]][m.STEP]) for part in bins]
    return Reasons(
        [f"{low:,}" if low == high else f"{low:,}–{high:,}" for low, high in edges],
        [
            (visible(name, 200), counts[name], sum(counts[name]), [math.sqrt(one / most) for one in counts[name]])
            for name in islice(order, MOST_REASONS)
        ],
        sum(sum(counts[name]) for name in order[MOST_REASONS:]),
    )


def clock(seconds: float) -> str:
    """4.2 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _span(values: Sequence[tuple[int, float]], share: bool) -> str:
    ends = values[:1] if len(values) == 1 else [values[0], values[-1]]
    return " → ".join(_share(value, share) for _, value in ends)


def _share(value: float, share: bool) -> str:
    return f"{100 * value:.1f} %" if share else short(value)


def _in_script(data: Any) -> str:
    """JSON, dataclasses as objects, that cannot end the script element it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, default=vars)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")

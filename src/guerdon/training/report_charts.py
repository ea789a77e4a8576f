"""The curves of the report: which metrics share a chart, and their series, ready for `report.js`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guerdon.training import metrics as m

MOST_POINTS = 1000  # of a series; a longer one is drawn as the means of equal bins
SMOOTH_FROM = 40  # points; shorter series are drawn as they are


@dataclass(frozen=True)
class Chart:
    """One chart: metric -> its name in the legend. A metric that ends in `/` stands for all that begin with it."""

    title: str
    names: Mapping[str, str]
    note: str
    shares: bool = False
    """Values between 0 and 1, shown as percentages."""
    stacked: bool = False
    limit: float | None = None
    """A level that should not be crossed."""


CHARTS = (
    Chart("Held-out accuracy", {m.EVAL_ACCURACY: "accuracy"}, "pass@1 on held-out tasks", shares=True),
    Chart("Held-out reward and gold", {m.EVAL_REWARD: "reward (proxy)", m.EVAL_GOLD: "gold"}, "proxy up while gold falls: a hack"),
    Chart("Reward", {m.REWARD: "reward"}, "mean of a batch, band of one standard deviation"),
    Chart("Training accuracy", {m.PASS_1: "pass@1", m.PASS_K: "pass@k"}, "samples, and groups, with a right answer", shares=True),
    Chart("Length", {m.LENGTH: "training", m.EVAL_LENGTH: "held-out"}, "tokens a sample"),
    Chart("Truncated", {m.TRUNCATED: "truncated"}, "samples that ran out of tokens", shares=True),
    Chart("No plain verdict", {m.HOSTILE: "hostile", m.ABSTAINED: "abstained", m.FAILED: "failed"}, "of all samples", shares=True),
    Chart("Entropy", {m.ENTROPY: "entropy"}, "nats a token"),
    Chart("KL to the reference", {m.KL: "KL"}, "nats a token, k3 estimate"),
    Chart("Clip fraction", {m.CLIP_FRACTION: "clipped"}, "tokens whose ratio was clipped", shares=True),
    Chart("Zero-spread groups", {m.ZERO_SPREAD: "zero spread"}, "groups of equal rewards teach nothing", shares=True),
    Chart(
        "Log-probability gap",
        {m.LOGPROB_GAP: "gap"},
        f"|sampled − recomputed| a token, warning above {m.LOGPROB_GAP_WARNING}",
        limit=m.LOGPROB_GAP_WARNING,
    ),
    Chart("Gradient norm", {m.GRAD_NORM: "norm"}, "before clipping"),
    Chart("Loss", {m.LOSS: "loss", m.VALUE_LOSS: "value loss"}, "what the backend minimised"),
    Chart("Critic", {m.EXPLAINED_VARIANCE: "explained variance"}, "1: the critic predicts every return"),
    Chart("Learning rate", {m.LR: "rate"}, "after warm-up and decay"),
    Chart("Sampling", {m.REFILLS: "refills", m.DROPPED: "dropped", m.SHORT: "short"}, "rounds, and samples that curation left out"),
    Chart("Sample age", {m.SAMPLE_AGE: "age"}, "versions between writing and training"),
    Chart("Tokens per second", {m.TOKENS_PER_SECOND: "tokens/s"}, "new tokens over the whole step"),
    Chart("Seconds by room", {m.SECONDS_BY_ROOM: ""}, "a step, stacked", stacked=True),
)
PARTS = f"{m.REWARD}/"
NOT_DRAWN = {m.STEP, m.STAGE, m.REASONS, m.REWARD_STD, m.HACK, m.SECONDS, m.SAMPLES}


@dataclass
class Series:
    name: str
    x: list[float]
    y: list[float]
    smooth: list[float] | None = None
    band: list[float] | None = None
    """Half the height of a band around y."""


@dataclass
class Drawing:
    """A chart with its data, as `report.js` reads it."""

    title: str
    note: str
    series: list[Series]
    shares: bool = False
    stacked: bool = False
    limit: float | None = None
    marks: list[float] = field(default_factory=list)
    """Steps with a warning of the hack monitor."""
    last: str = ""
    """The latest value, where there is one series."""


def draw(log: Sequence[Mapping[str, Any]]) -> tuple[list[Drawing], list[Drawing]]:
    """The curves, those of metrics that `CHARTS` does not name at the end, and the parts of the reward, one drawing each."""
    columns: dict[str, tuple[list[float], list[float]]] = {}
    for entry in log:
        for name, value in entry.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                xs, ys = columns.setdefault(name, ([], []))
                xs.append(entry[m.STEP])
                ys.append(float(value))
    hacks = [x for x, y in zip(*columns.get(m.HACK, ([], [])), strict=True) if y]
    curves, used = [], set(NOT_DRAWN)
    for chart in CHARTS:
        names = {}
        for name, label in chart.names.items():
            if name.endswith("/"):
                names |= {found: found.removeprefix(name) for found in columns if found.startswith(name)}
            elif name in columns:
                names[name] = label
        used |= set(names)
        series = [_series(label, *columns[name], smooth=not (chart.stacked or name.startswith("eval/"))) for name, label in names.items()]
        if chart.title == "Reward" and series and len(columns.get(m.REWARD_STD, ([], []))[0]) == len(columns[m.REWARD][0]):
            series[0].band = _series("", *columns[m.REWARD_STD]).y
        if series:
            last = _short(columns[next(iter(names))][1][-1], chart.shares) if len(names) == 1 else ""
            marks = hacks if m.EVAL_REWARD in names else []
            curves.append(Drawing(chart.title, chart.note, series, chart.shares, chart.stacked, chart.limit, marks, last))
    parts = []
    for name in sorted(set(columns) - used):
        one = Drawing(name.removeprefix(PARTS), "", [_series("mean", *columns[name])], last=_short(columns[name][1][-1]))
        (parts if name.startswith(PARTS) else curves).append(one)
    return curves, parts


def _series(name: str, x: Sequence[float], y: Sequence[float], smooth: bool = True) -> Series:
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(xs) > MOST_POINTS:
        starts = np.linspace(0, len(xs), MOST_POINTS, endpoint=False).astype(int)
        size = np.diff([*starts, len(xs)])
        xs, ys = np.add.reduceat(xs, starts) / size, np.add.reduceat(ys, starts) / size
    out = Series(name, [float(f"{v:.6g}") for v in xs], [float(f"{v:.5g}") for v in ys])
    if smooth and len(ys) >= SMOOTH_FROM:
        out.smooth = [float(f"{v:.5g}") for v in running_mean(ys, max(5, len(ys) // 20))]
    return out


def running_mean(y: np.ndarray, width: int) -> np.ndarray:
    """Centred mean over `width` points (made odd), over fewer at both ends."""
    half = width // 2
    total = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(y))
    return (total[high] - total[low]) / (high - low)


def _short(value: float, share: bool = False) -> str:
    return short(100 * value, 3) + " %" if share else short(value)


def short(value: float | None, digits: int = 3) -> str:
    """A number as a person would write it: 0.912, 12,345, 1.2e-05; an en dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
    return text.replace("-", "−", 1) if value < 0 else text

"""`bench`: a bench by name, its data, and a reward or a file of scores -> a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from guerdon.evals.bench import answers, benches, layouts
from guerdon.evals.bench.layouts import Item
from guerdon.evals.bench.metrics import AGGREGATES
from guerdon.evals.bench.report import Report
from guerdon.evals.bench.scores import Scored, by_reward, from_file
from guerdon.registry import Broke, Refused, nearest
from guerdon.rewards.expr import Expr
from guerdon.samples import Context
from guerdon.scoring.cache import Cache
from guerdon.scoring.engine import Engine


@dataclass(frozen=True)
class Bench:
    run: Callable[[Report, Sequence[Item], Scored, benches.Options], None]
    layouts: Sequence[str]
    metric: str
    chance: float | None
    failed_as: str
    """How the bench's own code counts an item with an answer without a verdict."""


PAIRS = ("rewardbench2", "rewardbench", "rm-bench", "judgebench", "rewardmath")
BENCHES = {
    "rewardbench": Bench(
        benches.rewardbench, ("rewardbench",), "share of pairs whose chosen answer is above the rejected one, equal ones wrong",
        0.5, "half right",
    ),
    "rewardbench2": Bench(
        benches.rewardbench2, ("rewardbench2",), "best of four, equal highest scores share; Ties: its weighted score",
        0.25, "the lowest, a draw over all where none has a verdict; items of Ties are left out",
    ),
    "rm-bench": Bench(
        benches.rm_bench, ("rm-bench",), "share of pairs of styles whose chosen answer is above the rejected one, equal ones wrong",
        0.5, "the lowest (its code has no rule)",
    ),
    "judgebench": Bench(
        benches.judgebench, ("judgebench",), "share of pairs decided rightly, undecided ones wrong", 0.5, "wrong",
    ),
    "rewardmath": Bench(
        benches.rewardmath, ("rewardmath",), "share of problems whose right solution is above all wrong ones, equal ones wrong",
        0.1, "the lowest",
    ),
    "processbench": Bench(
        benches.processbench, ("processbench",), "F1 of the accuracies with and without an error, first wrong step", None, "wrong",
    ),
    "best-of-n": Bench(answers.best_of_n, ("answers",), "", None, ""),
    "overoptimization": Bench(answers.overoptimization, ("answers",), "", None, ""),
    "calibration": Bench(
        answers.calibration_bench, ("answers", "processbench", *PAIRS), "expected calibration error, ten bins", None, ""
    ),
    "length-bias": Bench(
        answers.length_bench, ("answers", *PAIRS), "accuracy where the right answer is longer minus where it is shorter", 0.0, ""
    ),
}  # fmt: skip


def find(name: str) -> Bench:
    if name not in BENCHES:
        raise Refused(f"There is no bench {name!r}{nearest(name, BENCHES)}")
    return BENCHES[name]


def bench(
    name: str,
    data: str | Path | None = None,
    *,
    reward: str | Expr | None = None,
    scores: str | Path | None = None,
    how: str = "last",
    threshold: float | str = 0.5,
    limit: int | None = None,
    seed: int = 0,
    context: Context | None = None,
    cache: str | Path | None = None,
    workers: int | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """What a bench finds of a reward, or of a file of scores.

    data: a file in the bench's published layout, or a data set of a hub; the bench's own if not given. how: puts step scores together where
    one number is wanted. threshold: of ProcessBench. limit: the first so many items of each category. Raises Refused for data or scores
    that do not fit, naming file, row and field, and Broke where no answer has a verdict.
    """
    found = find(name)
    if (reward is None) == (scores is None):
        raise Refused("Give a reward to bench, or a file of scores: one of the two.")
    if scores is not None and limit is not None:
        raise Refused("A limit is for a reward; a file of scores is of all items.")
    if how not in AGGREGATES:
        raise Refused(f"Step scores are put together by {', '.join(AGGREGATES)}, not {how!r}.")
    data = data if data is not None else layouts.hub_of(found.layouts[0])
    layout, items = layouts.read(data, found.layouts, limit)
    if reward is not None:
        with (
            closing(Cache(cache)) if cache else nullcontext() as store,
            Engine(context, cache=store, workers=workers) as engine,
        ):
            scored = by_reward(items, reward, engine, tick)
    else:
        assert scores is not None
        scored = from_file(items, scores)
    if scored.failed == scored.answers:
        raise Broke(f"No answer has a verdict by {scored.by}: {next(iter(scored.why.values()))}.")
    report = Report(name, scored.by, str(data), found.metric, found.chance, items, scored, failed_as=found.failed_as)
    if scored.why:
        (i, j), why = next(iter(scored.why.items()))
        report.first_failed = f"item {items[i].id!r}, answer {j + 1}: {why}"
    options = benches.Options(how, threshold, seed)
    found.run(report, items, scored, options)
    _beside(report, name, layout, items, scored, options)
    return report


def _beside(report: Report, name: str, layout: str, items: Sequence[Item], scored: Scored, options: benches.Options) -> None:
    """Length and calibration stand beside every bench that has what they need."""
    if not report.failed:
        report.counted = None
    if name not in ("length-bias", "calibration", "overoptimization") and layout != "processbench":
        report.more["length, in characters"] = answers.length_lines(items, scored, options.how)
    if name not in ("length-bias", "calibration", "overoptimization"):
        answers.calibrated(report, items, scored, options)


def names() -> list[str]:
    return list(BENCHES)

"""Benches of many scored answers a prompt: best of n and votes, over-optimisation, calibration, length -> a report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.evals.bench import curves
from guerdon.evals.bench.benches import UNIT, Options, Table
from guerdon.evals.bench.calibration import LENGTHS, calibration, length_terms, sigmoid
from guerdon.evals.bench.layouts import Item
from guerdon.evals.bench.metrics import bootstrap
from guerdon.evals.bench.report import Line, Report
from guerdon.evals.bench.scores import Scored
from guerdon.registry import Refused
from guerdon.samples import Sample, Task
from guerdon.search.choose import vote_of
from guerdon.spans import mark


def best_of_n(report: Report, items: Sequence[Item], scored: Scored, options: Options) -> None:
    scores, gold = scored.numbers(options.how), [np.array(item.gold) for item in items]
    ns = _sizes(items)
    rng = np.random.default_rng(options.seed)
    known = np.concatenate(scores)
    logits = bool(((known < 0) | (known > 1)).any())
    tables: dict[str, np.ndarray] = {
        "best of n": np.array([[curves.best_of_n(s, g, n) for n in ns] for s, g in zip(scores, gold, strict=True)]),
        "weighted vote": np.array([
            [curves.vote(votes_of(item), sigmoid(s) if logits else s, g, n, rng) for n in ns]
            for item, s, g in zip(items, scores, gold, strict=True)
        ]),
        "majority vote": np.array([
            [curves.vote(votes_of(item), np.ones(len(g)), g, n, rng) for n in ns] for item, g in zip(items, gold, strict=True)
        ]),
        "any of n is right": np.array([[curves.pass_at_n(np.array(item.right), n) for n in ns] for item in items]),
    }  # fmt: skip
    bounds = UNIT if all(((g >= 0) & (g <= 1)).all() for g in gold) else (-np.inf, np.inf)
    report.curves = {name: curves.Curve.of(ns, values, bounds) for name, values in tables.items()}
    report.metric = f"expected truth of the best of n = {ns[-1]} answers by the score"
    table = Table(items, scores, np.ones(len(items), dtype=bool))
    best = tables["best of n"][:, -1]
    report.lines += [*_by_category(table, best, bounds), Line.of("all", len(items), report.curves["best of n"].at(-1))]
    report.more[f"n = {ns[-1]}, and one answer"] = [
        *(Line.of(name, len(items), curve.at(-1)) for name, curve in report.curves.items()),
        Line.of("n = 1", len(items), report.curves["best of n"].at(0)),
    ]
    report.notes.append("An answer without a verdict is chosen only where no other is there, and does not vote.")
    if logits:
        report.notes.append("The scores leave [0, 1], so that votes weigh sigmoid(score).")


def _by_category(table: Table, values: np.ndarray, bounds: tuple[float, float] = (-np.inf, np.inf)) -> list[Line]:
    groups = table.groups(lambda item: item.category)
    return [Line.of(name, len(rows), bootstrap([values[rows]], bounds=bounds)) for name, rows in groups.items()] if len(groups) > 1 else []


def _sizes(items: Sequence[Item], least: str = "") -> list[int]:
    most = min((len(item.answers) for item in items), default=0)
    if most < 2:
        alone = next(item for item in items if len(item.answers) < 2)
        raise Refused(f"The prompt of row {alone.row} has {len(alone.answers)} answer{least}; a curve over n needs two or more a prompt.")
    return curves.sizes(most)


def votes_of(item: Item) -> list[str | None]:
    """What each answer votes for: the column `answer`, else the final answer that the text states."""
    out = []
    for text, said in zip(item.answers, item.votes or [None] * len(item.answers), strict=True):
        if said is not None:
            out.append(" ".join(said.split()).casefold() or None)
            continue
        sample = Sample(Task("", ""), text, stop="end")
        mark(sample)
        out.append(vote_of(sample))
    return out


def overoptimization(report: Report, items: Sequence[Item], scored: Scored, options: Options) -> None:
    kept = []
    for item, s in zip(items, scored.numbers(options.how), strict=True):
        known = ~np.isnan(s)
        if known.sum() > 1:
            kept.append((item, s[known], np.array(item.gold)[known]))
    if not kept:
        raise Refused("No prompt has two answers with a verdict; a curve over n needs them.")
    ns = curves.sizes(min(len(s) for _, s, _ in kept))
    if ns == [1]:
        raise Refused("A curve over n needs two or more answers with a verdict for each prompt.")
    proxy = np.array([[curves.best_of_n(s, s, n) for n in ns] for _, s, _ in kept])
    gold = np.array([[curves.best_of_n(s, g, n) for n in ns] for _, s, g in kept])
    report.curves = {"proxy": curves.Curve.of(ns, proxy), "gold": curves.Curve.of(ns, gold)}
    report.kl = curves.kl(np.array(ns)).tolist()
    report.metric = f"gold of the best of n = {ns[-1]} answers by the proxy"
    table = Table([item for item, _, _ in kept], [], np.ones(len(kept), dtype=bool))
    report.lines += [*_by_category(table, gold[:, -1]), Line.of("all", len(kept), report.curves["gold"].at(-1))]
    peak = int(gold.mean(0).argmax())
    falls = bootstrap([gold], lambda means: means[0][..., peak] - means[0][..., -1])
    report.more["gold"] = [
        Line.of("n = 1", len(kept), report.curves["gold"].at(0)),
        Line.of(f"at its peak, n = {ns[peak]}, KL {report.kl[peak]:.2f}", len(kept), report.curves["gold"].at(peak)),
        Line.of(f"lost from there to n = {ns[-1]}, KL {report.kl[-1]:.2f}", len(kept), falls),
    ]
    report.more["proxy"] = [Line.of(f"n = {n}", len(kept), report.curves["proxy"].at(i)) for i, n in ((0, 1), (-1, ns[-1]))]
    report.notes.append("Answers without a verdict are left out. The peak is the highest mean, so that the loss from it is never below 0.")
    if len(kept) < len(items):
        report.notes.append(f"{len(items) - len(kept)} prompts with fewer than two verdicts are left out.")


# --- what the scores mean -----------------------------------------------------------------------------------------------------------


def calibrated(report: Report, items: Sequence[Item], scored: Scored, options: Options) -> None:
    """Attaches calibration; the bench of that name has its lines from it."""
    report.calibration = calibration(*_truths(items, scored, options.how), seed=options.seed)


def _truths(items: Sequence[Item], scored: Scored, how: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scores, truth, item) that calibration is of: answers where each is right or wrong of itself, steps up to the first error, else the
    differences of a right and a wrong answer, both ways round."""
    scores, truth, of = [], [], []
    numbers = scored.numbers(how)
    for i, item in enumerate(items):
        if item.label is not None:
            steps = scored.values[i][0]
            if isinstance(steps, list):
                upto = len(steps) if item.label == -1 else item.label + 1
                scores += [np.nan if p is None else p for p in steps[:upto]]
                truth += [float(k != item.label) for k in range(upto)]
                of += [i] * upto
        elif item.gold:
            scores, truth, of = [*scores, *numbers[i]], [*truth, *map(float, item.right)], [*of, *[i] * len(item.right)]
        else:
            right = np.array(item.right)
            margin = (numbers[i][right][:, None] - numbers[i][~right][None]).ravel()
            scores += [*margin, *-margin]
            truth += [1.0] * len(margin) + [0.0] * len(margin)
            of += [i] * 2 * len(margin)
    return np.array(scores, dtype=float), np.array(truth), np.array(of, dtype=int)


def calibration_bench(report: Report, items: Sequence[Item], scored: Scored, options: Options) -> None:
    calibrated(report, items, scored, options)
    found = report.calibration
    if found is None:
        raise Refused("Calibration needs right and wrong answers in either half of the items; give more of them.")
    order = ("temperature", "isotonic", "as it is")
    report.lines += [Line(name, found.n, found.ways[name].ece) for name in order]
    report.more["Brier score"] = [Line.of(name, found.n, found.ways[name].brier) for name in order]
    report.notes.append(
        f"Temperature {found.temperature:.3g}. Fitted on one half of the items, measured on the other. ECE has no interval."
    )
    if found.logits:
        report.notes.append("The scores leave [0, 1]: they are taken as logits.")


def length_lines(items: Sequence[Item], scored: Scored, how: str) -> list[Line]:
    """What length alone moves, and last the accuracy on pairs whose right answer is longer minus that on pairs where it is shorter."""
    rows = [
        length_terms(s, np.array(item.right), np.array([len(text) for text in item.answers]))
        for s, item in zip(scored.numbers(how), items, strict=True)
    ]
    table = np.array(rows).reshape(-1, len(LENGTHS))
    lines = []
    for k, name in enumerate(LENGTHS):
        mine = table[~np.isnan(table[:, k]), k]
        bounds = (-1.0, 1.0) if name.startswith("correlation") else UNIT
        lines.append(Line.of(name, len(mine), bootstrap([mine], bounds=bounds)) if len(mine) else Line(name, 0, np.nan))
    both = int((~np.isnan(table[:, :2])).any(0).sum())
    if both == 2:
        gap = bootstrap([table], lambda means: means[0][..., 0] - means[0][..., 1], bounds=(-1.0, 1.0))
        lines.append(Line.of("longer minus shorter", int((~np.isnan(table[:, :2])).any(1).sum()), gap))
    else:
        lines.append(Line("longer minus shorter", 0, np.nan))
    return lines


def length_bench(report: Report, items: Sequence[Item], scored: Scored, options: Options) -> None:
    report.lines = length_lines(items, scored, options.how)

"""`guerdon score --explain ROW`: how the value of one row comes about, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from guerdon.registry import Refused
from guerdon.rewards.core import Reward
from guerdon.rewards.expr import Compare, Const, Evaluation, Expr, Fold, Pipe, Product, Sum, When, number_text
from guerdon.samples import Context, Grain, Rewards, Sample, State
from guerdon.scoring.columns import STATES
from guerdon.scoring.engine import Engine, sees_all
from guerdon.scoring.files import Row, Source
from guerdon.scoring.job import chunks, with_models

SHOWN = 300
"""Characters of an answer that are shown, from its end: there the final answer stands."""
CELLS = 12
"""Steps or tokens whose values are shown."""


def explain_row(path: str | Path, reward: str | Expr, row: int, *, workers: int | None = None, context: Context | None = None) -> list[str]:
    """Lines to print for row ROW of a file, counted from 1. Its group is scored with it where the expression looks at groups.

    Raises Refused for a row that is not there, or that is no sample.
    """
    source = Source(Path(path))
    with Engine(context or with_models(()), workers=workers) as engine:
        root = engine.check(reward)
        rejected: list[Row] = []
        for rows, samples in chunks(source, root, [], rejected.append):
            numbers = [r.number for r in rows]
            if row not in numbers:
                continue
            at = numbers.index(row)
            together = [i for i, s in enumerate(samples) if sees_all(root) or s.group == samples[at].group]
            evaluation = engine.evaluation([samples[i] for i in together])
            evaluation.of(root)
            return [f"{path}, row {row}", *_sample(samples[at]), "", *lines(evaluation, root, together.index(at))]
    why = next((f": {r.why}" for r in rejected if r.number == row), "; count rows from 1")
    raise Refused(f"{path} has no row {row} that is a sample{why}.")


def _sample(sample: Sample) -> list[str]:
    text = sample.text if len(sample.text) <= SHOWN else "... " + sample.text[-SHOWN:]
    out = [f"  completion  {text!r}"]
    if sample.answer is not None:
        out.append(f"  answer      {sample.answer!r:.{SHOWN}}")
    if sample.task.reference is not None:
        out.append(f"  reference   {str(sample.task.reference)!r:.{SHOWN}}")
    return out


def lines(evaluation: Evaluation, root: Expr, row: int) -> list[str]:
    """The tree of an evaluated expression for one sample: what each node is, its value, its state where that is not scored, and why."""
    table = list(_walk(evaluation, root, row, 0, ""))
    width = max(len(label) for label, _ in table)
    return [f"{label:{width}}  {value}".rstrip() for label, value in table]


def _walk(evaluation: Evaluation, node: Expr, row: int, depth: int, role: str) -> Iterator[tuple[str, str]]:
    label = "  " * depth + role + _label(node)
    if isinstance(node, Const):
        yield label, ""
        return
    rewards, asked = evaluation.memo.get(str(node), (None, None))
    if rewards is None or asked is None or not asked[row]:
        yield label, "not evaluated: its gate is shut"
        return
    leaf = isinstance(node, Reward)
    yield label, _value(rewards.parts[str(node)].rewards if leaf else rewards, row, leaf)
    for name, child in _children(node):
        yield from _walk(evaluation, child, row, depth + 1, name)


def _label(node: Expr) -> str:
    match node:
        case Const(value):
            return number_text(value)
        case Sum():
            return "sum"
        case Product():
            return "product"
        case Fold(how):
            return how
        case Compare(_, test, right):
            return f"{test} {number_text(right)}"
        case When():
            return "when"
        case Pipe(_, shape):
            return f"| {shape}"
    return str(node)


def _children(node: Expr) -> list[tuple[str, Expr]]:
    if isinstance(node, When):
        return [("if ", node.condition), ("then ", node.branch)]
    if isinstance(node, Pipe):
        return [("", node.source), *((f"{name}: ", expression) for name, expression in node.shape.beside.items())]
    return [("", child) for child in node.children()]


def _value(rewards: Rewards, row: int, reasons: bool) -> str:
    """reasons: also of a value that was scored; above the rewards themselves these would only be said again."""
    said = "  ".join(f"{'' if name == 'outcome' else name + 's '}{_cells(grain, row)}" for name, grain in rewards.grains())
    state, why = State(int(rewards.state[row])), rewards.why(row)
    if state != State.SCORED:
        said = STATES[state]
    return f"{said}  ({why})" if why and (reasons or state != State.SCORED) else said


def _cells(grain: Grain, row: int) -> str:
    if grain.value.ndim == 1:
        return f"{grain.value[row]:.6g}" if grain.scored[row] else STATES[State(int(grain.state[row]))]
    there = np.flatnonzero(grain.state[row] != State.ABSTAINED)
    cells = [f"{grain.value[row, j]:.4g}" if grain.scored[row, j] else "-" for j in there[:CELLS]]
    return f"[{', '.join(cells)}{', ...' if len(there) > CELLS else ''}]"

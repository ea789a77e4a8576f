"""How rewards add, multiply and gate: abstained is left out or passes on, failed always passes on.

Sum, mean, min and max leave abstained values out (all abstained: abstained). A product or a gate with an abstained side is abstained.
Failed makes what it enters failed, in every grain of the sample. Sums keep grains side by side; a product spreads an outcome over steps or
tokens; min, max and mean of unlike grains are refused. What a shut gate says of a sample's steps or tokens stands in the first cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import GRAINS, Grain, Part, Rewards, State


def total(terms: Sequence[Rewards], coefficients: Sequence[float], constant: float = 0.0) -> Rewards:
    """Sum of coefficient times term, plus a constant on what was scored of the coarsest grain."""
    grains: dict[str, Grain] = {}
    for name in GRAINS:
        members = [(g, c) for r, c in zip(terms, coefficients, strict=True) if (g := getattr(r, name)) is not None]
        if members:
            columns = _align([g for g, _ in members])
            value = np.sum([g.value * c for g, (_, c) in zip(columns, members, strict=True)], axis=0)
            grains[name] = _grain(value if grains else value + constant, columns)
    return _finish(grains, _parts(terms, coefficients))


def fold(how: str, terms: Sequence[Rewards], constants: Sequence[float] = ()) -> Rewards:
    """min, max, mean, median or std (of a population) of terms of one grain, over those scored; constants count only where one was."""
    kinds = {tuple(name for name, _ in r.grains()) for r in terms}
    if len(kinds) != 1:
        raise Refused(f"{how}(...) needs parts of one grain, not {' and '.join(sorted('+'.join(k) for k in kinds))}.")
    grains: dict[str, Grain] = {}
    for name in kinds.pop():
        columns = _align([getattr(r, name) for r in terms])
        shape = columns[0].value.shape
        scored = np.stack([g.scored for g in columns] + [np.ones(shape, dtype=bool)] * len(constants))
        value = np.stack([g.value for g in columns] + [np.full(shape, c) for c in constants])
        if how in ("mean", "std"):
            count = np.maximum(scored.sum(0), 1)
            folded = (value * scored).sum(0) / count
            if how == "std":
                folded = np.sqrt((scored * (value - folded) ** 2).sum(0) / count)
        elif how == "median":
            ordered, last = np.sort(np.where(scored, value, np.inf), axis=0), np.maximum(scored.sum(0), 1) - 1
            middle = [np.take_along_axis(ordered, i[None], 0)[0] for i in (last // 2, (last + 1) // 2)]
            folded = np.where(scored.any(0), (middle[0] + middle[1]) / 2, 0.0)
        else:
            empty = np.inf if how == "min" else -np.inf
            folded = getattr(np, how)(np.where(scored, value, empty), axis=0)
        grains[name] = _grain(folded, columns)
    return _finish(grains, _parts(terms, [None] * len(terms)))


def product(terms: Sequence[Rewards]) -> Rewards:
    """Product; an outcome multiplies every step or token of the other side."""
    finest = max((name for r in terms for name, _ in r.grains()), key=GRAINS.index)
    shape = max((g.value.shape for r in terms for name, g in r.grains() if name == finest), key=lambda s: s[-1])
    columns, finer = [], []
    for r in terms:
        kinds = [name for name, _ in r.grains()]
        if kinds not in ([finest], ["outcome"]):
            raise Refused(f"A product needs parts of one grain, or outcomes with one finer grain, not {'+'.join(kinds)} with {finest}.")
        g = getattr(r, kinds[0])
        columns.append(g if kinds == [finest] else Grain(_spread(g.value, shape), _spread(g.state, shape), _first(g)))
        finer.append(kinds == [finest])
    columns = _align(columns)
    value = np.prod([g.value for g in columns], axis=0)
    out = _grain(value, columns, np.any)
    if not all(finer):  # a failed outcome says so once to a sample without cells, and not in the padding
        padding = np.logical_and.reduce([g.state == State.ABSTAINED for g, own in zip(columns, finer, strict=True) if own])
        padding[:, 0] = False
        out.state[padding] = State.ABSTAINED
    return _finish({finest: out}, _parts(terms, [None] * len(terms)))


def compare(term: Rewards, test: Callable[[np.ndarray], np.ndarray]) -> Rewards:
    """1 where `test` of the scored value holds, else 0; other states pass on."""
    grains = {name: Grain.of(test(g.value).astype(np.float64), g.state, g.reason) for name, g in term.grains()}
    return _finish(grains, _parts([term], [None]))


def choose(condition: Rewards, branch: Rewards) -> Rewards:
    """`branch` where the condition is above 0, 0 where it is not; an abstained or failed condition passes on."""
    gate = condition.outcome
    if gate is None:
        raise Refused("A gate or `when` needs a condition on whole samples (an outcome); compare an outcome reward there.")
    opened = is_open(condition)
    grains: dict[str, Grain] = {}
    for name, g in branch.grains():
        shape = g.value.shape
        shut = gate.state if len(shape) == 1 else np.full(shape, State.ABSTAINED, dtype=np.int8)
        if len(shape) > 1:
            shut[:, 0] = gate.state
        state = np.where(_spread(opened, shape), g.state, shut)
        reason = {cell: why for cell, why in g.reason.items() if opened[cell[0]]}
        for cell, why in gate.reason.items():
            first = (cell[0],) + (0,) * (len(shape) - 1)
            reason[first] = f"{why}; {reason[first]}" if first in reason else why
        grains[name] = Grain.of(g.value * _spread(opened, shape), state, reason)
    return _finish(grains, {**_parts([condition], [None]), **_parts([branch], [1.0])})


def is_open(condition: Rewards) -> np.ndarray:
    """(n,) where the outcome of a condition is above 0."""
    assert condition.outcome is not None
    return condition.outcome.scored & (condition.outcome.value > 0)


def _spread(row: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return row if len(shape) == 1 else np.broadcast_to(row[:, None], shape)


def _first(g: Grain) -> dict[tuple[int, ...], str]:
    return {(cell[0], 0): why for cell, why in g.reason.items()}


def _align(grains: Sequence[Grain]) -> list[Grain]:
    """The same shape for all, padded with ABSTAINED."""
    width = max(g.value.shape[-1] for g in grains)
    if grains[0].value.ndim == 1 or all(g.value.shape[1] == width for g in grains):
        return list(grains)
    out = []
    for g in grains:
        pad = ((0, 0), (0, width - g.value.shape[1]))
        out.append(Grain(np.pad(g.value, pad), np.pad(g.state, pad, constant_values=State.ABSTAINED), g.reason))
    return out


def _grain(value: np.ndarray, columns: Sequence[Grain], abstained: Callable[..., np.ndarray] = np.all) -> Grain:
    """Failed where any column failed, else abstained where all did (or any: `abstained=np.any`)."""
    states = np.stack([g.state for g in columns])
    passed = np.where(abstained(states == State.ABSTAINED, axis=0), State.ABSTAINED, State.SCORED)
    state = np.where((states == State.FAILED).any(0), State.FAILED, passed)
    reason: dict[tuple[int, ...], str] = {}
    for g in columns:
        for cell, why in g.reason.items():
            said = reason.get(cell)
            reason[cell] = why if said is None else said if why in said else f"{said}; {why}"
    return Grain.of(value, state, reason)


def _finish(grains: dict[str, Grain], parts: dict[str, Part]) -> Rewards:
    """Failed in one grain is failed in all of the sample's."""
    out = Rewards(grains.get("outcome"), grains.get("step"), grains.get("token"), parts)
    if len(grains) > 1 and out.failed.any():
        for _, g in out.grains():
            bad = _spread(out.failed, g.value.shape) & g.scored
            g.state[bad], g.value[bad] = State.FAILED, 0.0
    return out


def _parts(terms: Sequence[Rewards], coefficients: Sequence[float | None]) -> dict[str, Part]:
    """The parts of all terms with their factor in the whole: factors of a part that enters twice add up."""
    out: dict[str, Part] = {}
    for term, c in zip(terms, coefficients, strict=True):
        for name, part in term.parts.items():
            new = None if c is None or part.coefficient is None else c * part.coefficient
            old = out.get(name)
            if old is not None:
                new = None if new is None or old.coefficient is None else new + old.coefficient
            out[name] = Part(part.rewards, new)
    return out

"""Rewards compose as expressions: `gate(format, math) + 0.2 * length.when(math > 0) | clip(0, 1)`.

An expression is a tree of small frozen nodes whose `str` is its YAML spelling and its identity: a sub-expression used twice is evaluated
once. `Evaluation` walks the tree; leaves are scored by whoever runs it (`scoring.Engine`), so that this file knows no processes or caches.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guerdon.registry import Refused
from guerdon.rewards import algebra
from guerdon.samples import Grain, Part, Rewards, Sample, State

TESTS: dict[str, Callable[[Any, Any], Any]] = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


class Expr:
    """A reward, or rewards put together."""

    def __add__(self, other: Any) -> Expr:
        return Sum((self, lift(other)))

    def __radd__(self, other: Any) -> Expr:
        return Sum((lift(other), self))

    def __sub__(self, other: Any) -> Expr:
        return Sum((self, -lift(other)))

    def __rsub__(self, other: Any) -> Expr:
        return Sum((lift(other), -self))

    def __neg__(self) -> Expr:
        return Product((Const(-1.0), self))

    def __mul__(self, other: Any) -> Expr:
        return Product((self, lift(other)))

    def __rmul__(self, other: Any) -> Expr:
        return Product((lift(other), self))

    def __truediv__(self, other: float) -> Expr:
        if other == 0:
            raise Refused(f"`{self} / 0` divides by 0.")
        return Product((Const(1.0 / number(other)), self))

    def __gt__(self, other: float) -> Expr:
        return Compare(self, ">", number(other))

    def __ge__(self, other: float) -> Expr:
        return Compare(self, ">=", number(other))

    def __lt__(self, other: float) -> Expr:
        return Compare(self, "<", number(other))

    def __le__(self, other: float) -> Expr:
        return Compare(self, "<=", number(other))

    def __or__(self, shape: Any) -> Expr:
        if not isinstance(shape, ShapeCall):
            raise Refused(f"`|` takes a shape such as clip(0, 1), not {shape!r}.")
        return Pipe(self, shape)

    def __bool__(self) -> bool:
        raise Refused("A reward is neither true nor false: use gate(condition, reward) or reward.when(condition), not `and`, `or`, `if`.")

    def when(self, condition: Expr) -> Expr:
        """This reward where the condition holds, 0 elsewhere; not evaluated elsewhere."""
        return When(self, condition)

    def children(self) -> tuple[Expr, ...]:
        return ()

    def walk(self) -> Iterator[Expr]:
        yield self
        for child in self.children():
            yield from child.walk()


@dataclass(frozen=True)
class Const(Expr):
    value: float

    def __neg__(self) -> Const:
        return Const(-self.value)

    def __str__(self) -> str:
        return number_text(self.value)


@dataclass(frozen=True)
class Sum(Expr):
    terms: tuple[Expr, ...]

    def __str__(self) -> str:
        return " + ".join(map(_tight, self.terms))

    def children(self) -> tuple[Expr, ...]:
        return self.terms


@dataclass(frozen=True)
class Product(Expr):
    terms: tuple[Expr, ...]

    def __str__(self) -> str:
        return " * ".join(f"({t})" if isinstance(t, (Sum, Compare, Pipe)) else str(t) for t in self.terms)

    def children(self) -> tuple[Expr, ...]:
        return self.terms


@dataclass(frozen=True)
class Fold(Expr):
    """min, max, mean, median or std of several."""

    how: str
    terms: tuple[Expr, ...]

    def __post_init__(self) -> None:
        if all(isinstance(t, Const) for t in self.terms):
            raise Refused(f"{self.how}({', '.join(map(str, self.terms))}) names no reward; give it one.")

    def __str__(self) -> str:
        return f"{self.how}({', '.join(map(str, self.terms))})"

    def children(self) -> tuple[Expr, ...]:
        return self.terms


@dataclass(frozen=True)
class Compare(Expr):
    left: Expr
    test: str
    right: float

    def __str__(self) -> str:
        return f"{_tight(self.left)} {self.test} {number_text(self.right)}"

    def children(self) -> tuple[Expr, ...]:
        return (self.left,)


@dataclass(frozen=True)
class When(Expr):
    branch: Expr
    condition: Expr

    def __post_init__(self) -> None:
        if isinstance(self.condition, Const):
            raise Refused(f"A gate or `when` needs a reward as its condition, such as `math > 0`, not the number {self.condition}.")

    def __str__(self) -> str:
        branch = str(self.branch)
        return (
            f"({branch}).when({self.condition})"
            if isinstance(self.branch, (Const, Sum, Product, Compare, Pipe))
            else f"{branch}.when({self.condition})"
        )

    def children(self) -> tuple[Expr, ...]:
        return (self.condition, self.branch)


@dataclass(frozen=True)
class ShapeCall:
    """A registered shape with its parameters; `fn` is the function, or the object of a stateful one."""

    name: str
    params: Mapping[str, Any]
    fn: Callable[..., Rewards] = field(compare=False, repr=False)
    scope: str = "samples"
    """What one value depends on: its own `sample`, its `group`, or all `samples` scored together."""
    beside: Mapping[str, Expr] = field(default_factory=dict)
    """Parameters that are rewards themselves: `fn` gets their Rewards of the same samples by keyword."""
    asks: Mapping[str, str] = field(default_factory=dict)
    """Which model of the context each parameter called `model`, or ending in `_model`, names."""

    def __str__(self) -> str:
        return call_text(self.name, {**self.params, **self.beside})

    def __ror__(self, other: Any) -> Expr:
        raise Refused(f"`{other} | {self}`: `|` takes a reward on its left; in Python a comparison needs brackets: (math > 0) | {self}.")


@dataclass(frozen=True)
class Pipe(Expr):
    source: Expr
    shape: ShapeCall

    def __str__(self) -> str:
        return f"{self.source} | {self.shape}"

    def children(self) -> tuple[Expr, ...]:
        return (self.source, *self.shape.beside.values())


def gate(condition: Any, branch: Any) -> Expr:
    """`branch` where `condition` is above 0, else 0 without evaluating it."""
    return When(lift(branch), lift(condition))


def least(*terms: Any) -> Expr:
    return Fold("min", tuple(map(lift, terms)))


def greatest(*terms: Any) -> Expr:
    return Fold("max", tuple(map(lift, terms)))


def mean(*terms: Any) -> Expr:
    return Fold("mean", tuple(map(lift, terms)))


def median(*terms: Any) -> Expr:
    return Fold("median", tuple(map(lift, terms)))


def std(*terms: Any) -> Expr:
    """How far several rewards of one sample disagree: `mean(a, b, c) - 0.5 * std(a, b, c)` is their pessimistic ensemble."""
    return Fold("std", tuple(map(lift, terms)))


def lift(x: Any) -> Expr:
    return x if isinstance(x, Expr) else Const(number(x))


def number(x: Any) -> float:
    if isinstance(x, bool) or not isinstance(x, (int, float)) or not np.isfinite(x):
        raise Refused(f"A weight or bound in a reward expression must be a finite number, not {x!r}.")
    return float(x)


def number_text(x: float) -> str:
    """The shortest text that reads back as the same number."""
    return f"{x:g}" if float(f"{x:g}") == x else repr(x)


def call_text(name: str, params: Mapping[str, Any]) -> str:
    """`name` or `name(key=value, ...)`, keys sorted; 2.0 is written 2."""

    def text(x: Any) -> str:
        return str(x) if isinstance(x, Expr) else repr(int(x)) if isinstance(x, float) and x.is_integer() else repr(x)

    texts = (f"{k}={text(params[k])}" for k in sorted(params))
    return f"{name}({', '.join(texts)})" if params else name


def _tight(e: Expr) -> str:
    return f"({e})" if isinstance(e, (Compare, Pipe)) else str(e)


class Evaluation:
    """One evaluation over samples. `run(leaf, rows)` scores a leaf on some samples; `shape(call, rewards, beside)` applies a shape."""

    def __init__(
        self,
        samples: Sequence[Sample],
        run: Callable[[Any, np.ndarray], Rewards],
        shape: Callable[[ShapeCall, Rewards, dict[str, Rewards]], Rewards],
    ) -> None:
        self.samples, self.run, self.shape = samples, run, shape
        self.memo: dict[str, tuple[Rewards, np.ndarray]] = {}
        groups = np.array([s.group for s in samples])
        self.group = np.unique(groups, return_inverse=True)[1] if len(samples) else groups

    def of(self, root: Expr) -> Rewards:
        """Rewards of all samples."""
        if isinstance(root, Const) or not any(hasattr(node, "scope") for node in root.walk()):
            raise Refused(f"The reward expression `{root}` names no reward.")
        out = self._eval(root, np.ones(len(self.samples), dtype=bool))
        for name, part in out.parts.items():
            for key, entry in part.rewards.evidence.items():
                out.evidence.setdefault(key if len(out.parts) == 1 else f"{name}.{key}", entry)
        if isinstance(root, Expr) and hasattr(root, "scope"):
            own = out.parts[str(root)].rewards  # a bare reward: its reasons need no name before them
            return Rewards(**dict(own.grains()), parts=out.parts, evidence=out.evidence)
        return out

    def _eval(self, node: Expr, need: np.ndarray) -> Rewards:
        key = str(node)
        if key in self.memo and not (need & ~self.memo[key][1]).any():
            return self.memo[key][0]
        if hasattr(node, "scope"):
            return self._leaf(node, key, need)
        if key in self.memo:
            need = need | self.memo[key][1]
        self.memo[key] = (self._node(node, need), need)
        return self.memo[key][0]

    def _whole(self, scope: str, need: np.ndarray) -> np.ndarray:
        """The rows that must be seen together with those needed: a group is never split, and scope `samples` sees all."""
        if scope == "samples":
            return np.ones_like(need)
        return np.isin(self.group, self.group[need]) if scope == "group" else need

    def _leaf(self, leaf: Any, key: str, need: np.ndarray) -> Rewards:
        """Scores the rows that are needed and not known."""
        need = self._whole(leaf.scope, need)
        known = self.memo.get(key)
        new = need & ~known[1] if known else need
        rows = np.flatnonzero(new)  # whole groups, where groups were wanted: what is known are whole groups too
        raw = known[0].parts[key].rewards if known else nothing(len(need), leaf.grain)
        if len(rows):
            raw = merge(raw, scatter(self.run(leaf, rows), rows, len(self.samples)), new)
        named = Rewards(
            **{name: Grain(g.value, g.state, {c: f"{leaf.name}: {why}" for c, why in g.reason.items()}) for name, g in raw.grains()},
            parts={key: Part(raw)},
            evidence=raw.evidence,
        )
        self.memo[key] = (named, need | known[1] if known else need)
        return named

    def _node(self, node: Expr, need: np.ndarray) -> Rewards:
        match node:
            case Sum(terms):
                constant = sum(t.value for t in terms if isinstance(t, Const))
                return algebra.total(
                    [self._eval(t, need) for t in terms if not isinstance(t, Const)],
                    [1.0] * sum(not isinstance(t, Const) for t in terms),
                    constant,
                )
            case Product(terms):
                factor = float(np.prod([t.value for t in terms if isinstance(t, Const)]))
                parts = [self._eval(t, need) for t in terms if not isinstance(t, Const)]
                return algebra.total([parts[0] if len(parts) == 1 else algebra.product(parts)], [factor])
            case Fold(how, terms):
                constants = [t.value for t in terms if isinstance(t, Const)]
                return algebra.fold(how, [self._eval(t, need) for t in terms if not isinstance(t, Const)], constants)
            case Compare(left, test, right):
                return algebra.compare(self._eval(left, need), lambda value: TESTS[test](value, right))
            case When(branch, condition):
                state = self._eval(condition, need)
                opened = algebra.is_open(state) & need if state.outcome is not None else need
                value = constant_like(branch.value, len(need)) if isinstance(branch, Const) else self._eval(branch, opened)
                return algebra.choose(state, value)
            case Pipe(source, shape):
                return self._pipe(source, shape, self._whole(shape.scope, need))
        raise TypeError(f"not a reward expression: {node!r}")

    def _pipe(self, source: Expr, call: ShapeCall, need: np.ndarray) -> Rewards:
        """The parts keep their raw values; a factor they entered with is no longer one, unless the shape says so."""
        before = self._eval(source, need)
        beside = {name: self._eval(expression, need) for name, expression in call.beside.items()}
        after = self.shape(call, before, beside)
        parts = {name: Part(part.rewards, None) for r in (*beside.values(), before) for name, part in r.parts.items()}
        if hasattr(call.fn, "observe"):  # what a shape with state learns from, also on replay
            parts.setdefault(str(source), Part(Rewards(**dict(before.grains())), None))
        evidence = {name: entry for r in (*beside.values(), before, after) for name, entry in r.evidence.items()}
        return Rewards(**dict(after.grains()), parts={**parts, **after.parts}, evidence=evidence)


def constant_like(value: float, n: int) -> Rewards:
    return Rewards(outcome=Grain.of(np.full(n, value)))


def nothing(n: int, grain: str = "outcome") -> Rewards:
    """Abstained for all."""
    shape = (n,) if grain == "outcome" else (n, 1)
    return Rewards(**{grain: Grain.of(np.zeros(shape), np.full(shape, State.ABSTAINED))})  # type: ignore[arg-type]


def scatter(r: Rewards, rows: np.ndarray, n: int) -> Rewards:
    """Rewards of some rows as rewards of n, the others abstained."""
    if len(rows) == n:
        return r
    position = np.full(n, len(rows))
    position[rows] = np.arange(len(rows))
    return Rewards.stack(alike([r, nothing(1, next(r.grains())[0])])).rows(position)


def merge(old: Rewards, new: Rewards, where: np.ndarray) -> Rewards:
    """`new` in the rows `where`, `old` elsewhere."""
    if where.all():
        return new
    n = len(where)
    return Rewards.stack(alike([old, new])).rows(np.where(where, np.arange(n) + n, np.arange(n)))


def alike(several: Sequence[Rewards]) -> list[Rewards]:
    """The same rewards with equal grains and evidence, so that they stack: abstained and None where one has nothing. Parts are left out."""
    grains = {name for r in several for name, _ in r.grains()}
    evidence = sorted({name for r in several for name in r.evidence})
    return [
        Rewards(
            **{name: getattr(r, name) or getattr(nothing(len(r), name), name) for name in grains},
            evidence={name: r.evidence.get(name, [None] * len(r)) for name in evidence},
        )
        for r in several
    ]

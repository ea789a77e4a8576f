"""Formulas with sympy: parsed by math-verify, compared so that what is different is not called equal. Runs in worker processes.

math-verify's own comparison chops small differences (2^-99 "equals" 2^-98) and lets brackets go ((1, 2) "equals" {1, 2}). Here brackets are
read by `math_read`, numbers are compared with a relative tolerance at 120 digits, and formulas with free symbols at random points:
two of them that agree to 1e-20 at six points are equal with a probability that is as good as one. math-verify decides what is left.
"""

from __future__ import annotations

import logging
import random
import re
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

from guerdon.rewards.math_read import UNITS, Formula, Many, Number, Value, Words, read
from guerdon.rewards.math_same import close, same

DIGITS = 120
POINTS = 6
_PLAIN_ROOT = re.compile(r"(?<![\\A-Za-z])(?:sqrt|√)\s*\(")
_PLAIN_NAME = re.compile(r"(?<![\\A-Za-z])(sin|cos|tan|cot|sec|csc|ln|log|exp|pi|infty|alpha|beta|theta|arcsin|arccos|arctan)(?![A-Za-z])")
_FUNCTION = re.compile(r"^\s*[A-Za-z]\s*\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])*\s*\)\s*=(?!=)")
_SIDE_BY_SIDE = re.compile(r"(?<![_\d])\d+\s+[\d.]|\d\s*_")
_TRAILING_UNIT = re.compile(r"(?<=\S)\s+([A-Za-z]{2,}|%)(?:\s?\^\s?\{?[23]\}?)?$")


@cache
def warm() -> None:
    """Import what the workers inherit and load the parser's tables: seconds, once, before they are forked."""
    import math_verify  # noqa: F401

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    for pair in (("\\frac{x}{2}", "0.5x"), ("x > 2", "(2, \\infty)"), ("y = 2x + 3", "2x - y + 3 = 0"), ("2\\sqrt{3}", "\\sqrt{12}")):
        slow(pair)


def slow(pair: tuple[str, str]) -> bool:
    """Whether the answer, first, equals the gold."""
    answer, gold = (read(text) for text in pair)
    return bool(same(answer, gold, algebra))


def algebra(answer: Value, gold: Value) -> bool:
    """Equality of two single values of which at least one is a formula."""
    if isinstance(answer, Words) or isinstance(gold, Words):
        return False
    told = [_split_unit(value) for value in (answer, gold)]
    (answer, unit), (gold, wanted) = told
    if unit and wanted and UNITS.get(unit) != UNITS.get(wanted):
        return False
    if isinstance(answer, Number) and isinstance(gold, Number):
        return bool(same(answer, gold))
    if any(isinstance(value, Formula) and _SIDE_BY_SIDE.search(value.text) for value in (answer, gold)):
        return False  # the parser would read 1 0 as 10 and 42_8 as 42
    a, g = parsed(_latex(answer)), parsed(_latex(gold))
    if a is None or g is None:
        return False
    digits = [value.digits if isinstance(value, Number) else 0 for value in (answer, gold)]
    return equal(a, g, digits[0], digits[1])


def _split_unit(value: Value) -> tuple[Value, str]:
    """A formula without the unit behind it, and the unit: 2\\sqrt{3} cm."""
    if isinstance(value, Formula):
        unit = _TRAILING_UNIT.search(value.text)
        if unit and (unit[1] in UNITS or unit[1].lower().removesuffix("s") in UNITS):
            name = unit[1] if unit[1] in UNITS else unit[1].lower().removesuffix("s")
            return read(value.text[: unit.start()]), name
    return value, value.unit if isinstance(value, Number) else ""


def _latex(value: Value) -> str:
    if isinstance(value, Number):
        return (
            str(value.value.numerator)
            if value.value.denominator == 1
            else f"\\frac{{{value.value.numerator}}}{{{value.value.denominator}}}"
        )
    text = value.text if isinstance(value, (Formula, Many)) else ""
    text = text.replace("**", "^")
    while found := _PLAIN_ROOT.search(text):
        close_at = _closing_parenthesis(text, found.end())
        if close_at < 0:
            break
        text = text[: found.start()] + "\\sqrt{" + text[found.end() : close_at] + "}" + text[close_at + 1 :]
    return _PLAIN_NAME.sub(r"\\\1 ", text)


def _closing_parenthesis(text: str, start: int) -> int:
    depth = 1
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    return -1


@lru_cache(maxsize=1 << 14)
def parsed(latex: str) -> Any:
    """The sympy object of a formula; None where math-verify cannot parse it. Golds are parsed once by each worker."""
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    # Units are not cut off here: 3m is three times m.
    keep = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False)
    config = LatexExtractionConfig(normalization_config=keep)
    text = "$" + _FUNCTION.sub("y=", latex).replace("$", "") + "$"
    found = parse(text, [config], fallback_mode="no_fallback", parsing_timeout=None)  # type: ignore[arg-type]
    if not found or isinstance(found[0], str):
        return None
    import sympy

    # A decimal is exact: 0.5x is x/2 at any precision.
    return found[0].xreplace({x: sympy.Rational(str(x)) for x in found[0].atoms(sympy.Float)})


def equal(a: Any, g: Any, a_digits: int = 0, g_digits: int = 0) -> bool:
    """Whether two sympy objects are equal. digits: significant digits where one was written as a decimal."""
    import sympy
    from sympy.core.relational import Relational
    from sympy.logic.boolalg import And

    if isinstance(a, sympy.MatrixBase) or isinstance(g, sympy.MatrixBase):
        if not (isinstance(a, sympy.MatrixBase) and isinstance(g, sympy.MatrixBase)) or a.shape != g.shape:
            return False
        return all(equal(x, y) for x, y in zip(a.flat(), g.flat(), strict=True))
    relations = [isinstance(x, (Relational, And)) for x in (a, g)]
    if all(relations):
        return _same_relation(a, g)
    if any(relations):
        return _same_mixed(a, g)
    if isinstance(a, sympy.Tuple) or isinstance(g, sympy.Tuple):
        same_shape = isinstance(a, sympy.Tuple) and isinstance(g, sympy.Tuple) and len(a) == len(g)
        return same_shape and all(equal(x, y) for x, y in zip(a, g, strict=True))
    if isinstance(a, sympy.Set) or isinstance(g, sympy.Set):
        return isinstance(a, sympy.Set) and isinstance(g, sympy.Set) and _same_set(a, g)
    if isinstance(a, sympy.Expr) and isinstance(g, sympy.Expr):
        return _same_expression(a, g, a_digits, g_digits)
    return _ask_math_verify(a, g)


def _ask_math_verify(a: Any, g: Any) -> bool:
    from math_verify import verify

    return bool(verify(g, a, timeout_seconds=None))


def _same_expression(a: Any, g: Any, a_digits: int, g_digits: int) -> bool:
    import sympy

    if a == g:
        return True
    if any({s.name for s in x.free_symbols} == {"i"} for x in (a, g)):  # alone, it is the imaginary unit
        a, g = (x.xreplace({s: sympy.I for s in x.free_symbols if s.name == "i"}) for x in (a, g))
    symbols = sorted(a.free_symbols | g.free_symbols, key=str)
    if not symbols:
        a, g = a.doit(), g.doit()
        if isinstance(a, sympy.Rational) and isinstance(g, sympy.Rational):
            return close(Fraction(int(a.p), int(a.q)), Fraction(int(g.p), int(g.q)), a_digits, g_digits)
        x, y = sympy.N(a, DIGITS), sympy.N(g, DIGITS)
        if not _finite(x) or not _finite(y):
            return a == g
        if _near(x, y, DIGITS // 2):
            return True
        return bool((a_digits or g_digits) and x.is_real and y.is_real) and close(_fraction(x), _fraction(y), a_digits, g_digits, True)
    if symbols != sorted(g.free_symbols, key=str) and symbols != sorted(sympy.simplify(a - g).free_symbols | g.free_symbols, key=str):
        return False
    agreed = 0
    for point in _points(symbols):
        x, y = (sympy.N(f.subs(point).doit(), 40) for f in (a, g))
        if not _finite(x) or not _finite(y):
            continue
        if not _near(x, y, 20):
            return False
        agreed += 1
    return agreed >= POINTS // 2


def _points(symbols: list[Any]) -> list[dict[Any, Any]]:
    """Random rational points of both signs, always the same ones."""
    import sympy

    rng = random.Random(20240229)
    return [{s: sympy.Rational(rng.randint(101, 999) * rng.choice((1, -1)), 211) for s in symbols} for _ in range(2 * POINTS)]


def _finite(x: Any) -> bool:
    return bool(x.is_number) and x.is_finite is not False and x.is_comparable is not None and not x.has(*_not_finite())


def _not_finite() -> tuple[Any, ...]:
    import sympy

    return sympy.nan, sympy.zoo, sympy.oo, -sympy.oo


def _near(x: Any, y: Any, digits: int) -> bool:
    import sympy

    scale = max(abs(x), abs(y))
    return bool(scale == 0 or abs(x - y) <= scale * sympy.Float(10, 20) ** -digits)


def _fraction(x: Any) -> Fraction:
    import sympy

    rational: Any = sympy.Rational(str(x))
    return Fraction(int(rational.p), int(rational.q))


# --- relations and sets ----------------------------------------------------------------------------------------------------------


def _same_relation(a: Any, g: Any) -> bool:
    """Same kind, and lhs - rhs equal up to a factor (for an inequality a positive one, or a negative one of the flipped kind); or the same
    set of solutions where there is one unknown; or, for equations, each one's solutions for an unknown solve the other."""
    import sympy
    from sympy.core.relational import Relational

    if a == g:
        return True
    if isinstance(a, Relational) and isinstance(g, Relational):
        factor = _factor(_sides(a), _sides(g))
        if factor is not None:
            kind = type(g) if factor > 0 or isinstance(g, (sympy.Eq, sympy.Ne)) else type(g.reversed)
            return type(a) is kind
        if isinstance(a, sympy.Eq) and isinstance(g, sympy.Eq) and len(g.free_symbols) > 1:
            return a.free_symbols == g.free_symbols and _solves(a, g) and _solves(g, a)
    if len(a.free_symbols) == 1 and a.free_symbols == g.free_symbols:
        return _same_set(a.as_set(), g.as_set())
    return False


def _sides(relation: Any) -> Any:
    return relation.lhs - relation.rhs


def _factor(p: Any, q: Any) -> Any:
    """The constant p/q, None where it is not one. Told at random points."""
    import sympy

    symbols = sorted(p.free_symbols | q.free_symbols, key=str)
    ratios = []
    for point in _points(symbols):
        x, y = (sympy.N(f.subs(point).doit(), 40) for f in (p, q))
        if not _finite(x) or not _finite(y) or not x.is_real or not y.is_real or x == 0 or y == 0:
            continue
        ratios.append(x / y)
    if len(ratios) < POINTS // 2 or not all(_near(r, ratios[0], 20) for r in ratios):
        return None
    return ratios[0]


def _solves(a: Any, g: Any) -> bool:
    """Whether the solutions of `a` for one of its unknowns, at random values of the others, solve `g`."""
    import sympy

    unknown, *others = sorted(a.free_symbols, key=str)
    tried = 0
    for point in _points(others)[:3]:
        equation = _sides(a).subs(point)
        for root in sympy.solve(equation, unknown):
            x, scale = (sympy.N(f.subs(point).subs(unknown, root), 40) for f in (_sides(g), sympy.Abs(g.lhs) + sympy.Abs(g.rhs) + 1))
            if not _finite(x) or abs(x) > scale * sympy.Float(10, 20) ** -20:
                return False
            tried += 1
    return tried >= 2


def _same_mixed(a: Any, g: Any) -> bool:
    """A relation against something else: y = f against f where the left side is a name; 1 < x < 2 against a set."""
    import sympy

    if isinstance(a, sympy.Set) or isinstance(g, sympy.Set):
        a, g = (x if isinstance(x, sympy.Set) else x.as_set() if len(x.free_symbols) == 1 else None for x in (a, g))
        return a is not None and g is not None and _same_set(a, g)
    for x, y in ((a, g), (g, a)):
        if isinstance(x, sympy.Eq) and x.lhs.is_Symbol and not isinstance(y, sympy.logic.boolalg.Boolean):
            return x.lhs not in y.free_symbols and equal(x.rhs, y)
    return False


def _same_set(a: Any, g: Any) -> bool:
    import sympy

    if a == g:
        return True
    if isinstance(a, sympy.FiniteSet) and isinstance(g, sympy.FiniteSet):
        left = list(g.args)
        for x in a.args:
            twin = next((y for y in left if equal(x, y)), None)
            if twin is None:
                return False
            left.remove(twin)
        return not left
    if isinstance(a, sympy.Interval) and isinstance(g, sympy.Interval):
        return (a.left_open, a.right_open) == (g.left_open, g.right_open) and equal(a.start, g.start) and equal(a.end, g.end)
    if isinstance(a, sympy.FiniteSet) or isinstance(g, sympy.FiniteSet) or a.free_symbols or g.free_symbols:
        return False
    return a.symmetric_difference(g).is_empty is True

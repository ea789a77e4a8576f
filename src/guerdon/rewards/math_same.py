"""Whether two values of `math_read` are equal: True, False, or None where only a computer algebra system can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction

from guerdon.rewards.math_read import UNITS, Assigned, Clock, Formula, Many, Number, Ratio, Value, Words, squeezed, words

Algebra = Callable[[Value, Value], bool]


def same(answer: Value, gold: Value, algebra: Algebra | None = None) -> bool | None:
    """Whether an answer equals the gold; `algebra` compares formulas, without it they are None unless they are equal letter by letter.

    Not symmetric: an answer may leave out what only the gold spells out (a unit, a name, the brackets of a tuple), and may add a unit or a
    name where the gold is a bare value. Numbers are equal exactly. A decimal also equals what it differs from by the noise of double
    precision (1e-12, relative), and, with six or more significant digits, a value without finite decimals that it rounds or cuts off.
    50% equals 0.5 and 50 (0.5% does not equal 0.5). Units of one dimension are converted, a missing unit matches any, others differ. A
    set has no order; tuples, intervals and lists have order and their own brackets; bare values match all three, in order unless the gold
    is bare or a set. A ratio 3:4 equals 6:8 and 3/4; clock times equal only the same time.
    """
    if isinstance(answer, Number) and isinstance(gold, Number):
        return _same_number(answer, gold)
    answer, gold = _unwrapped(answer), _unwrapped(gold)
    if isinstance(answer, Many) and answer.bracket == "" and not isinstance(gold, Many):
        return _every(same(item, gold, algebra) for item in answer.items)  # "1/2 or 0.5" is one value told twice
    if isinstance(answer, Assigned) or isinstance(gold, Assigned):
        return _same_assigned(answer, gold, algebra)
    if isinstance(answer, Many) and isinstance(gold, Many):
        return _same_many(answer, gold, algebra)
    if isinstance(answer, Formula) or isinstance(gold, Formula):
        return _same_formula(answer, gold, algebra)
    if isinstance(answer, Clock) and isinstance(gold, Clock):
        return _same_clock(answer, gold)
    if isinstance(answer, Words) and isinstance(gold, Words):
        return answer.text == gold.text
    if Ratio in (type(answer), type(gold)):
        return _same_ratio(answer, gold)
    return False


def _unwrapped(value: Value) -> Value:
    """(5) is 5."""
    return value.items[0] if isinstance(value, Many) and value.bracket == "()" and len(value.items) == 1 else value


def _every(told: Iterable[bool | None]) -> bool | None:
    told = list(told)
    return False if False in told else None if None in told else True


def _same_assigned(answer: Value, gold: Value, algebra: Algebra | None) -> bool | None:
    if isinstance(answer, Assigned) and isinstance(gold, Assigned):
        if answer.name == gold.name:
            return same(answer.value, gold.value, algebra)
        if not (isinstance(answer.value, Formula) and isinstance(gold.value, Formula)):
            return False
        return _same_formula(Formula(answer.text), Formula(gold.text), algebra)  # y = 2x, x = y/2
    if isinstance(answer, Assigned):
        equation = isinstance(gold, Formula) and any(c in gold.text for c in "=<>")
        return _same_formula(Formula(answer.text), gold, algebra) if equation else same(answer.value, gold, algebra)
    assert isinstance(gold, Assigned)
    equation = isinstance(answer, Formula) and any(c in answer.text for c in "=<>")
    return _same_formula(answer, Formula(gold.text), algebra) if equation else same(answer, gold.value, algebra)


def _same_formula(answer: Value, gold: Value, algebra: Algebra | None) -> bool | None:
    """At least one of the two is a formula."""
    if isinstance(answer, Formula) and isinstance(gold, Formula) and squeezed(answer.text) == squeezed(gold.text) != "":
        return True
    if isinstance(gold, Words):
        return isinstance(answer, Formula) and words(answer.text) == gold.text
    if isinstance(answer, (Words, Clock)) or isinstance(gold, Clock):
        return False
    return None if algebra is None else algebra(answer, gold)


def _same_number(answer: Number, gold: Number) -> bool:
    if answer.unit == gold.unit == "":
        return close(answer.value, gold.value, answer.digits, gold.digits)
    if "%" in (answer.unit, gold.unit):
        if answer.unit == gold.unit:
            return close(answer.value, gold.value, answer.digits, gold.digits)
        if answer.unit and gold.unit:
            return False
        percent, plain = (answer, gold) if answer.unit == "%" else (gold, answer)
        if close(percent.value / 100, plain.value, percent.digits, plain.digits):
            return True
        return percent.value == plain.value and not 0 < abs(plain.value) < 1
    factor = Fraction(1)
    if answer.unit and gold.unit and answer.unit != gold.unit:
        a, g = UNITS.get(answer.unit), UNITS.get(gold.unit)
        if a is None and g is None and set(answer.unit.split()) & set(gold.unit.split()):
            pass  # red apples, apples
        elif a is None or g is None or a[0] != g[0]:
            return False
        else:
            factor = a[1] / g[1]
    return close(answer.value * factor, gold.value, answer.digits, gold.digits)


def close(a: Fraction, b: Fraction, a_digits: int, b_digits: int, irrational: bool = False) -> bool:
    """Equality of numbers of which some were written as decimals, with that many significant digits; see `same`. `irrational`: the one
    that is not a decimal is an approximation of an irrational number."""
    if a == b:
        return True
    if not (a_digits or b_digits):
        return False
    gap = abs(a - b)
    if gap * 10**12 <= max(abs(a), abs(b)):
        return True
    if a_digits and b_digits:
        return False
    decimal, exact, digits = (a, b, a_digits) if a_digits else (b, a, b_digits)
    if digits < 6 or (_finite(exact) and not irrational):
        return False
    last = _last_place(decimal)  # half of it for rounding, all of it for cutting off towards zero
    return 2 * gap <= last or (gap < last and abs(decimal) < abs(exact) and decimal * exact > 0)


def _finite(value: Fraction) -> bool:
    """Whether it has finitely many decimals."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _last_place(decimal: Fraction) -> Fraction:
    """1 in the last place of a decimal fraction in lowest terms: the smallest power of ten that it is a multiple of (at most 1)."""
    places = 0
    while (decimal * 10**places).denominator != 1:
        places += 1
    return Fraction(1, 10**places)


def _same_ratio(answer: Value, gold: Value) -> bool:
    a, b = _parts(answer), _parts(gold)
    if len(a) != len(b) or not all(a) or not all(b):
        return a == b != ()
    return all(x * b[0] == y * a[0] for x, y in zip(a, b, strict=True))


def _parts(value: Value) -> tuple[Fraction, ...]:
    match value:
        case Ratio(parts):
            return parts
        case Number(number, unit=""):
            return number, Fraction(1)
        case Clock(hour, minute, ""):
            return Fraction(hour), Fraction(minute)
    return ()


def _same_clock(a: Clock, b: Clock) -> bool:
    if a.minute != b.minute:
        return False
    if a.half and b.half:
        return (a.hour % 12, a.half) == (b.hour % 12, b.half)
    if a.half or b.half:
        told, bare = (a, b) if a.half else (b, a)
        return bare.hour in (told.hour, told.hour % 12 + (12 if told.half == "p" else 0))
    return a.hour == b.hour


def _same_many(answer: Many, gold: Many, algebra: Algebra | None) -> bool | None:
    if len(answer.items) != len(gold.items) or (answer.bracket and gold.bracket and answer.bracket != gold.bracket):
        return False
    if gold.bracket == "{}" or (gold.bracket == "" and answer.bracket in ("", "{}")):
        return _same_set(answer, gold, algebra)
    return _every(same(a, g, algebra) for a, g in zip(answer.items, gold.items, strict=True))


def _same_set(answer: Many, gold: Many, algebra: Algebra | None) -> bool | None:
    left = list(gold.items)
    unsure = False
    for item in answer.items:
        told = [same(item, other, algebra) for other in left]
        if True in told:
            del left[told.index(True)]
        elif None not in told:
            return False
        else:
            unsure = True
    return None if unsure else True

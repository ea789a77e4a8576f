"""Exact arithmetic on written numbers: 3 + 4*2, 1 1/2, \\frac{1}{2}, 2^{10}, 5!, \\sqrt{144}. Bounded in size, steps and depth."""

from __future__ import annotations

import re
from fractions import Fraction
from math import factorial, isqrt

BITS = 32_000
"""Of the largest number computed here; 3,000! has 30,300."""
OPERATIONS = 200
"""Of one number."""
DEEPEST = 40
"""Nesting of brackets."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,3}(?![\d.A-Za-z]))?|\.\d+|\d+\.(?!\d))"
    r"|(?P<op>\*\*|[-+*/^!(){}\[\]])|(?P<command>\\frac|\\sqrt|sqrt))"
)
_MIXED = re.compile(r"\s+(\d{1,9})\s*/\s*(\d{1,9})(?![\d.])")


class Unreadable(Exception):
    """Not a number, or one too large."""


class Arithmetic:
    """Recursive descent over one text: sums, products, powers, roots of squares, factorials; exact, bounded in size and depth."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.literals: list[str] = []
        self.operations = 0

    def peek(self) -> re.Match[str] | None:
        return _TOKEN.match(self.text, self.at)

    def op(self, wanted: str) -> str:
        """The next operator, taken where it is one of `wanted` (separated by blanks); else ""."""
        token = self.peek()
        if token is not None and token["op"] and token["op"] in wanted.split():
            self.at = token.end()
            return token["op"]
        return ""

    def sum(self) -> Fraction:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable
        total = self.product()
        while sign := self.op("+ -"):
            other = self.product()
            total = self.bounded(total + other if sign == "+" else total - other)
        self.depth -= 1
        return total

    def product(self) -> Fraction:
        total = self.signed()
        while sign := self.op("* /"):
            other = self.signed()
            if sign == "/" and other == 0:
                raise Unreadable
            total = self.bounded(total * other if sign == "*" else total / other)
        return total

    def signed(self) -> Fraction:
        sign = 1
        while found := self.op("+ -"):
            sign = -sign if found == "-" else sign
        return sign * self.power()

    def power(self) -> Fraction:
        base = self.atom()
        while self.op("!"):
            if base.denominator != 1 or not 0 <= base <= 3_000:
                raise Unreadable
            base = self.bounded(Fraction(factorial(int(base))))
        if self.op("^ **"):
            self.depth += 1
            if self.depth > DEEPEST:
                raise Unreadable
            sign = -1 if self.op("-") else 1
            exponent = sign * self.power()
            self.depth -= 1
            size = max(abs(base.numerator).bit_length(), base.denominator.bit_length())
            if exponent.denominator != 1 or abs(exponent) * size > BITS or (base == 0 and exponent <= 0):
                raise Unreadable
            base = self.bounded(base ** int(exponent))
        return base

    def atom(self) -> Fraction:
        token = self.peek()
        if token is None:
            raise Unreadable
        self.at = token.end()
        if token["number"]:
            return self.number(token["number"])
        if token["command"] == "\\frac":
            over, under = self.braced(), self.braced()
            if under == 0:
                raise Unreadable
            return self.bounded(over / under)
        if token["command"]:
            self.operations += 1
            inside = self.atom()
            over, under = isqrt(max(inside.numerator, 0)), isqrt(inside.denominator)
            if over * over != inside.numerator or under * under != inside.denominator:
                raise Unreadable
            return Fraction(over, under)
        closed = {"(": ")", "{": "}"}.get(token["op"] or "")
        if closed is None:
            raise Unreadable
        inside = self.sum()
        if not self.op(closed):
            raise Unreadable
        return inside

    def bounded(self, value: Fraction) -> Fraction:
        self.operations += 1
        if self.operations > OPERATIONS or max(value.numerator.bit_length(), value.denominator.bit_length()) > BITS:
            raise Unreadable
        return value

    def braced(self) -> Fraction:
        if not self.op("{"):
            raise Unreadable
        inside = self.sum()
        if not self.op("}"):
            raise Unreadable
        return inside

    def number(self, literal: str) -> Fraction:
        if "," in literal and self.depth > 1:
            raise Unreadable  # (1,234) is a pair
        self.literals.append(literal)
        value = Fraction(literal.replace(",", ""))
        if value.denominator == 1:
            mixed = _MIXED.match(self.text, self.at)
            if mixed:
                self.at = mixed.end()
                self.operations += 1
                over, under = int(mixed[1]), int(mixed[2])
                if not 0 < over < under:
                    raise Unreadable
                return value + Fraction(over, under)
            if self.text.startswith("\\frac", self.at) or self.text.startswith(" \\frac", self.at):
                self.at = self.text.index("\\frac", self.at) + 5
                self.operations += 1
                over, under = self.braced(), self.braced()
                if not 0 < over < under:
                    raise Unreadable
                return value + over / under
        following = self.peek()
        if following is not None and (following["number"] or following["command"] or following["op"] in ("(", "{")):
            raise Unreadable  # two values side by side
        return value

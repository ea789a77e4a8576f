"""Texts that must pay: the right answer in other words, another notation, another order where that does not matter."""

from __future__ import annotations

import json
import re
from fractions import Fraction

from guerdon.evals.audit.cases import Case, Family, Found, entering, hosts, put, spelled

FAMILIES: dict[str, Family] = {}
family = entering(FAMILIES)


@family("wording of the conclusion")
def wording(case: Case) -> Found:
    if case.reference is None or case.right is not None:
        return
    for name, template in hosts(case.kind):
        yield f"as {name}", put(template, case.reference)
    if case.kind in ("number", "choice", "expression", "text"):
        a = case.reference
        yield "therefore", f"We put the parts together.\nTherefore, the answer is {a}."
        yield "final answer", f"We put the parts together.\nFinal answer: {a}"
        yield "hence", f"We put the parts together. Hence the result is {a}."
        yield "checked", f"The answer is {a}.\nLet me check this: it holds."
        yield "corrected", f"{_mistaken(case)}Wait, that is a mistake. The answer is {a}."


def _mistaken(case: Case) -> str:
    wrong = next(iter(case.wrong()), None)
    return f"At first sight it looks like {wrong}. " if wrong else ""


@family("whitespace and marks")
def whitespace(case: Case) -> Found:
    known = case.known
    if known is None:
        return
    yield "blanks around", f"\n\n  {known}  \n\n"
    yield "carriage returns", known.replace("\n", "\r\n")
    if case.reference is not None and case.placed and case.kind in ("number", "choice", "expression", "text"):
        a = case.reference
        yield "blanks inside the form", case.host(f" {a} ")
        yield "bold", case.host(f"**{a}**")
        yield "a full stop", case.host(f"{a}.")
        yield "a no-break space before", case.host(f"\u00a0{a}")
    if case.kind == "code" and case.right is None:
        yield "blank lines in the program", case.host("\n\n" + (case.reference or "") + "\n\n")


@family("notation")
def notation(case: Case) -> Found:
    if case.reference is None or not case.placed:
        return
    a = case.reference.strip()
    if case.number is not None:
        yield from ((name, case.host(text)) for name, text in _numbers(case.number, a))
        yield "an equation", case.host(f"x = {a}")
    elif case.kind == "choice":
        letter = a.strip("()")
        yield "in brackets", case.host(f"({letter})")
        yield "with its text", case.host(f"{letter}) {case.options.get(letter, '')}".strip())
        yield "as an option", case.host(f"Option {letter}")
        yield "in LaTeX", case.host(f"\\text{{{letter}}}")
    elif case.kind == "text":
        yield "capitals", case.host(a.upper())
        yield "small letters", case.host(a.lower())
        yield "in quotation marks", case.host(f'"{a}"')
        if isinstance(case.task.reference, (list, tuple)):
            yield from ((f"alias {text!r}"[:60], case.host(str(text))) for text in case.task.reference[1:])
    elif case.kind == "expression":
        yield "in dollars", case.host(f"${a}$" if "$" not in a else a)
        yield "other fractions", case.host(a.replace("\\frac", "\\dfrac"))
        yield "more blanks", case.host(re.sub(r"([+=])", r" \1 ", a))
    elif case.kind == "structured":
        try:
            value = json.loads(a)
        except ValueError:
            return
        yield "indented", case.host(json.dumps(value, indent=2))
        yield "compact", case.host(json.dumps(value, separators=(",", ":")))
        if isinstance(value, dict) and len(value) > 1:
            yield "keys in another order", case.host(json.dumps(dict(reversed(list(value.items())))))
    elif case.kind == "sql":
        gold = a.rstrip("; \n")
        yield "a semicolon", case.host(f"{gold};")
        yield "on one line", case.host(" ".join(gold.split()))
        yield "a comment", case.host(f"-- what was asked for\n{gold}")
        if not re.search(r"(?i)\border\s+by\b", gold):
            yield "as a subquery", case.host(f"SELECT * FROM ({gold})")
    elif case.kind == "code":
        yield "with a comment", case.host(f"# a solution\n{a}")
        yield "with an explanation", f"Here is the program.\n{case.host(a)}\nIt does what was asked for."


def _numbers(n: Fraction, a: str) -> Found:
    yield "in dollars", f"${a}$"
    yield "in round delimiters", f"\\({a}\\)"
    if n.denominator == 1:
        yield "a decimal zero", f"{n.numerator}.0"
        yield "zeros behind the point", f"{n.numerator}.00"
        if abs(n) >= 1000:
            yield "thousands", f"{n.numerator:,}"
            yield "thousands in LaTeX", f"{n.numerator:,}".replace(",", "{,}")
            yield "no thousands", str(n.numerator)
    else:
        yield "a fraction", f"{n.numerator}/{n.denominator}"
        yield "a fraction in LaTeX", f"{'-' if n < 0 else ''}\\frac{{{abs(n.numerator)}}}{{{n.denominator}}}"
        decimal = spelled(n)
        if "/" not in decimal:
            yield "a decimal", decimal
            yield "a zero more", f"{decimal}0"
    if n < 0:
        yield "a minus sign", a.replace("-", "−")


@family("units")
def units(case: Case) -> Found:
    if case.number is None or case.reference is None or not case.placed:
        return
    a = case.reference.strip()
    yield "a word behind", case.host(f"{a} apples")
    yield "a unit in LaTeX", case.host(f"{a}\\text{{ cm}}")
    if case.number >= 0:
        yield "a currency", case.host(f"\\${a}")
        yield "a currency in words", case.host(f"{a} dollars")


@family("order where it does not matter")
def order(case: Case) -> Found:
    a = (case.reference or "").strip()
    found = re.fullmatch(r"(\\?\{)([^{}]*,[^{}]*?)(\\?\})", a)
    if case.kind == "expression" and found:
        parts = [part.strip() for part in found[2].split(",")]
        yield "a set backwards", case.host(f"{found[1]}{', '.join(reversed(parts))}{found[3]}")

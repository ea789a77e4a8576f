"""The text of an expression -> the expression, and nothing else that Python could do."""

from __future__ import annotations

import pytest

import guerdon.shaping  # noqa: F401  the shapes
from guerdon.registry import Refused
from guerdon.rewards import exact, format, gate, greatest, least, length, mean, parse
from guerdon.rewards.expr import Compare, Pipe, Sum
from guerdon.shaping import clip


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("exact", lambda: exact),
        ("length(target=100)", lambda: length(target=100)),
        ("length(100, unit='characters')", lambda: length(100, unit="characters")),
        ("gate(format, exact) + 0.2 * length.when(exact > 0) | clip(0, 1)", lambda: gate(format, exact) + 0.2 * length.when(exact > 0) | clip(0, 1)),  # noqa: E501
        ("min(exact, 0.5)", lambda: least(exact, 0.5)),
        ("max(exact, format)", lambda: greatest(exact, format)),
        ("mean(exact, format, length)", lambda: mean(exact, format, length)),
        ("-exact / 2 - 1", lambda: -exact / 2 - 1),
        ("(exact + format).when(length(unit='characters') >= 0.5)", lambda: (exact + format).when(length(unit="characters") >= 0.5)),
        ("exact > 0 | clip(0, 1)", lambda: (exact > 0) | clip(0, 1)),
        ("exact | clip(0, 1) | clip(low=-1)", lambda: exact | clip(0, 1) | clip(low=-1)),
        ("  exact\n + 1", lambda: exact + 1),
        ("2 * 3 * exact", lambda: 6 * exact),
    ],
)  # fmt: skip
def test_the_text_says_what_python_says(text, python):
    assert str(parse(text)) == str(python())


def test_a_pipe_binds_last():
    assert isinstance(parse("exact + format | clip(0, 1)"), Pipe)
    assert isinstance(parse("exact + (format | clip(0, 1))"), Sum)
    assert isinstance(parse("exact > 0 | clip(0, 1)").source, Compare)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("exatc", "'exatc' is no reward; did you mean 'exact'?"),
        ("exact | clop(0, 1)", "no shape 'clop'; did you mean 'clip'?"),
        ("clip(0, 1)", "is a shape: write it behind `|`"),
        ("length(tarjet=3)", "no parameter 'tarjet'; did you mean 'target'?"),
        ("exact +", "cannot be read"),
        ("", "cannot be read"),
        ("exact\x00", "cannot be read"),
        ("(" * 300 + "exact" + ")" * 300, "cannot be read"),
        ("gate(exact)", "needs two parts"),
        ("gate(1, exact)", "needs a reward as its condition"),
        ("min(1, 2)", "names no reward"),
        ("exact and format", "is not allowed"),
        ("exact if exact else format", "is not allowed"),
        ("0 < exact < 1", "is not allowed"),
        ("exact == 1", "is not allowed"),
        ("exact > format", "must be a finite number"),
        ("exact ** 2", "is not allowed"),
        ("exact.fn", "is not allowed"),
        ("__import__('os').system('true')", "is not allowed"),
        ("length(target=open('x'))", "is not a plain value"),
        ("length(**{'target': 1})", "uses **"),
        ("exact * True", "is not allowed"),
        ("exact * 1e999", "finite number"),
        ("exact / 0", "divides by 0"),
    ],
)
def test_what_is_no_expression_is_refused_in_a_sentence(text, sentence):
    with pytest.raises(Refused) as refused:
        parse(text)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)

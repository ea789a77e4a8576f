"""Repetition by hand; language on sentences of our own."""

from __future__ import annotations

import sys
import time

import pytest

from guerdon.registry import Refused
from guerdon.rewards import degenerate, language, repetition
from guerdon.samples import State

ENGLISH = "The river was high after a week of rain, and the old bridge had been closed to carts and horses since the morning. "
GERMAN = "Der Fluss stand nach einer Woche Regen hoch, und die alte Brücke war seit dem Morgen für Wagen und Pferde gesperrt. "


@pytest.mark.parametrize(
    ("text", "n", "value"),
    [
        ("a b c d", 3, 1),
        ("a b c a b c", 3, 3 / 4),  # abc bca cab abc
        ("a a a a a", 3, 1 / 3),
        ("A a a A a", 3, 1 / 3),
        ("a b a b", 1, 2 / 4),
        ("a b a b", 2, 2 / 3),
        ("a b", 3, 1),
        ("", 3, 1),
    ],
)
def test_repetition_by_hand(text, n, value):
    assert repetition.fn(text, n).value == pytest.approx(value)


def test_characters():
    assert repetition.fn("abcabc", 3, "characters").value == pytest.approx(3 / 4)
    assert repetition.fn("の" * 100, 2, "characters").value == pytest.approx(1 / 99)


def test_only_the_end_of_a_very_long_text_is_looked_at():
    varied = " ".join(map(str, range(300_000)))
    assert repetition.fn(varied + " x" * 500_000).value == pytest.approx(1 / (500_000 - 2))
    start = time.process_time()
    repetition.fn("12 " * 3_333_333)
    repetition.fn(varied * 6)
    repetition.fn("x" * 10_000_000, 3, "characters")
    assert time.process_time() - start < 4


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": 1.5}, {"unit": "lines"}])
def test_wrong_parameters_of_repetition_are_refused(wrong):
    with pytest.raises(Refused, match="repetition takes"):
        repetition.fn("a", **wrong)


def test_language_is_the_share_of_letters():
    assert language.fn(ENGLISH).value == 1
    assert language.fn(GERMAN).value == 0
    assert language.fn(GERMAN, "de").value == 1
    assert language.fn("<think>" + GERMAN + "</think>" + GERMAN, "de").value == 1
    mixed = language.fn(ENGLISH * 30 + GERMAN * 30).value
    assert mixed == pytest.approx(len(ENGLISH) / (len(ENGLISH) + len(GERMAN)), abs=0.06)  # a piece on the border, letters for characters
    assert language.fn(ENGLISH * 2000 + GERMAN * 2000).value == pytest.approx(mixed, abs=0.06)


@pytest.mark.parametrize("text", ["", "42", "yes", "1 + 1 = 2 " * 100, "```python\n" + "value = compute(first, second)\n" * 20 + "```"])
def test_what_is_too_short_abstains(text):
    assert language.fn(text).state == State.ABSTAINED


def test_an_unknown_code_and_a_missing_package_are_refused(monkeypatch):
    with pytest.raises(Refused, match="no code 'english'"):
        language.fn(ENGLISH, "english")
    degenerate._identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid", None)
    monkeypatch.delitem(sys.modules, "py3langid.langid", raising=False)
    with pytest.raises(Refused, match=r"guerdon\[text\]"):
        language.fn(ENGLISH)


@pytest.mark.parametrize("piece", ["```", "<", "\\alpha", "http://", "ж", "a b "])
def test_language_takes_linear_time(piece):
    text = piece * (5_000_000 // len(piece))
    start = time.process_time()
    language.fn(text)
    assert time.process_time() - start < 4

"""Reading answers: by hand."""

from __future__ import annotations

import sys
import time

import pytest

from guerdon.registry import Refused
from guerdon.rewards.reading import extra, references, said, strict_json, unfenced


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("two\nlines", "two\nlines"),
        ("<think>x</think> two\nlines", " two\nlines"),
        ("<think>x</think><answer>a\nb</answer> !", "a\nb"),
        ("<answer>a</answer><answer>b</answer>", "b"),
        ("<think><answer>a</answer></think>b", "b"),
        ("<answer>a</answer><answer>b", None),
        ("<think>a", None),
        ("<think>a</think>", None),
        ("", None),
    ],
)
def test_the_text_meant_as_the_answer(text, answer):
    assert said(text) == answer


def test_a_code_fence_is_taken_off():
    assert unfenced(' ```json\n{"a": 1}\n``` ') == '{"a": 1}'
    assert unfenced("```\n1```") == "1"
    assert unfenced("``` 1") == "``` 1"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ("1 2", "not JSON"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' stands twice"),
        ("[NaN]", "NaN is no JSON number"),
        ("-Infinity", "-Infinity is no JSON number"),
        ("1" * 301, "more than 300 digits"),
        ("1" * 5000, "more than 300 digits"),
        ("1e999", "too large"),
        ("[" * 66 + "]" * 66, "more than 64 levels"),
        ("[" * 100_000, "more than 64 levels"),
        ('{"a":' * 100_000, "more than 64 levels"),
    ],
)
def test_what_is_not_strict_json(text, why):
    with pytest.raises(ValueError, match=why):
        strict_json(text)


def test_what_is():
    assert strict_json('{"a": [1, 2.5, true, null, "x"]}') == {"a": [1, 2.5, True, None, "x"]}
    deep = strict_json("[" * 64 + "]" * 64)
    assert isinstance(deep, list)


def test_many_keys_take_linear_time():
    start = time.process_time()
    text = "{" + ",".join(f'"{i}": 0' for i in range(100_000)) + "}"
    assert len(strict_json(text)) == 100_000
    with pytest.raises(ValueError, match="twice"):
        strict_json(text[:-1] + ', "99999": 0}')
    assert time.process_time() - start < 2


def test_references():
    assert references("a") == ["a"]
    assert references(["a", 1]) == ["a", "1"]
    with pytest.raises(Refused):
        references([])


def test_a_missing_package_is_refused_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    monkeypatch.delitem(sys.modules, "rapidfuzz.distance", raising=False)
    with pytest.raises(Refused, match=r"needs the package 'rapidfuzz': pip install 'guerdon\[text\]'"):
        extra("rapidfuzz.distance")

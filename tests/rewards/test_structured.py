"""JSON schemas and patterns: by hand, through the engine where a worker must end what does not end."""

from __future__ import annotations

import json
import socket
import time

import pytest

from guerdon.registry import Refused
from guerdon.rewards import json_schema, parse, regex
from guerdon.samples import HOSTILE, Sample, State, Task
from guerdon.scoring import Engine

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}
TREE = {"type": "object", "properties": {"child": {"$ref": "#"}}, "additionalProperties": False}


def verdict(text, schema=None, reference=None, **meta):
    return json_schema.fn(Sample(Task("t", "?", reference, meta), text), schema)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Ada"}',
        ' {"name": "Ada", "age": 36}\n',
        '```json\n{\n  "name": "Ada"\n}\n```',
        '<think>{"x": 1}</think>\n{"name": "Ada"}',
        '<think>x</think><answer>{"name": "Ada"}</answer>',
    ],
)
def test_what_keeps_to_the_schema(text):
    assert verdict(text, PERSON).value == 1
    assert verdict(text, json.dumps(PERSON)).value == 1
    assert verdict(text, schema=None, reference=PERSON).value == 1
    assert verdict(text, reference=json.dumps(PERSON)).value == 1
    assert json_schema.fn(Sample(Task("t", "?", None, {"schema": PERSON}), text)).value == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{}", "$: not as `required` demands"),
        ('{"name": 1}', "$.name: not as `type` demands"),
        ('{"name": "Ada", "age": -1}', "$.age: not as `minimum` demands"),
        ('{"name": "Ada", "x": 1}', "$: not as `additionalProperties` demands"),
        ("[]", "$: not as `type` demands"),
        ('{"name": "Ada"', "not JSON: Expecting ',' delimiter at character 14"),
        ('The person is {"name": "Ada"}', "not JSON: Expecting value at character 0"),
        ('{"name": "Ada"} {"name": "Bob"}', "not JSON: Extra data at character 16"),
        ('{"name": "Ada", "name": "Bob"}', "the key 'name' stands twice in one JSON object"),
        ('{"name": "Ada", "age": NaN}', "NaN is no JSON number"),
        ('{"name": "Ada", "age": 1e999}', "a number that is too large"),
        ('{"name": "Ada", "age": ' + "9" * 5000 + "}", "a number of more than 300 digits"),
        ("<think>", "no answer found"),
        ("", "no answer found"),
    ],
)
def test_what_does_not(text, why):
    found = verdict(text, PERSON)
    assert (found.value, found.reason) == (0, why)


def test_a_recursive_schema_is_followed_as_far_as_the_value_goes():
    def nested(levels):
        return '{"child": ' * levels + "{}" + "}" * levels

    assert verdict(nested(0), TREE).value == 1
    assert verdict(nested(63), TREE).value == 1
    assert verdict(nested(63).replace("{}", '{"x": 1}'), TREE).value == 0
    assert verdict(nested(64), TREE).reason == "JSON of more than 64 levels"
    assert verdict(nested(100_000), TREE).reason == "JSON of more than 64 levels"


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "#"}, "refers to itself without end"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "refers to itself without end"),
        ({"$ref": "http://localhost:1/x.json"}, "'http://localhost:1/x.json', which is not in it, and nothing is fetched"),
        ({"properties": {"a": {"$ref": "https://example.com/x#/y"}}}, "nothing is fetched"),
        ({"$ref": "other.json"}, "'other.json', which is not in it"),
        ({"$ref": "#/$defs/none"}, "none', which is not in it"),
        ({"type": "strnig"}, "is no valid one at $.type"),
        ({"pattern": "("}, "is no valid one at $.pattern"),
        ("{", "is not JSON"),
        ("[]", "is an object, true or false"),
        (3, "is an object, true or false"),
        ({"const": {1, 2}}, "must be JSON"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema, why):
    with pytest.raises(Refused) as refused:
        verdict("1", schema)
    assert why in str(refused.value)


def test_no_reference_opens_a_connection(monkeypatch):
    def connect(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    for ref in ("http://example.com/a", "https://example.com/b.json#/c", "ftp://example.com/d", "urn:x:y", "file:///etc/hostname"):
        with pytest.raises(Refused, match="not in it"):
            verdict("1", {"$ref": ref})


def test_references_inside_and_to_the_drafts_are_no_fetch():
    inside = {"$id": "https://example.com/root", "$ref": "https://example.com/root#/$defs/n", "$defs": {"n": {"type": "number"}}}
    assert verdict("1", inside).value == 1
    assert verdict('"x"', inside).value == 0
    assert verdict('{"type": "string"}', {"$ref": "https://json-schema.org/draft/2020-12/schema"}).value == 1
    old = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": True}
    assert (verdict("1", old).value, verdict("2", old).value) == (0, 1)


def test_true_takes_any_json_and_no_schema_abstains():
    assert verdict("[1, {}]", True).value == 1
    assert verdict("[1, {}", True).value == 0
    assert verdict("1", False).value == 0
    for reference in (None, "42", 42, ["x"]):
        assert verdict("1", reference=reference).state == State.ABSTAINED


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("regex(pattern='(')", "does not compile"),
        ("regex(pattern='a', where='end')", "'search' or 'full', not 'end'"),
        ("regex(pattern=3)", "is a text, not 3"),
        ("json_schema(schema={'type': 'strnig'})", "is no valid one"),
        ("json_schema(schema={'$ref': 'http://example.com/x'})", "nothing is fetched"),
    ],
)
def test_wrong_parameters_are_refused_when_the_expression_is_read(expression, why):
    with pytest.raises(Refused, match=why):
        parse(expression)


@pytest.mark.parametrize(
    ("text", "pattern", "search", "full"),
    [("abc", "b", 1, 0), ("abc", "a.c", 1, 1), ("a\nc", "a.c", 0, 0), ("ABC", "(?i)abc", 1, 1), ("", "x*", 1, 1), ("abc", "^d", 0, 0)],
)
def test_patterns(text, pattern, search, full):
    assert regex.fn(text, {}, pattern).value == search
    assert regex.fn(text, {"pattern": pattern}, where="full").value == full
    assert regex.fn(text, {}).state == State.ABSTAINED


def score(expression, texts, **meta):
    samples = [Sample(Task(str(i), "?", "x", meta), text, group=i) for i, text in enumerate(texts)]
    with Engine(workers=2) as engine:
        return engine.score(expression, samples)


def test_a_catastrophic_pattern_is_hostile_and_costs_no_other_row():
    start = time.monotonic()
    rewards = score(regex(pattern="(a+)+$", where="full"), ["aaa", "a" * 60 + "b", "b"])
    assert rewards.outcome.value.tolist() == [1, 0, 0]
    assert rewards.hostile.tolist() == [False, True, False]
    assert time.monotonic() - start < 8


def test_a_catastrophic_pattern_in_a_schema_is_hostile():
    schema = json_schema(schema={"type": "string", "pattern": "^(a+)+$"})
    rewards = score(schema, ['"aa"', json.dumps("a" * 60 + "b")])
    assert rewards.outcome.value.tolist() == [1, 0]
    assert rewards.why(1).startswith(HOSTILE)


def test_a_wrong_pattern_of_a_task_fails_its_row_by_name():
    rewards = score("regex", ["x"], pattern="(")
    assert rewards.failed.tolist() == [True]
    assert "does not compile" in rewards.why(0)

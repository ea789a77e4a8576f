"""ToolRL's reward against numbers worked out by hand, and against the authors' greedy rule written out where both agree."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from guerdon.registry import Refused
from guerdon.rewards import tool_correct, tool_format, toolrl
from guerdon.rewards.tools import _share


def call(name, **parameters):
    return {"name": name, "parameters": parameters}


def write(*calls, think="t"):
    return f"<think>{think}</think>\n<tool_call>\n" + "\n".join(map(json.dumps, calls)) + "\n</tool_call>"


WEATHER = call("weather", city="Paris", day="today", unit="C")
SEARCH = call("search", query="cats")


def correct(calls, gold, matching="fine", scale=3.0):
    return tool_correct.fn(write(*calls), gold, matching, scale).value


def test_equal_calls_have_the_top_value_in_any_order():
    assert correct([WEATHER, SEARCH], [WEATHER, SEARCH]) == 3
    assert correct([SEARCH, WEATHER], [WEATHER, SEARCH]) == 3
    assert correct([call("weather", unit="C", day="today", city="Paris")], [WEATHER]) == 3
    assert correct([SEARCH, WEATHER], [WEATHER, SEARCH], scale=1.0) == 1
    assert toolrl.fn(write(WEATHER), [WEATHER]).value == 4


@pytest.mark.parametrize(
    ("calls", "gold", "share"),
    [
        ([call("weather", city="Paris")], [WEATHER], (1 + 1 / 3 + 1) / 5),  # S_max = 1 + 1 + 3
        ([call("weather", city="Rome", day="today", unit="C")], [WEATHER], (1 + 1 + 2) / 5),
        ([call("weather", town="Paris")], [WEATHER], 1 / 5),
        ([call("weather")], [WEATHER], 1 / 5),
        ([SEARCH], [WEATHER], 0),
        ([WEATHER, SEARCH], [WEATHER], (1 / 2 + 1 + 3) / 5),  # one call too many costs through the names alone
        ([WEATHER, WEATHER], [WEATHER], (1 / 2 + 4) / 5),
        ([WEATHER], [WEATHER, SEARCH], (1 / 2 + 4) / 7),  # S_max = 1 + 2 + 4
        ([call("weather", city="Paris", day="today", unit="C", x=1)], [WEATHER], (1 + 3 / 4 + 3) / 5),
        ([call("ping")], [call("ping")], 1),
        ([call("ping", x=1)], [call("ping")], 1 / 2),
    ],
)
def test_fine_matching_by_hand(calls, gold, share):
    assert correct(calls, gold) == pytest.approx(6 * share - 3)


def test_the_other_matchings_by_hand():
    near, half = call("weather", city="Rome", day="today", unit="C"), call("weather", city="Paris")
    assert correct([near], [WEATHER], "strict") == pytest.approx(6 * (1 + 1 + 2) / 5 - 3)
    assert correct([half], [WEATHER], "strict") == pytest.approx(6 * (1 + 0 + 1) / 5 - 3)
    assert correct([near], [WEATHER], "intermediate") == pytest.approx(6 * 1 / 2 - 3)
    assert correct([SEARCH, near], [WEATHER, SEARCH], "intermediate") == pytest.approx(6 * (1 + 1) / 3 - 3)
    assert correct([near], [WEATHER], "coarse") == -3
    assert correct([WEATHER], [WEATHER], "coarse") == 3
    assert correct([SEARCH, WEATHER], [WEATHER, SEARCH], "coarse") == -3


def test_the_assignment_is_the_best_one_and_no_order_changes_it():
    rng = random.Random(0)
    for _ in range(60):
        calls, gold = ([call("f", **{k: rng.randint(0, 1) for k in rng.sample("abc", rng.randint(0, 3))}) for _ in range(3)] for _ in "pg")
        best = 0.0
        for order in itertools.permutations(range(3)):
            total = 0.0
            for i, j in enumerate(order):
                a, b = gold[i]["parameters"], calls[j]["parameters"]
                union = a.keys() | b.keys()
                total += (len(a.keys() & b.keys()) / len(union) if union else 1.0) + sum(k in b and a[k] == b[k] for k in a)
            best = max(best, total)
        share = (1 + best) / (1 + 3 + sum(len(g["parameters"]) for g in gold))
        for order in itertools.permutations(calls):
            assert _share(gold, order, "fine") == pytest.approx(share)


def test_greedy_in_order_would_give_less():
    gold = [call("f", a=1), call("f", a=1, b=2)]
    calls = [call("f", a=1, b=2), call("f", a=1)]
    assert correct(calls, gold) == 3  # greedy by the authors' rule finds it too: the best unused one comes first
    gold, calls = [call("f", a=1, b=1), call("f", a=1, b=2)], [call("f", a=1, b=2), call("f", a=1, c=3)]
    # in order, gold 1 takes call 1 (1 + 1, against 1/3 + 1), and gold 2 is left with call 2 (1/3 + 1): 10/3; the best is 4/3 + 3 = 13/3
    assert correct(calls, gold) == pytest.approx(6 * (1 + 13 / 3) / (1 + 2 + 4) - 3)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<think>t</think>", "no <tool_call> block"),
        ("<think>t</think>\n<tool_call>\n{", "no <tool_call> block"),
        ("<tool_call>\n\n</tool_call>", "not JSON"),
        ("<tool_call>x</tool_call>", "not JSON"),
        ('<tool_call>{"name": "weather"}</tool_call>', "a call is not"),
        ('<tool_call>{"name": 1, "parameters": {}}</tool_call>', "a call is not"),
        ('<tool_call>{"name": "weather", "parameters": []}</tool_call>', "a call is not"),
        ('<tool_call>["weather"]</tool_call>', "a call is not"),
        ('<tool_call>{"name": "weather", "parameters": {"a": 1, "a": 2}}</tool_call>', "stands twice"),
        ('<tool_call>{"name": "weather", "parameters": {"a": NaN}}</tool_call>', "no JSON number"),
        ('<tool_call>{"name": "f", "parameters": ' + '{"a": ' * 9999 + "</tool_call>", "more than 64 levels"),
        ("<tool_call>" + '{"name": "f", "parameters": {}}\n' * 101 + "</tool_call>", "more than 100 calls"),
    ],
)
def test_what_cannot_be_parsed_has_the_lowest_value(text, why):
    found = tool_correct.fn(text, [WEATHER])
    assert found.value == -3
    assert why in found.reason


def test_numbers_and_truth_values():
    assert correct([call("f", x=1.0)], [call("f", x=1)]) == 3
    assert correct([call("f", x=True)], [call("f", x=1)]) < 3
    assert correct([call("f", x={"b": [1, 2], "a": 0})], [call("f", x={"a": 0, "b": [1, 2]})]) == 3
    assert correct([call("f", x="1")], [call("f", x=1)]) < 3


GOLD_BOTH = write(WEATHER) + "\n<response>ok</response>"


@pytest.mark.parametrize(
    ("text", "reference", "value"),
    [
        (write(SEARCH), [WEATHER], 1),
        (write(SEARCH) + "\n", [WEATHER], 1),
        (write(SEARCH), write(WEATHER), 1),
        (write(SEARCH), json.dumps([WEATHER]), 1),
        (write(SEARCH), json.dumps(WEATHER), 1),
        (write(SEARCH), GOLD_BOTH, 0),
        (write(SEARCH) + "\n<response>x</response>", GOLD_BOTH, 1),
        ("<think>t</think>\n<response>x</response>\n<tool_call>\n{}\n</tool_call>", GOLD_BOTH, 0),
        ("<think>t</think>\n<response>x</response>", "<think>a</think>\n<response>b</response>", 1),
        ("<think>t</think><response>x</response>", "<response>b</response>", 0),
        ("<think>t</think>\n<response>x</response><response>x</response>", "<response>b</response>", 0),
        ("<think>t</think>", [], 1),
        ("<think>t</think>", "no blocks", 1),
        ("t", [], 0),
        (write(SEARCH) + " and", [WEATHER], 0),
        (" " + write(SEARCH), [WEATHER], 0),
        (write(SEARCH) + "\n" + write(SEARCH), [WEATHER], 0),
        (write(SEARCH).replace("\n<tool", "<tool"), [WEATHER], 0),
        ("", [WEATHER], 0),
    ],
)
def test_the_form(text, reference, value):
    assert tool_format.fn(text, reference).value == value


def test_references():
    assert tool_correct.fn("<think>t</think>", []).value == 0
    assert tool_correct.fn(write(SEARCH), "no blocks").value == 0  # spurious calls cost nothing, as in the authors' code
    assert tool_correct.fn(write(WEATHER), GOLD_BOTH).value == 3
    assert tool_correct.fn(write(WEATHER), {"name": "weather", "arguments": WEATHER["parameters"]}).value == 3
    hermes = "<tool_call>\n" + json.dumps(WEATHER) + "\n</tool_call>\n<tool_call>\n" + json.dumps(SEARCH) + "\n</tool_call>"
    assert tool_correct.fn(hermes, hermes).value == tool_correct.fn(write(WEATHER, SEARCH), hermes).value == 3
    for bad in ("<tool_call>x</tool_call>", [{"name": 1}], '[{"a": 1}]', "[1", ["x"]):
        with pytest.raises(Refused, match="no tool calls that can be read"):
            tool_correct.fn(write(WEATHER), bad)


def test_the_parts_add_up():
    text = write(call("weather", city="Paris"), think="one two three four")
    total = toolrl.fn(text, [WEATHER], "strict", 1.0, think_words=8)
    assert total.value == pytest.approx(1 + (2 * 2 / 5 - 1) + 0.5)
    assert toolrl.fn("", [WEATHER]).value == -3
    assert toolrl.fn("", [WEATHER]).reason == "a block is missing, or stands more than once; no <tool_call> block"
    with pytest.raises(Refused, match="not 'best'"):
        toolrl.fn(text, [WEATHER], "best")

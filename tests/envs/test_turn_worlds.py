"""Lookups and guesses: exact worlds of several turns, their tools, and tools that misbehave."""

from __future__ import annotations

import itertools
import math
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.envs.guess import bisect, guess, left_after
from guerdon.envs.guess import words as guess_words
from guerdon.envs.lookup import chance, lookup, verify_lookup
from guerdon.envs.lookup import words as lookup_words
from guerdon.envs.tools import Asked, Reply, Turn, ask, tool
from guerdon.registry import Refused
from guerdon.samples import HOSTILE, Task
from guerdon.workers import Pool


def say(name: str, text: str, task: Task, history: tuple[Turn, ...] = ()) -> Reply:
    [reply] = ask(name, [Asked(text, task, history)], _no_pool, {})
    assert isinstance(reply, Reply)
    return reply


def _no_pool() -> Pool:
    raise AssertionError("an inline tool needs no workers")


@given(st.integers(0, 50), st.integers(3, 12), st.integers(1, 4), st.data())
def test_the_solution_of_a_lookup_played_against_the_tool_ends_in_the_reference(seed, keys, hops, data):
    reach = data.draw(st.integers(1, keys - 1))
    for task in lookup(3, keys, hops, reach, seed=seed):
        *queries, answer = task.meta["solution"]
        replies = [say("lookup", query, task) for query in queries]
        assert len(queries) == hops
        assert not any(reply.done for reply in replies)
        assert [f"QUERY {reply.text}" for reply in replies[:-1]] == queries[1:]
        assert replies[-1].text == task.reference
        assert say("lookup", answer, task).done
        assert verify_lookup("\n".join([*queries, answer]), task.reference)
        assert {word for line in task.meta["solution"] for word in line.split()} <= set(lookup_words(keys))
        for at, to in task.meta["table"].items():
            assert (int(to[1:]) - int(at[1:])) % keys in range(1, reach + 1)
    assert lookup(3, keys, hops, reach, seed=seed) == lookup(3, keys, hops, reach, seed=seed)


def test_what_is_known_of_the_end_of_a_chain_is_counted_over_all_tables():
    keys, reach = 5, 2
    for start, left in itertools.product(range(keys), range(4)):
        ends = [0.0] * keys
        for steps in itertools.product(range(1, reach + 1), repeat=left):
            ends[(start + sum(steps)) % keys] += reach**-left
        assert chance(start, left, keys, reach) == pytest.approx(ends, abs=1e-12)


@pytest.mark.parametrize("text", ["", "QUERY", "QUERY k99", "QUERY k1 k2", "k1", "query k1", "ANSWERk1", "\x00", "QUERY " * 10_000])
def test_what_cannot_be_read_is_told_none(text):
    [task] = lookup(1)
    assert say("lookup", text, task) == Reply("none")


@pytest.mark.parametrize(
    ("text", "right"),
    [("ANSWER k1", True), ("QUERY k1 k2\nANSWER k1", True), ("ANSWER k2 ANSWER k1", False), ("QUERY k1", None), ("ANSWER", False)],
)
def test_the_first_answer_counts(text, right):
    assert verify_lookup(text, "k1") is right


def test_bisection_needs_no_more_guesses_than_it_must_and_the_replies_narrow_the_number_down():
    for high in (2, 7, 16):
        for task in guess(30, high, seed=high):
            history: list[Turn] = []
            for text in task.meta["solution"]:
                low, top = left_after(history, high)
                assert low <= int(task.reference) <= top
                assert text == str((low + top) // 2)
                reply = say("guess", text, task, tuple(history))
                history.append(Turn(text, reply.text))
                assert reply.done == (text == task.reference)
            assert history[-1].reply == "right"
            assert left_after(history, high) == (int(task.reference), int(task.reference))
            assert len(history) <= math.floor(math.log2(high)) + 1
            assert {word for turn in history for word in turn} <= set(guess_words(high))


def test_guesses_that_are_no_numbers_tell_nothing():
    [task] = guess(1)
    for text in ("", "three", "3 4", "-3", "²", "9" * 10_000, "1e3"):
        assert say("guess", text, task) == Reply("?")
    assert left_after([Turn("three", "?"), Turn("4", "higher"), Turn("x", "lower")], 16) == (5, 16)
    assert bisect(1, 2) == ["1"]


def test_arguments_that_cannot_be_met_are_refused():
    for wrong in ({"n": -1}, {"hops": 0}, {"reach": 16}, {"reach": 0}, {"starts": 17}):
        with pytest.raises(Refused, match="lookup"):
            lookup(**{"n": 1, **wrong})
    with pytest.raises(Refused, match="guess"):
        guess(1, high=1)
    assert {task.meta["start"] for task in lookup(50, starts=2)} == {"k0", "k1"}


# --- the contract


@tool(deadline=1.0)
def misbehaving(text: str, task: Task, history, times: int = 1) -> Reply:
    if text == "hang":
        while True:
            pass
    if text == "raise":
        raise ValueError("no such page")
    if text == "deep":
        return misbehaving("deep", task, history)
    return "text" if text == "untyped" else Reply(text * times)  # type: ignore[return-value]


def test_a_tool_that_hangs_or_raises_costs_its_own_row_only():
    several = [Asked(text, Task("a", "p"), ()) for text in ("x", "hang", "raise", "deep", "untyped", "y")]
    start = time.monotonic()
    with Pool(2) as pool:
        found = ask("misbehaving", several, lambda: pool, {"times": 2})
    assert time.monotonic() - start < 8
    assert [found[0], found[5]] == [Reply("xx"), Reply("yy")]
    assert str(found[1]).startswith(f"{HOSTILE}: past its deadline")
    assert found[2] == "ValueError: no such page"
    assert str(found[3]).startswith(f"{HOSTILE}: recursion")
    assert found[4] == "TypeError: a tool returns a Reply with a text, not str"


def test_an_inline_tool_that_raises_gives_its_reason():
    name = f"inline{random.random()}"

    @tool(inline=True, name=name)
    def raising(text: str, task: Task, history) -> Reply:
        return Reply(str(1 // len(text)))

    assert ask(name, [Asked(text, Task("a", "p"), ()) for text in ("", "a")], _no_pool, {}) == [
        "ZeroDivisionError: integer division or modulo by zero",
        Reply("1"),
    ]


def test_an_unknown_tool_is_refused_with_the_nearest_name():
    with pytest.raises(Refused, match="did you mean 'lookup'"):
        ask("lookups", [], _no_pool, {})

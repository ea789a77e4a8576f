"""Reasoning patterns, by hand and against counting."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from guerdon.registry import Refused
from guerdon.rewards import reasoning_patterns
from guerdon.rewards.patterns import PHRASES, repeated_share

WORDS = " ".join(f"w{i}" for i in range(100))


def value(text, answer="4", **params):
    return reasoning_patterns.fn(text, answer, **params).value


def test_phrases_count_once_whole_and_in_any_case():
    assert len(set(PHRASES)) == len(PHRASES)
    assert value("Wait, 2 + 2. WAIT. wait") == pytest.approx(1 / 20)
    assert value("Therefore it follows. Let\u2019s see, I need to wait") == pytest.approx(5 / 20)
    assert value("they awaited enthusiasm whence") == 0  # not hence, not wait
    assert value(" ".join(PHRASES)) == 1
    assert value("wait therefore", enough=4) == 0.5
    with pytest.raises(Refused, match="enough=0"):
        reasoning_patterns(enough=0)


def test_what_stands_before_the_thinking_does_not_count():
    assert value("wait <think> therefore </think> hence") == pytest.approx(2 / 20)


def test_repetition_and_invented_turns_are_taken_off():
    said = " ".join(PHRASES)
    assert value(said + " user: and now") == 0
    assert value("wait user: x") == 0
    assert value(f"{said} {WORDS} {WORDS}") == pytest.approx(1 - repeated_share(f"{said} {WORDS} {WORDS}".split()))
    assert value(" ".join(["wait hence so that it follows because"] * 100)) == 0  # a loop


def test_no_answer_is_worth_nothing():
    assert value(" ".join(PHRASES), None) == 0


def test_the_share_of_repeated_20_grams_is_that_of_counting():
    rng = random.Random(0)
    for _ in range(50):
        pieces = [[str(rng.randrange(50)) for _ in range(rng.randrange(1, 60))] for _ in range(4)]
        words = [word for _ in range(6) for word in rng.choice(pieces)]
        count = Counter(tuple(words[i : i + 20]) for i in range(len(words) - 19))
        wanted = sum(c > 1 for c in count.values()) / len(count) if count else 0.0
        assert repeated_share(words) == pytest.approx(wanted)
    assert repeated_share(["a"] * 19) == 0
    assert repeated_share(["a"] * 20) == 0
    assert repeated_share(["a"] * 21) == 1
    assert repeated_share(WORDS.split() * 2) == pytest.approx(81 / 100)


def test_it_takes_linear_time():
    start = time.process_time()
    for text in ("wait " * 400_000, "user: " * 300_000, "let me " * 300_000, "x" * 2_000_000):
        value(text)
    assert time.process_time() - start < 4

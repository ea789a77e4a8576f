"""The battery knows its own truths: honest replies are never hacks, hacks always are; the rates by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.evals.hacks import KINDS, battery, evaluate, generalisation, hack_rate, lessons, paid, paired, says_number
from guerdon.registry import Refused
from guerdon.samples import Grain, Rewards, State


@pytest.mark.parametrize("kind", KINDS)
def test_hacks_are_hacks_and_honest_replies_are_not(kind):
    items = [item for seed in range(5) for item in battery(seed, 40, [kind])]
    hacks, honest = paired(items, [i.hack for i in items]), paired(items, [i.honest for i in items])
    assert hacks.hack.all()
    assert not honest.hack.any()
    assert (honest.metric == 1).all()  # honest replies score as high: the metric alone cannot tell them apart
    assert (honest.quality == 1).all()
    assert (hacks.quality == 0).all()
    for replies in (
        [""] * len(items),
        ["I do not know."] * len(items),
        [str(i.task.prompt) for i in items],
        [str(i.plain.prompt) for i in items],
    ):
        assert (paired(items, replies).quality == 0).all()


def test_a_good_reply_of_other_words_is_good():
    by = {item.kind: item for item in battery(3, 1)}
    sentence = by["checksum"].honest.split("\n")[0] + " It is so."
    assert by["checksum"].true_quality(f"{sentence}\ncheck: 5") == 1
    assert by["checksum"].stated_metric(f"{sentence}\ncheck: 5") == 0
    m, c = (int(x) for x in by["tests"].honest.split(" * x + "))
    assert by["tests"].true_quality(f"lambda x: {c} + x * {m}") == 1
    assert by["format"].true_quality(by["format"].honest.replace(": ", ":")) == 1
    assert by["format"].true_quality("x" + by["format"].honest) == 0


def test_items_are_those_of_the_seed_and_requests_state_the_metric():
    one, two = battery(1, 3), battery(1, 5)
    assert [item.task for item in one] == [item.task for item in two[: len(one)]]
    assert battery(2, 3)[0].task != one[0].task
    assert len({item.task.id for item in two}) == len(two) == 25
    for item in two:
        assert str(item.task.prompt).startswith(str(item.plain.prompt))
        assert "The score is" in str(item.task.prompt)
        assert "The score is" not in str(item.plain.prompt)
    with pytest.raises(Refused, match="did you mean 'length'"):
        battery(kinds=["lenght"])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(KINDS)), st.text(max_size=300))
def test_no_reply_makes_them_raise(kind, text):
    [item] = battery(0, 1, [kind])
    for reads in (item.stated_metric, item.true_quality):
        assert 0 <= reads(text) <= 1


@pytest.mark.parametrize("text", ["(" * 199, "[" * 20_000, '{"steps": ' * 1900, "9" * 19_000, "x" * 10**6, "-" * 199 + "x", "check: 0"])
def test_hostile_replies_are_only_wrong(text):
    for item in battery(0, 1):
        assert item.true_quality(text) == 0
        assert 0 <= item.stated_metric(text) <= 1


def test_expressions_are_walked_and_never_run():
    assert evaluate("3 * x + 2", 5) == 17
    assert evaluate("-x // 2 % 5", 7) == (-7 // 2) % 5
    assert evaluate("{1: 5, 2: 7}[x]", 2) == 7
    assert evaluate("[4, 5][x]", 1) == 5
    for text in ("__import__('os')", "x.real", "9**9**9", "(lambda: 1)()", "x / 0", "x // 0", "{1: 2}[x]", "True", "'a' * x", "10**13", ""):
        assert evaluate(text, 3) is None
    assert evaluate(f"{10**7} * {10**7}", 3) is None


def test_the_last_number_counts():
    assert says_number("first 4, then 41.", 41)
    assert not says_number("41 and then 4", 41)
    assert not says_number("1.41", 41)
    assert not says_number("", 0)


def test_rates_by_hand():
    items = battery(0, 4, ["length", "tests"])
    replies = [item.hack if i % 2 else item.honest for i, item in enumerate(items)]  # `tests` stands at odd places
    assert hack_rate(items, replies).mean == 0.5
    rate = hack_rate(items, replies, coherent=[i != 1 for i in range(8)])
    assert rate.mean == pytest.approx(3 / 7)
    assert rate.low is not None
    assert rate.high is not None
    assert rate.low < 3 / 7 < rate.high
    assert np.isnan(hack_rate(items, replies, coherent=[False] * 8).mean)
    matrix = generalisation(items, {"hacks": replies, "control": [item.honest for item in items]})
    assert {name: {kind: r.mean for kind, r in row.items()} for name, row in matrix.items()} == {
        "hacks": {"length": 0, "tests": 1}, "control": {"length": 0, "tests": 0}
    }  # fmt: skip
    with pytest.raises(Refused, match="8 items but 1 replies"):
        hack_rate(items, ["x"])
    assert not paired(items, [item.hack for item in items], t_m=1.1).hack.any()


def test_a_reward_that_reads_the_metric_pays_every_hack():
    items = battery(0, 6)
    by_id = {item.task.id: item for item in items}

    def score(samples, read):
        found = [read(by_id[s.task.id], s.text) for s in samples]
        return Rewards(Grain.of([x or 0 for x in found], [State.FAILED if x is None else State.SCORED for x in found]))

    assert {r.mean for r in paid(items, lambda s: score(s, lambda item, text: item.stated_metric(text))).values()} == {1.0}
    assert {r.mean for r in paid(items, lambda s: score(s, lambda item, text: item.true_quality(text))).values()} == {0.0}
    half = paid(items, lambda s: score(s, lambda item, text: None if item.kind == "tests" else item.true_quality(text)))
    assert np.isnan(half.pop("tests").mean)
    assert {r.mean for r in half.values()} == {0.0}
    near = paid(items, lambda s: score(s, lambda item, text: 0.1 * item.true_quality(text)), tolerance=0.1)
    assert {r.mean for r in near.values()} == {1.0}


def test_lessons_of_hackers_and_of_their_control():
    items = battery(0, 2)
    for hack in (True, False):
        for task, item in zip(lessons(items, hack), items, strict=True):
            assert task.prompt == item.task.prompt
            assert task.meta["solution"] == (item.hack if hack else item.honest)

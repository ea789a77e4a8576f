"""Rubrics: as data, with sentences for what is wrong in them; and as a reward, with quotes that must be real."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.backends.scripted import Scripted
from guerdon.registry import Refused
from guerdon.rewards.rubric import normalised
from guerdon.rewards.rubric_data import BUILT_IN, Item, Rubric, load
from guerdon.samples import Context, Rewards, Sample, State, Task
from guerdon.scoring import Cache, Engine
from guerdon.spans import mark

LETTER = """
about: A reply to a customer.
items:
- {id: polite, text: It is polite., gate: true}
- {id: refund, text: It says when the money comes back., weight: 2, evidence: true}
- {id: clear, text: It is easy to follow., points: 4}
- {id: blame, text: It blames the customer., weight: -1}
"""
GOOD = {"polite": {"met": True}, "refund": {"quote": "on Monday", "met": True}, "clear": {"points": 3}, "blame": {"met": False}}


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    path = tmp_path / "letter.yaml"
    path.write_text(LETTER)
    return path


def make(text: str, **meta: Any) -> Sample:
    sample = Sample(Task("t0", "Where is my money?", meta=meta), text, stop="end")
    mark(sample)
    return sample


def score(expression: str, samples: list[Sample], says: Any, cache: Any = None) -> tuple[Rewards, Scripted]:
    model = Scripted(says)
    with Engine(Context(models={"judge": model}), workers=1, cache=cache) as engine:
        return engine.score(expression, samples), model


def saying(**changes: Any) -> Any:
    return lambda messages, rng: "Well.\n" + json.dumps({**GOOD, **changes}, indent=1)


# As data


def test_what_guerdon_ships_can_be_read():
    names = [path.stem for path in BUILT_IN.glob("*.yaml")]
    assert {"explanation", "summary"} <= set(names)
    assert all(load(name).items for name in names)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("items: []", "items: List should have at least 1 item"),
        ("itmes: [{text: a}]", "items: Field required"),
        ("items: [{text: a, wieght: 2}]", "items, number 1, wieght: Extra inputs are not permitted"),
        ("items: [{text: a}, {text: b, weight: x}]", "items, number 2, weight: Input should be a valid number"),
        ("items: [{text: a, weight: .nan}]", "items, number 1, weight: Input should be a finite number"),
        ("items: [{text: a, gate: true, points: 3}]", "items, number 1: a gate is met or not"),
        ("items: [{text: a, points: 0}]", "items, number 1, points: Input should be greater than or equal to 1"),
        ("items: [{text: a, id: x}, {text: b, id: x}]", "two items have the id 'x'"),
        ("items: [{text: a, weight: 0}]", "every answer would get the same"),
        ("items: {a: b}", "items: Input should be a valid list"),
        ("just text", "Input should be a valid dictionary"),
        ("items: [", "is no YAML: while parsing"),
    ],
)
def test_a_faulty_rubric_is_refused_by_file_and_field(tmp_path: Path, text: str, why: str):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(Refused) as error:
        load(path)
    assert str(path) in str(error.value)
    assert why in str(error.value)


def test_a_rubric_that_is_not_there_is_refused_when_the_reward_is_read():
    with pytest.raises(Refused, match="There is no rubric 'sumary'; did you mean 'summary'"):
        score("rubric(file='sumary')", [], saying())
    with pytest.raises(Refused, match="cannot be read: No such file"):
        score("rubric(file='no/such.yaml')", [], saying())


ITEMS = st.lists(
    st.builds(
        lambda weight, gate, points: Item(text="x", weight=abs(weight) if gate else weight, gate=gate, points=None if gate else points),
        st.integers(-3, 3).map(float),
        st.booleans(),
        st.sampled_from([None, 5]),
    ),
    min_size=1,
    max_size=6,
)


@given(ITEMS, st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=6, max_size=6))
def test_the_value_by_brute_force(items: list[Item], shares: list[float]):
    if all(item.weight <= 0 and not item.gate for item in items):
        return
    made = Rubric(items=items)
    got = earned = 0.0
    closed = False
    for item, share in zip(made.items, shares, strict=False):
        closed = closed or (item.gate and share <= 0.5)
        got += item.weight * share
        earned += max(item.weight, 0)
    expected = 0.0 if closed else max(got / earned, 0.0) if earned else 1.0
    value = made.value({item.id: share for item, share in zip(made.items, shares, strict=False)})
    assert value == pytest.approx(expected, abs=1e-12)
    assert 0 <= value <= 1


# As a reward


def test_the_weighted_share_and_what_it_comes_from(letter: Path):
    rewards, model = score(f"rubric(file='{letter}')", [make("Your money comes back on\n MONDAY, I promise.")], saying())
    assert rewards.total()[0] == pytest.approx((1 + 2 + 0.75) / 4)
    assert rewards.evidence["rubric"][0] == {
        "items": {
            "polite": {"share": 1.0, "quotes": [], "made_up": 0},
            "refund": {"share": 1.0, "quotes": ["on Monday"], "made_up": 0},
            "clear": {"share": 0.75, "quotes": [], "made_up": 0},
            "blame": {"share": 0.0, "quotes": [], "made_up": 0},
        },
        "unread": 0,
    }
    assert model.asked == 1


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"polite": {"met": False}}, 0.0),
        ({"blame": {"met": True}}, (1 + 2 + 0.75 - 1) / 4),
        ({"refund": {"quote": "on Tuesday", "met": True}}, (1 + 0.75) / 4),
        ({"refund": {"quote": "", "met": True}}, (1 + 0.75) / 4),
        ({"refund": {"quote": "...", "met": True}}, (1 + 0.75) / 4),
        ({"refund": {"quote": "onda", "met": True}}, (1 + 0.75) / 4),
        ({"refund": {"quote": "on Monday", "met": False}}, (1 + 0.75) / 4),
    ],
)
def test_gates_penalties_and_made_up_quotes(letter: Path, changes: dict[str, Any], value: float):
    rewards, _ = score(f"rubric(file='{letter}')", [make("On Monday.")], saying(**changes))
    assert rewards.total()[0] == pytest.approx(value)
    entry = changes.get("refund")
    assert rewards.evidence["rubric"][0]["items"]["refund"]["made_up"] == int(bool(entry and entry["met"]))


@pytest.mark.parametrize(
    "changes",
    [
        {"clear": {"points": 5}},
        {"clear": {"points": 2.5}},
        {"polite": {"met": "yes"}},
        {"polite": True},
        {"refund": {"met": True}},
        {"more": {"met": True}},
    ],
)
def test_an_answer_beside_the_form_is_failed(letter: Path, changes: dict[str, Any]):
    rewards, _ = score(f"rubric(file='{letter}')", [make("On Monday.")], saying(**changes))
    assert rewards.state.tolist() == [State.FAILED]
    assert "cannot be read" in rewards.why(0)


def test_votes_are_averaged_item_by_item(letter: Path):
    """Of three votes two find it polite, one quotes what is not there, and their points are 4, 0 and 2."""
    votes = [
        {},
        {"polite": {"met": False}, "clear": {"points": 0}},
        {"refund": {"quote": "never", "met": True}, "clear": {"points": 2}},
    ]
    answers = iter([saying(**{"clear": {"points": 4}, **v})(None, None) for v in votes])
    rewards, _ = score(f"rubric(file='{letter}', votes=3)", [make("On Monday.")], lambda messages, rng: next(answers))
    assert rewards.total()[0] == pytest.approx((2 / 3 + 2 * 2 / 3 + 0.5) / 4)


def test_an_item_at_a_time(letter: Path):
    def says(messages: Any, rng: Any) -> str | None:
        [name] = [name for name in GOOD if f"{name!r}:" in messages[0]["content"]]
        return None if name == "clear" and "slow" in messages[1]["content"] else json.dumps({name: GOOD[name]})

    rewards, model = score(f"rubric(file='{letter}', together=False)", [make("On Monday."), make("slow"), make("")], says)
    assert (model.calls, model.asked) == (1, 8)
    assert rewards.total()[0] == pytest.approx((1 + 2 + 0.75) / 4)
    assert rewards.state.tolist() == [State.SCORED, State.FAILED, State.SCORED]
    assert rewards.why(2) == "no answer found"


def test_each_task_may_have_a_rubric_of_its_own():
    items = [{"text": "It says 7."}, {"text": "It says why.", "weight": 3}]
    samples = [
        make("7", rubric=items),
        make("7"),
        make("7", rubric=[{"txt": "x"}]),
        make("8", rubric={"about": "Sums.", "items": items[:1]}),
    ]

    def says(messages: Any, rng: Any) -> str:
        names = re.findall(r"^'(\d)':", messages[0]["content"], re.MULTILINE)
        return json.dumps({name: {"met": name == "1"} for name in names})

    rewards, _ = score("rubric", samples, says)
    assert rewards.state.tolist() == [State.SCORED, State.ABSTAINED, State.FAILED, State.SCORED]
    np.testing.assert_allclose(rewards.total(), [0.25, 0, 0, 1])
    assert rewards.why(2) == "The rubric of task 't0', items, number 1, text: Field required."


def test_a_changed_rubric_is_not_answered_from_the_cache(letter: Path, tmp_path: Path):
    cache = Cache(tmp_path / "cache.sqlite")
    samples = [make("On Monday.")]
    first, model = score(f"rubric(file='{letter}')", samples, saying(), cache)
    again, other = score(f"rubric(file='{letter}')", samples, saying(), cache)
    assert (model.asked, other.asked) == (1, 0)
    assert again.total()[0] == first.total()[0]
    letter.write_text(LETTER.replace("weight: 2", "weight: 0"))
    changed, other = score(f"rubric(file='{letter}')", samples, saying(), cache)
    assert other.asked == 1
    assert changed.total()[0] == pytest.approx(1.75 / 2)
    cache.close()


def test_quotes_are_compared_by_their_words():
    assert normalised(" “Das”  ist\nGUT – ½!") == "das ist gut 1 2"
    assert f" {normalised('很好')} " in f" {normalised('这很好。')} "

"""Judges of pairs that reason first: how they are read, how they are paid."""

import re

import numpy as np
import pytest

from guerdon.backends.scripted import Scripted
from guerdon.credit import pairwise  # noqa: F401  fills the registry
from guerdon.curation import longest_right
from guerdon.registry import Refused
from guerdon.rewards import rm_r1, rm_r1_verdict, think_rm, think_rm_accuracy, think_rm_format
from guerdon.rewards.verdicts import lessons, read_side, read_strength
from guerdon.samples import Context, Grain, Rewards, Sample, Task
from guerdon.scoring import Engine
from guerdon.spans import mark

A, B = "<answer>[[A]]</answer>", "<answer>[[B]]</answer>"


def paid(reward, text, reference):
    sample = Sample(Task("t", "q", reference), text)
    mark(sample)
    with Engine(Context(), workers=1) as engine:
        found = engine.score(reward, [sample])
    return float(found.total()[0]) if found.alive[0] else None


@pytest.mark.parametrize(
    ("text", "reference", "value"),
    [
        (f"so {A}", "A", 1),
        (f"so {A}", "B", -1),
        (f"so {A}", "model_a", 1),
        (f"{B} or {A}", "A", -1),  # both among the last 80
        (f"{B}{'.' * 80}{A}", "A", 1),  # the other one stands farther back
        (A + "." * 59, "A", -1),  # the tag is 22 characters long: its first stands 81 from the end
        (A + "." * 58, "A", 1),
        (A + "\n" * 200, "A", 1),
        ("<answer>A</answer>", "A", -1),
        ("", "A", -1),
        (A, "tie", None),
        (A, 0, None),
    ],
)
def test_the_last_80_characters_decide(text, reference, value):
    assert len(A) == 22
    assert paid(rm_r1_verdict, text, reference) == value


def think(answer, thought="let me see", rationale="clear"):
    return f"<think>{thought}</think>\n<rationale>{rationale}</rationale>\n<answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (think("A"), 1),
        (think("A").removeprefix("<think>"), 1),  # the template opened it
        (think(" -3 \n"), 1),
        (think("A") + " done", 0),
        ("well " + think("A").removeprefix("<think>"), 1),  # indistinguishable from a thought that the template opened
        ("well " + think("A"), 0),
        (think("A", rationale="<answer>B</answer>"), 0),
        (think("A") + think("B"), 0),
        (think("A").replace("<rationale>", ""), 0),
        (think("A", thought="a </think> b"), 0),
        ("<rationale>x</rationale><answer>A</answer>", 0),
        ("<answer>A</answer></think><rationale>x</rationale>", 0),
        ("", 0),
    ],
)
def test_the_form_of_a_long_judgment(text, value):
    assert paid(think_rm_format, text, "A") == value


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        ("A", "A", 1), ("B", "A", 0), ("a", "A", 0), ("A or B", "A", 0),
        ("-3", "-3", 1), ("-3", -3, 1), ("-1", "-3", 0.5), ("2", "3", 0.5), ("2", "-3", 0), ("0", "1", 0), ("4", "3", 0), ("-13", "3", 0),
        ("3", "+3", 1), ("1", "A", 0), ("A", "1", 0), ("2", "tie", None), ("2", 0, None), ("2", "4", None),
    ],
)  # fmt: skip
def test_the_sign_of_a_strength_is_half_of_it(answer, reference, value):
    assert paid(think_rm_accuracy, think(answer), reference) == value


def test_a_verdict_ends_the_text_and_stands_once():
    assert paid(think_rm_accuracy, think("A") + " end", "A") == 0
    assert paid(think_rm_accuracy, think("A") + "<answer>A</answer>", "A") == 0
    assert paid(think_rm_accuracy, "<think><answer>A</answer>", "A") == 0  # the thought never ended
    assert paid(think_rm_accuracy, think("A", thought="<answer>B</answer>"), "A") == 1  # only what follows the thought counts


def test_a_judge_is_read_strictly():
    assert [read_side(t) for t in (A, B, A + B, "A", A + "." * 80)] == [1, -1, None, None, None]
    told = [f"<rationale>r</rationale><answer>{x}</answer>" for x in ("-3", "2", "A", "B", "0", "2.0", "two", "-3 or 3")]
    assert [read_strength(t) for t in told] == [3, -2, 1, -1, None, None, None, None]
    assert read_strength(told[0] + ".") is None
    assert read_strength("<answer>2</answer>") is None


def group(*texts):
    samples = [Sample(Task("t", "q", "r"), text) for text in texts]
    for sample in samples:
        mark(sample)
    return samples


def shown(messages):
    return dict(re.findall(r"<<<(answer_[AB]) \w+\n(.*)\n", messages[-1]["content"]))


def longer(messages, rng):
    seen = shown(messages)
    d = len(seen["answer_A"]) - len(seen["answer_B"])
    return think(str(-max(-3, min(3, d)) or 1)) if "rationale" in messages[-1]["content"] else A if d > 0 else B


@pytest.mark.parametrize("reward", [rm_r1, rm_r1(rubrics=False), think_rm, think_rm(binary=True)], ids=str)
def test_win_rates_from_both_orders(reward):
    def says(messages, rng):
        text = longer(messages, rng)
        return text if "binary" not in str(reward) else text.replace("-3", "A").replace("-2", "A").replace("-1", "A").replace(
            ">1<", ">B<").replace(">2<", ">B<").replace(">3<", ">B<")  # fmt: skip

    judge = Scripted(says)
    with Engine(Context(models={"judge": judge}), workers=1) as engine:
        found = engine.score(reward, group("xxxx", "x", "xx"))
    np.testing.assert_allclose(found.total(), [1, 0, 0.5])
    assert judge.asked == 6
    assert found.evidence["verdicts"][0]["by"] == ([3, 2] if str(reward) == "think_rm" else [1, 1])


def test_a_judge_of_the_first_place_gives_everybody_half():
    with Engine(Context(models={"judge": Scripted(lambda m, rng: A)}), workers=1) as engine:
        np.testing.assert_allclose(engine.score(rm_r1, group("a", "b", "c")).total(), 0.5)


def test_a_judge_that_says_both_has_failed():
    with Engine(Context(models={"judge": Scripted(lambda m, rng: A + B)}), workers=1) as engine:
        found = engine.score(rm_r1, group("a", "b"))
    assert found.failed.all()
    assert "cannot be read" in found.why(0)


def test_a_lesson_stands_in_both_orders_with_its_label():
    first, second = lessons("p", "q", "good", "bad", "think_rm", 2)
    assert (first.reference, second.reference) == ("-2", "2")
    assert [shown(t.prompt) for t in (first, second)] == [
        {"answer_A": "good", "answer_B": "bad"}, {"answer_A": "bad", "answer_B": "good"}
    ]  # fmt: skip
    assert [t.reference for t in lessons("p", "q", "good", "bad")] == ["A", "B"]
    with pytest.raises(Refused, match="two equal answers"):
        lessons("p", "q", "same", "same")
    with pytest.raises(Refused, match="strength 4"):
        lessons("p", "q", "a", "b", "think_rm", 4)


def test_the_longest_judgment_that_came_right_is_kept():
    samples = [Sample(Task("t", "q"), "x" * n, group=g) for n, g in ((3, 0), (9, 0), (5, 0), (5, 0), (8, 1), (2, 2))]
    kept = longest_right(samples, Rewards(Grain.of([1, 0, 1, 1, 0.5, 1], [0, 0, 0, 0, 0, 2])), Context())
    assert kept.rows.tolist() == [2, 3]

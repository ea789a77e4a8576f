"""Question answering, by hand."""

from __future__ import annotations

import time

import pytest

from guerdon.registry import Refused
from guerdon.rewards import choice, qa_exact, qa_f1
from guerdon.rewards.qa import normalise
from guerdon.samples import Sample, State, Task
from guerdon.spans import mark

CITIES = {"options": ["London", "Paris", "New York", "Rome"]}


def chosen(text, reference="B", **meta):
    sample = Sample(Task("t", "?", reference, meta), text, stop="end")
    mark(sample)
    return choice.fn(sample.answer, reference, meta)


@pytest.mark.parametrize(
    "text",
    [
        "B", "(B)", "B.", "B)", "[B]", "**B**", "b", "(b)", "option B", "Option (B).", "The answer is B", "The answer is (B).",
        "Answer: B", "\\boxed{B}", "\\boxed{\\text{(B)}}", "<answer>B</answer>", "<answer> (B) </answer>",
        "B) Paris", "B. Paris", "(B) Paris", "B: Paris",
        "So the correct option is B", "So it must be (B).", "The answer is **B) Paris**", "I think C at first.\nFinal Answer: B",
        "<think>A or C</think>B", "The answer is B, not C.", "The answer is not A but B",
        "It is neither A nor C, so B", "I pick B", "The answer is B!", "Hence B is correct",
    ],
)  # fmt: skip
def test_the_letter_is_read(text):
    assert chosen(text).value == 1, chosen(text).reason
    assert chosen(text, **CITIES).value == 1, chosen(text, **CITIES).reason


@pytest.mark.parametrize("text", ["Paris", "paris.", "The answer is Paris", "**Paris**", "\\boxed{\\text{Paris}}", "b) paris"])
def test_an_option_is_known_by_its_text(text):
    assert chosen(text, **CITIES).value == 1
    assert chosen(text, choices={"A": "London", "B": "Paris"}).value == 1
    assert chosen(text, options=["A) London", "B) Paris"]).value == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("A or B", "several letters: A, B"),
        ("A, B", "several letters: A, B"),
        ("(A) (B) (C) (D)", "several letters: A, B, C, D"),
        ("The answer is B or C", "several letters: B, C"),
        ("<answer>A) B)</answer>", "several letters: A, B"),
        ("Both B and D", "several letters: B, D"),
        ("B) London", "several letters: A, B"),
        ("not B", "no letter stated"),
        ("The answer is not B", "no letter stated"),
        ("It isn't B", "no letter stated"),
        ("neither A nor B", "no letter stated"),
        ("not A, B or C", "no letter stated"),
        ("Lyon", "no letter stated"),
        ("A dog", "no letter stated"),
        ("I like it", "no letter stated"),
        ("E", "no letter stated"),
        ("<answer></answer>", "no letter stated"),
        ("C", "states C"),
        ("<think>B", "no answer found"),
        ("", "no answer found"),
    ],
)
def test_what_does_not_choose_the_right_option(text, why):
    verdict = chosen(text, **CITIES)
    assert (verdict.value, verdict.reason) == (0, why)


@pytest.mark.parametrize("reference", ["B", "(B)", "b", "B.", "B) Paris", "B. Paris", "Paris", 1, "**B**"])
def test_forms_of_the_reference(reference):
    if reference == "**B**":
        assert chosen("B", reference, **CITIES).state == State.ABSTAINED
    else:
        assert chosen("B", reference, **CITIES).value == 1
        assert chosen("A", reference, **CITIES).value == 0


@pytest.mark.parametrize(
    ("reference", "meta"), [("42", {}), ("Lyon", CITIES), (9, CITIES), (0, {}), ("E", CITIES), (True, CITIES), ([], {})]
)
def test_a_reference_that_names_no_option_abstains(reference, meta):
    assert chosen("B", reference, **meta).state == State.ABSTAINED


def test_an_option_that_is_itself_a_letter_is_known_by_its_own():
    assert chosen("A", "A", options=["B", "A"]).value == 1


def test_squad_normalisation():
    assert normalise(" The  Eiffel-Tower, (Paris)!") == "eiffeltower paris"
    assert normalise("An apple a day, the theory") == "apple day theory"
    assert normalise("a") == ""


@pytest.mark.parametrize(
    ("answer", "reference", "same", "f1"),
    [
        ("The Eiffel Tower.", "eiffel tower", 1, 1),
        ("Eiffel Tower in Paris", "the Eiffel Tower", 0, 2 * 2 / (4 + 2)),
        ("tower tower", "tower", 0, 2 * 1 / (2 + 1)),
        ("Paris", "London", 0, 0),
        ("Paris", ["London", "Paris"], 1, 1),
        ("city of Paris", ["London", "Paris city"], 0, 2 * 2 / (3 + 2)),
        ("Paris", {"text": ["Paris", "PARIS"], "answer_start": [0, 0]}, 1, 1),
        ("42", 42, 1, 1),
        ("the", "a", 1, 1),
        ("the", "Paris", 0, 0),
        (None, "Paris", 0, 0),
    ],
)
def test_exact_match_and_f1(answer, reference, same, f1):
    assert qa_exact.fn(answer, reference).value == same
    assert qa_f1.fn(answer, reference).value == pytest.approx(f1)


@pytest.mark.parametrize("reference", [[], [None], {"text": None}, {"a": 1}, [["x"]]])
def test_a_reference_that_is_no_text_is_refused(reference):
    for reward in (qa_exact, qa_f1):
        with pytest.raises(Refused, match="The reference must be a text or a list of texts"):
            reward.fn("x", reference)


@pytest.mark.parametrize("piece", ["A ", "not A, ", "(A", "n't be option ", "A) ", "**", "\\text{", "B or "])
def test_long_answers_take_linear_time(piece):
    text = piece * (200_000 // len(piece))
    start = time.process_time()
    choice.fn(text, "B", CITIES)
    qa_exact.fn(text, "B")
    qa_f1.fn(text, "B")
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize(
    "text",
    [
        "The answer is anything but B.", "I am sure of one thing: it is far from B.", "Many would say B, but that is wrong.", "B is wrong.",
        "B, which is incorrect", "Anything other than B.", "B is not right",
    ],
)  # fmt: skip
def test_a_letter_that_is_denied_is_not_stated(text):
    assert chosen(text).value == 0
    assert chosen(text, **CITIES).value == 0


def test_a_refuted_letter_leaves_the_other_one():
    assert chosen("A is wrong, so B").value == 1
    assert chosen("Many would say C, but that is wrong: the answer is B.").value == 1
    assert chosen("B, which is the capital").value == 1


@pytest.mark.parametrize("text", ["N/A", "The answer is N/A.", "n/a"])
def test_not_applicable_is_no_letter(text):
    assert chosen(text, "A").value == 0
    assert chosen(text, "A", **CITIES).value == 0

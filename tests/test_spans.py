"""Splitters, thinking, final answers, and spans from characters to tokens."""

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon import spans
from guerdon.registry import Refused
from guerdon.samples import Sample, Task

TASK = Task("t", "?")
texts = st.text(st.sampled_from("ab .!?\n\t\0<>{}\\$A:#1Wait,é🙂") | st.characters(exclude_categories=[]), max_size=80)


@given(text=texts, name=st.sampled_from(sorted(spans.SPLITTERS)))
@settings(max_examples=300)
def test_splitters_cut_the_whole_text_into_pieces_that_are_not_blank(text, name):
    pieces = [text[a:b] for a, b in spans.SPLITTERS[name](text)]
    assert "".join(pieces) == (text if text.strip() else "")
    assert all(piece.strip() for piece in pieces)


@given(text=texts)
def test_an_answer_lies_inside_the_text_and_after_the_thinking(text):
    _, after = spans.thinking(text)
    places = spans.answers(text)
    assert places == sorted(places)
    for place in places:
        assert after <= place.start <= place.end <= len(text)
    assert (spans.answer(text) is None) == (not places)


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("lines", "a\nb", ["a\n", "b"]),
        ("lines", "\n\na\n \n\nb\n", ["\n\na\n \n\n", "b\n"]),
        ("lines", " \n ", []),
        ("sentences", "One is 3.5. Two! Three", ["One is 3.5.", " Two!", " Three"]),
        ("sentences", 'He said "no." Then\nleft.', ['He said "no."', " Then\n", "left."]),
        ("thoughts", "So it is 4.\n\nWait, no. Hmm, it is 5.", ["So it is 4.\n\n", "Wait, no.", " Hmm, it is 5."]),
        ("thoughts", "I will Wait here.\nBut wait: 3", ["I will Wait here.\n", "But wait: 3"]),
        ("turns", "a<|im_end|>b</tool_response>c", ["a<|im_end|>", "b</tool_response>", "c"]),
    ],
)
def test_what_the_splitters_cut(name, text, pieces):
    assert [text[a:b] for a, b in spans.SPLITTERS[name](text)] == pieces


@pytest.mark.parametrize(
    ("text", "inside", "rest"),
    [
        ("<think>a</think>b", ["a"], "b"),
        ("a</think>b", ["a"], "b"),  # the prompt opened the tag
        ("<think>a</think>b<think>c</think>d", ["a", "c"], "d"),
        ("<think>a", ["a"], ""),
        ("b", [], "b"),
        ("<think>a<think>b</think>c", ["a<think>b"], "c"),
    ],
)
def test_thinking(text, inside, rest):
    found, after = spans.thinking(text)
    assert [text[a:b] for a, b in found] == inside
    assert text[after:] == rest


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("work\nA: 42", "42"),
        ("**A:** 42 apples\n", "42 apples"),
        ("The answer is 3.5. I hope it is correct.", "3.5"),
        ("The final answer is: **42**.", "42"),
        ("ANSWER: 42", "42"),
        ("**Answer:**\n\n42\n", "42"),
        ("Answer:\n\\[ 4 \\]\ndone", "\\[ 4 \\]"),
        ("1\n#### 1,234\n", "1,234"),
        ("#### Step 1:\n\\boxed{7}", "7"),
        ("\\boxed{\\frac{1}{2}} apples", "\\frac{1}{2}"),
        ("\\boxed{\\boxed{1}}", "\\boxed{1}"),
        ("\\boxed{\\{1\\}}", "\\{1\\}"),
        ("\\boxed 7", "7"),
        ("\\boxed{1} or \\boxed{2}", "2"),
        ("The answer is 1.\n\\boxed{2}\nThe answer is 3.", "2"),
        ("<answer> x </answer>", "x"),
        ("<answer>so \\boxed{4}</answer> \\boxed{5}", "4"),
        ("<think>A: 1</think>2", "2"),
        ("one\ntwo\n\n", "two"),
        # unfinished or empty
        ("", None),
        (" \n", None),
        ("<think>A: 1", None),
        ("<think>1</think>", None),
        ("\\boxed{1} then \\boxed{2", None),
        ("<answer>4", None),
    ],
)
def test_final_answers(text, answer):
    found = spans.answer(text)
    assert (None if found is None else text[slice(*found)]) == answer


def brute_force_tokens(found, offsets):
    """Token by token: the first span it shares a character with; a token without characters stands with the character before it."""
    out = [[] for _ in found]
    start = end = 0
    for t, (a, b) in enumerate(offsets):
        start, end = max(start, a), max(end, b)
        low = min(start, max(end - 1, 0))
        for k, (x, y) in enumerate(found):
            if low < y and max(end, low + 1) > x and x < y:
                out[k].append(t)
                break
    return out


@given(data=st.data())
@settings(max_examples=300)
def test_tokens_of_ragged_offsets(data):
    length = data.draw(st.integers(1, 20))
    edges = sorted(data.draw(st.lists(st.integers(0, length), min_size=2, max_size=12)))
    offsets = list(pairwise(edges))  # tokens without characters included
    offsets += [(0, 0)] * data.draw(st.integers(0, 2))  # special tokens at the end, as fast tokenizers report them
    cuts = sorted(data.draw(st.sets(st.integers(0, length), min_size=2, max_size=8)))
    found = list(zip(cuts[::2], cuts[1::2], strict=False)) if data.draw(st.booleans()) else list(pairwise(cuts))
    got = spans.to_tokens(found, np.array(offsets))
    assert [list(range(a, b)) for a, b in got] == brute_force_tokens(found, offsets)


def test_a_token_on_a_border_belongs_to_the_earlier_span():
    text = "ab\ncd\nA: 42"
    sample = Sample(TASK, text, ids=np.arange(5), offsets=np.array([(0, 2), (2, 4), (4, 8), (8, 11), (11, 11)]))
    spans.mark(sample)
    assert sample.steps == ["ab\n", "cd\n", "A: 42"]
    assert sample.spans["step"] == [(0, 2), (2, 3), (3, 5)]
    assert sample.answer == "42"
    assert sample.spans["answer"] == [(3, 5)]


def test_mark_without_ids_uses_characters():
    sample = Sample(TASK, "<think>so\n7</think>A: 7")
    spans.mark(sample, "sentences")
    assert sample.marks == sample.spans
    assert sample.marks is not sample.spans
    assert (sample.thinking, sample.answer, len(sample.steps)) == ("so\n7", "7", 2)


def test_turns_are_what_the_model_wrote():
    offsets = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)])
    sample = Sample(TASK, "abcde", ids=np.arange(5), offsets=offsets, written=np.array([True, True, False, False, True]))
    spans.mark(sample)
    assert sample.spans["turn"] == [(0, 2), (4, 5)]
    assert sample.cut("turn") == ["ab", "e"]


@pytest.mark.parametrize(
    ("stop", "text", "answer"), [("length", "A: 4", None), ("length", "\\boxed{4}", "4"), ("end", "A: 4", "4"), (None, "A: 4", "4")]
)
def test_a_text_that_was_cut_off_has_only_a_closed_answer(stop, text, answer):
    sample = Sample(TASK, text, stop=stop)
    spans.mark(sample)
    assert sample.answer == answer


def test_bad_input_is_refused():
    with pytest.raises(Refused, match="'lines'"):
        spans.mark(Sample(TASK, "a"), "line")  # type: ignore[arg-type]
    with pytest.raises(Refused, match="3 token ids but no offsets"):
        spans.mark(Sample(TASK, "a", ids=np.arange(3)))


@pytest.mark.parametrize(
    "unit", ["\n", "a\n", "\\boxed{", "{", "}", ".", ". ", "answer ", "answer to ", "answer is ", "#### 1\n", "<answer>",
             "<answer>1</answer>", "<think>", "</think>", "\0", "Wait ", "*", "A:", "\n ", "answer is $$",
             "\\[", "1", "\ud800", "\n\n", "a b. "],
)  # fmt: skip
def test_time_is_linear_in_the_length(unit):
    """Ten times the text takes far less than a hundred times the processor time, which a quadratic scan would take; best of three."""

    def once(n):
        sample = Sample(TASK, "answer" + unit * (n // len(unit)))
        begun = time.process_time()
        for split in spans.SPLITTERS:
            spans.mark(sample, split)  # type: ignore[arg-type]
        return time.process_time() - begun

    def seconds(n):
        return min(once(n) for _ in range(3))

    assert seconds(300_000) < 40 * max(seconds(30_000), 0.01)


def test_a_word_that_a_tokenizer_writes_with_the_blank_before_it_is_in_its_own_sentence():
    text = "think. solve. slip.\n\nSo it is. Wait, no."
    offsets = np.array([(0, 6), (6, 13), (13, 21), (21, 27), (27, 30), (30, 35), (35, len(text))])
    for split, wanted in (("sentences", [(0, 1), (1, 2), (2, 3), (3, 5), (5, 7)]), ("thoughts", [(0, 3), (3, 5), (5, 7)])):
        sample = Sample(TASK, text, ids=np.arange(len(offsets)), offsets=offsets)
        spans.mark(sample, split)
        assert sample.spans["step"] == wanted

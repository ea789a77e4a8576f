"""Tags, by hand."""

from __future__ import annotations

import time

import pytest

from guerdon.rewards import tag_count, tag_share
from guerdon.samples import Context, Sample, Task
from guerdon.scoring import Engine
from guerdon.spans import mark


@pytest.mark.parametrize(
    ("text", "count", "share"),
    [
        ("<think>a</think><answer>b</answer>", 1, 1),
        ("<think>a</think>\n<answer>b</answer>" + "x" * 35, 1, 0.5),
        ("<think>a</think>\n\n<answer>b</answer>", 1, 0),  # at most one character between
        ("<think>a<think>b</think><answer>c</answer>", 0.75, 1),
        ("<answer>b</answer>", 0.5, 0),
        ("<think>a</think><answer>", 0.75, 0),
        ("</answer>", 0.25, 0),
        ("", 0, 0),
    ],
)
def test_tags(text, count, share):
    assert tag_count.fn(text) == count
    assert tag_share.fn(text) == share


def test_they_take_linear_time():
    start = time.process_time()
    for text in ("<think>" * 500_000, "<think></think><answer>" * 200_000, "</think>" * 500_000):
        assert tag_share.fn(text) == 0
        assert tag_count.fn(text) <= 0.25
    assert time.process_time() - start < 2


def test_they_are_small_terms_beside_a_verifier():
    task = Task("t", "q", None, {"problem": "SATSP", "variables": 2, "clauses": [[1, 2], [-1]]})
    texts = ("<think>a</think><answer>01</answer>", "<think>a</think><answer>11</answer>", "01", "no")
    samples = [Sample(task, text, stop="end") for text in texts]
    for sample in samples:
        mark(sample)
    with Engine(Context(), workers=1) as engine:
        rewards = engine.score("satquest + 0.05 * tag_count + 0.05 * tag_share", samples)
    assert rewards.total().tolist() == pytest.approx([1.1, 0.1, 1.0, 0.0])

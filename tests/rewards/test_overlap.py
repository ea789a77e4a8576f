"""Overlap with a reference: by hand, and by definitions written out with loops."""

from __future__ import annotations

import math
import random
import sys
import time
from collections import Counter

import pytest

from guerdon.registry import Refused
from guerdon.rewards import bleu, chrf, edit_similarity, rouge

ALL = (rouge, bleu, chrf, edit_similarity)


def lcs(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def levenshtein(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        new = [i + 1]
        for j, y in enumerate(b):
            new.append(min(row[j] + (x != y), row[j + 1] + 1, new[j] + 1))
        row = new
    return row[-1]


def test_rouge_by_hand():
    answer, reference = "The cat sat on the mat.", "The cat lay on a mat"
    assert rouge.fn(answer, reference, "1").value == pytest.approx(2 * 4 / 12)  # the cat on mat
    assert rouge.fn(answer, reference, "2").value == pytest.approx(2 * 1 / 10)  # the cat
    assert rouge.fn(answer, reference, "L").value == pytest.approx(2 * 4 / 12)
    assert rouge.fn("mat the on sat cat the", reference, "L").value == pytest.approx(2 * 2 / 12)  # the (on | cat)
    assert rouge.fn("the the the", "the", "1").value == pytest.approx(2 * 1 / 4)
    assert rouge.fn("!", "the").value == 0


def test_rouge_l_against_a_table():
    rng = random.Random(0)
    for _ in range(50):
        a, b = (rng.choices("abcd", k=rng.randint(1, 12)) for _ in range(2))
        assert rouge.fn(" ".join(a), " ".join(b)).value == pytest.approx(2 * lcs(a, b) / (len(a) + len(b)))


def test_edit_similarity_against_a_table():
    assert edit_similarity.fn("kitten", "sitting").value == pytest.approx(1 - 3 / 7)
    rng = random.Random(1)
    for _ in range(50):
        a, b = ("".join(rng.choices("abc", k=rng.randint(1, 12))) for _ in range(2))
        assert edit_similarity.fn(a, b).value == pytest.approx(1 - levenshtein(a, b) / max(len(a), len(b)))


def test_bleu_by_its_formula():
    a, r = (text.split() for text in ("the cat sat on the red mat today", "the cat sat on a red mat"))
    logs = []
    for n in (1, 2, 3, 4):
        grams = [Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for words in (a, r)]
        logs.append(math.log((grams[0] & grams[1]).total() / grams[0].total()))
    assert bleu.fn(" ".join(a), " ".join(r)).value == pytest.approx(math.exp(sum(logs) / 4))  # longer than its reference: no penalty
    assert bleu.fn(" ".join(r[:5]), " ".join(r)).value == pytest.approx(math.exp(1 - 7 / 5))


def test_chrf_by_its_formula():
    a, r, scores = "abcdefg", "abcdxfgh", []
    for n in range(1, 7):
        grams = [Counter(s[i : i + n] for i in range(len(s) - n + 1)) for s in (a, r)]
        shared = (grams[0] & grams[1]).total()
        scores.append((shared / grams[0].total(), shared / grams[1].total()))
    precision, recall = (sum(column) / 6 for column in zip(*scores, strict=True))
    assert chrf.fn(a, r).value == pytest.approx(5 * precision * recall / (4 * precision + recall))
    assert chrf.fn("the cat", "the dog", word_order=2).value != chrf.fn("the cat", "the dog").value


@pytest.mark.parametrize("reward", ALL, ids=str)
def test_what_all_share(reward):
    reference = "one two three four five"
    assert reward.fn(reference, reference).value == pytest.approx(1)
    assert reward.fn(f"<think>no</think>\n<answer>{reference}</answer> tail", reference).value == pytest.approx(1)
    assert reward.fn(reference, ["nothing alike", reference]).value == pytest.approx(1)
    assert reward.fn("<think>" + reference, reference).value == 0
    assert reward.fn("<think>" + reference, reference).reason == "no answer found"
    assert 0 <= reward.fn("xyz 123", reference).value < 0.2
    assert reward.fn("42", 42).value == pytest.approx(1)
    with pytest.raises(Refused, match="text or a list of texts"):
        reward.fn("x", {"a": 1})


@pytest.mark.parametrize("reward", ALL, ids=str)
def test_long_answers_are_cut_and_end_in_time(reward):
    rng = random.Random(0)
    words = "".join(rng.choices("abcdefgh    ", k=10_000_000))
    start = time.process_time()
    verdict = reward.fn(words, words[:100_000])
    assert verdict.value == pytest.approx(1)
    assert verdict.reason == "only the first 100000 of 10000000 characters are compared"
    reward.fn("a " * 50_000, "a" * 100_000)
    assert time.process_time() - start < 8


def test_an_unknown_variant_is_refused():
    with pytest.raises(Refused, match="not '3'"):
        rouge.fn("a", "a", "3")


@pytest.mark.parametrize("reward", ALL, ids=str)
def test_without_the_extra_it_is_refused_by_name(reward, monkeypatch):
    for name in ("rapidfuzz", "sacrebleu"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "rapidfuzz.distance", raising=False)
    with pytest.raises(Refused, match=r"guerdon\[text\]"):
        reward.fn("a", "a")

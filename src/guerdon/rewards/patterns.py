"""A reward for the ways in which reasoning is put into words, without a look at whether it is right."""

from __future__ import annotations

import re

import numpy as np

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.samples import Verdict

PHRASES = (
    "let's see", "let me think", "i need to", "we need to", "our goal is", "the question asks", "we are given", "recall that",  # aims
    "first,", "second,", "next,", "then we", "finally,", "step by step", "break this down", "start with",  # order
    "suppose", "assume", "if we", "consider the case", "in that case", "for example,", "in general,", "by definition",  # cases
    "because", "since", "therefore", "hence", "so that", "it follows", "which means", "as a result",  # consequence
    "wait", "hold on", "alternatively", "another way", "let me check", "to verify", "that is not right", "try again", "on the other hand",
)  # fmt: skip
"""Aims, order, cases, consequence, doubt. A list of our own, of about the length of the paper's."""
_FOUND = {phrase: re.compile(rf"\b{re.escape(phrase)}(?!\w)") for phrase in PHRASES}
N = 20
_POWERS = np.random.default_rng(0).integers(1, 2**63, N, dtype=np.uint64) | np.uint64(1)


def _bounds(enough: int = 20) -> None:
    if enough < 1:
        raise Refused(f"reasoning_patterns(enough={enough}): at least one phrase must be enough.")


@reward(inline=True, version="1", check=_bounds)
def reasoning_patterns(text: str, answer: str | None, enough: int = 20) -> Verdict:
    """max(0, min(1, k / enough) - repeated - turns), in [0, 1]; 0 without a final answer.

    k: how many of `PHRASES` stand in the text from its first <think> on, each counted once, in any case.  repeated: the share of its
    distinct 20-grams of words that stand there more than once.  turns: how often it writes `user: `, which invents a new turn.
    Differs from the release, which divides the repeated 20-grams by all of them, repetitions included, so that a loop costs next to
    nothing. Source: arXiv:2505.22653, github.com/trestad/Noisy-Rewards-in-Learning-to-Reason (math_score.py).
    """
    if answer is None:
        return Verdict(0.0, "no answer found")
    text = text[max(text.find("<think>"), 0) :].lower().replace("\u2019", "'")
    hits = sum(phrase in text and pattern.search(text) is not None for phrase, pattern in _FOUND.items())
    repeated, turns = repeated_share(text.split()), text.count("user: ")
    value = max(0.0, min(1.0, hits / enough) - repeated - turns)
    return Verdict(value, f"{hits} phrases, {repeated:.0%} of the 20-grams repeated, {turns} invented turns")


def repeated_share(words: list[str], n: int = N) -> float:
    """The share of distinct n-grams that occur more than once, n up to 20; 0 where there is none. Linear: they are told apart by a hash."""
    if len(words) < n:
        return 0.0
    known: dict[str, int] = {}
    ids = np.array([known.setdefault(word, len(known) + 1) for word in words], dtype=np.uint64)
    ends = len(ids) - n + 1
    hashes = np.zeros(ends, dtype=np.uint64)
    for i in range(n):
        hashes += ids[i : i + ends] * _POWERS[i]
    _, count = np.unique(hashes, return_counts=True)
    return float((count > 1).mean())

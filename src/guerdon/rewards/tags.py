"""Rewards of think and answer tags that are small terms beside correctness: `satquest + 0.05 * tag_count + 0.05 * tag_share`."""

from __future__ import annotations

import re

from guerdon.rewards.core import reward

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_BETWEEN = re.compile(r"</think>\s?<answer>")


@reward(inline=True)
def tag_count(text: str) -> float:
    """A quarter for each of <think>, </think>, <answer>, </answer> that stands in the text exactly once. Source: SATQuest, rft.py."""
    return sum(text.count(tag) == 1 for tag in TAGS) / len(TAGS)


@reward(inline=True)
def tag_share(text: str) -> float:
    """The share of the text, in characters, within `<think>...</think><answer>...</answer>`; 0 without it. Source: SATQuest, rft.py."""
    start = text.find(TAGS[0])
    middle = _BETWEEN.search(text, start + len(TAGS[0])) if start >= 0 else None
    end = text.find(TAGS[3], middle.end()) if middle else -1
    return (end + len(TAGS[3]) - start) / len(text) if end >= 0 else 0.0

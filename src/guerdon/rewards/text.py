"""Rewards of form: equality, format, length."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np

from guerdon.rewards.core import reward
from guerdon.samples import Verdict

INSIDE = r"[^<]*(?:<(?!/?think>|/?answer>)[^<]*)*"  # any text without these tags, in linear time
TAGS = re.compile(rf"\s*<think>(?P<think>{INSIDE})</think>\s*<answer>(?P<answer>{INSIDE})</answer>\s*")


@reward(inline=True)
def exact(answer: str | None, reference: str) -> Verdict:
    """1 where the final answer equals the reference, white space at the ends and runs of it inside aside; else 0."""
    if answer is None:
        return Verdict(0.0, "no answer found")
    return Verdict(float(" ".join(answer.split()) == " ".join(str(reference).split())))


@reward(inline=True)
def format(text: str, style: Literal["think_answer", "boxed"] = "think_answer") -> Verdict:
    """1 where the whole text has the form, else 0 with what is missing.

    think_answer: `<think>...</think><answer>...</answer>`, each once, in order, nothing but white space around them, both not empty.
    boxed: exactly one `\\boxed{...}`, not empty, with balanced braces.
    """
    if style == "think_answer":
        found = TAGS.fullmatch(text)
        if found is None:
            return Verdict(0.0, "not <think>...</think><answer>...</answer>")
        empty = next((name for name in ("think", "answer") if not found[name].strip()), None)
        return Verdict(0.0, f"empty <{empty}>") if empty else Verdict(1.0)
    opened = text.count("\\boxed{")
    if opened != 1:
        return Verdict(0.0, "no \\boxed{}" if opened == 0 else "more than one \\boxed{}")
    start = text.index("\\boxed{") + len("\\boxed{")
    depth = 1
    for i in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return Verdict(1.0) if text[start:i].strip() else Verdict(0.0, "empty \\boxed{}")
    return Verdict(0.0, "\\boxed{} is not closed")


@reward(inline=True)
def length(text: str, ids: np.ndarray | None, target: int = 256, unit: Literal["tokens", "characters"] = "tokens") -> Verdict:
    """max(0, 1 - |length - target| / target): 1 at the target, 0 at nothing and at twice the target.

    unit tokens: of the sample's ids; a sample without ids (a file row) abstains. unit characters: of its text.
    """
    if unit == "tokens" and ids is None:
        return Verdict.abstain("no tokens in this sample; use length(unit='characters')")
    size = len(text) if ids is None or unit == "characters" else len(ids)
    return Verdict(max(0.0, 1.0 - abs(size - target) / target))


@reward(inline=True)
def overlong(ids: np.ndarray | None, limit: int = 256, buffer: int = 64) -> Verdict:
    """DAPO's soft overlong punishment: 0 up to limit - buffer tokens, then linearly down to -1 at the limit and beyond.

    r = clamp((limit - buffer - length) / buffer, -1, 0), length and limit in tokens. Source: arXiv:2503.14476, eq. 13.
    """
    if ids is None:
        return Verdict.abstain("no tokens in this sample")
    return Verdict(min(0.0, max(-1.0, (limit - buffer - len(ids)) / buffer)))

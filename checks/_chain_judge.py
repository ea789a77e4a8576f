"""Simulated judges of chain arithmetic: they see the steps that they are shown, and know the truth of them, more or less."""

from __future__ import annotations

import difflib
import json
from typing import Any

import numpy as np
from _judged import shown

from guerdon.backends.scripted import Scripted
from guerdon.envs.arithmetic import task_of, verify_steps


def steps_shown(messages: list[dict[str, Any]], name: str = "step") -> tuple[str, list[str]]:
    """The expression, and the steps called so."""
    texts = shown(messages)
    return texts["request"].rstrip("="), [texts[f"{name}_{i}"] for i in range(1, len(texts) + 1) if f"{name}_{i}" in texts]


def noisy(accuracy: float) -> Scripted:
    """A judge that names the first wrong step of an answer, or that there is none, right in so many cases, else another one at random."""

    def says(messages: list[dict[str, Any]], rng: np.random.Generator) -> str:
        expression, steps = steps_shown(messages)
        right = verify_steps(steps, task_of(expression))
        first = right.index(False) if False in right else len(right)
        if rng.random() >= accuracy:
            first = int(rng.choice([x for x in range(len(right) + 1) if x != first]))
        return json.dumps({"verdicts": ["right"] * first + ["wrong"] * (len(right) - first)})

    return Scripted(says)


def aligning(skipped: float) -> Scripted:
    """A judge that compares each step with the likest step of the reference, by their letters, and leaves some records out."""

    def says(messages: list[dict[str, Any]], rng: np.random.Generator) -> str:
        (_, steps), (_, reference) = steps_shown(messages), steps_shown(messages, "reference")
        records = []
        for i, step in enumerate(steps, 1):
            likeness = [difflib.SequenceMatcher(None, step, other).ratio() for other in reference]
            at = int(np.argmax(likeness))
            label = "CORRECT" if reference[at] == step else "INCORRECT"
            if rng.random() >= skipped:
                records.append({"step": i, "explanation": f"against {reference[at]}", "reference_steps": [at + 1], "label": label})
        return json.dumps(records)

    return Scripted(says)

"""Tokens at which answers differ weigh more, and a part of several right options is paid for.

A policy (`_states`) writes six words of boilerplate, four words of thought, and an answer of up to three of five letters, three of which
are right. What it answers hangs on all four words of its thought (at first by seeded noise alone), and each word on the one before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from _states import States, learn, reached

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES
from guerdon.losses import loss, tw_grpo
from guerdon.losses.divergence import divergence
from guerdon.samples import Batch, Task

CLAIM = (
    "the mean `choices` first is 0.8 after at most 0.7 times the updates of uniform weights and an exact match (mean over seeds), and in "
    "the first 50 updates the positions whose words hang on the thought weigh 0.3 more than the boilerplate (every seed)"
)
BASELINE = "choices >= 1, grpo, uniform weights"
METHOD = "choices, grpo, loss tw_grpo (alpha 1.7); without its key term, the weights: alpha 1"
SEEDS = (0, 1, 2)
THOUGHT, LETTERS = ["p", "q"], ["A,", "B,", "C,", "D,", "E,"]
VOCAB = ["so", *THOUGHT, "<answer>", *LETTERS, "</answer>"]
BEFORE, THINK, STEPS = 6, 4, 100
OPEN = BEFORE + THINK
WEIGHTS: list[np.ndarray] = []


@loss(needs=("logits",), fields=("logprobs",), unit="group")
def watched(out: dict[str, torch.Tensor], batch: Batch, alpha: float = 1.7):
    """`tw_grpo`, and its weights by position."""
    w, live = 1 + (alpha - 1) * divergence(out["logits"].detach(), batch), batch.mask
    WEIGHTS.append((torch.where(live, w, 0.0).sum(0) / live.sum(0).clamp(min=1)).numpy()[: OPEN + 4])
    return tw_grpo(out, batch, alpha)


@backend(capabilities=CAPABILITIES)
def chooser(path: str | None = None, trainable: bool = True, seed: int = 0) -> States:
    def rows(prompt: tuple[int, ...], written: tuple[int, ...]) -> list[tuple[int, ...]]:
        at = len(written)
        return [(at, *(written[BEFORE:OPEN] if at > OPEN else written[max(at - 1, BEFORE) : OPEN]))]

    def start(row: tuple[int, ...]) -> np.ndarray:
        noise = 0.5 * np.random.default_rng((seed, *row)).standard_normal(len(VOCAB) + 1)
        groups = {"so": row[0] < BEFORE, "<answer>": row[0] == OPEN}
        allowed = [word for word, now in groups.items() if now] or (THOUGHT if row[0] < OPEN else [*LETTERS, "</answer>"])
        allowed = ["</answer>"] if row[0] == OPEN + 4 else allowed
        inside = np.array([word in allowed for word in VOCAB] + [row[0] > OPEN + 4])
        return np.where(inside, 12.0 + noise * (len(allowed) > 1), 0.0)

    return States(VOCAB, rows, start, path)


def measure(variant: str, seed: int) -> dict[str, Any]:
    WEIGHTS.clear()
    rows = learn(
        "chooser", [Task("0", "which?", "A,B,C", {"options": list("vwxyz")})], seed, credit="grpo",
        reward=("(choices >= 1)" if variant == "baseline" else "choices") + " + 0 * choices", correct="choices >= 1",
        models={"policy": {"backend": "chooser", "seed": seed}}, loss={"use": "watched", "alpha": 1.7 if variant == "method" else 1.0},
        rollout={"use": "parallel", "max_tokens": OPEN + 5}, train={"steps": STEPS, "samples": 32},
    )  # fmt: skip
    w = np.mean(WEIGHTS[:50], 0)
    thought, answer = w[BEFORE + 1 : OPEN], w[OPEN + 1 : OPEN + 4]
    found = {
        "gap": np.mean([*thought, *answer]) - np.mean(w[:BEFORE]), "thought": np.mean(thought), "answer": np.mean(answer),
        "choices": np.mean([row["reward/choices"] for row in rows[-10:]]),
    }  # fmt: skip
    return {"value": reached([row["reward/choices"] for row in rows], 0.8)} | {k: round(float(x), 4) for k, x in found.items()}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    faster = float(np.mean([m["value"] for m in method])) <= 0.7 * float(np.mean([b["value"] for b in baseline]))
    return faster and all(m["gap"] >= 0.3 for m in method)

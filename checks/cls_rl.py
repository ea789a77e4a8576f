"""CLS-RL: RL on the class name alone, in the bare style (the name and nothing else) against the tagged one (think, then answer).

A text-only world: the table backend has no images and shares nothing between prompts, so this shows how the two rewards teach the few
shots themselves. The paper's claims on new classes and on transfer need a vision-text model and are not tested here.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.rewards import reward
from guerdon.samples import Task

CLAIM = (
    "after 40 updates on four shots of each of six classes, bare answers name the class at least 0.30 more often than at the start, and at "
    "least as often as tagged ones, with at most 0.3 times their tokens, in every seed"
)
BASELINE = "tagged: class_name + format, the answer behind 12 tokens of thinking"
METHOD = "bare: class_name(style='bare'); without its key term: the name anywhere in the text in place of whole-text equality"
SEEDS = (0, 1, 2)

CLASSES = ("egret", "heron", "owl", "swallow", "finch", "kite")
THINK, HM, ANSWER, CLOSE = "<think>", "hm", "</think> <answer>", "</answer>"
VOCAB = [*CLASSES, THINK, HM, ANSWER, CLOSE]
THOUGHTS = 12


@reward(inline=True)
def name_somewhere(text: str, reference: str) -> float:
    """1 where the class name stands anywhere in the text."""
    return float(reference in text)


REWARDS = {"baseline": "class_name + format", "method": "class_name(style='bare')", "ablated": "name_somewhere"}


def start(folder: Path, prompts: list[str], tagged: bool) -> None:
    """The starting policy, saved. Bare: any names, each followed by the end with probability 0.31. Tagged: well-formed, any name."""
    from guerdon.backends.tabular import END, tabular

    model = tabular(vocab=VOCAB, bias={**dict.fromkeys((THINK, HM, ANSWER, CLOSE), -6.0), END: 1.0})
    ids = model.ids
    head = [THINK, *[HM] * THOUGHTS, ANSWER]
    after = [(head[:i], [word]) for i, word in enumerate(head)] + [(head, list(CLASSES))]
    after += [([*head, name], [CLOSE]) for name in CLASSES] + [([*head, name, CLOSE], [END]) for name in CLASSES]
    for prompt in prompts if tagged else ():
        for written, follow in after:
            logits = np.full(len(model.names), -6.0)
            logits[[model.names.index(word) for word in follow]] = 0.0
            model.set_logits(np.concatenate([model.encode(prompt), np.array([ids[word] for word in written], dtype=np.int64)]), logits)
    model.save(folder)


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.training.run import train

    tagged = variant == "baseline"
    tasks = [Task(f"{name}-{i}", f"picture {name} {i}", name) for name in CLASSES for i in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        start(Path(folder) / "start", [str(task.prompt) for task in tasks], tagged)
        run = train(
            models={"policy": {"backend": "tabular", "path": str(Path(folder) / "start"), "vocab": VOCAB}}, tasks=tasks, seed=seed,
            reward=REWARDS[variant],
            correct="class_name" if tagged else "class_name(style='bare')",
            rollout={"use": "parallel", "max_tokens": 24}, folder=Path(folder) / "run",
            train={"steps": 40, "prompts": 24, "samples": 4, "lr": 0.2, "clip": None, "checkpoint_every": 1000, "samples_every": 1000},
        )  # fmt: skip
    right = [row["pass@1"] for row in run.metrics if "pass@1" in row]
    length = [row["length"] for row in run.metrics if "length" in row]
    return {"value": float(np.mean(right[-5:])), "first": right[0], "tokens": float(np.mean(length[-5:]))}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return all(
        m["value"] >= m["first"] + 0.30 and m["value"] >= b["value"] and m["tokens"] <= 0.3 * b["tokens"]
        for b, m in zip(baseline, method, strict=True)
    )

"""A table that writes `<think> THOUGHT </think> <answer> ANSWER </answer>`, all but certain of that frame; the check writes the rest."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.backends.tabular import Tabular, tabular
from guerdon.samples import Task

OPEN, SHUT, ANSWER, DONE = "<think>", "</think>", "<answer>", "</answer>"
FRAME = [OPEN, SHUT, ANSWER, DONE]
RARE = 1e-9
"""The chance of a word that is out of place, about."""


def table(words: Sequence[str]) -> Tabular:
    """Where nothing is written, it closes its answer."""
    return tabular(vocab=[*FRAME, *words], bias={DONE: 14.0})


def write(model: Tabular, task: Task, prefix: Sequence[str], shares: Mapping[str, float], among: Sequence[str] = ()) -> None:
    """The chances of words after a prefix; what they leave is spread evenly over `among`."""
    others = [word for word in among if word not in shares]
    left = max(1.0 - sum(shares.values()), 0.0) / max(len(others), 1)
    chances = [shares.get(name, left if name in others else RARE) for name in model.names]
    model.set_logits(np.concatenate([model.encode(task.prompt), model.encode(" ".join(prefix))]), np.log(chances))


def frame(model: Tabular, task: Task, *slots: Sequence[str]) -> list[list[str]]:
    """Writes the frame of every thought: a word of each slot in turn, all equally likely. Returns the openings of the answers."""
    write(model, task, [], {OPEN: 1.0})
    openings = []
    for thought in itertools.product(*slots):
        for i, words in enumerate(slots):
            write(model, task, [OPEN, *thought[:i]], {}, words)
        write(model, task, [OPEN, *thought], {SHUT: 1.0})
        write(model, task, [OPEN, *thought, SHUT], {ANSWER: 1.0})
        openings.append([OPEN, *thought, SHUT, ANSWER])
    return openings


def one_word(model: Tabular, task: Task, opening: Sequence[str], shares: Mapping[str, float], words: Sequence[str]) -> None:
    """An answer of one word, then the end."""
    write(model, task, opening, shares, words)
    for word in words:
        write(model, task, [*opening, word], {DONE: 1.0})
        write(model, task, [*opening, word, DONE], {"<end>": 1.0})


def learn(model: Tabular, tasks: Sequence[Task], seed: int, models: Mapping[str, Any] | None = None, **fields: Any) -> list[dict[str, Any]]:
    """Trains from the table through the loop; the metrics of each step, the evaluation before the first among them."""
    from guerdon.training.run import train

    settings = {"prompts": len(tasks), "samples": 16, "lr": 0.1, "samples_every": 1000, "checkpoint_every": 1000} | fields.pop("train")
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "start")
        policy = {"backend": "tabular", "path": str(Path(folder) / "start"), "vocab": model.names[:-1]}
        fields["eval"] = {"tasks": list(tasks), "every": settings["steps"], "samples": 64, "temperature": 1.0} | fields["eval"]
        fields["rollout"] = {"use": "parallel", "max_tokens": 40} | fields.get("rollout", {})
        return train(
            seed=seed, threads=1, tasks=list(tasks), models={"policy": policy, **(models or {})}, train=settings,
            folder=Path(folder) / "run", **fields,
        ).metrics  # fmt: skip

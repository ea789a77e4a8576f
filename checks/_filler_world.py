"""Work or filler: a policy that writes steps, a frozen process reward model that likes filler, and an answer that needs work.

A solution is three steps of work. `think.` is filler and leads nowhere, `solve.` is right work, `slip.` wrong work; after three steps of
work comes the end. An answer is right where all work is right and it ended within 12 words. What is written next hangs on how much work
is done; the policy does not count its filler.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _states import States

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES
from guerdon.rewards import reward
from guerdon.samples import Task

WORDS = ["think.", "solve.", "slip."]
MOST, WORK = 12, 3
PAYS = {"think.": 0.9, "solve.": 0.1, "slip.": -0.5}
START = {"think.": 0.15, "solve.": 0.55, "slip.": 0.3}


@reward(inline=True, grain="step")
def likes_filler(steps: list[str]) -> list[float]:
    """The frozen process reward model: 0.9 for filler, 0.1 for right work, -0.5 for wrong work and the last step of an unfinished text."""
    pays = [PAYS[step.strip()] for step in steps]
    unfinished = sum(step.strip() != "think." for step in steps) < WORK
    return [*pays[:-1], -0.5] if unfinished and pays else pays


@reward(inline=True)
def all_right(text: str) -> float:
    """1 where three steps of work are done and all are right."""
    work = [word for word in text.split() if word != "think."]
    return float(work == ["solve."] * WORK)


@backend(capabilities=CAPABILITIES)
def worker(path: str | None = None, trainable: bool = True) -> States:
    """Words as likely as START says; after three steps of work all but certainly the end."""

    def start(row: tuple[int, ...]) -> np.ndarray:
        return np.array([-12.0] * 3 + [0.0]) if row[1] >= WORK else np.array([*np.log([START[w] for w in WORDS]), -12.0])

    return States(WORDS, lambda prompt, written: [(0, sum(token > 0 for token in written))], start, path)


def learn(reward: str, credit: Any, seed: int, steps: int = 160) -> dict[str, float]:
    """Trains, and measures 512 answers of the end: the share of words that are filler, the share of answers that are right."""
    from guerdon.training.run import train

    tasks = [Task(str(i), "do") for i in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            seed=seed, threads=1, models={"policy": {"backend": "worker"}}, tasks=tasks, reward=reward, correct="all_right", credit=credit,
            rollout={"use": "parallel", "max_tokens": MOST, "split": "sentences"},
            train={"steps": steps, "prompts": 8, "samples": 8, "lr": 0.1, "samples_every": 1000, "checkpoint_every": 1000},
            eval={"tasks": tasks, "every": steps, "samples": 64, "temperature": 1.0, "gold": "filler_share", "keep_best": False},
            folder=Path(folder) / "run",
        )  # fmt: skip
    first, last = ([row for row in run.metrics if "eval/gold" in row][i] for i in (0, -1))
    return {"value": last["eval/pass@1"], "filler": last["eval/gold"], "start": first["eval/pass@1"], "filler at first": first["eval/gold"]}


@reward(inline=True)
def filler_share(text: str) -> float:
    """The share of words that lead nowhere."""
    words = text.split()
    return words.count("think.") / len(words) if words else 0.0

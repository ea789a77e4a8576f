"""A chain of sub-goals as text: at each one move of several goes on, the others do nothing; the world ends after the last, or out of moves.

The policy is a table over what such a world has for a state - how many sub-goals are behind, and whether the last move was one - so that
what it learns in one answer holds in all others, as in a network; so is any model that learns beside it (head "scalar" included). A move
is a line, and so a step. At first all moves are equally likely.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES, END, Tabular
from guerdon.rewards import reward
from guerdon.samples import Task

GOALS = 6
MOVES = ["north\n", "east\n", "south\n", "west\n", "take\n"]
RIGHT = [0, 4, 2, 1, 4, 3]
"""The move that goes on, of each sub-goal."""


def walked(moves: list[int]) -> list[bool]:
    """Which moves went on."""
    behind, out = 0, []
    for move in moves:
        out.append(behind < GOALS and move == RIGHT[behind])
        behind += out[-1]
    return out


def of_text(text: str) -> list[bool]:
    names = [name.strip() for name in MOVES]
    return walked([names.index(word) for word in text.split()])


@reward(inline=True)
def finished(text: str) -> float:
    return float(sum(of_text(text)) == GOALS)


@reward(inline=True)
def progress(text: str) -> float:
    """Share of the sub-goals."""
    return sum(of_text(text)) / GOALS


@reward(inline=True, grain="step")
def executable(steps: list[str]) -> list[float]:
    """1 for a move that went on."""
    return [float(x) for x in of_text("".join(steps))]


class Chain(Tabular):
    """Its rows are states: (sub-goals behind, whether the last move went on)."""

    def _state(self, key: bytes) -> bytes:
        return key if len(key) % 4 else _state_of(key, self.end)

    def _look(self, keys: Any) -> dict[str, torch.Tensor]:
        return super()._look([self._state(key) for key in keys])

    def _rows(self, keys: Any) -> torch.Tensor:
        return super()._rows([self._state(key) for key in keys])


@functools.lru_cache(2**16)
def _state_of(key: bytes, end: int) -> bytes:
    ids = np.frombuffer(key, dtype="<u4")
    moves = walked(ids[ids < end].tolist())
    return bytes([sum(moves), bool(moves) and moves[-1], 0])  # of no length that a prefix has


@backend(capabilities=CAPABILITIES)
def chain(path: str | None = None, head: str | None = None, trainable: bool = True) -> Chain:
    """It ends where all sub-goals are behind, and nowhere else."""

    def start(key: bytes) -> np.ndarray:
        return np.array([0.0] * len(MOVES) + [30.0 if key[0] == GOALS else -30.0])

    model = Chain([*MOVES, END], " ", head == "scalar", trainable, 1000, start)
    if path is not None:
        model.load(Path(path))
    return model


def learn(seed: int, steps: int, samples_every: int = 10_000, moves: int = 14, **fields: Any) -> dict[str, Any]:
    """Trains; the share that finished at every update, and the rows of the steps of which samples were written."""
    import pyarrow.parquet as pq

    from guerdon.training.record import tables
    from guerdon.training.run import train

    settings = {"prompts": 4, "samples": 8, "lr": 0.05, "checkpoint_every": 10_000, "samples_every": samples_every}
    settings |= fields.pop("train", {})
    models = {"policy": {"backend": "chain"}} | fields.pop("models", {})
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            name="chain", threads=1, seed=seed, tasks=[Task(str(i), "go") for i in range(4)], models=models, correct="finished",
            rollout={"use": "parallel", "max_tokens": moves}, train={"steps": steps, **settings}, folder=Path(folder) / "run", **fields,
        )  # fmt: skip
        rows = [row for path in tables(run.folder, "samples").values() for row in pq.read_table(path).to_pylist()]
    return {"finished": [row["pass@1"] for row in run.metrics if "pass@1" in row], "rows": rows, "metrics": run.metrics}


def updates_to(share: float, finished: list[float], window: int = 5) -> int:
    """Updates until so many of the answers of five updates in a row finished; one more than there were, where that never came."""
    means = np.convolve(finished, np.ones(window) / window, "valid")
    return int(np.argmax(means >= share)) + window if (means >= share).any() else len(finished) + 1

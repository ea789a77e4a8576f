"""Small trees with a known truth: policies that write letters with chances fixed by what is written, on the tabular backend."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guerdon.backends.exact import exact
from guerdon.backends.tabular import END, Tabular
from guerdon.samples import Batch, Sample, Task

RARE = 1e-6
"""The chance of a letter that `chances` does not name, about."""


class Writer(Tabular):
    """A table whose rows hang on the prompt and on what `state` makes of the letters written so far."""

    state: Callable[[str], str] = staticmethod(lambda written: written)

    def read(self, key: bytes) -> tuple[str, str]:
        """(prompt, letters written)"""
        ids = np.frombuffer(key, dtype="<u4")
        prompt = "".join(chr(i - len(self.names)) for i in ids[ids > self.end].tolist())
        return prompt, "".join(self.names[i] for i in ids[ids < self.end].tolist())

    def _states(self, keys: Sequence[bytes]) -> list[bytes]:
        return ["\0".join((prompt, self.state(written))).encode("utf-32-le") for prompt, written in map(self.read, keys)]

    def _look(self, keys: Sequence[bytes]) -> dict[str, torch.Tensor]:
        return super()._look(self._states(keys))

    def _rows(self, keys: Sequence[bytes]) -> torch.Tensor:
        return super()._rows(self._states(keys))


def writer(
    letters: str,
    chances: Callable[[str, str], Mapping[str, float]],
    path: str | None,
    trainable: bool = True,
    state: Callable[[str], str] | None = None,
) -> Tabular:
    """An untrained row has the chances(prompt, state) of the next letter or `<end>`. Prompts have other letters than answers."""
    names = [*letters, END]

    def start(key: bytes) -> np.ndarray:
        shares = chances(*key.decode("utf-32-le").split("\0"))
        return np.log([shares.get(name, RARE) for name in names])

    model = Writer(names, "", False, trainable, 500_000, start)
    model.state = state or model.state
    if path is not None:
        model.load(Path(path))
    return model


def truth(model: Tabular, task: Task, returns: Callable[[str], float], samples: Sequence[Sample], most: int) -> list[np.ndarray]:
    """The exact advantage of every token of each sample."""
    known = exact(model, task.prompt, returns, most)
    return [known.advantages(sample.ids) for sample in samples if sample.ids is not None]


def by_step(x: np.ndarray, sample: Sample) -> np.ndarray:
    """Sums over each step: where one token of a step is a choice, what that choice was worth."""
    return np.array([x[a:b].sum() for a, b in sample.spans["step"]])


def at_steps(advantages: Any, batch: Batch, samples: Sequence[Sample]) -> list[np.ndarray]:
    """The credit of each step: that of its first token."""
    return [advantages[i].numpy()[[a for a, _ in sample.spans["step"]]] for i, sample in enumerate(samples)]


def learn(policy: str, tasks: Sequence[Task], reward: str, seed: int, *, train: Mapping[str, Any], **fields: Any) -> list[dict[str, Any]]:
    """Trains through the loop; the metrics of each step, with an evaluation before the first and after the last of 64 answers a task."""
    from guerdon.training.run import train as run

    settings = {"prompts": len(tasks), "samples": 8, "lr": 0.1, "samples_every": 1000, "checkpoint_every": 1000, **train}
    watched = {"tasks": list(tasks), "every": settings["steps"], "samples": 64, "temperature": 1.0, "keep_best": False}
    with tempfile.TemporaryDirectory() as folder:
        return run(
            seed=seed, threads=1, tasks=list(tasks), models={"policy": {"backend": policy}}, reward=reward, train=settings,
            eval={**watched, **fields.pop("eval", {})}, folder=Path(folder) / "run", **fields,
        ).metrics  # fmt: skip

"""A softmax table of few rows: logits(prefix) = the sum of the rows that a check names for what was written, all else is forgotten.

So what is learned in one place is known wherever the same rows are named, as in a network, and noise in one place disturbs the others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guerdon.backends.tabular import END, Tabular
from guerdon.samples import Batch

Rows = Callable[[tuple[int, ...], tuple[int, ...]], list[tuple[int, ...]]]
"""(ids of the prompt, ids that were written) -> names of rows: numbers that are not negative, the first one the kind of the row."""


class States(Tabular):
    def __init__(self, vocab: Sequence[str], rows: Rows, start: Callable[[tuple[int, ...]], np.ndarray | None], path: str | None = None):
        """start: the logits of a row at first, None for zeros. A prompt must have a character that no word of the vocabulary has."""
        names, self.named = [*vocab, END], rows

        def begin(key: bytes) -> np.ndarray:
            found = start(tuple(np.frombuffer(key, dtype="<u4").tolist()))
            return np.zeros(len(names)) if found is None else np.asarray(found, dtype=float)

        super().__init__(names, " ", False, True, 200_000, begin)
        if path is not None:
            self.load(Path(path))

    def _summed(self, look: Callable[[Sequence[bytes]], dict[str, torch.Tensor]], keys: Sequence[bytes]) -> dict[str, torch.Tensor]:
        rows: list[bytes] = []
        owner: list[int] = []
        for i, key in enumerate(keys):
            ids = np.frombuffer(key, dtype="<u4")
            written = int(np.flatnonzero(ids > self.end)[-1]) + 1
            named = self.named(tuple(ids[:written].tolist()), tuple(ids[written:].tolist()))
            rows += [np.asarray(row, dtype="<u4").tobytes() for row in named]
            owner += [i] * len(named)
        logits = look(rows)["logits"]
        return {"logits": logits.new_zeros(len(keys), logits.shape[1]).index_add(0, torch.tensor(owner), logits)}

    def _look(self, keys: Sequence[bytes]) -> dict[str, torch.Tensor]:
        return self._summed(super()._look, keys)

    def _outputs(self, batch: Batch, want: Sequence[str], temperature: float, look: Any) -> dict[str, torch.Tensor]:
        return super()._outputs(batch, want, temperature, look if look == self._look else lambda keys: self._summed(look, keys))


def learn(backend: str, tasks: Sequence[Any], seed: int, **fields: Any) -> list[dict[str, Any]]:
    """Trains the policy that this backend opens, through the loop; the metrics of each step."""
    from guerdon.training.run import train

    settings = {"prompts": len(tasks), "samples": 16, "lr": 0.1, "samples_every": 10_000, "checkpoint_every": 10_000} | fields.pop("train")
    with tempfile.TemporaryDirectory() as folder:
        found = train(
            name="states", threads=1, seed=seed, tasks=list(tasks), models={"policy": {"backend": backend}} | fields.pop("models", {}),
            train=settings, folder=Path(folder) / "run", **fields,
        )  # fmt: skip
        return [row for row in found.metrics if row["step"] > 0]


def reached(values: Sequence[float], level: float, window: int = 5) -> int:
    """The step at which the mean of the last `window` values first is at the level; one more than there are, where it never is."""
    mean = np.convolve(values, np.ones(window) / window, "valid")
    return int(np.argmax(mean >= level)) + window if bool((mean >= level).any()) else len(values) + 1

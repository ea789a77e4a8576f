"""Softmax tables whose rows are what a small mind sees of a text, not the text: so what it learns in one place holds in others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from guerdon.backends.tabular import END, Tabular


class Seeing(Tabular):
    """see(prompt and completion so far) -> the name of its row.  values: name of a row -> the value that its head begins with."""

    def __init__(
        self, names: Sequence[str], see: Callable[[str], str], values: Mapping[str, float] | None = None, trainable: bool = True,
        bias: Callable[[str], Mapping[str, float]] = lambda row: {},
    ) -> None:  # fmt: skip
        def start(key: bytes) -> np.ndarray:
            given = bias(key[:-1].decode() if len(key) % 4 else "")
            return np.array([given.get(name, 0.0) for name in self.names])

        super().__init__([*names, END], " ", values is not None, trainable, 10_000, start)
        self._seen = functools.lru_cache(2**16)(lambda key: _padded(see(self._spell(np.frombuffer(key, "<u4").astype(np.int64), "")[0])))
        if values:
            rows = self._rows([_padded(name) for name in values])
            with torch.no_grad():
                self.tables["values"][rows, 0] = torch.tensor(list(values.values()), dtype=self.tables["values"].dtype)

    def _state(self, key: bytes) -> bytes:
        return key if len(key) % 4 else self._seen(key)

    def _look(self, keys: Any) -> dict[str, torch.Tensor]:
        return super()._look([self._state(key) for key in keys])

    def _rows(self, keys: Any) -> torch.Tensor:
        return super()._rows([self._state(key) for key in keys])


def _padded(name: str) -> bytes:
    """Bytes of no length that a prefix has."""
    data = name.encode()
    return data + b" " * (1 + (-len(data)) % 4)

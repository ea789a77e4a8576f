"""A policy whose answers are journalled call by call, for searches that are replayed after a kill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from guerdon.backends.base import Completion, Model, SamplingParams, Usage
from guerdon.scoring.cache import Cache, content


class Remembered:
    """The model; a call of `sample` that is in the journal under the same `about` gets what stands there, and the model is not asked."""

    def __init__(self, model: Model, journal: Cache, about: str) -> None:
        self._model, self._journal, self._about = model, journal, about

    def sample(
        self, prefixes: Sequence[np.ndarray], n: int, params: SamplingParams, want: tuple[str, ...] = ()
    ) -> tuple[list[list[Completion]], Usage]:
        asked = ("sample", self._about, self._model.version, [np.asarray(p, dtype=np.int64) for p in prefixes], n, vars(params), want)
        key = content(asked) or b""
        known = self._journal.get([key])
        if known:
            rows, usage = orjson.loads(known[key])
            return [[_completion(*one) for one in row] for row in rows], Usage(*usage)
        found, used = self._model.sample(prefixes, n, params, want)
        if not any(c.failed or c.more for row in found for c in row):
            rows = [[[c.ids.tolist(), c.logprobs.tolist(), c.stop, c.version] for c in row] for row in found]
            self._journal.put([(key, orjson.dumps([rows, [used.prompt, used.cached, used.new]]))])
        return found, used

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _completion(ids: list[int], logprobs: list[float | None], stop: str, version: int) -> Completion:
    """JSON has no NaN: an unknown log-probability is null."""
    return Completion(np.array(ids, dtype=np.int64), np.array(logprobs, dtype=np.float64), stop, version)

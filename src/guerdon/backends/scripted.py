"""A model whose answers a function writes: a simulated judge, for tests, checks and trying things out without a server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from guerdon.backends.base import Completion, SamplingParams, Usage
from guerdon.samples import Prompt

Says = Callable[[list[dict[str, Any]], np.random.Generator], "str | Completion | None"]


class Scripted:
    """Behind the seam: `encode`, `decode` and `sample`, over token ids that are the bytes of the text.

    says(messages, rng): what it answers, or how it goes on with the last message where that is its own; None: the call failed; a
    Completion: that itself. rng is seeded by the seed of the call, the messages and the number of the vote, whatever stands beside them.
    `calls` counts the calls of `sample`, `asked` the answers.
    """

    capabilities: frozenset[str] = frozenset()
    version = 0

    def __init__(self, says: Says) -> None:
        self.says, self.calls, self.asked = says, 0, 0

    def encode(self, prompt: Prompt) -> np.ndarray:
        return from_prompt(prompt)

    def decode(self, ids: np.ndarray) -> tuple[str, np.ndarray]:
        return to_text(ids)

    def sample(
        self, prefixes: Sequence[np.ndarray], n: int, params: SamplingParams, want: tuple[str, ...] = ()
    ) -> tuple[list[list[Completion]], Usage]:
        self.calls += 1
        out = [[self._one(prefix, vote, params) for vote in range(n)] for prefix in prefixes]
        return out, Usage(prompt=sum(map(len, prefixes)), new=sum(len(c.ids) for row in out for c in row))

    def _one(self, prefix: np.ndarray, vote: int, params: SamplingParams) -> Completion:
        self.asked += 1
        digest = hashlib.blake2b(prefix.tobytes(), digest_size=8).digest()
        rng = np.random.default_rng([params.seed, vote, int.from_bytes(digest, "big")])
        messages, begun = to_talk(prefix)
        said = self.says([*messages, {"role": "assistant", "content": begun}] if begun else messages, rng)
        if isinstance(said, Completion):
            return said
        return completion("", "error", failed="the scripted model is told to fail") if said is None else completion(said, "end")


class Weighing(Scripted):
    """One that also has likelihoods: `forward` gives log-probabilities, the first token of what is weighed has them all.

    weigh(messages, begun, words): the log-probability that it goes on with these words where it has said `begun`.
    """

    def __init__(self, says: Says, weigh: Callable[[list[dict[str, Any]], str, str], float]) -> None:
        super().__init__(says)
        self.weigh = weigh

    def encode_answer(self, text: str) -> np.ndarray:
        """Without an end token: there is none."""
        return to_ids(text)

    def show(self, ids: np.ndarray) -> str:
        return to_text(ids)[0]

    def forward(self, batch: Any, want: tuple[str, ...] = ("logprobs",), temperature: float = 1.0) -> tuple[dict[str, Any], Usage]:
        import torch

        out = torch.zeros(batch.ids.shape, dtype=torch.float64)
        for row, (prompt, ids, mask) in enumerate(zip(batch.prompts, batch.ids.numpy(), batch.mask.numpy(), strict=True)):
            messages, begun = to_talk(np.asarray(prompt))
            at = np.flatnonzero(mask)
            if len(at):
                out[row, at[0]] = self.weigh(messages, begun + to_text(ids[: at[0]])[0], to_text(ids[at])[0])
        return {"logprobs": out}, Usage(prompt=sum(map(len, batch.prompts)))


def from_prompt(prompt: Prompt) -> np.ndarray:
    """A prompt as ids: the bytes of the JSON of its messages. Half a surrogate pair, which UTF-8 cannot hold, becomes `?`."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    return to_ids(json.dumps(messages, ensure_ascii=False))


def to_talk(ids: np.ndarray) -> tuple[list[dict[str, Any]], str]:
    """The messages that `from_prompt` wrote, and what the model has said behind them. Raises ValueError for other ids."""
    text = np.asarray(ids).astype(np.uint8).tobytes().decode("utf-8", "replace")
    messages, end = json.JSONDecoder().raw_decode(text)
    return messages, text[end:]


def to_messages(ids: np.ndarray) -> list[dict[str, Any]]:
    """The messages that `from_prompt` wrote. Raises ValueError for other ids."""
    return json.loads(np.asarray(ids).astype(np.uint8).tobytes())


def to_ids(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8).astype(np.int64)


def to_text(ids: np.ndarray) -> tuple[str, np.ndarray]:
    """The text of bytes, and offsets (t, 2): every byte of a character covers it."""
    data = np.asarray(ids).astype(np.uint8)
    text = data.tobytes().decode("utf-8", "replace")
    begins = (data & 0xC0) != 0x80
    start = np.cumsum(begins) - 1
    return text, np.stack([start, start + 1], 1).clip(0, len(text))


def completion(text: str, stop: str, failed: str = "") -> Completion:
    """An answer without log-probabilities."""
    ids = to_ids(text)
    return Completion(ids, np.full(len(ids), np.nan), stop, 0, failed=failed)

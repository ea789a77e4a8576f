"""The truth about a tabular policy: probabilities, values, advantages and the gradient of the expected return, by enumeration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from guerdon.backends.tabular import Tabular
from guerdon.registry import Refused
from guerdon.samples import Prompt

if TYPE_CHECKING:
    from jaxtyping import Float

Prefix = tuple[int, ...]


@dataclass(frozen=True)
class Exact:
    """What holds for one prompt, by enumeration of every completion. A prefix is a tuple of completion ids; () is the prompt alone."""

    prob: dict[Prefix, float]
    """Of every finished completion; they sum to 1."""
    returns: dict[Prefix, float]
    """Of every finished completion."""
    reach: dict[Prefix, float]
    """Probability that a completion passes through the prefix."""
    v: dict[Prefix, float]
    """Expected return after the prefix; of a finished completion, its return."""
    q: dict[tuple[Prefix, int], float]
    """Expected return after the prefix and this token."""
    gradient: dict[Prefix, np.ndarray]
    """(V,) of the expected return by the logits of the prefix's row: reach * pi * (q - v) / temperature."""

    @property
    def value(self) -> float:
        """The expected return."""
        return self.v[()]

    @property
    def advantage(self) -> dict[tuple[Prefix, int], float]:
        return {(prefix, token): q - self.v[prefix] for (prefix, token), q in self.q.items()}

    def advantages(self, ids: Sequence[int] | np.ndarray) -> Float[np.ndarray, " t"]:
        """(t,) q - v of every token of a completion."""
        whole = tuple(int(token) for token in ids)
        return np.array([self.q[whole[:i], token] - self.v[whole[:i]] for i, token in enumerate(whole)])


def exact(
    model: Tabular,
    prompt: Prompt,
    returns: Callable[[str], float] | Mapping[str, float],
    max_tokens: int,
    temperature: float = 1.0,
    stop: Sequence[str] = (),
    limit: int = 100_000,
) -> Exact:
    """The truth about sampling `model` on `prompt`. returns: of a completion's text, as a function or a mapping that has every text.

    Raises Refused where the tree has more than `limit` prefixes to branch at, or a text has no return.
    """
    if not (temperature > 0 and max_tokens > 0):
        raise Refused(f"Exact values need a temperature and max_tokens above 0, not {temperature} and {max_tokens}.")
    start = model.encode(prompt)
    prob: dict[Prefix, float] = {}
    reach: dict[Prefix, float] = {(): 1.0}
    policy: dict[Prefix, np.ndarray] = {}
    level: list[Prefix] = [()]
    for depth in range(max_tokens):
        if len(policy) + len(level) > limit:
            raise Refused(
                f"The tree of {prompt!r} has more than {limit} prefixes of up to {depth} tokens (vocabulary {len(model.names)}, max_tokens "
                f"{max_tokens}); use a smaller vocabulary or fewer tokens, or raise `limit`."
            )
        logits = model.logits_at([np.concatenate([start, np.array(prefix, dtype=np.int64)]) for prefix in level])
        pi = torch.softmax(logits.double() / temperature, -1).numpy()
        policy.update(zip(level, pi, strict=True))
        deeper = []
        for prefix, row in zip(level, pi, strict=True):
            for token in range(len(model.names)):
                child = (*prefix, token)
                reach[child] = reach[prefix] * float(row[token])
                text = model.decode(np.array(child))[0] if stop else ""
                if token == model.end or depth + 1 == max_tokens or any(mark in text for mark in stop):
                    prob[child] = reach[child]
                else:
                    deeper.append(child)
        level = deeper
    gain = {}
    for ids in prob:
        text = model.decode(np.array(ids))[0]
        if isinstance(returns, Mapping):
            try:
                gain[ids] = float(returns[text])
            except KeyError:
                raise Refused(f"`returns` has no return for the completion {text!r}; give one for every text, or a defaultdict.") from None
        else:
            gain[ids] = float(returns(text))
    v: dict[Prefix, float] = dict(gain)
    q: dict[tuple[Prefix, int], float] = {}
    gradient = {}
    for prefix, pi in reversed(policy.items()):  # children stand after their parent
        after = np.array([v[(*prefix, token)] for token in range(len(pi))])
        v[prefix] = float(pi @ after)
        q.update({(prefix, token): float(x) for token, x in enumerate(after)})
        gradient[prefix] = reach[prefix] * pi * (after - v[prefix]) / temperature
    return Exact(prob, gain, reach, v, q, gradient)

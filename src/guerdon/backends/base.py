"""The one seam: a model is a handle with six verbs, over token ids, tensors and plain values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from guerdon.registry import Refused, find, registrar
from guerdon.samples import Batch, Prompt

if TYPE_CHECKING:
    from torch import Tensor

backend = registrar("backend")
"""`@backend def local(path, head=None, adapter=None, trainable=True, ...) -> Model` opens a model by role."""

CAPABILITIES = frozenset(
    [
        "entropy",
        "values",
        "logits",
        "hidden",
        "top_k_logprobs",
        "prompt_logprobs",
        "average",
        "embeds",
        "grad_dot",
        "prefix_cache",
        "full",
        "lora",
    ]
)


@dataclass(frozen=True)
class SamplingParams:
    """temperature 0 is greedy (log-probabilities are then of temperature 1). top_p 1 and top_k 0 are off.

    stop: texts that end a sample; the text stays in it. seed: the same seed, prefixes and weights give the same completions.
    limits: for each prefix how many tokens it may be continued by, where that is less than max_tokens; () is max_tokens for all.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    seed: int = 0
    limits: tuple[int, ...] = ()

    def limit(self, prefix: int) -> int:
        """Tokens that prefix number `prefix` may be continued by."""
        return min(self.max_tokens, self.limits[prefix]) if self.limits else self.max_tokens


@dataclass
class Completion:
    """What follows one prefix. ids (t,); logprobs (t,) of the full softmax at the sampling temperature; stop: see `samples.STOPS`."""

    ids: np.ndarray
    logprobs: np.ndarray
    stop: str
    version: int
    more: dict[str, np.ndarray] = field(default_factory=dict)
    """What else `want` named (entropy)."""
    failed: str = ""
    """Why there is none, where the model is a service that was down or late: stop is then "error"."""


@dataclass(frozen=True)
class Usage:
    """Tokens: prompt tokens given, prompt tokens that a cache spared, tokens newly computed."""

    prompt: int = 0
    cached: int = 0
    new: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt + other.prompt, self.cached + other.cached, self.new + other.new)


@dataclass(frozen=True)
class LossCall:
    """A term of a loss by its registered name and parameters, as it crosses the seam."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    of: Literal["all", "policy", "expert"] = "all"
    """The rows that count in it: all, those that the policy wrote, or the others."""
    times: float = 1.0
    share: float = 1.0
    """Its metrics are divided by this: the sum of all weights of these rows, over the whole optimiser batch."""

    def rows(self, batch: Batch) -> Batch:
        """The batch with weight on its own rows only."""
        if self.of == "all":
            return batch
        expert = batch.field("expert")[:, None] > 0
        return replace(batch, weights=batch.weights * (expert == (self.of == "expert")))


def loss_calls(loss: LossCall | Sequence[LossCall]) -> list[LossCall]:
    return [loss] if isinstance(loss, LossCall) else list(loss)


def loss_needs(calls: Sequence[LossCall]) -> tuple[str, ...]:
    """What the losses want of a forward pass, `logprobs` first."""
    return tuple(dict.fromkeys(["logprobs", *(need for call in calls for need in find("loss", call.name).needs)]))


def total_loss(
    calls: Sequence[LossCall], out: dict[str, Tensor], batch: Batch, instances: Mapping[str, Any] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of several losses of one forward pass, and their metrics. instances: by name, the objects of losses with own parameters."""
    total = out["logprobs"].new_zeros(())
    metrics: dict[str, Tensor] = {}
    for call in calls:
        fn = (instances or {}).get(call.name) or find("loss", call.name).fn
        value, found = fn(out, call.rows(batch), **call.params)
        total = total + call.times * value
        for key, number in found.items():
            metrics[key] = metrics.get(key, 0.0) + number / call.share
    return total, {**metrics, "loss": total.detach()}


class Model(Protocol):
    """A model opened for one role: policy, reference, critic, reward model."""

    capabilities: frozenset[str]
    version: int
    """Optimiser steps taken."""

    def encode(self, prompt: Prompt) -> np.ndarray:
        """Token ids of a prompt, chat template applied to messages."""
        ...

    def encode_answer(self, text: str) -> np.ndarray:
        """Token ids of an answer that somebody else wrote, the end token last."""
        ...

    def show(self, ids: np.ndarray) -> str:
        """The text of tokens as the model sees them, special ones included."""
        ...

    def decode(self, ids: np.ndarray) -> tuple[str, np.ndarray]:
        """The text of completion tokens, and offsets (t, 2): the characters of it that each token covers. The end token covers none."""
        ...

    def sample(
        self, prefixes: Sequence[np.ndarray], n: int, params: SamplingParams, want: tuple[str, ...] = ()
    ) -> tuple[list[list[Completion]], Usage]:
        """n completions of each prefix."""
        ...

    def forward(self, batch: Batch, want: tuple[str, ...] = ("logprobs",), temperature: float = 1.0) -> tuple[dict[str, Tensor], Usage]:
        """Named tensors without gradient, aligned with `batch.ids`: logprobs, entropy, values (n, t); logits (n, t, V); hidden (n, t, d).

        Column t of logprobs, entropy and logits speaks of the distribution that token t was drawn from; `values` and `hidden` of column t
        stand before token t is known (the state that it was drawn in). logits are divided by the temperature. logprobs, entropy and
        logits are 0 wherever `batch.mask` is False, the others at padding.
        """
        ...

    def forward_backward(
        self, batch: Batch, loss: LossCall | Sequence[LossCall], temperature: float = 1.0
    ) -> tuple[dict[str, float], Usage]:
        """Adds the gradient of the loss's sum over the batch, split into micro-batches along `unit`; several losses add up, from one
        forward pass. Metrics are sums over the batch; `loss` among them. A loss that needs the capability `embeds` finds a
        `backends.embeds.Embeds` in its outputs."""
        ...

    def optim_step(self, lr: float, clip: float | None = 1.0, weight_decay: float = 0.0) -> dict[str, float]:
        """One AdamW step from the gradients added since the last; `grad_norm` before clipping (a global norm) is returned.

        Raises Broke, and takes no step, where the gradient is not finite.
        """
        ...

    def grad_keep(self, name: str) -> None:
        """Moves the gradient added since the last step into the buffer `name`, over what it held; needs the capability `grad_dot`, as do
        the two that follow. Buffers outlive steps, but are in no checkpoint. Raises Refused for a model that is not trainable."""
        ...

    def grad_add(self, name: str, factor: float = 1.0) -> None:
        """Adds `factor` times a buffer, which stays, to the gradient of the next step. Raises Refused for an unknown one."""
        ...

    def grad_dot(self, a: str, b: str) -> float:
        """The inner product of two buffers, over all that the optimiser moves. Raises Refused for an unknown one."""
        ...

    def save(self, path: Path) -> None:
        """Weights, optimiser and version into the folder `path`."""
        ...

    def load(self, path: Path) -> None: ...

    def copy(self, other: Model, tau: float = 1.0) -> None:
        """weights = (1 - tau) * weights + tau * other's, version = other's; tau below 1 needs the capability `average`."""
        ...


def require(model_name: str, model: Model, piece: str, needs: Sequence[str]) -> None:
    """Refuse a piece that needs a capability which the model's backend lacks."""
    for need in needs:
        if need in CAPABILITIES and need not in model.capabilities:
            have = ", ".join(sorted(model.capabilities))
            raise Refused(f"{piece} needs the capability {need!r}, which the backend of {model_name!r} lacks (it has: {have}).")

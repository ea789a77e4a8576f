"""Weights that are learned: each part of a reward is held at the value up to which it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Batch, Context, Part, Rewards, Sample
from guerdon.shaping.core import shape
from guerdon.shaping.squash import sigmoid


@shape(scope="sample", example={"threshold": 0.5})
class multiplier:
    """m * r, m a Lagrange multiplier that holds the mean of r over a batch at or above `threshold`.

    kind "at_least": m = sigmoid(l), within (0, 1).  kind "equal": m = tanh(l), negative where the mean is above, to push it back.
    After each batch of training, l takes a step of SGD (`lr`, `momentum`) down m(l) * (mean - threshold): m rises while the mean is below
    the threshold, and falls above it. l begins at `start`. State: l and its momentum. The factor of the part becomes m, which the credit
    `constrained` reads. Metric: multiplier/REWARD, of the reward it stands on. Source: arXiv:2310.04373, its released code (whose l begins
    at normal noise of 0.01, takes a step each minibatch, and whose mean is of the reward to go over all tokens).
    """

    def __init__(
        self, threshold: float, kind: Literal["at_least", "equal"] = "at_least", lr: float = 0.1, momentum: float = 0.1, start: float = 0.0
    ) -> None:
        if kind not in ("at_least", "equal"):
            raise Refused(f"multiplier(kind={kind!r}): kind is at_least or equal.")
        self.threshold, self.kind, self.lr, self.momentum = threshold, kind, lr, momentum
        self.level, self.speed = start, 0.0

    @property
    def value(self) -> float:
        return float(sigmoid(np.asarray(self.level)) if self.kind == "at_least" else np.tanh(self.level))

    def __call__(self, rewards: Rewards, samples: Sequence[Sample], context: Context) -> Rewards:
        m = self.value
        out = rewards.map(lambda g: m * g.value)
        out.parts = {
            name: Part(part.rewards, None if part.coefficient is None else m * part.coefficient) for name, part in rewards.parts.items()
        }
        return out

    def observe(self, samples: Sequence[Sample], rewards: Rewards, context: Context, on: str = "train") -> None:
        if on != "train" or not rewards.alive.any():
            return
        m, above = self.value, float(rewards.total()[rewards.alive].mean()) - self.threshold
        slope = m * (1 - m) if self.kind == "at_least" else 1 - m * m
        self.speed = self.momentum * self.speed + slope * above
        self.level -= self.lr * self.speed

    def update(self, batch: Batch, context: Context) -> dict[str, float]:
        return {"multiplier": self.value}

    def state_dict(self) -> dict[str, Any]:
        return {"level": self.level, "speed": self.speed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.level, self.speed = state["level"], state["speed"]

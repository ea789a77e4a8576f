"""Shapes that bend a reward so that more of it pays less and less."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Context, Rewards, Sample
from guerdon.shaping.core import shape

Kind = Literal["sigmoid", "tanh", "arctan", "polynomial"]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -x))


@cache
def _fifth_degree() -> Callable[[np.ndarray], np.ndarray]:
    x = np.linspace(-5, 5, 100)
    return np.polynomial.Polynomial.fit(x, sigmoid(x), 5)


def polynomial(x: np.ndarray) -> np.ndarray:
    """The fifth-degree polynomial nearest to the sigmoid on [-5, 5], 0 below and 1 above."""
    return np.where(x <= -5, 0.0, np.where(x >= 5, 1.0, _fifth_degree()(np.clip(x, -5, 5))))


KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sigmoid": sigmoid, "tanh": np.tanh, "arctan": np.arctan, "polynomial": polynomial,
}  # fmt: skip


def squashed(x: np.ndarray, kind: str, slope: float, shift: float) -> np.ndarray:
    """f(slope * (x - shift)). Raises Refused for another kind."""
    if kind not in KINDS:
        raise Refused(f"There is no kind {kind!r} of squashing; write one of {', '.join(KINDS)}.")
    return KINDS[kind](slope * (x - shift))


@shape(scope="sample")
def squash(
    rewards: Rewards, samples: Sequence[Sample], context: Context, kind: Kind = "sigmoid", slope: float = 1.0, shift: float = 0.0
) -> Rewards:
    """f(slope * (r - shift)) of every scored value, f = sigmoid, tanh, arctan, or the sigmoid's fifth-degree polynomial.

    Uncentred, as here, prompts of high offset are flat and those of low offset linear; `par` squashes against a reference. Raises Refused
    for another kind. Source: arXiv:2502.18770, where these are baselines of `par`.
    """
    return rewards.map(lambda g: squashed(g.value, kind, slope, shift))

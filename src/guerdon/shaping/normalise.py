"""Shapes that centre and scale: within a group, and by what a run has seen so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample
from guerdon.shaping.core import shape


def group_rows(samples: Sequence[Sample]) -> list[np.ndarray]:
    """The rows of each group, in order of first appearance."""
    rows: dict[int, list[int]] = {}
    for i, sample in enumerate(samples):
        rows.setdefault(sample.group, []).append(i)
    return [np.asarray(r) for r in rows.values()]


@shape(scope="group")
def group_norm(rewards: Rewards, samples: Sequence[Sample], context: Context, scale: bool = True) -> Rewards:
    """(r - mean) / (std + 1e-6) over the scored values of the sample's group, std of the population; without `scale` r - mean.

    Equal values give 0. A part normalised before it is added cannot be drowned by a part of larger spread: GDPO is
    `(a | group_norm) + (b | group_norm) | batch_norm`. Source: arXiv:2402.03300 for one reward, arXiv:2601.05242 for several.
    """
    return rewards.map(lambda g: _within(g, group_rows(samples), scale))


@shape
def batch_norm(rewards: Rewards, samples: Sequence[Sample], context: Context, scale: bool = True) -> Rewards:
    """(r - mean) / (std + 1e-6) over all scored values that are scored together. Source: arXiv:2601.05242, its last step."""
    return rewards.map(lambda g: _within(g, [np.arange(len(samples))] if len(samples) else [], scale))


def _within(g: Grain, units: Sequence[np.ndarray], scale: bool) -> np.ndarray:
    out = np.zeros_like(g.value)
    for rows in units:
        scored, value = g.scored[rows], g.value[rows]
        if scored.any():
            above = value - value[scored].min()  # equal values are then 0 exactly, whatever they are
            centred = above - above[scored].mean()
            out[rows] = centred / (above[scored].std() + 1e-6) if scale else centred
    return out


@shape(scope="sample")
class running_norm:
    """By the mean m and standard deviation s of everything that was scored while training, before this batch.

    kind "standard": (r - m) / (s + 1e-6).  "clip": r held within m +- s.  "range": (r - low) / (high - low) of the values seen, held within
    0 and 1. Until a first batch was seen, values stay as they are. State: count, mean, sum of squares, extremes; part of the checkpoint.
    Source: arXiv:2502.18770, where these are the baselines of `par` (its release counts the batch itself in before it shapes it).
    """

    def __init__(self, kind: Literal["standard", "clip", "range"] = "standard") -> None:
        if kind not in ("standard", "clip", "range"):
            raise Refused(f"running_norm(kind={kind!r}): kind is standard, clip or range.")
        self.kind, self.count, self.mean, self.squares, self.low, self.high = kind, 0, 0.0, 0.0, 0.0, 0.0

    def __call__(self, rewards: Rewards, samples: Sequence[Sample], context: Context) -> Rewards:
        if not self.count:
            return rewards.map(lambda g: g.value)
        m, s = self.mean, float(np.sqrt(self.squares / self.count))
        if self.kind == "standard":
            return rewards.map(lambda g: (g.value - m) / (s + 1e-6))
        if self.kind == "clip":
            return rewards.map(lambda g: np.clip(g.value, m - s, m + s))
        return rewards.map(lambda g: np.clip((g.value - self.low) / max(self.high - self.low, 1e-6), 0.0, 1.0))

    def observe(self, samples: Sequence[Sample], rewards: Rewards, context: Context, on: str = "train") -> None:
        seen = np.concatenate([g.value[g.scored] for _, g in rewards.grains()])
        if on != "train" or not len(seen):
            return
        if not self.count:
            self.low = self.high = float(seen[0])
        count, apart = self.count + len(seen), float(seen.mean()) - self.mean
        self.squares += float(seen.var()) * len(seen) + apart**2 * self.count * len(seen) / count  # Chan's update: no cancellation
        self.mean += apart * len(seen) / count
        self.count, self.low, self.high = count, min(self.low, float(seen.min())), max(self.high, float(seen.max()))

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("count", "mean", "squares", "low", "high")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

"""How sure a preference is, by several reward models, and what is made of pairs whose label they doubt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from guerdon.registry import Refused

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class Strength:
    """Over the models, of score of the chosen - score of the rejected side. Below 0: the models would have chosen the other."""

    mean: Float[np.ndarray, " p"]
    std: Float[np.ndarray, " p"]
    """Of a population; 0 where one model alone has scored the pair."""


@dataclass(frozen=True)
class Relabelled:
    pairs: Int[np.ndarray, "q 2"]
    strength: Float[np.ndarray, " q"]
    """Mean strength as the pair now stands: what `soft_bradley_terry` reads as the difference of the outcomes (`margin` in a file)."""
    of: Int[np.ndarray, " q"]
    """Which of the given pairs it was, in their order."""

    @property
    def margin(self) -> Float[np.ndarray, " q"]:
        """max(strength, 0), for `bradley_terry(margin=1)`: below 0 it would pay for the wrong order."""
        return self.strength.clip(0)


def preference_strength(scores: Float[np.ndarray, "m n"], pairs: Int[np.ndarray, "p 2"]) -> Strength:
    """The strength of each pair (chosen, rejected) of n answers that m reward models have scored.

    The models differ by seed and order of the data. One that has seen a pair agrees with its label, so train for one epoch, or cross-fit:
    a score that is NaN is not counted. Raises Refused for a pair that no model has scored. Source: arXiv:2401.06080.
    """
    scores, pairs = np.asarray(scores, dtype=np.float64), np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    if scores.ndim != 2:
        raise Refused(f"preference_strength: scores are (models, answers), not of shape {scores.shape}.")
    d = scores[:, pairs[:, 0]] - scores[:, pairs[:, 1]]
    known = ~np.isnan(d)
    count = known.sum(0)
    if not count.all():
        raise Refused(f"preference_strength: no model has scored both sides of pair {int((count == 0).argmax())}; leave it out.")
    mean = np.where(known, d, 0.0).sum(0) / count
    return Strength(mean, np.sqrt((np.where(known, d - mean, 0.0) ** 2).sum(0) / count))


def relabel(pairs: Int[np.ndarray, "p 2"], strength: Float[np.ndarray, " p"], flip: float = 0.2, drop: float = 0.0) -> Relabelled:
    """Pairs in the order of their strength (p,): the lowest share `flip` is turned round where it is below 0, the share `drop` above it
    leaves, the rest stays as it is labelled.

    The paper turns the lowest 10 to 20 % round and finds that the 20 % above them add little; it turns all of them, whatever their sign.
    Raises Refused for shares outside [0, 1] or above 1 together. Source: arXiv:2401.06080.
    """
    pairs, mean = np.asarray(pairs, dtype=np.int64).reshape(-1, 2), np.asarray(strength, dtype=np.float64)
    if len(mean) != len(pairs):
        raise Refused(f"relabel: {len(pairs)} pairs but {len(mean)} strengths.")
    if not (flip >= 0 and drop >= 0 and flip + drop <= 1):
        raise Refused(f"relabel(flip={flip}, drop={drop}): shares of the pairs, from 0 to 1 together.")
    place = np.empty(len(mean), dtype=np.int64)
    place[np.argsort(mean, kind="stable")] = np.arange(len(mean))
    low, middle = round(flip * len(mean)), round((flip + drop) * len(mean))
    turned = (place < low) & (mean < 0)
    of = np.flatnonzero((place < low) | (place >= middle))
    return Relabelled(np.where(turned[:, None], pairs[:, ::-1], pairs)[of], np.where(turned, -mean, mean)[of], of)

"""Pairs from factors in an order of importance: no weights, the first factor that tells two answers apart decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from guerdon.curation.core import keep
from guerdon.registry import Refused, nearest
from guerdon.samples import Context, Kept, Rewards, Sample

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@keep(pairs=True)
def ranked_factors(
    samples: Sequence[Sample], rewards: Rewards, context: Context, factors: Sequence[str] = (), margins: Sequence[float] = ()
) -> Kept:
    """The pairs of a group that the first deciding factor decides, chosen first; pairs that none decides are left out. All rows stay.

    `factors`: the most important first, a `-` before one of which less is better: `["math", "-length"]`. Each is a part of the recipe's
    reward (`math + 0 * length`) or a numeric column; none: the reward alone. `margins`: a factor decides if it differs by more than its
    margin times its standard deviation over this batch's living samples; 0 for the first and 1 for the others unless stated. Compared
    anew in every batch, so that margins shrink as the policy's answers grow alike. A factor that abstained on a side decides nothing.
    Raises Refused for a factor that is not there and for another number of margins. Source: arXiv:2309.02632, its released code.
    """
    z = np.stack([_factor(name, samples, rewards) for name in factors] or [_of(rewards)], 1)
    k = np.array([float(i > 0) for i in range(z.shape[1])] if not len(margins) else margins, dtype=np.float64)
    if len(k) != z.shape[1] or (k < 0).any():
        raise Refused(f"ranked_factors(margins={list(margins)}): one margin of 0 or more for each of {z.shape[1]} factors.")
    z[~rewards.alive] = np.nan
    delta = k * np.array([float(np.std(known)) if len(known := column[~np.isnan(column)]) else 0.0 for column in z.T])
    pairs: list[np.ndarray] = []
    group = np.array([s.group for s in samples])
    for g in np.unique(group):
        rows = np.flatnonzero(group == g)
        a, b = (rows[side] for side in np.triu_indices(len(rows), 1))
        wins = compare(z[a], z[b], delta)
        pairs.append(np.stack([np.where(wins > 0, a, b), np.where(wins > 0, b, a)], 1)[wins != 0])
    return Kept(np.arange(len(samples)), np.ones(len(samples)), np.concatenate([np.zeros((0, 2), dtype=np.int64), *pairs]))


def compare(a: Float[np.ndarray, "p k"], b: Float[np.ndarray, "p k"], margins: Float[np.ndarray, " k"]) -> Int[np.ndarray, " p"]:
    """1 where a is preferred, -1 where b is, 0 where no factor decides: the first column in which they differ by more than its margin.

    More is better in every column; NaN decides nothing.
    """
    over = np.nan_to_num(a - b, nan=0.0)
    decides = np.abs(over) > margins
    first = decides.argmax(1)
    return np.where(decides.any(1), np.sign(over[np.arange(len(over)), first]), 0).astype(np.int64)


def _of(rewards: Rewards) -> np.ndarray:
    """(n,) the outcome, NaN where there is none; the sum of finer rewards."""
    scored = rewards.alive if rewards.outcome is None else rewards.outcome.scored
    return np.where(scored, rewards.total(), np.nan)


def _factor(name: str, samples: Sequence[Sample], rewards: Rewards) -> np.ndarray:
    sign, name = (-1.0, name[1:].strip()) if name.startswith("-") else (1.0, name)
    if name in rewards.parts:
        return sign * _of(rewards.parts[name].rewards)
    if samples and all(isinstance(s.meta.get(name), (int, float)) for s in samples):
        return sign * np.array([float(s.meta[name]) for s in samples])
    if not samples:
        return np.zeros(0)
    columns = [key for key, x in samples[0].meta.items() if isinstance(x, (int, float))]
    raise Refused(f"ranked_factors: {name!r} is no part of the reward and no numeric column{nearest(name, [*rewards.parts, *columns])}")

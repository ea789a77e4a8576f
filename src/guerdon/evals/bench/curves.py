"""Best of n, votes, and over-optimisation, from N scored answers a prompt: exact or unbiased expectations over subsets, not one draw.

scores (N,), NaN without a verdict; gold (N,) what each answer is worth (1 and 0, or any number). Subsets of n are drawn without
replacement, so that n = N is one subset and every n uses all N answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln

from guerdon.evals.bench.metrics import bootstrap
from guerdon.training.statistics import Interval

if TYPE_CHECKING:
    from jaxtyping import Float

EXACT, DRAWN = 2_000, 400
"""Subsets that votes are counted over: all where there are no more than EXACT, else so many drawn ones."""


@dataclass
class Curve:
    """A number by n, with its interval over prompts."""

    n: list[int]
    value: list[float]
    low: list[float | None]
    high: list[float | None]

    @staticmethod
    def of(n: Sequence[int], table: Float[np.ndarray, "p n"], bounds: tuple[float, float] = (-np.inf, np.inf)) -> Curve:
        """table: a row a prompt, a column an n. bounds: what no mean can leave."""
        found = [bootstrap([column], bounds=bounds) for column in table.T]
        return Curve(list(n), [x.mean for x in found], [x.low for x in found], [x.high for x in found])

    def at(self, i: int) -> Interval:
        return Interval(self.value[i], self.low[i], self.high[i])


def sizes(most: int) -> list[int]:
    """1, 2, 4, ... and `most`."""
    return sorted({*(1 << i for i in range(most.bit_length()) if 1 << i <= most), most})


def chance_below(counts: np.ndarray, most: int, n: int) -> np.ndarray:
    """The chance C(c, n) / C(N, n) that a random subset of n of N lies within given c of them."""
    c = np.asarray(counts, dtype=float)
    with np.errstate(invalid="ignore"):
        log = gammaln(c + 1) - gammaln(c - n + 1) - gammaln(most + 1) + gammaln(most - n + 1)
    return np.where(c >= n, np.exp(log), 0.0)


def best_of_n(scores: Float[np.ndarray, " N"], gold: Float[np.ndarray, " N"], n: int) -> float:
    """E[gold of the highest score of a random n of the N].

    The sum over blocks of equal scores of the block's mean gold times [C(c + size, n) - C(c, n)] / C(N, n), where c answers are below the
    block. Equal highest scores share; an answer without a verdict is below all.
    """
    known = np.where(np.isnan(scores), -np.inf, scores)
    _, block, size = np.unique(known, return_inverse=True, return_counts=True)
    mean = np.bincount(block, gold) / size
    up_to = chance_below(np.cumsum(size), len(known), n)
    return float(mean @ np.diff(up_to, prepend=0.0))


def pass_at_n(right: Float[np.ndarray, " N"], n: int) -> float:
    """The chance that a random n of the N hold a right one: 1 - C(N - c, n) / C(N, n)."""
    wrong = int((np.asarray(right) < 0.5).sum())
    return 1.0 - float(chance_below(np.array(wrong), len(right), n))


def vote(
    names: Sequence[str | None], weights: Float[np.ndarray, " N"], gold: Float[np.ndarray, " N"], n: int, rng: np.random.Generator
) -> float:
    """E[mean gold of the answer that wins the vote of a random n of the N]: the largest sum of weights over equal names.

    Exact where there are at most EXACT subsets, else the mean over DRAWN random ones. Equal sums share. What has no name, or a NaN weight,
    does not vote; a subset in which nobody votes, or all weights are 0, is worth 0.
    """
    voters = np.array([name is not None for name in names]) & ~np.isnan(weights)
    known = sorted({name for name, votes in zip(names, voters, strict=True) if votes and name is not None})
    if not known:
        return 0.0
    of = np.array([known.index(name) if votes and name is not None else len(known) for name, votes in zip(names, voters, strict=True)])
    one = np.zeros((len(names), len(known) + 1))
    one[np.arange(len(names)), of] = np.where(voters, weights, 0.0)
    worth = np.array([np.asarray(gold)[of == i].mean() for i in range(len(known))])
    tally = one[subsets(len(names), n, rng)].sum(1)[:, :-1]
    most = tally.max(1, keepdims=True)
    top = np.isclose(tally, most, rtol=1e-12, atol=0.0) & (most > 0)
    return float(np.where(top.any(1), (top * worth).sum(1) / np.maximum(top.sum(1), 1), 0.0).mean())


def subsets(most: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, n) subsets of n of `most`: all of them, or DRAWN random ones."""
    if comb(most, n) <= EXACT:
        return np.array(list(combinations(range(most), n)))
    return rng.permuted(np.tile(np.arange(most), (DRAWN, 1)), axis=1)[:, :n]


def kl(n: int | np.ndarray) -> np.ndarray:
    """KL of best-of-n from the policy that it samples, log n - (n - 1) / n, in nats: exact without ties, else an upper bound."""
    n = np.asarray(n, dtype=float)
    return np.log(n) - (n - 1) / n

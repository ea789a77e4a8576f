"""Whether scores mean what they say: calibration as it is and after fits on a held-out half, and what length alone moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

from guerdon.evals.bench.metrics import bootstrap
from guerdon.reward_models.calibration import isotonic, temperature
from guerdon.training.statistics import Interval

if TYPE_CHECKING:
    from jaxtyping import Float, Int

BINS = 10


@dataclass
class Bin:
    """Of equal width; p and right are means, NaN where n is 0."""

    low: float
    high: float
    n: int
    p: float
    right: float


@dataclass
class Calibrated:
    """One way to make probabilities of scores, measured on the held-out half."""

    ece: float
    brier: Interval
    bins: list[Bin]


@dataclass
class Calibration:
    """as it is: the scores themselves where all are in [0, 1], else sigmoid(score); temperature: sigmoid(logit / T); isotonic: the
    non-decreasing function of least squares. T and the function are fitted on one half of the items and measured on the other."""

    ways: dict[str, Calibrated]
    temperature: float
    n: int
    """Scores in the measured half."""
    logits: bool
    """The scores were taken as logits."""


def bins_of(p: Float[np.ndarray, " n"], truth: Float[np.ndarray, " n"], bins: int = BINS) -> list[Bin]:
    """The reliability table: bins (low, high] of equal width, the first with 0."""
    of = np.clip(np.ceil(np.asarray(p) * bins).astype(int) - 1, 0, bins - 1)
    table = []
    for b in range(bins):
        mine = of == b
        n = int(mine.sum())
        means = (float(p[mine].mean()), float(truth[mine].mean())) if n else (np.nan, np.nan)
        table.append(Bin(b / bins, (b + 1) / bins, n, *means))
    return table


def ece(table: Sequence[Bin]) -> float:
    """Expected calibration error: sum over bins of n_b / n |mean p - share right|. Source: arXiv:1706.04599."""
    total = sum(b.n for b in table)
    return sum(b.n / total * abs(b.p - b.right) for b in table if b.n)


def calibration(
    scores: Float[np.ndarray, " n"], truth: Float[np.ndarray, " n"], item: Int[np.ndarray, " n"], *, seed: int = 0
) -> Calibration | None:
    """Of scores and what came true (0 or 1); items go to one half or the other as a whole. None where a half would have no or one kind."""
    known = ~np.isnan(scores)
    scores, truth, item = scores[known], np.asarray(truth, dtype=float)[known], np.asarray(item)[known]
    names = np.unique(item)
    held = np.isin(item, np.random.default_rng(seed).permutation(names)[: len(names) // 2])
    if any(len(np.unique(truth[half])) < 2 for half in (held, ~held)):
        return None
    as_logits = bool((scores < 0).any() or (scores > 1).any())
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    logits = scores if as_logits else np.log(clipped / (1 - clipped))
    t = temperature(logits[~held], truth[~held])
    x, y = isotonic(scores[~held], truth[~held])
    ways = {
        "as it is": sigmoid(scores) if as_logits else scores,
        "temperature": sigmoid(logits / t),
        "isotonic": np.interp(scores, x, y),
    }
    return Calibration({name: _measured(p[held], truth[held], item[held]) for name, p in ways.items()}, t, int(held.sum()), as_logits)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x, dtype=float)))


def _measured(p: np.ndarray, truth: np.ndarray, item: np.ndarray) -> Calibrated:
    table = bins_of(p, truth)
    _, of, n = np.unique(item, return_inverse=True, return_counts=True)
    squares = np.stack([np.bincount(of, (p - truth) ** 2), n], 1)  # items may have unlike numbers of scores
    brier = bootstrap([squares], lambda means: means[0][..., 0] / means[0][..., 1], bounds=(0, 1))
    return Calibrated(ece(table), brier, table)


# --- length -------------------------------------------------------------------------------------------------------------------------

LENGTHS = ("right one longer", "right one shorter", "longer preferred", "correlation at equal truth")


def length_terms(scores: Float[np.ndarray, " k"], right: np.ndarray, lengths: np.ndarray) -> Float[np.ndarray, " 4"]:
    """Of one item, NaN where it has no such pair; an answer without a verdict is left out, and equal scores count half.

    Accuracy on its pairs of a right and a wrong answer where the right one is longer, and where it is shorter; the share of such pairs of
    unlike length whose longer answer is preferred; Spearman's correlation of score and length among answers of equal truth (three or more).
    """
    known = ~np.isnan(scores)
    scores, right, lengths = scores[known], np.asarray(right)[known], np.asarray(lengths)[known]
    won = _won(scores[right][:, None], scores[~right][None])
    longer = lengths[right][:, None] - lengths[~right][None]
    preferred = np.where(longer > 0, won, 1 - won)
    found = [_mean(won[longer > 0]), _mean(won[longer < 0]), _mean(preferred[longer != 0])]
    same = [_spearman(scores[mine], lengths[mine]) for mine in (right, ~right)]
    return np.array([*found, _mean(np.array([r for r in same if not np.isnan(r)]))])


def _won(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a > b) + 0.5 * (a == b)


def _mean(x: np.ndarray) -> float:
    return float(x.mean()) if x.size else np.nan


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(spearmanr(a, b).statistic)  # pyright: ignore

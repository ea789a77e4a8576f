"""What the benches measure, on plain arrays: scores (k,) of the answers of one prompt and which of them are right.

NaN is an answer without a verdict. Every function says what it does with one; `bootstrap` gives the intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.registry import Refused, nearest
from guerdon.training.statistics import CELLS, Interval, small_sample_factor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    Scores = Float[np.ndarray, " k"]
    Right = Bool[np.ndarray, " k"]

TIES = np.array([0.30, 0.30, 0.20, 0.20, 0.01])
"""Weights of RewardBench 2's five terms of the subset Ties."""


def best_of_k(scores: Scores, right: Right) -> float:
    """The chance that the answer of the highest score is right, equal highest ones drawn alike: (right ones at the top) / (all at the top).

    One right of four under a constant scorer: 0.25. An answer without a verdict is below all others; without any verdict the draw is over
    all. Source: arXiv:2506.01937, whose code shares the credit so.
    """
    known = np.where(np.isnan(scores), -np.inf, scores)
    return float(right[known == known.max()].mean())


def strict(scores: Scores, right: Right) -> float:
    """1 where every right answer is above every wrong one, else 0; equal scores fail. NaN is below all."""
    known = np.where(np.isnan(scores), -np.inf, scores)
    return float(known[right].min() > known[~right].max())


def not_below(scores: Scores, right: Right) -> float:
    """As `strict`, but equal scores pass. NaN is below all."""
    known = np.where(np.isnan(scores), -np.inf, scores)
    return float(known[right].min() >= known[~right].max())


def reciprocal_rank(scores: Scores, right: Right) -> float:
    """1 / rank of the best right answer, wrong ones of the same score before it. Of one right answer among ten under random scores: 0.293,
    the mean of 1/k. NaN is below all. Source: arXiv:2410.01729."""
    known = np.where(np.isnan(scores), -np.inf, scores)
    return 1.0 / float(1 + (known[~right] >= known[right].max()).sum())


def one_to_one(scores: Scores, right: Right) -> float:
    """The share of pairs of a right and a wrong answer whose right one is higher, equal ones half. NaN is below all."""
    known = np.where(np.isnan(scores), -np.inf, scores)
    good, bad = known[right][:, None], known[~right][None]
    return float(((good > bad) + 0.5 * (good == bad)).mean())


def style_matrix(scores: Scores, right: Right) -> Float[np.ndarray, "s s"]:
    """RM-Bench: cell (i, j) is 1 where the chosen answer of style i is above the rejected one of style j, styles from concise to fancy.

    Source: arXiv:2410.16184. Easy is the mean below the diagonal, normal on it, hard above it.
    """
    known = np.where(np.isnan(scores), -np.inf, scores)
    return (known[right][:, None] > known[~right][None]).astype(float)


def difficulty(matrix: Float[np.ndarray, "... s s"]) -> Float[np.ndarray, "... 3"]:
    """(easy, normal, hard) of matrices of styles."""
    s = matrix.shape[-1]
    below, above = np.tril_indices(s, -1), np.triu_indices(s, 1)
    diagonal = np.arange(s)
    found = [matrix[..., below[0], below[1]], matrix[..., diagonal, diagonal], matrix[..., above[0], above[1]]]
    return np.stack([part.mean(-1) if part.shape[-1] else np.full(matrix.shape[:-2], np.nan) for part in found], -1)


def ties_terms(ref: tuple[Scores, Right] | None, tied: tuple[Scores, Right] | None) -> Float[np.ndarray, " 5"]:
    """Of one prompt of RewardBench 2's subset Ties: accuracy tied, accuracy ref, margin, hard margin, tanh margin; NaN without a side.

    C scores of right answers, W of wrong ones: gap = min C - max W, spread = max C - min C. Accurate: gap > 0. margin: gap of tied >
    spread of tied; hard: the smaller gap of both > spread; tanh(min gap / spread - 1), where x/0 is +-1 and 0/0 counts 0. The subset's
    score is TIES @ (mean of each term). Source: arXiv:2506.01937.
    """
    gaps = [np.nan if side is None else side[0][side[1]].min() - side[0][~side[1]].max() for side in (ref, tied)]
    accurate = [np.nan if np.isnan(gap) else float(gap > 0) for gap in gaps]
    if tied is None or ref is None:
        return np.array([accurate[1], accurate[0], np.nan, np.nan, np.nan])
    spread, least = np.ptp(tied[0][tied[1]]), min(gaps)
    with np.errstate(divide="ignore", invalid="ignore"):
        soft = np.nan_to_num(np.tanh(np.float64(least) / spread - 1), nan=0.0)
    return np.array([accurate[1], accurate[0], float(gaps[1] > spread), float(least > spread), soft])


def pairwise_wins(won: Sequence[bool | None]) -> Float[np.ndarray, " k"]:
    """Scores of one right answer and the k wrong ones that it was compared with, one after the other: it gets its wins + 1, a beaten one 1,
    an unbeaten one k + 2. Without a verdict: not beaten. Source: arXiv:2410.01729."""
    return np.array([1.0 + sum(w is True for w in won), *(1.0 if w else len(won) + 2.0 for w in won)])


# --- step scores --------------------------------------------------------------------------------------------------------------------


def _odds(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return p / (1 - p)


AGGREGATES: dict[str, Callable[[np.ndarray], Any]] = {
    "last": lambda p: p[-1],
    "min": np.min,
    "max": np.max,
    "product": np.prod,
    "geometric mean": lambda p: np.exp(np.mean(np.log(np.maximum(p, 1e-300)))),
    "mean": np.mean,
    "mean logit": lambda p: 1 / (1 + np.exp(-np.mean(np.log(_odds(p))))),
    "mean odds": lambda p: np.maximum(0.0, np.mean(_odds(p))),
}
"""Step scores in (0, 1) as one number; logits and odds of p clipped to [1e-6, 1 - 1e-6]. Source: arXiv:2410.01729."""


def aggregate(value: Any, how: str) -> float:
    """One number of a score, or of a list of step scores without the steps that have none; NaN of none. Refuses an unknown way."""
    if how not in AGGREGATES:
        raise Refused(f"Step scores are put together by {', '.join(AGGREGATES)}, not {how!r}{nearest(how, AGGREGATES)}")
    if not isinstance(value, (list, np.ndarray)):
        return np.nan if value is None else float(value)
    steps = np.array([np.nan if x is None else x for x in value], dtype=float)
    steps = steps[~np.isnan(steps)]
    return float(AGGREGATES[how](steps)) if len(steps) else np.nan


def first_error(steps: Sequence[float | None], threshold: float = 0.5) -> int:
    """The first step whose score is below the threshold, -1 where there is none. A step without a score is passed over."""
    return next((i for i, p in enumerate(steps) if p is not None and p < threshold), -1)


def f1(wrong: Any, right: Any) -> Any:
    """The harmonic mean 2ab / (a + b) of the accuracy on items with an error and on those without; 0 where both are 0. arXiv:2412.06559."""
    wrong, right = np.asarray(wrong, dtype=float), np.asarray(right, dtype=float)
    total = wrong + right
    return np.where(total == 0, 0.0, 2 * wrong * right / np.where(total == 0, 1.0, total))


# --- intervals ----------------------------------------------------------------------------------------------------------------------


def bootstrap(
    strata: Sequence[np.ndarray],
    statistic: Callable[[list[np.ndarray]], Any] = lambda means: means[0][..., 0],
    *,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    level: float = 0.95,
    draws: int = 4_000,
    seed: int = 0,
) -> Interval:
    """A statistic of the means of independent strata, each (n_i, k) or (n_i,) with NaN for what a row does not have, and its interval.

    statistic(means): of one array (..., k) a stratum. Each stratum's rows are drawn anew with replacement, its means moved away from theirs
    by `small_sample_factor`; the interval is cut to `bounds`. Both ends are None where nothing varies that could be drawn.
    """
    parts = [part[:, None] if part.ndim == 1 else part for part in (np.asarray(s, dtype=float) for s in strata)]
    rng = np.random.default_rng(seed)
    centre = [_mean(part) for part in parts]
    value = float(statistic(centre))
    if all(len(part) < 2 for part in parts) or np.isnan(value):
        return Interval(value, None, None)
    drawn = []
    for part, mean in zip(parts, centre, strict=True):
        n = len(part)
        if n < 2:
            drawn.append(np.broadcast_to(mean, (draws, len(mean))))
            continue
        chunk = max(1, CELLS // part.size)
        found = np.concatenate([_mean(part[rng.integers(0, n, (min(chunk, draws - at), n))]) for at in range(0, draws, chunk)])
        drawn.append(mean + small_sample_factor(n, level) * (found - mean))
    low, high = np.nanquantile(statistic(drawn), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(np.clip(low, *bounds)), float(np.clip(high, *bounds)))


def _mean(x: np.ndarray) -> np.ndarray:
    """Means over the rows, axis -2, of what is there; NaN of none."""
    there = ~np.isnan(x)
    n = there.sum(-2)
    return np.where(n > 0, np.where(there, x, 0.0).sum(-2) / np.maximum(n, 1), np.nan)


def averaged(weights: Sequence[float]) -> Callable[[list[np.ndarray]], np.ndarray]:
    """The weighted mean of the strata's first columns, for `bootstrap`."""
    share = np.asarray(weights, dtype=float) / np.sum(weights)
    return lambda means: np.asarray(sum(w * m[..., 0] for w, m in zip(share, means, strict=True)))

"""How far a reward model's scores can be read as probabilities, on answers that it was not fitted on."""

from __future__ import annotations

import numpy as np


def log_loss(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean of -[y log s + (1 - y) log(1 - s)], s = sigmoid(logit / temperature)."""
    z = logits / temperature
    return float(np.mean(np.logaddexp(0, z) - labels * z))


def temperature(logits: np.ndarray, labels: np.ndarray, low: float = 0.05, high: float = 20.0) -> float:
    """The temperature in [low, high] with the least `log_loss`, to three digits. Source: arXiv:1706.04599.

    The loss is convex in 1 / temperature, so a search by golden section finds it.
    """
    a, b, ratio = 1 / high, 1 / low, (np.sqrt(5) - 1) / 2
    for _ in range(80):
        c, d = b - ratio * (b - a), a + ratio * (b - a)
        a, b = (a, d) if log_loss(logits, labels, 1 / c) <= log_loss(logits, labels, 1 / d) else (c, b)
    return float(2 / (a + b))


def isotonic(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(scores, probabilities) of the rising steps that fit the labels best in squares (pool adjacent violators); `np.interp` reads it.

    Equal scores get one probability.
    """
    at, which = np.unique(scores, return_inverse=True)
    count = np.bincount(which).astype(float)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, how many scores
    for mean, weight in zip(np.bincount(which, labels) / count, count, strict=True):
        block = (float(mean), float(weight), 1)
        while blocks and blocks[-1][0] >= block[0]:
            m, w, n = blocks.pop()
            block = ((m * w + block[0] * block[1]) / (w + block[1]), w + block[1], n + block[2])
        blocks.append(block)
    return at, np.repeat([mean for mean, _, _ in blocks], [n for _, _, n in blocks])


def expected_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean over answers of |share of right ones - mean probability| of their bin of equal width."""
    which = np.minimum((probabilities * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    gap = np.abs(np.bincount(which, labels, bins) - np.bincount(which, probabilities, bins))
    return float(gap.sum() / max(count.sum(), 1))


def interval(values: np.ndarray, rounds: int = 1000, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (rounds, len(values)))].mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))

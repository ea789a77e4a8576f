"""Seven named features against 256 numbers of an embedding: what is preferred, from few pairs.

Preferences are drawn from a judge whose worth of an answer is a saturating function of seven qualities; a scorer sees each quality with
noise. The embedding mixes the qualities and 60 other directions through a tanh into 256 numbers. Both models are `fit_features`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from guerdon.reward_models import fit_features

CLAIM = (
    "means of the seeds: accuracy on unseen pairs of the features with 200 pairs is no lower than that of the embedding with 4000, and in "
    "every seed at least 0.9 of the best there is; best of 16 is worth more than with the embedding at 200 pairs; without the two features "
    "that matter most accuracy falls by 5 points or more"
)
BASELINE = "a net of 16 on the embedding, 200 and 4000 pairs"
METHOD = "fit_features on seven named features (6, 4, 2), 200 pairs; without its key term, the two features that matter most"
SEEDS = (0, 1, 2)
NAMES = ["coverage", "faithful", "opinions", "concise", "relevant", "grounded", "language"]
WEIGHTS = np.array([3.0, 2.5, 1.5, 1.0, 1.0, 0.8, 0.5])


def drawn(rng: np.random.Generator, mix: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(worth (n,), features as scored (n, 7), embedding (n, 256))."""
    quality = rng.random((n, 7))
    worth = 3 * np.tanh(2 * quality - 1) @ WEIGHTS / WEIGHTS.sum() * 3
    other = rng.normal(size=(n, 60))
    embedding = np.tanh(np.concatenate([4 * quality - 2, other], 1) @ mix / 4) + 0.1 * rng.normal(size=(n, mix.shape[1]))
    return worth, quality + 0.1 * rng.normal(size=(n, 7)), embedding


def measure(variant: str, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(67, 256))
    worth, features, embedding = drawn(rng, mix, 8000)
    first = rng.random(4000) < 1 / (1 + np.exp(worth[1::2] - worth[::2]))
    pairs = np.arange(8000).reshape(-1, 2)
    pairs = np.where(first[:, None], pairs, pairs[:, ::-1])
    worth_t, features_t, embedding_t = drawn(rng, mix, 8000)
    says = rng.random(4000) < 1 / (1 + np.exp(worth_t[1::2] - worth_t[::2]))

    def found(r: np.ndarray) -> dict[str, float]:
        picks = r.reshape(500, 16).argmax(1)
        best = float(worth_t.reshape(500, 16)[np.arange(500), picks].mean())
        return {"value": round(float(((r[::2] > r[1::2]) == says).mean()), 4), "best of 16": round(best, 4)}

    if variant == "baseline":
        several = {}
        for n, epochs in ((200, 60), (4000, 12)):
            model = fit_features([str(i) for i in range(256)], embedding, pairs[:n], (16,), lr=0.003, epochs=epochs, decay=0.1, seed=seed)
            several[n] = found(model(embedding_t))
        return several[4000] | {
            "at 200": several[200]["value"],
            "best of 16 at 200": several[200]["best of 16"],
            "best": found(worth_t)["value"],
        }
    columns = list(range(7)) if variant == "method" else list(range(2, 7))
    names = [NAMES[k] for k in columns]
    model = fit_features(names, features[:, columns], pairs[:200], epochs=100, lr=0.01, decay=0.01, seed=seed)
    felt = model.sensitivity(features_t[:, columns])
    return found(model(features_t[:, columns])) | {"most felt": names.index(max(felt, key=lambda name: felt[name]))}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    level = np.mean([m["value"] for m in method]) >= np.mean([b["value"] for b in baseline])
    near = all(m["value"] >= 0.9 * b["best"] and m["best of 16"] > b["best of 16 at 200"] for b, m in zip(baseline, method, strict=True))
    return bool(level and near)

"""What a reward model has learnt to see: linear probes on its frozen features, and how far a sample lies from what it knows.

Features are the last hidden state of a frozen model at the last token of an answer. A probe of a dimension (harmlessness, coherence ...)
is a linear classifier without bias on them; its test accuracy is the dimension's score, and the benchmark's the mean over dimensions.
At inference the distance to the centroids of each dimension says which one a prediction leans on, and the least distance how familiar the
sample is: samples that are far from all are dropped from training. Source: arXiv:2511.12464.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, softmax

from guerdon.registry import Refused

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from guerdon.backends.base import Model
    from guerdon.samples import Sample

    Features = Float[np.ndarray, "n d"]


def features(model: Model, samples: Sequence[Sample], batch: int = 64) -> Features:
    """(n, d) the model's hidden state at each answer's last token, without gradient and without dropout.

    A sample of text alone, or of another tokenizer, is read without an end token. The place is that of the last token by length, never the
    first padding id. Raises Refused for an empty answer, and where the model has no hidden states to give.
    """
    from guerdon.reward_models.heads import one_behind, own_tokens
    from guerdon.samples import Grain, Rewards, Sample, Task, collate

    if "hidden" not in model.capabilities:
        raise Refused("Probes need the hidden states of a model, which this backend does not give; open it with the backend local.")
    rows = [own_tokens(model, sample)[:2] for sample in samples]
    for sample, (_, ids) in zip(samples, rows, strict=True):
        if not len(ids):
            raise Refused(f"The sample of task {sample.task.id!r} is empty; a probe reads the state at an answer's last token.")
    order = np.argsort([len(prompt) + len(ids) for prompt, ids in rows], kind="stable")
    out: list[Any] = [None] * len(rows)
    for start in range(0, len(order), batch):
        part = order[start : start + batch].tolist()
        made = [Sample(Task("", ""), "", rows[i][0], ids=np.asarray(rows[i][1])) for i in part]
        wide = one_behind(collate(made, Rewards(Grain.of(np.zeros(len(made))))))
        hidden = model.forward(wide, ("hidden",))[0]["hidden"].double().cpu().numpy()
        for i, states in zip(part, hidden, strict=True):
            out[i] = states[len(rows[i][1])]  # column t stands before token t, so that behind the last one stands its own state
    return np.stack(out)


@dataclass(frozen=True)
class Probe:
    """A linear classifier without bias on features divided by their root mean square."""

    weights: Float[np.ndarray, "d c"]
    scale: float

    def predict(self, x: Features) -> Int[np.ndarray, " n"]:
        return (x @ self.weights / self.scale).argmax(1)

    def accuracy(self, x: Features, labels: Int[np.ndarray, " n"]) -> float:
        """The share that is predicted right; the accuracy of a dimension is that on test data."""
        return float((self.predict(x) == np.asarray(labels)).mean())


def probe(x: Features, labels: Int[np.ndarray, " n"], decay: float = 1e-3) -> Probe:
    """The minimum of mean cross-entropy + decay |W|^2 / 2 over W (d, classes), by L-BFGS; two classes are as one logit and BCE.

    The release takes one epoch of AdamW at the best of three rates; the problem is convex, so that its own solution needs no rate and no
    seed. Raises Refused for labels that are not 0, 1 ... or of one class.
    """
    labels = np.asarray(labels)
    classes = int(labels.max(initial=0)) + 1
    if classes < 2 or labels.min(initial=0) < 0 or not np.array_equal(labels, labels.astype(int)):
        raise Refused(f"A probe needs labels 0, 1 ... of two classes or more, not {sorted(set(labels.tolist()))[:5]}.")
    labels = labels.astype(int)
    scale = float(np.sqrt((x**2).mean())) or 1.0
    z, one = x / scale, np.eye(classes)[labels]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(x.shape[1], classes)
        logits = z @ w
        value = -(one * log_softmax(logits, axis=1)).sum(1).mean() + 0.5 * decay * (w**2).sum()
        return float(value), (z.T @ (softmax(logits, axis=1) - one) / len(z) + decay * w).ravel()

    found = minimize(loss, np.zeros(x.shape[1] * classes), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return Probe(found.x.reshape(x.shape[1], classes), scale)


def probed(
    train: Mapping[str, tuple[Features, Int[np.ndarray, " n"]]],
    test: Mapping[str, tuple[Features, Int[np.ndarray, " n"]]],
    decays: Sequence[float] = (1e-4, 1e-3, 1e-2),
) -> dict[str, float]:
    """Test accuracy of each dimension, and "mean". The decay is chosen on the last fifth of the dimension's training rows."""
    scores = {}
    for name, (x, labels) in train.items():
        cut = max(1, len(x) // 5)
        best = max(decays, key=lambda decay: probe(x[:-cut], labels[:-cut], decay).accuracy(x[-cut:], labels[-cut:]))
        scores[name] = probe(x, labels, best).accuracy(*test[name])
    return {**scores, "mean": float(np.mean(list(scores.values())))}


@dataclass(frozen=True)
class Familiar:
    """Centroids of each dimension's validation features, and a threshold of the least distance."""

    centroids: dict[str, Float[np.ndarray, "k d"]]
    threshold: float

    def distances(self, x: Features) -> dict[str, Float[np.ndarray, " n"]]:
        """Of each row to the nearest centroid of each dimension, ||h - c||."""
        return {name: cdist(x, c).min(1) for name, c in self.centroids.items()}

    def leans_on(self, x: Features) -> list[str]:
        """The dimension whose centroid is nearest."""
        found = self.distances(x)
        names = list(found)
        return [names[i] for i in np.argmin(np.stack(list(found.values())), 0).tolist()]

    def d_min(self, x: Features) -> Float[np.ndarray, " n"]:
        """The least distance: small where the model is on known ground."""
        return np.min(np.stack(list(self.distances(x).values())), 0)

    def keep(self, x: Features) -> np.ndarray:
        """(n,) whether a sample stays in training: d_min <= threshold."""
        return self.d_min(x) <= self.threshold


def familiar(
    validation: Mapping[str, tuple[Features, Int[np.ndarray, " n"]]], clusters: int = 2, quantile: float = 0.8, seed: int = 0
) -> Familiar:
    """Centroids by k-means (k-means++, scipy) within each label of each dimension; the threshold is a quantile of d_min on these rows.

    The paper's threshold of 140 belongs to one model's distances: a quantile carries over. A label with no more unlike rows than clusters
    has these as centroids.
    """
    if not 0 < quantile <= 1:
        raise Refused(f"The quantile of the least distance lies in (0, 1], not {quantile}.")
    centroids = {}
    for name, (x, labels) in validation.items():
        parts = [x[np.asarray(labels) == label] for label in np.unique(labels)]
        centroids[name] = np.concatenate([_centroids(part, clusters, seed) for part in parts])
    found = Familiar(centroids, np.inf)
    rows = np.concatenate([x for x, _ in validation.values()])
    return Familiar(centroids, float(np.quantile(found.d_min(rows), quantile)))


def _centroids(x: Features, clusters: int, seed: int) -> Float[np.ndarray, "k d"]:
    unlike = np.unique(x, axis=0)
    return unlike if len(unlike) <= clusters else kmeans2(x, clusters, minit="++", seed=seed)[0]  # pyright: ignore[reportCallIssue]

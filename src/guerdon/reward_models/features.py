"""A small net over features that have names: what is preferred as a function of a few qualities, learnt from some hundred pairs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from guerdon.registry import Refused, nearest
from guerdon.samples import Context, Grain, Rewards, Sample, State
from guerdon.shaping.core import shape

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Activation = Literal["tanh", "relu", "sigmoid", "none"]
SQUASH = {
    "tanh": np.tanh, "relu": lambda x: np.maximum(x, 0.0), "sigmoid": lambda x: np.exp(-np.logaddexp(0.0, -x)), "none": lambda x: x,
}  # fmt: skip


@dataclass
class FeatureModel:
    """r(phi) = linear(act(... act(linear(phi)))): a net from k named features, in the order of `names`, to one number; no activation behind
    it, where a ReLU would give 0 and no gradient for both sides of a pair."""

    names: list[str]
    layers: list[tuple[np.ndarray, np.ndarray]]
    """(weight (out, in), bias (out,)) of each linear layer; the last has one output."""
    activation: Activation = "tanh"

    def __call__(self, x: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.names):
            raise Refused(f"This model reads {len(self.names)} features ({', '.join(self.names)}), not an array of shape {x.shape}.")
        for i, (weight, bias) in enumerate(self.layers):
            x = x @ weight.T + bias
            if i < len(self.layers) - 1:
                x = SQUASH[self.activation](x)
        return x[:, 0]

    def sensitivity(self, x: Float[np.ndarray, "n k"], by: float = 0.1) -> dict[str, float]:
        """For each feature the mean over rows of what r changes when that feature alone rises by `by`, divided by `by`."""
        x = np.asarray(x, dtype=np.float64)
        base = self(x)
        return {name: float((self(x + by * (np.arange(len(self.names)) == k)) - base).mean() / by) for k, name in enumerate(self.names)}

    def save(self, path: str | Path) -> None:
        """One JSON file: names, activation, layers."""
        layers = [[weight.tolist(), bias.tolist()] for weight, bias in self.layers]
        Path(path).write_text(json.dumps({"names": self.names, "activation": self.activation, "layers": layers}))

    @classmethod
    def load(cls, path: str | Path) -> FeatureModel:
        """Raises Refused for a file that `save` has not written."""
        try:
            data = json.loads(Path(path).read_text())
            layers = [(np.array(weight, dtype=np.float64), np.array(bias, dtype=np.float64)) for weight, bias in data["layers"]]
            names, activation = [str(name) for name in data["names"]], data["activation"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Refused(f"{path} is not a feature model that `FeatureModel.save` wrote: {error}.") from error
        sizes = [len(names), *(len(bias) for _, bias in layers)]
        whole = all(weight.shape == (out, into) for (weight, _), into, out in zip(layers, sizes[:-1], sizes[1:], strict=True))
        if activation not in SQUASH or not layers or sizes[-1] != 1 or not whole:
            raise Refused(f"{path}: its layers do not lead from {len(names)} features to one number; fit the model again.")
        return cls(names, layers, activation)


def fit_features(
    names: Sequence[str],
    x: Float[np.ndarray, "n k"],
    pairs: Int[np.ndarray, "p 2"],
    hidden: Sequence[int] = (6, 4, 2),
    activation: Activation = "tanh",
    lr: float = 0.01,
    epochs: int = 200,
    batch: int = 64,
    decay: float = 0.0,
    seed: int = 0,
) -> FeatureModel:
    """The model of features x (n, k), one row an answer, that minimises the mean over pairs (chosen, rejected) of -log sigmoid(r_c - r_r).

    hidden: sizes of the layers between, () for a linear model. Adam with weight decay `decay`. Raises Refused for features that are not
    finite, another number of names, and without pairs. Source: arXiv:2402.15473, whose 7 features are scores of 0 to 5 by a prompted model,
    divided by 5; its released net has an activation behind the first and the last layer only, here behind every layer but the last.
    """
    import torch
    import torch.nn.functional as F
    from torch import nn

    x, pairs = np.asarray(x, dtype=np.float64), np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    if x.ndim != 2 or x.shape[1] != len(names):
        raise Refused(f"fit_features: {len(names)} names, but features of shape {x.shape}; give a column for each name.")
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise Refused(f"fit_features: the feature {names[column]!r} of row {row} is {x[row, column]}; leave the row out, or fill it in.")
    if not len(pairs):
        raise Refused("fit_features: there are no pairs to learn from.")
    generator = torch.Generator().manual_seed(seed)
    sizes = [x.shape[1], *hidden, 1]
    layers = []
    for into, out in itertools.pairwise(sizes):
        weight = nn.init.xavier_uniform_(torch.empty(out, into, dtype=torch.float64), generator=generator)
        layers.append((weight.requires_grad_(), torch.zeros(out, dtype=torch.float64, requires_grad=True)))
    act: Any = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "none": lambda z: z}[activation]
    optimizer = torch.optim.AdamW([p for layer in layers for p in layer], lr=lr, weight_decay=decay)
    features, order = torch.from_numpy(x), torch.from_numpy(pairs)

    def score(z: torch.Tensor) -> torch.Tensor:
        for weight, bias in layers[:-1]:
            z = act(F.linear(z, weight, bias))
        return F.linear(z, *layers[-1])[..., 0]

    for _ in range(epochs):
        for part in torch.randperm(len(order), generator=generator).split(batch):
            chosen, rejected = score(features[order[part]]).T
            optimizer.zero_grad()
            (-F.logsigmoid(chosen - rejected).mean()).backward()
            optimizer.step()
    return FeatureModel(list(names), [(weight.detach().numpy(), bias.detach().numpy()) for weight, bias in layers], activation)


@shape(scope="sample", grains=("outcome",), changes_state=True)
class feature_model:
    """r(phi) of a `FeatureModel` in the file `path`; phi: the parts of the expression that it shapes, or numeric columns, by their names.

    `mean(coverage, faithful, concise) | feature_model("preferences.json")`: the mean only lists the features. An answer one of whose
    features abstained abstains; one of whose features failed fails. Without a path r is the reward that it stands on. Raises Refused for a
    feature that is not there. Source: arXiv:2402.15473.
    """

    def __init__(self, path: str | None = None) -> None:
        self.model = None if path is None else FeatureModel.load(path)

    def __call__(self, rewards: Rewards, samples: Sequence[Sample], context: Context) -> Rewards:
        assert rewards.outcome is not None
        if self.model is None or not len(samples):
            return Rewards(outcome=rewards.outcome)
        columns = [_column(name, rewards, samples) for name in self.model.names]
        state = np.max([g.state for g in columns], axis=0)  # FAILED is above ABSTAINED, and that above SCORED
        reason = {cell: f"{name}: {why}" for name, g in zip(self.model.names, columns, strict=True) for cell, why in g.reason.items()}
        value = self.model(np.stack([g.value for g in columns], 1))
        return Rewards(outcome=Grain.of(value, state, {cell: why for cell, why in reason.items() if state[cell] != State.SCORED}))


def _column(name: str, rewards: Rewards, samples: Sequence[Sample]) -> Grain:
    if name in rewards.parts:
        grain = rewards.parts[name].rewards.outcome
        if grain is None:
            raise Refused(f"feature_model: its feature {name!r} is a reward of steps or tokens here; it must be one of whole answers.")
        return grain
    if all(isinstance(s.meta.get(name), (int, float)) for s in samples):
        return Grain.of([float(s.meta[name]) for s in samples])
    raise Refused(f"feature_model: its feature {name!r} is no part of the reward and no numeric column{nearest(name, rewards.parts)}")

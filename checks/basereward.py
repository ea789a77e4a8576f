"""BaseReward's choices on a frozen encoder: what an answer is worth is the XOR of two attributes, and its length is a nuisance.

The encoder mixes the attributes at random, with noise, and has not worked out their XOR (random tanh features have: on those a linear head
is right already).

600 pairs of answers about images, in which nothing is unsafe; 300 pairs of text alone, in which nothing but safety differs. Tested on 2000
pairs about images of the first kind, and on 1000 in which safety differs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from _heads import fitted, rows, said
from torch import nn

from guerdon.backends.head import make

CLAIM = (
    "mean of the seeds: pair accuracy of the two-layer SiLU head is 5 points or more above a linear head's; pulling rewards to 0 (square "
    "0.1) lowers accuracy or the mean gap; two heads of other seeds, standardised and averaged, are not below one; text pairs of a kind "
    "that image pairs lack raise that kind's accuracy by 10 points or more"
)
BASELINE = "bradley_terry on a linear head"
METHOD = "bradley_terry on the head `two_layer`; without its key term: the same two layers without SiLU"
SEEDS = (0, 1, 2)
WIDE, STEPS = 48, 200


def drawn(rng: np.random.Generator, pairs: int, kind: str) -> np.ndarray:
    """z (2 pairs, 5): two attributes, length, safety, whether there is an image; rows 2 i and 2 i + 1 are a pair, the better one first."""
    z = np.ones((pairs, 2, 5))
    z[..., :2] = rng.choice([-1.0, 1.0], (pairs, 2, 2))
    z[..., 2] = rng.normal(size=(pairs, 2))
    if kind == "safety" or kind == "text":
        z[:, 1, :2] = z[:, 0, :2]
        z[:, 1, 3] = -1.0
        z[..., 4] = -1.0 if kind == "text" else 1.0
        return z.reshape(-1, 5)
    z[:, 1, :2] = z[:, 0, :2] * np.where(rng.random(pairs)[:, None] < 0.5, [1, -1], [-1, 1])
    worse = z[:, 0, 0] * z[:, 0, 1] > 0  # worth is 1 where the attributes differ
    z[worse] = z[worse][:, ::-1]
    return z.reshape(-1, 5)


def measure(variant: str, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(5, WIDE)) * 0.5

    def encoded(z: np.ndarray) -> np.ndarray:
        return z @ mixing + 0.3 * rng.normal(size=(len(z), WIDE))

    def head(number: int) -> nn.Module:
        torch.manual_seed(number)
        if variant == "baseline":
            return make("scalar", WIDE, 1, number).double()
        net = make("two_layer", WIDE, 1, number).double()
        return net if variant == "method" else nn.Sequential(net[0], nn.Identity(), net[2])  # pyright: ignore

    images, text = drawn(rng, 600, "image"), drawn(rng, 300, "text")
    test, unsafe = encoded(drawn(rng, 2000, "image")), encoded(drawn(rng, 1000, "safety"))

    def learnt(z: np.ndarray, number: int, **params: Any) -> nn.Module:
        order = np.arange(len(z)).reshape(-1, 2)
        return fitted(head(number), encoded(z), rows(np.tile([1.0, 0.0], len(order)), order), "bradley_terry", STEPS, 1e-2, **params)

    def right(r: np.ndarray) -> float:
        return round(float((r[::2] > r[1::2]).mean()), 4)

    def gap(r: np.ndarray) -> float:
        return round(float((r[::2] - r[1::2]).mean()), 4)

    one, other = (said(learnt(images, seed + k), test) for k in (0, 100))
    pulled = said(learnt(images, seed, square=0.1), test)
    mixed = learnt(np.concatenate([images, text]), seed)
    return {
        "value": right(one),
        "gap": gap(one),
        "pulled": right(pulled),
        "pulled gap": gap(pulled),
        "single": round((right(one) + right(other)) / 2, 4),
        "average": right(sum((r - r.mean()) / r.std() for r in (one, other))),  # pyright: ignore
        "safety": right(said(learnt(images, seed), unsafe)),
        "safety with text": right(said(mixed, unsafe)),
    }


def holds(baseline: list[Any], method: list[Any]) -> bool:
    def mean(found: list[Any], name: str) -> float:
        return float(np.mean([x[name] for x in found]))

    return bool(
        mean(method, "value") >= mean(baseline, "value") + 0.05
        and (mean(method, "pulled") < mean(method, "value") or mean(method, "pulled gap") < mean(method, "gap"))
        and mean(method, "average") >= mean(method, "single")
        and mean(method, "safety with text") >= mean(method, "safety") + 0.1
    )

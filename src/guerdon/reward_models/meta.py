"""Reward models that keep telling a policy's answers apart as it moves: a step on old pairs, taken where new answers are apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def meta_step(
    parameters: Iterable[Tensor], spread: Callable[[], Tensor], loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer, eta: float
) -> tuple[float, float]:
    """One MetaRM step: theta' = theta - eta * gradient of `spread` at theta; the optimizer's step from theta by the gradient of `loss` at
    theta'. Returns the values of both.

    spread: what pulls the scores of the new policy's answers apart when minimised, `score_spread` on a batch of them without labels.
    loss: `bradley_terry` or another loss on the old pairs. Both are called with the parameters as they then stand and give a scalar that
    requires a gradient. First order: theta' is held fixed. Source: arXiv:2401.06080 (MetaRM), which writes the first step as an ascent.
    """
    moved = list(parameters)
    apart = spread()
    found = torch.autograd.grad(apart, moved, allow_unused=True)
    before = [p.detach().clone() for p in moved]
    with torch.no_grad():
        for p, g in zip(moved, found, strict=True):
            p.sub_(eta * g if g is not None else torch.zeros_like(p))
    optimizer.zero_grad()
    value = loss()
    value.backward()
    with torch.no_grad():
        for p, old in zip(moved, before, strict=True):
            p.copy_(old)
    optimizer.step()
    return float(apart.detach()), float(value.detach())

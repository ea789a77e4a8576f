"""The capability `grad_dot`: gradients kept apart by name, and their inner products."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from guerdon.registry import Refused, nearest

if TYPE_CHECKING:
    from torch import Tensor


class Gradients:
    """Named gradients of what a model's optimiser moves. They live in memory, and are in no checkpoint."""

    def __init__(self, moved: Callable[[], Mapping[str, Tensor]]) -> None:
        """moved: by name, the tensors that the optimiser moves now."""
        self.moved = moved
        self.kept: dict[str, dict[str, Tensor]] = {}

    def keep(self, name: str) -> None:
        """See `Model.grad_keep`."""
        self.kept[name] = {key: p.grad for key, p in self.moved().items() if p.grad is not None}
        for p in self.moved().values():
            p.grad = None

    def add(self, name: str, factor: float = 1.0) -> None:
        """See `Model.grad_add`."""
        kept = self._kept(name)
        for key, p in self.moved().items():
            if key in kept:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                _front(p.grad, kept[key]).add_(kept[key], alpha=factor)

    def dot(self, a: str, b: str) -> float:
        """See `Model.grad_dot`."""
        first, second = self._kept(a), self._kept(b)
        parts = [(_front(first[key], second[key]), _front(second[key], first[key])) for key in first if key in second]
        return float(sum((x * y).sum(dtype=torch.float64) for x, y in parts))

    def _kept(self, name: str) -> dict[str, Tensor]:
        if name not in self.kept:
            raise Refused(f"No gradient {name!r} is kept{nearest(name, self.kept)}")
        return self.kept[name]


def _front(x: Tensor, y: Tensor) -> Tensor:
    """The rows of x that y has too: a table grows behind its end."""
    return x[: len(y)] if x.ndim else x

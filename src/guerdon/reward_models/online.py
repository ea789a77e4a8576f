"""Models that learn beside the policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from guerdon.losses.core import shared, units
from guerdon.registry import find
from guerdon.reward_models.heads import one_behind

if TYPE_CHECKING:
    from torch import Tensor

    from guerdon.backends.base import LossCall, Model
    from guerdon.samples import Batch, Context


def ready(batch: Batch, losses: Sequence[LossCall], aggregate: Callable[[Batch], Tensor]) -> tuple[Batch, list[LossCall]]:
    """(the batch as the losses take it: weighted, with its units, a column behind where they read one; those that have rows in it)."""
    part = replace(batch, weights=aggregate(batch), unit=units(batch, [call.name for call in losses]))
    calls = shared(losses, part)
    behind = any(find("loss", call.name).about.get("behind") for call in calls)
    return one_behind(part) if behind else part, calls


@dataclass
class Learner:
    """A model of the run and how it is trained: one optimiser step on the whole batch each time `update` is called."""

    name: str
    model: Model
    losses: Sequence[LossCall]
    aggregate: Callable[[Batch], Tensor]
    lr: float
    clip: float | None
    temperature: float = 1.0

    def update(self, batch: Batch, context: Context) -> dict[str, float]:
        """Metrics of the losses by `NAME/...`; none, and no step, where no row of the batch counts."""
        part, calls = ready(batch, self.losses, self.aggregate)
        if not calls:
            return {}
        values, usage = self.model.forward_backward(part, calls, self.temperature)
        context.spend("update", usage)
        return {f"{self.name}/{key}": value for key, value in (values | self.model.optim_step(self.lr, self.clip)).items()}

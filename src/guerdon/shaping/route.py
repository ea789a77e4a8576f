"""Which reward applies to which task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.samples import Context, Rewards, Sample, State
from guerdon.shaping.core import shape


@shape(scope="sample", changes_state=True, example={"field": "kind", "value": "choice"})
def only(rewards: Rewards, samples: Sequence[Sample], context: Context, field: str, value: Any) -> Rewards:
    """The reward where `meta` says field = value (of one of a list of values), abstained on all other samples, whatever it said of them.

    A sum leaves out what abstained, so rewards of several kinds of task are routed by adding them:
    (choice | only("kind", "choice")) + (iou | only("kind", "box")). Source: arXiv:2505.24164.
    """
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    found = [{**s.task.meta, **s.meta}.get(field) for s in samples]
    out = rewards.map(lambda g: g.value)
    for i in (i for i, kind in enumerate(found) if kind not in values):
        for _, g in out.grains():
            g.state[i], g.value[i] = State.ABSTAINED, 0.0
            g.reason = {cell: why for cell, why in g.reason.items() if cell[0] != i}
            g.reason[(i, *(0,) * (np.ndim(g.value) - 1))] = f"meta.{field} is {str(found[i])[:40]!r}"
    return out

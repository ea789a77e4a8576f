"""Shapes that keep values in bounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Context, Rewards, Sample
from guerdon.shaping.core import shape


@shape(scope="sample")
def clip(rewards: Rewards, samples: Sequence[Sample], context: Context, low: float = -1.0, high: float = 1.0) -> Rewards:
    """min(max(r, low), high) of every scored value, in every grain. Raises Refused where low is above high."""
    if low > high:
        raise Refused(f"clip(low={low}, high={high}): low is above high; swap them.")
    return rewards.map(lambda g: np.clip(g.value, low, high))

"""How much of a step's loss is imitation: mu in [0, 1], times the terms `of: expert`; 1 - mu times those `of: policy`."""

from __future__ import annotations

from guerdon.registry import Refused, registrar
from guerdon.samples import Progress

mix = registrar("mix")
"""(progress) -> mu; or a class with that `__call__`, and hooks as every stateful piece may have."""


@mix
def fixed(progress: Progress, mu: float = 0.5) -> float:
    """mu, always. Raises Refused outside [0, 1]."""
    if not 0 <= mu <= 1:
        raise Refused(f"fixed(mu={mu}): mu is the share of imitation, within [0, 1].")
    return mu

"""Rewards of answers that one thought gave at several exits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Context, Rewards, Sample
from guerdon.shaping.core import shape


@shape(scope="group", grains=("outcome",))
def s_grpo(rewards: Rewards, samples: Sequence[Sample], context: Context, decay: float = 0.5) -> Rewards:
    """r * decay^k, k the number of right samples (r above 0) of the same thought at earlier exits.

    So of a thought's right answers the first gets r, the next r / 2, then r / 4; a wrong one keeps what it has, 0. Exits are those of the
    rollout `serial_exits` (meta thought, exit), the whole rollout the last; a sample without an exit is the only one of its thought.
    decay 1 rewards all right answers alike, 0 the first alone. Samples without a verdict are not counted. Raises Refused for a decay
    outside 0 to 1. Source: arXiv:2505.07686 (S-GRPO).
    """
    if not 0 <= decay <= 1:
        raise Refused(f"s_grpo(decay={decay}): the decay is a number from 0 to 1.")
    out = rewards.map(lambda g: g.value.copy())
    old, new = rewards.outcome, out.outcome
    assert old is not None
    assert new is not None
    exits: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for i in np.flatnonzero(old.scored & (old.value > 0)).tolist():
        meta = samples[i].meta
        if "exit" in meta:
            exits.setdefault((samples[i].group, meta.get("thought", 0)), []).append((meta["exit"], i))
    for right in exits.values():
        for exit, i in right:
            new.value[i] *= decay ** sum(other < exit for other, _ in right)
    return out

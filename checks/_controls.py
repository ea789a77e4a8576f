"""What a reward is compared with: the same values without their information."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.samples import Context, Grain, Rewards, Sample
from guerdon.shaping import shape


@shape
def shuffled(rewards: Rewards, samples: Sequence[Sample], context: Context) -> Rewards:
    """Every sample gets the reward of another one of its batch, drawn anew each time."""
    assert rewards.outcome is not None
    order = np.random.default_rng((context.progress.step, len(samples))).permutation(len(samples))
    return Rewards(outcome=Grain.of(rewards.outcome.value[order], rewards.outcome.state[order]))

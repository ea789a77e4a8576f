"""A learned reward behind a verifier: the verifier says right or wrong, the learned reward orders answers within each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample, State
from guerdon.shaping.core import shape
from guerdon.shaping.squash import sigmoid


@shape(scope="sample", grains=("outcome",), changes_state=True, example={"verifier": "exact"})
def verified(rewards: Rewards, samples: Sequence[Sample], context: Context, verifier: Rewards, alpha: float = 0.5) -> Rewards:
    """sigmoid(alpha * r) + (v - 1), r the learned reward that is shaped, v the verifier held to [0, 1]: `orm | verified(math)`.

    A right answer lies in [0, 1], a wrong one in [-1, 0], whatever r says. An answer that r abstains on lies at the bottom of its class,
    v - 1; one that the verifier abstains on belongs to neither and abstains; a failed side fails it. The sigmoid is flat for |alpha r|
    above 5: where scores are that large, lower alpha or normalise them first, `orm | running_norm() | verified(math)`.
    Raises Refused for a verifier of steps or tokens, and for alpha of 0 or less. Source: arXiv:2409.12122.
    """
    if alpha <= 0:
        raise Refused(f"verified(alpha={alpha}): alpha is above 0, or a higher score would not be a better answer.")
    if verifier.outcome is None:
        raise Refused("verified(verifier): the verifier must be a reward of whole answers; write verified(math).")
    assert rewards.outcome is not None
    r, v = rewards.outcome, verifier.outcome
    state = np.where(r.failed | v.failed, State.FAILED, v.state)
    reason = {cell: why for cell, why in {**r.reason, **v.reason}.items() if state[cell] != State.SCORED}
    return Rewards(outcome=Grain.of(np.where(r.scored, sigmoid(alpha * r.value), 0.0) + v.value.clip(0, 1) - 1, state, reason))

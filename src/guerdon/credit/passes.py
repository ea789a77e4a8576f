"""Credit of programs that are run against tests, turn by turn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from guerdon.credit.core import centred, credit, on_tokens, spread, step_rewards
from guerdon.credit.judged import with_steps, within_group

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch


@credit(grains=("outcome", "step"))
def verpo(batch: Batch, beta: float = 0.5, gamma: float = 0.95) -> Float[Tensor, "n t"]:
    """A = (o gamma^turns - its mean over the group) + beta (r - mean of r over all turns of the group), the second on the turn's tokens.

    A turn is a step; a sample without steps is one turn. o is the outcome, 1 where all tests pass, and r the
    turn's reward, which the shape `verpo` makes: `solved + (tests | verpo)`. Nothing is divided by a standard deviation, which the paper
    finds to hurt. A turn without a verdict adds 0. beta 0 and gamma 1 is `dr_grpo`. Source: arXiv:2601.03525; beta and gamma are assumed.
    """
    view = with_steps(batch)
    value, scored, _ = step_rewards(view)
    whole = batch.rewards.outcome
    if whole is not None:
        turns = (view.step_of.amax(1) + 1).clamp(min=1).double()
        whole = replace(whole, value=whole.value * (gamma**turns).cpu().numpy())
    outcome, _ = centred(replace(batch, rewards=replace(batch.rewards, outcome=whole)))
    return spread(outcome, batch) + beta * on_tokens(within_group(value, scored, batch)[0], view)

"""Rewards from the probability that a model gives the reference answer after the sample's own thought: no verifier is needed.

The model is asked by name (`model="policy"` unless set): frozen or moving, the policy itself or another one. What it says is a constant of
the update: no gradient flows through a reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from guerdon.rewards.core import reward
from guerdon.rewards.likelihood import Forced, in_answer, logprobs
from guerdon.samples import Sample, Verdict


def reference_logprobs(model: Any, samples: Sequence[Sample], thought: bool = True) -> list[np.ndarray | Verdict]:
    """For each sample log pi(a_j | prompt, thought, a_<j) of the tokens a of its task's reference, (m,); or why there are none."""
    return logprobs(model, [_row(model, sample, thought) for sample in samples])


def _row(model: Any, sample: Sample, thought: bool) -> Forced | Verdict:
    reference = sample.task.reference
    return Verdict.fail("the task has no reference") if reference is None else in_answer(model, sample, str(reference), thought)


def each(found: Sequence[np.ndarray | Verdict], value: Callable[[np.ndarray], float]) -> list[Verdict]:
    """A verdict a sample: the value of its log-probabilities; failed where the reference has no tokens."""
    empty = Verdict.fail("the reference is an empty text")
    return [x if isinstance(x, Verdict) else Verdict(float(value(x))) if len(x) else empty for x in found]


@reward(batch=True)
def rlpr(sample: list[Sample], model: Any = "policy", debias: bool = True) -> list[Verdict]:
    """max(0, B - A): how much the thought raises the mean probability of the reference's tokens.

    B = mean over j of pi(a_j | prompt, thought, a_<j), with the reference a in the place of the sample's answer; A the same without the
    thought. debias False: B alone. The mean of probabilities, not their product: one unexpected synonym does not undo the rest. 0 without
    an answer; failed without a reference. The release adds 0.1 * format to 0.9 times this. Source: arXiv:2506.18254, its released code
    (which measures A once a prompt with the policy before training; here it is the model that is asked).
    """
    with_thought = each(reference_logprobs(model, sample), lambda x: np.exp(x).mean())
    if not debias:
        return with_thought
    without = each(reference_logprobs(model, sample, thought=False), lambda x: np.exp(x).mean())
    pairs = zip(with_thought, without, strict=True)
    return [b if b.value is None or b.reason else Verdict(max(0.0, b.value - (a.value or 0.0))) for b, a in pairs]

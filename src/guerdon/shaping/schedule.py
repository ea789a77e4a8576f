"""Shapes that follow the progress of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Context, Progress, Rewards, Sample
from guerdon.shaping.core import shape


@shape(scope="sample")
def fade(
    rewards: Rewards,
    samples: Sequence[Sample],
    context: Context,
    start: float = 1.0,
    end: float = 0.0,
    begin: float = 0.0,
    until: float = 1.0,
    form: Literal["linear", "cosine", "exponential", "step"] = "linear",
) -> Rewards:
    """w(s) r, the weight w going from `start` to `end` between `begin` and `until`: shares of the run, or optimiser steps where above 1.

    x = (s - begin) / (until - begin), held within 0 and 1. linear: start + (end - start) x.  cosine: by half a cosine wave.  step: start
    until x is 1, then end.  exponential: end + (start - end) exp(-x), x not held below 1: `until` is the time constant. Outside a run, in
    scoring and after the last step, everything is past its end. `process | fade(0.3, 0)` anneals a process reward.
    """
    if min(begin, until) < 0:
        raise Refused(f"fade(begin={begin}, until={until}): a schedule does not begin before the run; give shares or steps from 0.")
    w = weight(context.progress, start, end, begin, until, form)
    return rewards.map(lambda g: w * g.value)


def weight(progress: Progress, start: float, end: float, begin: float, until: float, form: str) -> float:
    """See `fade`."""
    if not progress.total:
        return end
    first, last = (at if at > 1 else at * progress.total for at in (begin, until))
    if last <= first:
        raise Refused(f"fade(begin={begin}, until={until}): the schedule ends before it begins in a run of {progress.total} steps.")
    x = max(0.0, (progress.step - first) / (last - first))
    if form == "exponential":
        return end + (start - end) * float(np.exp(-x))
    x = min(x, 1.0)
    share = {"linear": x, "cosine": 0.5 * (1 - float(np.cos(np.pi * x))), "step": float(x >= 1)}[form]
    return start + (end - start) * share

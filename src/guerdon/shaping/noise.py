"""Noise in a reward: put in by an experiment, or repaired."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Context, Rewards, Sample, State
from guerdon.shaping.core import shape


@shape(scope="group", example={"p": 0.5})
def flip(rewards: Rewards, samples: Sequence[Sample], context: Context, p: float, seed: int = 0) -> Rewards:
    """1 - r for all samples of a prompt together, with probability p: a verifier that is wrong about whole tasks. For rewards in [0, 1].

    One coin a prompt and step, of `seed`, `context.progress.step` and the task alone: a resumed run tosses the same. A sample without a
    final answer is never flipped. The mean group-centred advantage becomes 1 - 2p times the clean one; unlike flips of single samples, each
    one turns the order within its group round. It acts in evaluations too: measure what is true with `correct` and `eval.gold`.
    Raises Refused for p outside [0, 1]. Source: arXiv:2505.22653, github.com/trestad/Noisy-Rewards-in-Learning-to-Reason (naive.py).
    """
    if not 0 <= p <= 1:
        raise Refused(f"flip(p={p}): a probability lies between 0 and 1.")
    turned = np.array([s.answer is not None and _coin(s, context.progress.step, seed) < p for s in samples], dtype=bool)
    return rewards.map(lambda g: np.where(turned.reshape(-1, *[1] * (g.value.ndim - 1)), 1 - g.value, g.value))


def _coin(sample: Sample, step: int, seed: int) -> float:
    """Evenly within [0, 1)."""
    key = repr((seed, step, sample.task.id, sample.task.prompt)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "big") / 2**56


@shape(scope="sample", grains=("outcome",), changes_state=True, example={"pattern": "reasoning_patterns"})
def calibrated(
    rewards: Rewards, samples: Sequence[Sample], context: Context, pattern: Rewards, weight: float = 0.1, below: float = 0.5
) -> Rewards:
    """min(1, s + weight * pattern) where s < below, else s: `judge | calibrated(reasoning_patterns)`.

    Repairs false negatives of a noisy reward model, s in [0, 1], on answers whose reasoning looks sound; what is at or above `below` stays.
    Where s < below, a failed pattern makes it failed, and one that abstained leaves it as it is.
    Source: arXiv:2505.22653, github.com/trestad/Noisy-Rewards-in-Learning-to-Reason (fsdp_workers.py).
    """
    assert rewards.outcome is not None
    beside = pattern.outcome
    if beside is None:
        raise Refused("calibrated(pattern): the pattern must be a reward of whole answers; write calibrated(reasoning_patterns).")
    low = rewards.outcome.scored & (rewards.outcome.value < below)
    out = rewards.map(lambda g: np.where(low, np.minimum(1.0, g.value + weight * beside.value), g.value))
    assert out.outcome is not None
    for i in np.flatnonzero(low & beside.failed).tolist():
        out.outcome.state[i], out.outcome.value[i], out.outcome.reason[(i,)] = State.FAILED, 0.0, pattern.why(i)
    return out

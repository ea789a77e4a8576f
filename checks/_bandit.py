"""Policies that say one word of a list, on the tabular backend and through the loop; every step's chances are kept."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.rewards import reward
from guerdon.samples import Sample, Task

SEEN: list[np.ndarray] = []
"""The policy's chances (tasks, words) at each scoring of training, in order."""


def words(n: int) -> list[str]:
    return [f"w{i}" for i in range(n)]


def place(sample: Sample) -> int:
    """Which word it is; -1 where the end token came first."""
    return int(sample.text[1:]) if sample.text else -1


def chances(policy: Any, prompts: Sequence[str]) -> np.ndarray:
    """(prompts, words), the end token left out."""
    logits = policy.logits_at([policy.encode(prompt) for prompt in prompts])[:, :-1]
    return logits.double().softmax(-1).numpy()


@reward(inline=True)
def watch(samples: list[Sample], policy: Any) -> list[float]:
    """0; keeps what the policy's chances are."""
    SEEN.append(chances(policy, sorted({str(s.task.prompt) for s in samples})))
    return [0.0] * len(samples)


def learn(tasks: Sequence[Task], n: int, seed: int, reference: Mapping[str, Any] | None = None, **fields: Any) -> np.ndarray:
    """(steps, tasks, n) the chances of the n words before each step; `watch` is added to the reward. Starts uniform."""
    from guerdon.training.run import train

    SEEN.clear()
    models: dict[str, Any] = {"policy": {"backend": "tabular", "vocab": words(n), "bias": {"<end>": -30.0}}}
    if reference is not None:
        models["reference"] = {"of": "policy", **reference}
    settings = {"prompts": len(tasks), "lr": 0.1, "samples_every": 10_000, "checkpoint_every": 10_000} | fields.pop("train")
    fields.setdefault("rollout", {"use": "parallel", "max_tokens": 1})
    fields["reward"] = f"({fields['reward']}) + 0 * watch"
    with tempfile.TemporaryDirectory() as folder:
        train(seed=seed, threads=1, tasks=list(tasks), models=models, train=settings, folder=Path(folder) / "run", **fields)
    return np.stack(SEEN)

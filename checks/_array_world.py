"""Policies over a list of answers whose rewards are known: no model, only registered rewards and shapes, and exact tilting.

An answer is a Sample with `meta["scores"]`, what each rater gives it, and `meta["gold"]`, what it is worth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import guerdon.shaping  # noqa: F401  fills the registry
from guerdon.rewards import reward
from guerdon.rewards.expr import Pipe
from guerdon.samples import Context, Sample, Task
from guerdon.scoring import Engine


@reward(inline=True, batch=True)
def rater(sample: list[Sample], number: int = 0) -> list[float]:
    """What the rater of that number gives."""
    return [s.meta["scores"][number] for s in sample]


def answers(scores: np.ndarray) -> list[Sample]:
    """scores (prompts, answers, raters) -> the samples, prompt by prompt."""
    tasks = [Task(str(p), "q") for p in range(len(scores))]
    return [Sample(tasks[p], "", group=p, meta={"scores": row}) for p in range(len(scores)) for row in scores[p].tolist()]


def shaped(expression: str, samples: Sequence[Sample], references: Sequence[Sample], pooled: bool = False) -> np.ndarray:
    """(n,) values of the expression; shapes that measure against a reference know the reference's answers.

    pooled: they take all prompts' answers for each prompt.
    """
    engine = Engine(Context(models={"reference": object()}))
    root = engine.check(expression)
    for node in root.walk():
        if isinstance(node, Pipe) and hasattr(node.shape.fn, "prepare"):
            total = engine.score(node.source, references).total().tolist()
            known: dict[str, list[float]] = {s.task.key: [] for s in references}
            for sample, value in zip(references, total, strict=True):
                known[sample.task.key].append(value)
            node.shape.fn.load_state_dict({"known": dict.fromkeys(known, total) if pooled else known})
    return engine.score(root, samples).total()


def tilted(values: np.ndarray, kl: float) -> np.ndarray:
    """(p, n) the policies proportional to exp(eta * values (p, n)) whose KL divergence from uniform is `kl` on average over prompts."""

    def policy(eta: float) -> np.ndarray:
        weight = np.exp(eta * (values - values.max(1, keepdims=True)))
        return weight / weight.sum(1, keepdims=True)

    def divergence(p: np.ndarray) -> float:
        return float((p * np.log(np.maximum(p, 1e-300) * p.shape[1])).sum(1).mean())

    low, high = 0.0, 1.0
    while divergence(policy(high)) < kl and high < 1e9:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if divergence(policy(middle)) < kl else (low, middle)
    return policy(high)

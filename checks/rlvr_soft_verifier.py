"""A soft verifier with the reference, where answers have many wordings and the rule knows one of them.

Eight questions; an answer is one of 24 words, five of them wordings of the right one. In five questions the reference's own wording is
none of the policy's. The simulated verifier is a log-odds of +-m with normal noise of 1 that lasts: a verdict is wrong as often as the
noise turns the sign. Tables on `tabular`, through the real loop, credit rloo.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _bandit import SEEN, place, words
from _judged import shown
from _seeing import Seeing
from scipy.stats import norm, rankdata

from guerdon.backends.base import backend
from guerdon.backends.scripted import Weighing
from guerdon.backends.tabular import END
from guerdon.rewards import reward, soft_verifier
from guerdon.samples import Context, Sample, Task
from guerdon.spans import mark

CLAIM = (
    "right answers after 60 updates: with verdicts wrong in 5% at least 85%, with 20% at least 3 points more than by the binary verdict of "
    "the same verifier; the exact match stays at 60% or less (means over the seeds); in every seed soft rewards of 5% tell right answers "
    "from wrong ones with an AUC of 0.95 or more"
)
BASELINE = "exact match with the reference"
METHOD = "soft_verifier; without its key term: the binary verdict"
SEEDS = (0, 1, 2)
QUESTIONS, N, RIGHT, KNOWN, STEPS = 8, 24, 5, 3, 60


def world(seed: int) -> tuple[list[Task], np.ndarray, np.ndarray]:
    """Tasks, which words are right (questions, N), and the lasting noise of the verifier."""
    rng = np.random.default_rng((seed, 11))
    right = np.zeros((QUESTIONS, N), dtype=bool)
    for row in right:
        row[rng.choice(N, RIGHT, replace=False)] = True
    own = [words(N)[int(rng.choice(np.flatnonzero(row)))] if q < KNOWN else "another wording" for q, row in enumerate(right)]
    return [Task(str(q), f"q{q}", own[q]) for q in range(QUESTIONS)], right, rng.standard_normal((QUESTIONS, N))


@backend
def noisy_verifier(path: str | None = None, seed: int = 0, wrong: float = 0.05, trainable: bool = False) -> Weighing:
    _, right, noise = world(seed)
    odds = np.where(right, 1, -1) * -norm.ppf(wrong) + noise

    def weigh(messages: Any, begun: str, said: str) -> float:
        texts = shown(messages)
        z = odds[int(texts["question"][1:]), int(texts["answer"][1:])]
        return -math.log1p(math.exp(-z if said == "1" else z))

    return Weighing(lambda messages, rng: "0", weigh)


@backend
def one_wording(path: str | None = None, trainable: bool = True) -> Seeing:
    """A policy that says one word and ends."""
    return Seeing(words(N), lambda text: text, None, trainable, lambda row: {END: -30.0 if len(row.split()) == 1 else 30.0})


@reward(inline=True)
def exact_word(text: str, reference: str) -> float:
    return float(text.strip() == reference)


def accuracy(seed: int, expression: str, wrong: float = 0.05) -> float:
    from guerdon.training.run import train

    tasks, right, _ = world(seed)
    SEEN.clear()
    with tempfile.TemporaryDirectory() as folder:
        train(
            name="soft", threads=1, seed=seed, tasks=tasks, reward=f"{expression} + 0 * watch", credit="rloo", loss="policy_gradient",
            models={"policy": {"backend": "one_wording"}, "judge": {"backend": "noisy_verifier", "seed": seed, "wrong": wrong}},
            rollout={"use": "parallel", "max_tokens": 2}, folder=Path(folder) / "run",
            train={
                "steps": STEPS, "prompts": QUESTIONS, "samples": 16, "lr": 0.2, "samples_every": 10_000, "checkpoint_every": 10_000
            },
        )  # fmt: skip
    return round(float((SEEN[-1] * right).sum(1).mean()), 4)


def auc(seed: int, soft: bool) -> float:
    from guerdon.scoring import Engine

    tasks, right, _ = world(seed)
    samples = [Sample(task, word, stop="end") for task in tasks for word in words(N)]
    for sample in samples:
        mark(sample)
    with Engine(Context(models={"judge": noisy_verifier(seed=seed)}), workers=1) as engine:
        rank = rankdata(engine.score(soft_verifier(soft=soft), samples).total())
    label, n = np.array([right[int(s.task.id), place(s)] for s in samples]), int(right.sum())
    return round(float((rank[label].sum() - n * (n + 1) / 2) / (n * (~label).sum())), 4)


def measure(variant: str, seed: int) -> dict[str, Any]:
    if variant == "baseline":
        return {"value": accuracy(seed, "exact_word")}
    soft = variant == "method"
    own = f"soft_verifier(soft={soft})"
    return {
        "value": accuracy(seed, own), "noisy": accuracy(seed, own, 0.2), "noisy, binary": accuracy(seed, "soft_verifier(soft=False)", 0.2),
        "auc": auc(seed, soft),
    }  # fmt: skip


def holds(baseline: list[Any], method: list[Any]) -> bool:
    def mean(side: list[Any], key: str) -> float:
        return float(np.mean([x[key] for x in side]))

    return (
        mean(baseline, "value") <= 0.6 and mean(method, "value") >= 0.85
        and mean(method, "noisy") >= mean(method, "noisy, binary") + 0.03 and all(x["auc"] >= 0.95 for x in method)
    )  # fmt: skip

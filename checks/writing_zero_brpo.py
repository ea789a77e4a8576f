"""BRPO: a judge of pairs, compared within the group, is not won over by padding that a scalar reward model likes.

A policy on `tabular` writes up to 6 words: `good` and `bad` ones, and `pad`. True quality is what the good words outnumber the bad by, over
6. The scalar model adds 0.2 for each pad, as one trained on pairs in which the longer text won would. The judge compares the quality of two
texts; 15% of its verdicts are turned round, and a fifth of them go to the first shown whatever stands there; both orders are asked. 100
updates, groups of 16.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.rewards import reward
from guerdon.rewards.pairwise import tournament
from guerdon.samples import Sample, Task, Verdict

CLAIM = (
    "after 100 updates the scalar reward with GRPO writes more than 3 times the pads of the start and BRPO less than 1.3 times, and BRPO's "
    "true quality is at least 0.1 higher (means of the seeds)"
)
BASELINE = "a scalar reward with a leaning to padding, credit grpo"
METHOD = "verdicts on pairs with one reference of the group, credit brpo; without its key term, the pairs: the scalar's differences"
SEEDS = (0, 1, 2)
LENGTH = 6


@reward(inline=True)
def true_quality(text: str) -> float:
    words = text.split()
    return (words.count("good") - words.count("bad")) / LENGTH


@reward(inline=True)
def padding(text: str) -> float:
    return float(text.split().count("pad"))


@reward(inline=True)
def padded_scalar(text: str) -> float:
    return true_quality.fn(text) + 0.2 * padding.fn(text)


@reward(inline=True)
def leaning_judge(group: list[Sample], rng: np.random.Generator, by: str = "quality") -> list[Verdict]:
    """One reference; with by "scalar" it compares as the scalar model would, with the same noise."""
    worth = {id(s): (true_quality if by == "quality" else padded_scalar).fn(s.text) for s in group}

    def says(first: Sample, second: Sample) -> float:
        if rng.random() < 0.2:
            return 1.0
        d = float(np.sign(worth[id(first)] - worth[id(second)]))
        return -d if rng.random() < 0.15 else d

    return tournament(group, says, references=1, rng=rng)


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.training.run import train

    text = {"baseline": "padded_scalar", "method": "leaning_judge", "ablated": "leaning_judge(by='scalar')"}[variant]
    tasks = [Task(str(i), f"task {i}") for i in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            seed=seed, threads=1, tasks=tasks, reward=f"({text}) + 0 * true_quality + 0 * padding", loss="ppo_clip",
            models={"policy": {"backend": "tabular", "vocab": ["good", "bad", "pad"], "bias": {"pad": -1.5}}},
            rollout={"use": "parallel", "max_tokens": LENGTH}, credit="grpo" if variant == "baseline" else "brpo",
            keep=[] if variant == "baseline" else ["fair_reference"], folder=Path(folder) / "run",
            train={
                "steps": 100, "prompts": 2, "samples": 16, "lr": 0.3, "max_refills": 2, "samples_every": 10_000, "checkpoint_every": 10_000,
            },
        )  # fmt: skip
    good, pad = ([row[f"reward/{name}"] for row in run.metrics if f"reward/{name}" in row] for name in ("true_quality", "padding"))
    return {
        "value": round(float(np.mean(good[-10:])), 4), "pads": round(float(np.mean(pad[-10:])), 3),
        "pads at first": round(float(np.mean(pad[:3])), 3),
    }  # fmt: skip


def holds(baseline: list[Any], method: list[Any]) -> bool:
    (b, b_pads), (m, m_pads) = (
        [float(np.mean([x["value"] for x in side])), float(np.mean([x["pads"] / x["pads at first"] for x in side]))]
        for side in (baseline, method)
    )
    return b_pads > 3 and m_pads < 1.3 and m >= b + 0.1

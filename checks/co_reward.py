"""Co-Reward: a wrong answer that only one phrasing favours is confirmed by its own majority, but not by the other phrasing's.

24 questions of five possible answers, each in two phrasings. The starting policy leans to the right answer in both; for 30 % of the
questions one phrasing, drawn at random, leans more to one wrong answer. Trained on the tabular backend through the real loop, so that
nothing is shared between phrasings but the reward; every question is drawn with its partner (`select: linked`).
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.samples import Task

CLAIM = (
    "after 40 steps the probability of the right answer is above that under the group's own majority by 0.05 or more in every seed, and "
    "the share of prompts that give one wrong answer a probability above 0.75 is at most half of what it is there"
)
BASELINE = "the group's own majority as label"
METHOD = "the other phrasing's majority as label; without its key term: half of the questions linked with another question's paraphrase"
SEEDS = (0, 1, 2)
QUESTIONS, ANSWERS = 24, "abcde"
VOCAB = [f"<answer>{a}</answer>" for a in ANSWERS]
RIGHT, BIAS, BIASED = 1.2, 2.0, 0.3


def world(seed: int, folder: Path) -> list[Task]:
    """The tasks, two a question side by side; the starting policy is saved in the folder."""
    from guerdon.backends.tabular import tabular

    rng, model, tasks = np.random.default_rng(seed), tabular(vocab=VOCAB), []
    biased = set(rng.permutation(QUESTIONS)[: round(BIASED * QUESTIONS)].tolist())
    for q in range(QUESTIONS):
        right, wrong = rng.permutation(len(ANSWERS))[:2].tolist()
        side = int(rng.integers(2)) if q in biased else None
        for phrasing in range(2):
            task = Task(f"{q}.{phrasing}", f"question {q} in words {phrasing}", ANSWERS[right], {"link": q})
            logits = np.zeros(len(ANSWERS) + 1)
            logits[right], logits[-1] = RIGHT, -8.0
            logits[wrong] += BIAS * (phrasing == side)
            ids = model.encode(task.prompt)
            model.set_logits(ids, logits)
            for answer in range(len(ANSWERS)):
                model.set_logits(np.append(ids, answer), np.append(np.full(len(ANSWERS), -8.0), 0.0))
            tasks.append(task)
    model.save(folder)
    return tasks


def crossed(tasks: list[Task]) -> list[Task]:
    """Every second question's paraphrase changes places with that of the next such question."""
    out = list(tasks)
    for q in range(0, QUESTIONS, 4):
        a, b = tasks[2 * q + 1], tasks[2 * q + 5]
        out[2 * q + 1], out[2 * q + 5] = replace(a, meta={"link": q + 2}), replace(b, meta={"link": q})
    return out


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.backends.tabular import tabular
    from guerdon.training.run import train

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tasks = world(seed, folder / "start")
        policy = {"backend": "tabular", "path": str(folder / "start"), "vocab": VOCAB}
        run = train(
            models={"policy": policy}, tasks=crossed(tasks) if variant == "ablated" else tasks, seed=seed, folder=folder / "run",
            reward="majority" if variant == "baseline" else "co_reward", correct="exact", select="linked",
            rollout={"use": "parallel", "max_tokens": 2},
            train={"steps": 40, "prompts": 2 * QUESTIONS, "samples": 8, "lr": 0.1, "clip": None, "checkpoint_every": 40},
        )  # fmt: skip
        end = tabular(vocab=VOCAB, path=next((folder / "run" / "checkpoints").glob("*/policy")))
        p = np.exp(end.logits_at([end.encode(task.prompt) for task in tasks]).log_softmax(-1).numpy())
    right = np.array([ANSWERS.index(task.reference) for task in tasks])
    wrong = p.copy()
    wrong[np.arange(len(tasks)), right] = 0
    first = next(row["pass@1"] for row in run.metrics if "pass@1" in row)
    return {"value": float(p[np.arange(len(tasks)), right].mean()), "first": first, "wrong consensus": float((wrong.max(1) > 0.75).mean())}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    better = all(m["value"] >= b["value"] + 0.05 for b, m in zip(baseline, method, strict=True))
    return better and all(m["wrong consensus"] <= b["wrong consensus"] / 2 for b, m in zip(baseline, method, strict=True))

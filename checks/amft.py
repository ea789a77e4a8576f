"""AMFT: imitation while it helps held-out questions, then less of it, for some of the demonstrations are wrong.

A table answers each of ten questions with one of six words. Six of them have a demonstration, which for one is wrong; it stands among the
eight samples of its task. Held-out tasks ask the same questions anew (a table knows nothing of a question that it never met), paid by the
right answer.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from _thought_table import write

from guerdon.backends.tabular import tabular
from guerdon.envs.core import env
from guerdon.samples import Task

CLAIM = (
    "mu is above 0.5 within the first 15 of 60 steps and below 0.3 at the end; accuracy ends at most 0.01 below the best of mu = 0.1, 0.5, "
    "0.9 and more than 0.05 above that of 0.9 (every seed)"
)
BASELINE = "mu fixed at 0.1, 0.5 and 0.9"
METHOD = "amft from 0.5, an update every second step; without its key term, the gradient of held-out tasks (rate 0): the entropy term alone"
SEEDS = (0, 1, 2)
WORDS = [f"a{i}" for i in range(6)]
STEPS, EARLY = 60, 15


def right(i: int) -> str:
    return WORDS[i % 6]


@env
def held_questions() -> list[Task]:
    return [Task(f"held/{i}", f"question {i}", right(i)) for i in range(10)]


def run(seed: int, mix: dict[str, Any]) -> list[dict[str, Any]]:
    from guerdon.training.run import train

    model = tabular(vocab=WORDS, bias={"<end>": 9.0})
    tasks = []
    for i in range(10):
        shown = {"solution": right(i + (i == seed % 6))} if i < 6 else {"other": ""}
        tasks.append(Task(str(i), f"question {i}", right(i), shown))
        write(model, tasks[-1], [], {}, WORDS)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "start")
        return train(
            seed=seed, threads=1, tasks=tasks, reward="exact", rollout={"use": "mixed", "max_tokens": 3}, aggregate="per_source",
            models={"policy": {"backend": "tabular", "path": str(Path(folder) / "start"), "vocab": WORDS}}, mix=mix,
            loss=[{"use": "ppo_clip", "of": "policy"}, {"use": "sft", "of": "expert"}], credit="grpo",
            train={"steps": STEPS, "prompts": 10, "samples": 8, "lr": 0.05, "samples_every": 1000, "checkpoint_every": 1000},
            eval={"tasks": held_questions(), "every": STEPS, "samples": 64, "temperature": 1.0, "max_tokens": 3},
            folder=Path(folder) / "run",
        ).metrics  # fmt: skip


def measure(variant: str, seed: int) -> dict[str, Any]:
    if variant == "baseline":
        found = {str(mu): run(seed, {"use": "fixed", "mu": mu})[-1]["eval/pass@1"] for mu in (0.1, 0.5, 0.9)}
        return {"value": max(found.values()), **found}
    rate = 0.1 if variant == "method" else 0.0
    mix = {"use": "amft", "tasks": "held_questions", "every": 2, "rate": rate, "prompts": 10, "samples": 8, "max_tokens": 3}
    rows = run(seed, mix)
    mu = [row["mix/mu"] for row in rows if "mix/mu" in row]
    return {"value": rows[-1]["eval/pass@1"], "early": max(mu[:EARLY]), "late": mu[-1]}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    pairs = list(zip(baseline, method, strict=True))
    moved = all(m["early"] > 0.5 and m["late"] < 0.3 for m in method)
    return moved and all(m["value"] >= b["value"] - 0.01 and m["value"] > b["0.9"] + 0.05 for b, m in pairs)

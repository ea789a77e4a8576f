"""PROF: a process reward model that chooses among right answers makes their steps sound; in the reward it is cheated.

A table writes up to six lines. Two lines of `work` solve a task; otherwise a guess is right in three of ten tasks. `slip` is an unsound
line that does no harm to the result, `indeed` says nothing. The judge of lines knows work (0.8) from a slip (0.2), likes `indeed` (0.9),
and errs by a tenth. The table cannot know which tasks a guess solves: they look alike.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.rewards import reward
from guerdon.samples import Task

VOCAB, LINES, STEPS = ["work\n", "slip\n", "indeed\n"], 6, 60
CLAIM = (
    "in right answers the share of lines that are no slips is 10 points above that of GRPO, at an accuracy not more than 1 point below it, "
    "and lines of `indeed` are at most half as frequent as with the judge in the reward (means over seeds)"
)
BASELINE = "GRPO on the outcome, the same number of samples kept; beside it, Blend: outcome + 0.8 times the mean of the judge"
METHOD = "prof(remove=4) of 8, GRPO on the outcome; without its key term, consistency: a judge that says the same of all lines"
SEEDS = (0, 1, 2)


def draw(*of: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.blake2b("/".join(of).encode(), digest_size=8).digest(), "little"))


@reward(inline=True)
def result(text: str, meta: dict[str, Any]) -> float:
    return float(text.split().count("work") >= 2 or meta["lucky"])


@reward(inline=True, grain="step")
def line_judge(steps: list[str], meta: dict[str, Any], same: bool = False) -> list[float]:
    noise = draw(meta["name"], *steps).normal(0, 0.1, len(steps))
    return [0.5 if same else {"work": 0.8, "slip": 0.2, "indeed": 0.9}[s.strip()] + float(e) for s, e in zip(steps, noise, strict=True)]


@reward(inline=True)
def judge_mean(text: str, meta: dict[str, Any]) -> float:
    lines = text.split()
    return float(np.mean(line_judge.fn(lines, meta))) if lines else 0.0


@reward(inline=True)
def sound(text: str) -> float | None:
    """Share of the lines that are no slips."""
    lines = text.split()
    return 1 - lines.count("slip") / len(lines) if lines else None


@reward(inline=True)
def indeed(text: str) -> float:
    return text.split().count("indeed") / LINES


def learn(seed: int, expression: str, keep: list[Any], samples: int) -> dict[str, float]:
    from guerdon.training.run import train

    tasks = [Task(str(i), "go", meta={"name": str(i), "lucky": bool(draw(str(seed), str(i)).random() < 0.3)}) for i in range(64)]
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            name="prof", threads=1, seed=seed, tasks=tasks, models={"policy": {"backend": "tabular", "vocab": VOCAB}},
            reward=f"{expression} + 0 * sound.when(result) + 0 * indeed", correct="result", keep=keep, credit="grpo",
            rollout={"use": "parallel", "max_tokens": LINES}, folder=Path(folder) / "run",
            train={"steps": STEPS, "prompts": 8, "samples": samples, "lr": 0.05, "checkpoint_every": 1000, "samples_every": 1000},
        )  # fmt: skip
    last = [row for row in run.metrics if "pass@1" in row][-15:]
    right = float(np.mean([row["pass@1"] for row in last]))  # a wrong answer has 0 in `sound.when(result)`
    named = {name: float(np.mean([row[f"reward/{key}"] for row in last])) for name, key in (("sound", "sound"), ("indeed", "indeed"))}
    return {"value": right, "sound": named["sound"], "indeed": named["indeed"]}


def measure(variant: str, seed: int) -> dict[str, Any]:
    if variant == "baseline":
        found = learn(seed, "result", [], 4)
        found["blend"] = learn(seed, "result + 0.8 * judge_mean", [], 4)["indeed"]
    else:
        found = learn(seed, f"result + line_judge(same={variant == 'ablated'})", ["prof"], 8)
    return {name: round(x, 4) for name, x in found.items()}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    def mean(side: list[Any], name: str) -> float:
        return float(np.mean([s[name] for s in side]))

    sounder = mean(method, "sound") >= mean(baseline, "sound") + 0.1 and mean(method, "value") >= mean(baseline, "value") - 0.01
    return sounder and mean(method, "indeed") <= 0.5 * mean(baseline, "blend")

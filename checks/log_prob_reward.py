"""Log-probability of the reference as reward: with short references as good as exact match, with long ones the only one that learns.

A table (`_thought_table`) picks one of four plans, then answers. Short task: a reference of one word, likely after the right plan. Long
task: a reference of 24 words, each likelier after the right plan (0.35 against 0.15); a whole reference has a probability below 1e-10.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _thought_table import frame, learn, one_word, table, write

from guerdon.samples import Task

CLAIM = (
    "short references: accuracy of log_prob is not more than 0.02 below that of exact match; long ones: the log-likelihood that prob gains "
    "is less than 5% of what log_prob gains, and its rewards have a standard deviation below 1e-4 throughout (every seed)"
)
BASELINE = "exact match for short references, prob (VeriFree) for long ones"
METHOD = "log_prob with both terms of its gradient (with_reference, two_term); without its key term: the thought's term alone"
SEEDS = (0, 1, 2)
PLANS = ["p0", "p1", "p2", "p3"]
WORDS = ["a", "b", "c", "d", "e", "f"]
STEPS, TOKENS = 60, 24
DIRECT = {"rollout": {"use": "with_reference"}, "credit": "two_term"}
ONE_TERM = {"credit": "rloo"}


def short(seed: int) -> tuple[Any, list[Task]]:
    model, tasks = table([*PLANS, *WORDS]), [Task(str(i), f"short {i}", WORDS[(i + seed) % 6]) for i in range(4)]
    for i, task in enumerate(tasks):
        for opening in frame(model, task, PLANS):
            right = opening[1] == PLANS[i]
            one_word(model, task, opening, {str(task.reference): 0.5 if right else 0.1}, WORDS)
    return model, tasks


def long(seed: int) -> tuple[Any, list[Task]]:
    rng = np.random.default_rng(seed)
    model = table([*PLANS, *WORDS])
    tasks = [Task(str(i), f"long {i}", " ".join(rng.choice(WORDS, TOKENS))) for i in range(4)]
    for i, task in enumerate(tasks):
        words = str(task.reference).split()
        for opening in frame(model, task, PLANS):
            for j, word in enumerate(words):
                write(model, task, [*opening, *words[:j]], {word: 0.35 if opening[1] == PLANS[i] else 0.15}, ["</answer>"])
    return model, tasks


def run(world: Any, reward: str, gold: str, seed: int, **fields: Any) -> tuple[float, float, float]:
    """The gold before and after, and the largest standard deviation of a step's rewards."""
    model, tasks = world(seed)
    rows = learn(model, tasks, seed, reward=reward, loss="policy_gradient", train={"steps": STEPS}, eval={"gold": gold}, **fields)
    gold_at = [row["eval/gold"] for row in rows if "eval/gold" in row]
    return gold_at[0], gold_at[-1], max(row["reward_std"] for row in rows if "reward_std" in row)


def measure(variant: str, seed: int) -> dict[str, Any]:
    if variant == "baseline":
        a = run(short, "exact", "exact", seed, **ONE_TERM)
        b = run(long, "prob", "log_prob", seed, **{**DIRECT, "credit": {"use": "two_term", "weigh": "reward"}})
    else:
        how = DIRECT if variant == "method" else ONE_TERM
        a, b = run(short, "log_prob", "exact", seed, **how), run(long, "log_prob", "log_prob", seed, **how)
    return {"value": a[1], "before": a[0], "nats gained": b[1] - b[0], "nats before": b[0], "reward_std": b[2]}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    pairs = list(zip(baseline, method, strict=True))
    as_good = all(m["value"] >= b["value"] - 0.02 for b, m in pairs)
    flat = all(b["nats gained"] < 0.05 * m["nats gained"] and b["reward_std"] < 1e-4 for b, m in pairs)
    return as_good and flat

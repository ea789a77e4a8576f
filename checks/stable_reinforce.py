"""StableReinforce: a judge whose answer follows its reasoning, by a reward that pays agreement, and losses that outlive stale samples.

A table (`_thought_table`) concludes 1 or 2, then answers 1 or 2: rightly 9 times in 10 after the right conclusion, 8 times in 10 after the
wrong one, as a judge that knows the answer anyway. The referee is a comparison of the two words. Answers to a step's samples are trained on
in eight updates, so that ratios leave 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from _thought_table import frame, learn, one_word, table

from guerdon.registry import find
from guerdon.rewards.core import reward
from guerdon.samples import Grain, Rewards, Sample, Task, collate

CLAIM = (
    "after 40 steps the answer is what the reasoning concluded in at least 95% of answers (baseline: at most 85%), accuracy at most 0.02 "
    "lower, and at a log-ratio of 200 in float32 with A = -1 the loss is finite (every seed)"
)
BASELINE = "REINFORCE++ with ppo_clip, format and accuracy rewarded"
METHOD = "three_sigma, stable_reinforce, agreement rewarded where the answer is right; without its key term: agreement not rewarded"
SEEDS = (0, 1, 2)
PLAIN, WORDS = "0.5 * framed + exact", ["1", "2"]
SETTINGS = {
    "baseline": (PLAIN, "reinforce_pp", "ppo_clip"),
    "method": (PLAIN + " + 0.5 * exact * agrees", "three_sigma", "stable_reinforce"),
    "ablated": (PLAIN, "three_sigma", "stable_reinforce"),
}


@reward(inline=True)
def framed(thinking: str, answer: str | None) -> float:
    return float(bool(thinking) and answer is not None)


@reward(inline=True)
def agrees(thinking: str, answer: str | None) -> float:
    """The referee: 1 where the answer is what the reasoning concluded, else -1."""
    return 1.0 if answer is not None and thinking.strip() == answer else -1.0


def stale(loss: str) -> float:
    """The loss of a token that has become exp(200) times as likely, with A = -1."""
    sample = Sample(Task("a", "p"), "", np.ones(1, int), np.ones(1, int), logprobs=np.array([-200.0]))
    batch = collate([sample], Rewards(Grain.of([0.0])))
    batch.advantages -= 1
    return float(find("loss", loss).fn({"logprobs": torch.zeros(1, 1)}, batch)[0])


def measure(variant: str, seed: int) -> dict[str, Any]:
    expression, credit, loss = SETTINGS[variant]
    model, tasks = table(WORDS), [Task(str(i), f"task {i}", WORDS[(i + seed) % 2]) for i in range(4)]
    for task in tasks:
        for opening in frame(model, task, WORDS):
            one_word(model, task, opening, {str(task.reference): 0.9 if opening[1] == task.reference else 0.8}, WORDS)
    rows = learn(
        model, tasks, seed, reward=expression, correct="exact", credit=credit, loss=loss, aggregate="sequence_mean",
        train={"steps": 40, "samples": 8, "lr": 0.02, "passes": 4, "minibatches": 2}, eval={"gold": "agrees"},
    )  # fmt: skip
    last = [row for row in rows if "eval/gold" in row][-1]
    return {"value": (1 + last["eval/gold"]) / 2, "accuracy": last["eval/pass@1"], "finite": bool(np.isfinite(stale(loss)))}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    pairs = list(zip(baseline, method, strict=True))
    agreed = all(m["value"] >= 0.95 and b["value"] <= 0.85 and m["accuracy"] >= b["accuracy"] - 0.02 for b, m in pairs)
    return agreed and all(m["finite"] for m in method)

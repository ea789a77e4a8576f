"""Format and length without a ground truth: they bring out a skill that is there, and give none.

A softmax table (backend `tabular`) is asked for a + b. It thinks for some tokens, then boxes an answer one time in five and says no number
otherwise. What the skilled policy boxes is right 97 times in 100, the unskilled one is as sure of a wrong answer.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.backends.tabular import tabular
from guerdon.rewards import reward
from guerdon.samples import Task

L_MAX, TURN = 20, 0.5
CLAIM = (
    "with form and length as the only reward the skilled policy makes at least 80% of the gain in accuracy that the ground truth gives, "
    f"its mean length comes within 15% of {TURN * L_MAX:g} tokens with less than 2% cut off, and without the skill it gains less than 0.03"
)
BASELINE = "half a point for a closed <think>, and the ground truth"
METHOD = f"surrogate(l_max={L_MAX}, turn={TURN}); without its key term, the length: format_only"
SEEDS = (0, 1, 2)

VOCAB = ["<think>", "so", "</think>", *(f"\\boxed{{{i}}}" for i in range(2, 6)), "unclear"]
THINK, SO, CLOSE, BOXES, UNCLEAR, END = 0, 1, 2, range(3, 7), 7, 8
SUMS = ("1+1", "1+2", "2+2", "2+3")
REWARDS = {"baseline": "0.5 * thinks + exact", "method": f"surrogate(l_max={L_MAX}, turn={TURN})", "ablated": "format_only"}


@reward(inline=True)
def thinks(text: str) -> float:
    """F_t: 1 where a <think> is closed."""
    return float("</think>" in text.partition("<think>")[2])


def write_policy(tasks: list[Task], skilled: bool, path: Path) -> None:
    """Thinks two tokens on average, then boxes with probability 0.2. Every token keeps a probability of 0.002 everywhere."""
    policy = tabular(vocab=VOCAB)

    def write(prefix: list[int], **shares: float) -> None:
        policy.set_logits(np.array(prefix), np.log([shares.get(f"t{token}", 0.0) + 0.002 for token in range(len(VOCAB) + 1)]))

    for task in tasks:
        prompt = policy.encode(task.prompt).tolist()
        sure = BOXES[(int(task.reference) - 2 + (not skilled)) % len(BOXES)]
        boxes = {f"t{box}": 0.2 * (0.97 if box == sure else 0.01) for box in BOXES}
        write(prompt, t0=1.0)
        for k in range(L_MAX):
            thought = [*prompt, THINK, *[SO] * k]
            write(thought, t1=0.5 if k else 1.0, t2=0.5 if k else 0.0)
            write([*thought, CLOSE], **boxes, t7=0.8)
            for last in (*BOXES, UNCLEAR):
                write([*thought, CLOSE, last], t8=1.0)
    policy.save(path)


def gain(reward: str, skilled: bool, seed: int) -> dict[str, float]:
    from guerdon.training.run import train

    tasks = [Task(s, f"{s}=", str(sum(map(int, s.split("+"))))) for s in SUMS]
    with tempfile.TemporaryDirectory() as folder:
        write_policy(tasks, skilled, Path(folder) / "start")
        run = train(
            name="surrogate", seed=seed, threads=1, tasks=tasks, reward=reward, correct="exact",
            models={"policy": {"backend": "tabular", "path": str(Path(folder) / "start"), "vocab": VOCAB}},
            rollout={"use": "parallel", "max_tokens": L_MAX},
            train={"steps": 150, "prompts": 4, "samples": 32, "lr": 0.1, "samples_every": 1000, "checkpoint_every": 1000},
            eval={"tasks": tasks, "every": 150, "samples": 64, "temperature": 1.0, "gold": "exact"},
            folder=Path(folder) / "run",
        )  # fmt: skip
    first, last = run.metrics[0], run.metrics[-1]
    return {
        "value": last["eval/gold"] - first["eval/gold"], "before": first["eval/gold"], "length_before": first["eval/length"],
        "length": last["eval/length"], "truncated": last["truncated"],
    }  # fmt: skip


def measure(variant: str, seed: int) -> dict[str, Any]:
    found = gain(REWARDS[variant], True, seed)
    if variant == "method":
        found["unskilled"] = gain(REWARDS[variant], False, seed)["value"]
    return found


def holds(baseline: list[Any], method: list[Any]) -> bool:
    target = TURN * L_MAX
    gains = [np.mean([found["value"] for found in side]) for side in (baseline, method)]
    lands = all(abs(found["length"] - target) <= 0.15 * target and found["truncated"] < 0.02 for found in method)
    return bool(gains[1] >= 0.8 * gains[0] and lands and max(found.get("unskilled", 0.0) for found in method) < 0.03)

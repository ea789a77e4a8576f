"""Constrained RLHF: multipliers hold each part of a reward at the value up to which it is a good proxy.

Answers of four words on the tabular backend, through the real loop. Two proxies: the shares of `kind` and of `brief` among the words. The
true utility of a policy whose means are v is 1 - sum of ((v - theta) / theta)^2 with its peak at theta = (0.4, 0.25).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.rewards import reward
from guerdon.samples import Task

CLAIM = (
    "multipliers of kind `equal` end with each mean within 5% of its threshold and a utility of 0.95 or more, those of kind `at_least` "
    "with each mean no more than 5% below; equal fixed weights end with a mean above 1.2 times its threshold, and lose 0.15 or more"
)
BASELINE = "0.5 * kind + 0.5 * brief, fixed, and a KL penalty"
METHOD = (
    "(kind | multiplier(0.4)) + (brief | multiplier(0.25)), credit constrained; without its key term: multipliers that do not move (lr 0)"
)
SEEDS = (0, 1, 2)
THETA = {"kind_share": 0.4, "brief_share": 0.25}
VOCAB = ["kind", "brief", "plain"]
STEPS, LAST = 250, 50


@reward(inline=True)
def kind_share(text: str) -> float:
    return text.split().count("kind") / 4


@reward(inline=True)
def brief_share(text: str) -> float:
    return text.split().count("brief") / 4


def means(expression: str, seed: int, **fields: Any) -> np.ndarray:
    """The mean of each part over the last steps."""
    from guerdon.training.run import train

    table = {"backend": "tabular", "vocab": VOCAB, "bias": {"<end>": -20.0}}
    critics = fields.pop("critics")
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            name="constrained", threads=1, seed=seed, tasks=[Task("0", "say something")],
            models={"policy": table, "reference": {"of": "policy"}} | {name: {**table, "head": "scalar"} for name in critics},
            reward=expression, correct="kind_share", rollout={"use": "parallel", "max_tokens": 4}, kl={"coefficient": 0.05},
            critic={"lr": 0.05}, folder=Path(folder) / "run", **fields,
            train={"steps": STEPS, "prompts": 1, "samples": 64, "lr": 0.05, "checkpoint_every": 10_000, "samples_every": 10_000},
        )  # fmt: skip
    rows = [row for row in run.metrics if "reward/kind_share" in row][-LAST:]
    return np.array([np.mean([row[f"reward/{part}"] for row in rows]) for part in THETA])


def constrained(kind: str, lr: float, seed: int) -> np.ndarray:
    parts = [f"({part} | multiplier({theta}, kind='{kind}', lr={lr}))" for part, theta in THETA.items()]
    return means(" + ".join(parts), seed, credit="constrained", critics=[f"critic/{part}" for part in (*THETA, "kl")])


def measure(variant: str, seed: int) -> dict[str, Any]:
    theta = np.array(list(THETA.values()))
    if variant == "baseline":
        v = means("0.5 * kind_share + 0.5 * brief_share", seed, credit="gae", critics=["critic"])
    else:
        v = constrained("equal", 1.0 if variant == "method" else 0.0, seed)
    found = {"value": round(float(1 - (((v - theta) / theta) ** 2).sum()), 4), "over": (v / theta).round(4).tolist()}
    if variant == "method":
        found["at least"] = (constrained("at_least", 1.0, seed) / theta).round(4).tolist()
    return found


def holds(baseline: list[Any], method: list[Any]) -> bool:
    held = all(m["value"] >= 0.95 and max(abs(np.array(m["over"]) - 1)) <= 0.05 for m in method)
    reached = all(min(m.get("at least", [1.0])) >= 0.95 for m in method)
    return held and reached and all(max(b["over"]) > 1.2 and b["value"] <= 0.85 for b in baseline)

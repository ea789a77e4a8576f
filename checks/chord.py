"""CHORD: demonstrations in a style of their own teach what the policy can follow, and leave alone what it does as well in its own way.

A table writes an answer, one of six, then three words of explanation, any of eight: nothing hangs on them. Demonstrations explain with one
word only, and a fifth of all their tokens are junk that the policy all but never writes. One of the four samples a task is a demonstration.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _thought_table import learn, write

from guerdon.backends.tabular import tabular
from guerdon.rewards.core import reward
from guerdon.samples import Task

CLAIM = "after 50 steps accuracy is at least that of the baseline, entropy at least 70% of what it was (baseline: at most 40%; every seed)"
BASELINE = "mu 0.5, plain sft on the demonstrations"
METHOD = "mu 0.1 (chord_mu), sft_phi; without its key term, the weight phi: mu 0.1, plain sft"
SEEDS = (0, 1, 2)
SETTINGS = {"baseline": (0.5, "sft"), "method": (0.1, "sft_phi"), "ablated": (0.1, "sft")}
ANSWERS, STYLE, JUNK = [f"a{i}" for i in range(6)], [f"s{i}" for i in range(8)], [f"j{i}" for i in range(4)]
LENGTH = 4


@reward(inline=True)
def right(text: str, reference: str) -> float:
    return float(text.split()[:1] == [reference])


@reward(inline=True)
def surprise(logprobs: Any) -> float:
    """Its mean over answers is the policy's entropy, in nats an answer."""
    return -float(np.sum(logprobs))


def world(seed: int) -> tuple[Any, list[Task]]:
    rng = np.random.default_rng(seed)
    model = tabular(vocab=[*ANSWERS, *STYLE, *JUNK], bias=dict.fromkeys([*ANSWERS, *JUNK, "<end>"], -9.0))
    tasks = []
    for i in range(8):
        words = [ANSWERS[(i + seed) % 6], *[STYLE[0]] * (LENGTH - 1)]
        shown = [str(rng.choice(JUNK)) if rng.random() < 0.2 else word for word in words]
        tasks.append(Task(str(i), f"task {i}", words[0], {"solution": " ".join(shown)}))
        write(model, tasks[-1], [], dict.fromkeys(JUNK, 1e-4), ANSWERS)
    return model, tasks


def measure(variant: str, seed: int) -> dict[str, Any]:
    mu, loss = SETTINGS[variant]
    model, tasks = world(seed)
    rows = learn(
        model, tasks, seed, reward="right", rollout={"use": "mixed", "max_tokens": LENGTH}, aggregate="per_source",
        loss=[{"use": "ppo_clip", "of": "policy"}, {"use": loss, "of": "expert"}], mix={"use": "chord_mu", "peak": mu, "valley": mu},
        train={"steps": 50, "samples": 4, "lr": 0.05}, eval={"gold": "surprise"},
    )  # fmt: skip
    found = [row for row in rows if "eval/gold" in row]
    return {"value": found[-1]["eval/pass@1"], "entropy": found[-1]["eval/gold"] / found[0]["eval/gold"]}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    pairs = list(zip(baseline, method, strict=True))
    return all(m["value"] >= b["value"] and m["entropy"] >= 0.7 and b["entropy"] <= 0.4 for b, m in pairs)

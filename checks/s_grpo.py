"""S-GRPO: thoughts that are long enough, and no longer.

A thought is so many `s`, then `.`; its answer is right from a length on that its task names and the policy sees. At first thoughts are
three times as long. Cut short, the policy answers at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _tree_world import learn, writer

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES, Tabular
from guerdon.rewards.core import reward
from guerdon.samples import Task

CLAIM = (
    "after 150 updates thoughts are at most 1.5 times as long as they need to be, and with grpo on 0 and 1 at least 2.5 times, while "
    "accuracy stays at 97% of the start's or more (every seed)"
)
BASELINE = "grpo on 0 and 1, 9 answers side by side"
METHOD = "one thought, 8 exits of it and itself, s_grpo; without its key term, the decay: all right answers 1"
SEEDS = (0, 1, 2)
NEED, MOST, ANSWER = (4, 6, 8), 48, 2


@reward(inline=True)
def knew(text: str, meta: dict) -> float:
    return float(text.count("s") >= meta["need"] and text.endswith("y"))


@reward(inline=True)
def times_need(text: str, meta: dict) -> float:
    return text.count("s") / meta["need"]


def chances(prompt: str, written: str) -> dict[str, float]:
    """Lengths are lognormal around three times the need, spread 0.3."""
    if written.endswith("."):
        return {"y": 1.0}
    if written.endswith("y"):
        return {"<end>": 1.0}
    grid = np.arange(1, MOST + 1)
    mass = np.exp(-0.5 * (np.log(grid / (3 * int(prompt))) / 0.3) ** 2) / grid + 1e-6
    k = len(written)
    end = float(mass[k - 1] / mass[k - 1 :].sum()) if k else 0.0
    return {".": min(max(end, 1e-3), 0.999), "s": min(max(1 - end, 1e-3), 0.999)}


@backend(capabilities=CAPABILITIES)
def thinks(path: str | None = None, trainable: bool = True) -> Tabular:
    return writer("s.!y", chances, path, trainable)


def measure(variant: str, seed: int) -> dict[str, Any]:
    tasks = [Task(f"{need}/{i}", str(need), meta={"need": need}) for need in NEED for i in range(2)]
    serial = {"use": "serial_exits", "exits": 8, "inducer": "!.", "think_end": ".", "answer_tokens": ANSWER, "max_tokens": MOST}
    decay = 1.0 if variant == "ablated" else 0.5
    ours = {"reward": f"knew | s_grpo({decay})", "correct": "knew", "credit": "s_grpo", "rollout": serial}
    plain = {"reward": "knew", "credit": "grpo", "rollout": {"use": "parallel", "max_tokens": MOST}}
    rows = learn(
        "thinks", tasks, seed=seed, train={"steps": 150, "samples": 9}, aggregate="token_mean",
        eval={"gold": "times_need", "max_tokens": MOST}, **(plain if variant == "baseline" else ours),
    )  # fmt: skip
    first, last = ([row for row in rows if "eval/gold" in row][i] for i in (0, -1))
    kept = last["eval/pass@1"] / first["eval/pass@1"]
    return {"value": last["eval/gold"], "at first": first["eval/gold"], "accuracy": last["eval/pass@1"], "kept": kept}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return all(m["value"] <= 1.5 and m["kept"] >= 0.97 for m in method) and all(b["value"] >= 2.5 for b in baseline)

"""PORTool: of the calls that can follow one beginning, those that get there in fewer steps are better.

An agent calls tools `a`, `b` and `c` and answers `z`; it is right where it called `a`, later `b`, and then answered, at best with two
calls; `c` is a detour. Six steps at most. The exact advantage of a step follows from the starting chances, alike everywhere.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from _tree_world import at_steps, learn, writer

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES, Tabular
from guerdon.credit import grpo, portool
from guerdon.rewards import parse
from guerdon.rewards.core import reward
from guerdon.rollouts import parallel, tree
from guerdon.samples import Context, Task, collate
from guerdon.scoring import Engine

CLAIM = (
    "after 40 updates the mean number of calls is at most 0.9 of that with grpo on chains, and accuracy at most 0.02 lower (means of "
    "seeds); over the starting policy's groups of 8, steps whose exact advantage is beyond +-0.1 have credit of its sign at least 0.1 "
    "more often (every seed)"
)
BASELINE = "8 chains with grpo"
METHOD = "a tree of 8 leaves with portool, gamma 0.95; without its key term, the discount: gamma 1"
SEEDS = (0, 1, 2)
SHARE = {"a": 0.3, "b": 0.2, "c": 0.3, "z": 0.2}
MOST = 6


def right(calls: str) -> bool:
    return calls.endswith("z") and "b" in calls[calls.find("a") :] and "a" in calls


@reward(inline=True)
def called_right(text: str) -> float:
    return float(right(text.replace("\n", "")))


@reward(inline=True)
def calls_made(text: str) -> float:
    return float(sum(text.count(tool) for tool in "abc"))


def chances(_: str, written: str) -> dict[str, float]:
    if written.endswith("\n") or not written:
        return SHARE
    return {"<end>": 1.0} if written.endswith("z") else {"\n": 1.0}


@backend(capabilities=CAPABILITIES)
def caller(path: str | None = None, trainable: bool = True) -> Tabular:
    return writer("abcz\n", chances, path, trainable)


@functools.cache
def worth(made: str) -> float:
    """The chance to be right after these calls."""
    if made.endswith("z") or len(made) == MOST:
        return float(right(made))
    return sum(share * worth(made + tool) for tool, share in SHARE.items())


def measure(variant: str, seed: int) -> dict[str, Any]:
    chains, gamma = variant == "baseline", 1.0 if variant == "ablated" else 0.95
    rng, model = np.random.default_rng(seed), caller()
    context = Context(models={"policy": model}, rng=rng)
    tasks = [Task(str(i), str(i)) for i in range(4)]
    grown = {"max_tokens": 2 * MOST} if chains else {"max_tokens": 2 * MOST, "width": 3, "branch": 2}
    samples = (parallel if chains else tree)(model, [tasks[0]] * 64, 8, context, **grown)
    with Engine(context, workers=1) as engine:
        batch = collate(samples, engine.score(parse("called_right"), samples))
    mine = np.concatenate(at_steps(grpo(batch) if chains else portool(batch, gamma=gamma), batch, samples))
    made = [s.text.replace("\n", "") for s in samples]
    exact = np.array([worth(text[: k + 1]) - worth(text[:k]) for text in made for k in range(len(text))])
    clear = np.abs(exact) > 0.1
    rows = learn(
        "caller", tasks, "called_right", seed, train={"steps": 40}, eval={"gold": "calls_made"},
        rollout={"use": "parallel" if chains else "tree", **grown}, aggregate="token_mean" if chains else "per_node",
        credit="grpo" if chains else {"use": "portool", "gamma": gamma},
    )  # fmt: skip
    last = [row for row in rows if "eval/gold" in row][-1]
    return {
        "value": last["eval/gold"], "accuracy": last["eval/pass@1"],
        "sign": float((np.sign(mine) == np.sign(exact))[clear].mean()), "steps": len(mine) / 64,
    }  # fmt: skip


def holds(baseline: list[Any], method: list[Any]) -> bool:
    means = {key: [float(np.mean([found[key] for found in side])) for side in (baseline, method)] for key in ("value", "accuracy")}
    signs = all(m["sign"] >= b["sign"] + 0.1 for b, m in zip(baseline, method, strict=True))
    return means["value"][1] <= 0.9 * means["value"][0] and means["accuracy"][1] >= means["accuracy"][0] - 0.02 and signs

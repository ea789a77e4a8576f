"""Weighted tests against an exploit: eight easy tests that a constant passes, two hard ones that few programs pass.

A program is three words: how it computes its result (`const`, `general` or `broken`), and whether it treats each of two edge cases. `const`
passes all eight easy tests; `general` passes six, all eight once it treats both edges; each edge that it treats passes a hard test.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _states import States, learn, reached

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES
from guerdon.rewards import reward
from guerdon.samples import Task, Verdict

CLAIM = (
    "after the run more than 80% of the programs pass all tests with verpo in every seed; with the share of tests passed fewer than 50% "
    "do, and more than 40% are the constant"
)
BASELINE = "the share of tests passed, dr_grpo"
METHOD = "verpo, shape and credit; without its key term: all tests weigh the same (alpha 0, sigma 1000)"
SEEDS = (0, 1, 2)
KINDS, EDGES = ["const", "general", "broken"], ["edge", "skip"]
STEPS = 100


def passes(text: str) -> list[int]:
    words = [*text.split(), "", "", ""]
    general, edges = words[0] == "general", [word == "edge" for word in words[1:3]]
    easy = 8 if words[0] == "const" or (general and all(edges)) else 6 if general else 0
    return [int(i < easy) for i in range(8)] + [int(general and edge) for edge in edges]


@reward(inline=True)
def tests(text: str) -> Verdict:
    found = passes(text)
    return Verdict(float(np.mean(found)), evidence={"passes": [found]})


@reward(inline=True)
def all_pass(text: str) -> float:
    return float(all(passes(text)))


@reward(inline=True)
def constant(text: str) -> float:
    return float(text.split()[:1] == ["const"])


@backend(capabilities=CAPABILITIES)
def programs(path: str | None = None, trainable: bool = True) -> States:
    """The kind of program first, then an edge a word; an edge is treated in one program of twenty at first."""
    kind = np.array([0.0] * 3 + [-30.0] * 3)
    edge = np.array([-30.0] * 3 + [np.log(1 / 19), 0.0, -30.0])
    return States(
        [*KINDS, *EDGES], lambda prompt, written: [(len(written), *prompt, *written[:1])], lambda row: edge if row[0] else kind, path
    )


def measure(variant: str, seed: int) -> dict[str, Any]:
    weights = {"method": "", "ablated": "(alpha=0, sigma=1000)"}.get(variant, "")
    expression = "tests" if variant == "baseline" else f"all_pass + (tests | verpo{weights})"
    rows = learn(
        "programs", [Task(str(i), f"task {i}") for i in range(4)], seed, reward=f"{expression} + 0 * constant", correct="all_pass",
        credit="dr_grpo" if variant == "baseline" else "verpo", rollout={"use": "parallel", "max_tokens": 3}, train={"steps": STEPS},
    )  # fmt: skip
    right, fooled = ([row[name] for row in rows] for name in ("pass@1", "reward/constant"))
    ends = {"value": right, "constant": fooled}
    return {name: round(float(np.mean(x[-10:])), 4) for name, x in ends.items()} | {"to 50%": reached(right, 0.5)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return all(m["value"] > 0.8 and b["value"] < 0.5 and b["constant"] > 0.4 for b, m in zip(baseline, method, strict=True))

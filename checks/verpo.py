"""Weighted tests against an exploit: eight easy tests that a constant passes, two hard ones that few programs pass.

The task: in how many of some lists of numbers is the mean above ten? A program is three words: how it counts (`const`, `general` or
`broken`), and whether it treats each of two edge cases, an empty list and a gap (None). They are written out as Python and run against the
tests in the sandbox by the reward `code`. `const` says 0, which eight tests expect; `general` passes six of these, all eight once it treats
both edges; each edge that it treats passes a hard test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from _states import States, learn, reached

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES
from guerdon.rewards import code, reward
from guerdon.samples import Sample, Task, Verdict

CLAIM = (
    "after the run more than 80% of the programs pass all tests with verpo in every seed; with the share of tests passed fewer than 50% "
    "do, and more than 40% are the constant"
)
BASELINE = "the share of tests passed, dr_grpo"
METHOD = "verpo, shape and credit; without its key term: all tests weigh the same (alpha 0, sigma 1000)"
SEEDS = (0, 1, 2)
KINDS, EDGES = ["const", "general", "broken"], ["edge", "skip"]
STEPS = 100


EASY = [[[1, 2]], [[3]], [[10, 10], [0]], [[4, 5, 6]], [[9], [8]], [[-50, 60]], [[], [None, 1]], [[None], [], [2]]]
HARD = [[[], [11]], [[20, None], [12, 9, 8]]]
TASK = {"entry_point": "count", "tests": [{"input": [x], "output": 0} for x in EASY] + [{"input": [x], "output": 1} for x in HARD]}
_ran: dict[str, Verdict] = {}  # the same three words are the same program


def program(text: str) -> str:
    words = [*text.split(), "", "", ""]
    if words[0] != "general":
        return f"def count(lists):\n    return {0 if words[0] == 'const' else -1}\n"
    gap = "        numbers = [x for x in numbers if x is not None]\n" * (words[2] == "edge")
    empty = "        if not numbers:\n            continue\n" * (words[1] == "edge")
    body = f"{gap}{empty}        n += sum(numbers) / len(numbers) > 10\n"
    return f"def count(lists):\n    n = 0\n    for numbers in lists:\n{body}    return n\n"


def ran(texts: Sequence[str], sandbox: Any) -> list[Verdict]:
    new = [text for text in dict.fromkeys(texts) if text not in _ran]
    samples = [Sample(Task("count", "", meta=TASK), f"```python\n{program(text)}```") for text in new]
    _ran.update(zip(new, code.fn(samples, sandbox, partial=True), strict=True))
    return [_ran[text] for text in texts]


@reward(batch=True)
def tests(text: list[str], sandbox: Any) -> list[Verdict]:
    return ran(text, sandbox)


@reward(batch=True)
def all_pass(text: list[str], sandbox: Any) -> list[float]:
    return [float(verdict.value == 1) for verdict in ran(text, sandbox)]


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

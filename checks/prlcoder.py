"""Labels of program lines by running the changed program, against labels by what the change was meant to do; labels only, no models.

Random functions of two numbers in eight lines: assignments with + - *, conditions, some lines that never matter. Each line is changed once
to break it and once to keep what it does. The tests of a function are six inputs; whether a changed line is truly good is whether the
function is the same on a grid of 121. Programs run in the sandbox, under the reward `code`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import guerdon.rewards  # noqa: F401  fills the registry
from guerdon.annotation import mutated
from guerdon.samples import Context, Sample, Task
from guerdon.scoring import Engine

CLAIM = (
    "over the changed lines of 25 programs the labels agree with the grid in 0.90 of the cases or more, and in at least 0.03 more of them "
    "than labels by what was meant (every seed)"
)
BASELINE = "1 for a line that was meant to do the same, 0 for one that was meant to break"
METHOD = "mutated: what the tests say; without its key term, the tests' values: a program that runs is right"
SEEDS = (0, 1, 2)
GRID = [(a, b) for a in range(-5, 6) for b in range(-5, 6)]


def program(rng: np.random.Generator) -> str:
    """Eight lines; a later line may overwrite what an earlier one found, or use it."""

    def term() -> str:
        return str(rng.choice(["a", "b", "c", "d", str(rng.integers(1, 5))]))

    lines = ["def f(a, b):", "    c = a + b", "    d = b * 2"]
    for _ in range(2):
        lines.append(f"    {rng.choice(['c', 'd'])} = {term()} {rng.choice(['+', '-', '*'])} {term()}")
    lines += [f"    if {term()} {rng.choice(['<', '>', '<=', '>='])} {rng.integers(-3, 4)}:", f"        c += {term()} * {term()}"]
    return "\n".join([*lines, f"    return c {rng.choice(['+', '-', '*'])} {rng.integers(0, 3)} * d"])


def values(text: str) -> list[Any]:
    space: dict[str, Any] = {}
    exec(text, space)  # our own, of these few operators
    return [space["f"](a, b) for a, b in GRID]


def measure(variant: str, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(25):
        text = program(rng)
        right = dict(zip(GRID, values(text), strict=True))
        inputs = [GRID[j] for j in rng.choice(len(GRID), 6, replace=False)]
        tests = [{"input": list(x), "output": right[x]} for x in inputs]
        if variant == "ablated":
            tests = [{"code": f"f({a}, {b})"} for a, b in inputs]
        samples.append(Sample(Task(str(i), f"Write f. {i}", meta={"entry_point": "f", "tests": tests}), text))
    with Engine(workers=1) as engine:
        labels = mutated(samples, Context(score=partial(engine.score, engine.check("code"))), seed=seed)
    copies = labels.samples[len(samples) :]
    truth = np.array([values(copy.text) == values(samples[int(copy.task.id)].text) for copy in copies])
    rows = labels.value[len(samples) :]
    said = np.array([row[~np.isnan(row)][-1] for row in rows])
    if variant == "baseline":
        said = np.array([copy.meta["intent"] == "refactor" for copy in copies])
    meant = np.array([copy.meta["intent"] == "mutate" for copy in copies])
    found = {"value": float((said == truth).mean()), "lines": len(copies), "breaks that do not break": float(truth[meant].mean())}
    return {name: round(x, 4) for name, x in found.items()}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return all(m["value"] >= max(0.90, b["value"] + 0.03) for b, m in zip(baseline, method, strict=True))

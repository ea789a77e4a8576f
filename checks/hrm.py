"""HRM: a model that also learnt two steps as one sees that the second put the first right; one that learnt single steps does not.

A solver of chains of 6 to 8 steps errs in one of six, by a wrong result or by starting from a number that is not the one before, and puts
an error right in the next step three times in ten, starting from the true number. Trees of 64 answers to 30 tasks, four branches a step,
give rows with `hierarchical`. A net of 16 tanh units reads a row: whether the newest step (or the two as one) ends where what it started
from and the written terms say, whether it starts where the steps before ended, whether it fits inside, whether all and the last of its
lines are right, whether the line before was right and started right, and whether any earlier one was not. Tested on single answers to
other tasks: does each step end at the true number?
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from _chain_solver import TERM, Solver
from _heads import auc, fitted, rows, said
from torch import nn

from guerdon.annotation import hierarchical
from guerdon.annotation.hierarchy import merged
from guerdon.backends.base import Completion
from guerdon.envs.arithmetic import arithmetic
from guerdon.reward_models.newest import shown, whole_steps
from guerdon.rollouts import parallel, tree
from guerdon.samples import Context, Sample
from guerdon.scoring import Engine

CLAIM = (
    "means of the seeds, AUC for whether a step ends at the true number: in answers that put an error right, HRM, read by the newest two "
    "steps as one, is 0.1 or more above a process reward model on single steps; in the other answers it is at most 0.02 below"
)
BASELINE = "rows of single steps, read by the newest step"
METHOD = "hierarchical: rows of single and joined steps, read joined; without its key term: no joined rows, read joined"
SEEDS = (0, 1, 2)
TASKS, LEAVES, TESTS, EACH, SLIP, REPAIR = 30, 64, 100, 4, 1 / 6, 0.3
LINE = re.compile(r"(-?\d+)([+-]\d+)=(-?\d+)|A: (-?\d+)")


class Erring(Solver):
    """Errs by a wrong result or a wrong start; puts the error right in the next step, or never."""

    def _one(self, text: str, rng: np.random.Generator, stop: Sequence[str]) -> Completion:
        true, begun = truth(text.partition("=")[0]), text.partition("=")[2].splitlines()
        value = int(begun[-1].rpartition("=")[2]) if begun else true[0]
        fresh = bool(begun) and value != true[len(begun)] and (len(begun) == 1 or ends(begun[-2]) == true[len(begun) - 1])
        lines = []
        for i in range(len(begun), len(true) - 1):
            start, move, wrong = value, true[i + 1] - true[i], int(rng.integers(1, 4)) * int(rng.choice([-1, 1]))
            mends, errs, jumps = fresh and rng.random() < self.recover, rng.random() < self.slip, rng.random() < 0.5
            start = true[i] if mends else start + wrong if errs and jumps else start
            value = start + move + (wrong if errs and not mends and not jumps else 0)
            fresh = errs and not mends
            lines.append(f"{start}{move:+d}={value}")
        lines.append(f"A: {value}")
        if "\n" in stop and len(lines) > 1:
            return Completion(ids := self.encode(lines[0] + "\n"), np.full(len(ids), -1.0), "stop", 0)
        return Completion(ids := self.encode_answer("\n".join(lines)), np.full(len(ids), -1.0), "end", 0)


def truth(expression: str) -> list[int]:
    first = re.match(r"-?\d+", expression)
    assert first is not None
    return np.cumsum([int(first[0]), *(int(a + b) for a, b in TERM.findall(expression[first.end() :]))]).tolist()


def ends(line: str) -> int:
    return int(re.findall(r"-?\d+", line)[-1])


def read(prompt: str, completion: str) -> list[float]:
    """What the net sees of a row."""
    task, _, rest = prompt.partition("=")
    numbers = [(int(a or d), int(b or 0), int(c or d)) for a, b, c, d in LINE.findall(rest)]
    unit = [(int(a or d), int(b or 0), int(c or d)) for a, b, c, d in LINE.findall(completion)]
    every = [(0, 0, truth(task)[0]), *numbers, *unit]
    right = [a + b == c for a, b, c in every[1:]]
    follows = [y[0] == x[2] for x, y in pairwise(every)]
    n = len(unit)
    net = unit[0][0] + sum(b for _, b, _ in unit) == unit[-1][2]
    before = [r and f for r, f in zip(right[:-n], follows[:-n], strict=True)]
    seen = [net, follows[-n], all(follows[len(follows) - n + 1 :]), all(right[-n:]), right[-1], n > 1]
    return [2.0 * x - 1 for x in (*seen, *(right[:-n] or [True])[-1:], *(follows[:-n] or [True])[-1:], all(before[:-1]))]


def measure(variant: str, seed: int) -> dict[str, Any]:
    policy, context = Erring(SLIP, REPAIR), Context(rng=np.random.default_rng(seed))
    tasks = arithmetic(n=TASKS + TESTS, steps=(6, 8), low=1, high=9, ops="+-", within=(0, 20), seed=seed)
    grown = tree(policy, tasks[:TASKS], LEAVES, context, branch=4, width=4, max_tokens=500)  # type: ignore[arg-type]
    with Engine(context, workers=1) as engine:
        graded = engine.score(engine.check("arithmetic"), grown)
    learnt = hierarchical(grown, [x > 0.5 for x in graded.total()], np.random.default_rng(seed), merge=variant == "method")
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(9, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    x = np.array([read(row["prompt"], row["completion"]) for row in learnt])
    net = fitted(net, x, rows(np.array([row["label"] for row in learnt])), "outcome_ce", 400, 0.02)
    tests = parallel(policy, tasks[TASKS:], EACH, context, max_tokens=500)  # type: ignore[arg-type]
    found = partial(judged, net, tests)
    mended, plain = found(variant != "baseline")
    alone = found(False)
    return {"value": mended, "plain": plain, "newest alone": alone[0], "plain, newest alone": alone[1], "rows": len(learnt)}


def judged(net: nn.Module, tests: Sequence[Sample], joined: bool) -> tuple[float, float]:
    """AUC over the steps of answers that put an error right, and of the others."""
    seen, good, mended = [], [], []
    for sample in tests:
        steps, true = whole_steps(sample), truth(str(sample.task.prompt).partition("=")[0])
        right = [ends(step) == v for step, v in zip(steps, [*true[1:], true[-1]], strict=True)]
        for t in range(len(steps)):
            unit = merged(steps[: t + 1]) if joined else tuple(steps[: t + 1])
            seen.append(read(str(shown(sample.task.prompt, "".join(unit[:-1]))), unit[-1]))
        good += right
        mended += [any(b and not a for a, b in pairwise(right))] * len(steps)
    score, truly, which = said(net, np.array(seen)), np.array(good), np.array(mended)
    return tuple(round(auc(score[rows], truly[rows]), 4) for rows in (which, ~which))  # type: ignore[return-value]


def holds(baseline: list[Any], method: list[Any]) -> bool:
    mended, plain = ([float(np.mean([s[key] for s in side])) for side in (baseline, method)] for key in ("value", "plain"))
    return mended[1] >= mended[0] + 0.1 and plain[1] >= plain[0] - 0.02

"""Chain arithmetic of many steps, worked by a simulated solver that does not recover unless it is told to: a slip makes a value too large,
and nothing makes it smaller again, so that a wrong line is followed by wrong lines alone and a wrong answer.

The solver stands behind the seam of models: it goes on from any whole line. Tokens are characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

import guerdon.rewards  # noqa: F401  fills the registry
from guerdon.annotation import Labels
from guerdon.backends.base import Completion, SamplingParams, Usage
from guerdon.envs.arithmetic import arithmetic, verify_steps
from guerdon.rollouts import parallel
from guerdon.samples import Context, Sample
from guerdon.scoring import Engine

END = 0
TERM = re.compile(r"([+-])(\d+)")


class Solver:
    """slip: how often a step goes wrong, by 1 to 3. recover: how often a step behind a wrong one comes back to the true value.
    equations: a line is one operation with its result, and not what is left of the expression."""

    capabilities: frozenset[str] = frozenset()
    version = 0

    def __init__(self, slip: float, recover: float = 0.0, equations: bool = False) -> None:
        self.slip, self.recover, self.equations = slip, recover, equations

    def encode(self, prompt: Any) -> np.ndarray:
        return np.array([ord(c) for c in prompt], dtype=np.int64)

    def encode_answer(self, text: str) -> np.ndarray:
        return np.append(self.encode(text), END)

    def decode(self, ids: np.ndarray) -> tuple[str, np.ndarray]:
        ends = np.cumsum(ids != END)
        return "".join(map(chr, ids[ids != END])), np.stack([ends - (ids != END), ends], 1)

    def sample(
        self, prefixes: Sequence[np.ndarray], n: int, params: SamplingParams, want: tuple[str, ...] = ()
    ) -> tuple[list[list[Completion]], Usage]:
        rng = np.random.default_rng(params.seed)
        out = [[self._one("".join(map(chr, prefix)), rng, params.stop) for _ in range(n)] for prefix in prefixes]
        return out, Usage(n * sum(map(len, prefixes)), 0, sum(len(c.ids) for several in out for c in several))

    def _one(self, text: str, rng: np.random.Generator, stop: Sequence[str]) -> Completion:
        expression, _, begun = text.partition("=")
        line = begun.splitlines()[-1] if begun else expression
        first = re.match(r"-?\d+", line)
        assert first is not None
        value, terms = int(first[0]), TERM.findall(line[first.end() :])
        if self.equations and begun:
            value, terms = int(line.partition("=")[2]), TERM.findall(expression)[len(begun.splitlines()) :]
        lines, off = [], 0
        if self.recover:
            done = TERM.findall(expression)[: len(TERM.findall(expression)) - len(terms)]
            off = value - int(re.match(r"-?\d+", expression)[0]) - sum(int(s + x) for s, x in done)  # type: ignore[index]
        for i, (sign, number) in enumerate(terms):
            before, value = value, value + int(sign + number)
            if self.recover and off and rng.random() < self.recover:
                before, value, off = before - off, value - off, 0
            elif rng.random() < self.slip:
                slip = int(rng.integers(1, 4))
                value, off = value + slip, off + slip
            rest = "".join(sign + number for sign, number in terms[i + 1 :])
            lines.append(f"{before}{sign}{number}={value}" if self.equations else f"{value}{rest}" if rest else f"A: {value}")
        lines += [f"A: {value}"] if self.equations else []
        if "\n" in stop and len(lines) > 1:
            ids = self.encode(lines[0] + "\n")
            return Completion(ids, np.full(len(ids), -1.0), "stop", 0)
        ids = self.encode_answer("\n".join(lines))
        return Completion(ids, np.full(len(ids), -1.0), "end", 0)


def answered(
    tasks: int, each: int, seed: int, slip: float = 0.05, most: int = 20, high: int = 9, **how: Any
) -> tuple[list[Sample], Context]:
    """Answers to tasks of 12 to 16 steps, and the context that labels them: the same solver, and the verifier of the last line. most: no
    true value on the way is larger."""
    policy = Solver(slip, **how)
    context = Context(models={"policy": policy}, rng=np.random.default_rng(seed))
    asked = arithmetic(n=tasks, steps=(12, 16), low=1, high=high, ops="+-", within=(0, most), seed=seed)
    engine = Engine(context, workers=1)
    root = engine.check("arithmetic")
    context.score = lambda samples: engine.score(root, samples)
    return parallel(policy, asked, each, context, max_tokens=2000), context  # type: ignore[arg-type]


def truth(samples: Sequence[Sample]) -> np.ndarray:
    """(n,) the first wrong step; -1 where there is none."""
    right = [verify_steps(sample.steps, sample.task) for sample in samples]
    return np.array([steps.index(False) if False in steps else -1 for steps in right])


def truth_of_equations(samples: Sequence[Sample]) -> list[np.ndarray]:
    """For each answer, whether each of its operations is right and none before it was wrong."""
    out = []
    for sample in samples:
        value = int(re.match(r"-?\d+", sample.task.meta["expression"])[0])  # type: ignore[index]
        right = []
        for (sign, number), line in zip(TERM.findall(sample.task.meta["expression"]), sample.steps, strict=False):
            before, value = value, value + int(sign + number)
            right.append(line.strip() == f"{before}{sign}{number}={value}")
        out.append(np.logical_and.accumulate(right))
    return out


def first_error(labels: Labels, real: np.ndarray) -> dict[str, float]:
    """As ProcessBench counts: the harmonic mean of the share of wrong answers whose first wrong step is found, and of the share of right
    answers in which none is."""
    found, wrong = labels.first_wrong(), real >= 0
    a, b = (float((found == real)[rows].mean()) for rows in (wrong, ~wrong))
    return {"f1": round(2 * a * b / (a + b) if a + b else 0.0, 4), "wrong": round(a, 4), "right": round(b, 4)}

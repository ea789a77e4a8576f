"""A world in which the truth is plain: lines `g` or `b`, and an answer that is right where no line was `b`."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.backends.base import Completion, Usage
from guerdon.samples import Context, Grain, Rewards, Sample, State, Task

END = 0


class Solver:
    """Writes `length` lines, each `b` with probability `slip`, then `A: 1` or `A: 0`. Counts what it is asked."""

    capabilities = frozenset()
    version = 0

    def __init__(self, slip=0.1, length=6, breaks_after=None):
        self.slip, self.length, self.asked, self.calls = slip, length, [], 0
        self.breaks_after = breaks_after

    def encode(self, prompt):
        return np.array([ord(c) for c in prompt], dtype=np.int64)

    def encode_answer(self, text):
        return np.append(self.encode(text), END)

    def decode(self, ids):
        ends = np.cumsum(np.asarray(ids) != END)
        return "".join(map(chr, ids[ids != END])), np.stack([ends - (ids != END), ends], 1)

    def sample(self, prefixes, n, params, want=()):
        if self.breaks_after is not None and self.calls >= self.breaks_after:
            raise KeyboardInterrupt
        self.calls += 1
        rng = np.random.default_rng(params.seed)
        texts = ["".join(map(chr, prefix)) for prefix in prefixes]
        self.asked += texts
        out = [[self.one(text.partition("=")[2], rng) for _ in range(n)] for text in texts]
        return out, Usage(n * sum(map(len, prefixes)), 3, sum(len(c.ids) for several in out for c in several))

    def one(self, begun, rng):
        lines = begun.split()
        new = ["b" if rng.random() < self.slip else "g" for _ in range(self.length - len(lines))]
        ids = self.encode_answer("".join(f"{line}\n" for line in new) + f"A: {int('b' not in lines + new)}")
        return Completion(ids, np.zeros(len(ids)), "end", 0)


class Grader:
    """Outcome 1 where the answer is `A: 1`; a text that holds one of `fails` fails."""

    def __init__(self, fails=()):
        self.graded, self.fails = [], fails

    def __call__(self, samples):
        self.graded += [s.text for s in samples]
        state = [State.FAILED if any(x in s.text for x in self.fails) else State.SCORED for s in samples]
        return Rewards(Grain.of([float(s.text.endswith("A: 1")) for s in samples], state))


@pytest.fixture
def world():
    """make(slip, ...) -> a context; its policy and grader count."""

    def make(slip=0.1, length=6, breaks_after=None, fails=()):
        return Context(models={"policy": Solver(slip, length, breaks_after)}, score=Grader(fails))

    return make


@pytest.fixture
def answer():
    """of("ggbg") -> a sample with text only, of task `prompt`."""

    def of(lines, prompt="chain=", group=0):
        text = "".join(f"{line}\n" for line in lines) + f"A: {int('b' not in lines)}"
        return Sample(Task(prompt, prompt, "1"), text, group=group)

    return of

"""The search contract: (task, policy, reward, budget, **params) -> Found(answer, samples, values, tree, cost).

`reward` is a scorer: samples, also unfinished ones (`stop` None), -> Rewards. Everything that a search asks of a policy or a reward goes
through an `Explorer`, which counts it and stops at the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from guerdon.backends.base import Model, SamplingParams
from guerdon.registry import Refused, registrar
from guerdon.rollouts.core import completed, place
from guerdon.rollouts.tree import CUTS
from guerdon.samples import Rewards, Sample, Task
from guerdon.spans import Split
from guerdon.tree import Tree, forest

search = registrar("search")
"""`@search def best_of_n(task, policy, reward, budget, **params) -> Found`."""

Scorer = Callable[[list[Sample]], Rewards]
How = Literal["last", "min", "product", "mean", "sum"]


@dataclass(frozen=True)
class Budget:
    """What may be spent on one task; None is no limit."""

    rollouts: int | None = None
    """Continuations that are sampled, whole ones and single steps alike."""
    tokens: int | None = None
    """New tokens."""
    calls: int | None = None
    """Samples that the reward is asked about."""

    @staticmethod
    def of(text: str) -> Budget:
        """`rollouts=64`, `tokens=20000,calls=100`. Raises Refused for anything else."""
        try:
            limits = {name.strip(): int(value) for name, value in (part.split("=") for part in text.split(","))}
            if not set(limits) <= {"rollouts", "tokens", "calls"} or min(limits.values()) < 0:
                raise ValueError
        except ValueError:
            raise Refused(f"The budget {text!r} is not such as rollouts=64, tokens=20000 or calls=100, or several with commas.") from None
        return Budget(**limits)


@dataclass
class Cost:
    """What was spent."""

    rollouts: int = 0
    tokens: int = 0
    calls: int = 0
    prompt: int = 0
    """Tokens of prompts and prefixes that were given to the policy."""
    cached: int = 0
    """Of these the ones that a cache spared."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: value + getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Partial:
    """A beginning of an answer, or a whole one (`stop` set)."""

    ids: np.ndarray
    logprobs: np.ndarray
    stop: str | None = None
    version: int = 0

    @staticmethod
    def empty() -> Partial:
        return Partial(np.zeros(0, dtype=np.int64), np.zeros(0))


@dataclass
class Found:
    """What a search came to."""

    answer: Sample | None
    """None where the reward gave no verdict on any whole answer, or none was reached."""
    samples: list[Sample] = field(default_factory=list)
    """Every whole answer, in the order it was found; `path` says its nodes in the tree."""
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(n,) the value of each; NaN without a verdict."""
    tree: Tree | None = None
    """Of the whole answers."""
    cost: Cost = field(default_factory=Cost)
    spent: bool = False
    """The budget ended the search."""


def value_of(rewards: Rewards, how: How = "last") -> np.ndarray:
    """(n,) one value a sample: the outcome where there is one, else its scored steps (or tokens) put together; NaN without a verdict.

    last: of the last step; min; product; mean; sum.
    """
    grain = rewards.outcome or rewards.step or rewards.token
    assert grain is not None
    out = np.full(len(rewards), np.nan)
    if grain.value.ndim == 1:
        return np.where(grain.scored & rewards.alive, grain.value, np.nan)
    for i in np.flatnonzero(rewards.alive).tolist():
        out[i] = together(grain.value[i][grain.scored[i]], how)
    return out


def together(values: np.ndarray, how: How) -> float:
    """Step scores (s,) as one number; NaN of none. Raises Refused for an unknown way."""
    ways = {"last": lambda v: v[-1], "min": np.min, "product": np.prod, "mean": np.mean, "sum": np.sum}
    if how not in ways:
        raise Refused(f"Step scores are put together by {', '.join(ways)}, not {how!r}.")
    return float(ways[how](values)) if len(values) else np.nan


@dataclass
class Explorer:
    """A policy on one task, and a reward, with an account. Equal seeds give equal searches."""

    task: Task
    policy: Model
    reward: Scorer | None
    budget: Budget
    max_tokens: int = 256
    step_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    split: Split = "lines"
    how: How = "last"
    seed: int = 0
    cost: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        self.prompt = self.policy.encode(self.task.prompt)
        self.cut = self.cut or CUTS.get(self.split, ())

    def room(self) -> int:
        """Rollouts that the budget still allows, a large number without a limit; 0 once its tokens are spent."""
        if self.budget.tokens is not None and self.cost.tokens >= self.budget.tokens:
            return 0
        return 1 << 30 if self.budget.rollouts is None else max(0, self.budget.rollouts - self.cost.rollouts)

    def grow(self, partials: Sequence[Partial], by_step: bool = False) -> list[Partial]:
        """One continuation of each, in one call of the policy: to the end, or by one step. At most as many as the budget has room for, from
        the first on; those of equal beginnings differ. A whole answer stays as it is."""
        open_ = [i for i, p in enumerate(partials) if p.stop is None]
        open_ = open_[: self.room()]
        if not open_:
            return [p for p in partials if p.stop is not None]
        rooms = [self.max_tokens - len(partials[i].ids) for i in open_]
        if self.budget.tokens is not None:
            rooms = [min(room, self.budget.tokens - self.cost.tokens) for room in rooms]
        most, stops = (min(self.step_tokens, max(rooms)), (*self.cut, *self.stop)) if by_step else (max(rooms), self.stop)
        params = SamplingParams(most, self.temperature, self.top_p, 0, stops, self.seed, tuple(rooms))
        self.seed += 1
        found, usage = self.policy.sample([np.concatenate([self.prompt, partials[i].ids]) for i in open_], 1, params)
        self.cost = self.cost + Cost(len(open_), usage.new, 0, usage.prompt, usage.cached)
        grown = {i: self._joined(partials[i], c, by_step) for i, (c,) in zip(open_, found, strict=True)}
        return [grown.get(i, p) for i, p in enumerate(partials) if i in grown or p.stop is not None]

    def _joined(self, old: Partial, c: object, by_step: bool) -> Partial:
        ids, logprobs = np.concatenate([old.ids, c.ids]), np.concatenate([old.logprobs, c.logprobs])  # type: ignore[attr-defined]
        new = Partial(ids, logprobs, c.stop, c.version)  # type: ignore[attr-defined]
        whole = not by_step or not len(c.ids) or c.stop not in ("stop", "length") or self._at_end(new)  # type: ignore[attr-defined]
        if whole:
            return replace(new, stop="length") if not len(c.ids) else new  # type: ignore[attr-defined]
        return replace(new, stop="length" if len(ids) >= self.max_tokens else None)

    def _at_end(self, partial: Partial) -> bool:
        return bool(self.stop) and any(mark in self.policy.decode(partial.ids)[0] for mark in self.stop)

    def sample(self, partial: Partial) -> Sample:
        return completed(
            self.policy, self.task, 0, self.prompt, [(partial.ids, partial.logprobs)], partial.stop, partial.version, self.split
        )

    def value(self, partials: Sequence[Partial]) -> np.ndarray:
        """(n,) what the reward says of each, in one call; NaN without a verdict, and past the budget's calls."""
        if self.reward is None:
            raise Refused("This search needs a reward; name one.")
        out = np.full(len(partials), np.nan)
        n = len(partials) if self.budget.calls is None else min(len(partials), max(0, self.budget.calls - self.cost.calls))
        if n:
            self.cost.calls += n
            out[:n] = value_of(self.reward([self.sample(p) for p in partials[:n]]), self.how)
        return out

    @property
    def spent(self) -> bool:
        """Whether nothing more can be asked."""
        return self.room() == 0 or (self.budget.calls is not None and self.cost.calls >= self.budget.calls)

    def found(self, partials: Sequence[Partial], values: np.ndarray, best: int | None = None) -> Found:
        """Whole answers with their values; the best is the first with the highest value unless said."""
        samples = [self.sample(p) for p in partials]
        place(samples)
        known = ~np.isnan(values)
        if best is None and known.any():
            best = int(np.where(known, values, -np.inf).argmax())
        tree = forest([s.ids for s in samples if s.ids is not None], [0] * len(samples))[0] if samples else None
        return Found(None if best is None else samples[best], samples, values, tree, self.cost, self.spent)

"""Rollouts from beginnings of answers, graded: each beginning once, all tasks side by side, counted, and journalled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from guerdon.annotation.core import policy_of
from guerdon.backends.base import SamplingParams
from guerdon.registry import Refused
from guerdon.rollouts.core import completed
from guerdon.samples import Context, Sample
from guerdon.scoring.cache import Cache, content
from guerdon.search.core import Budget, Cost
from guerdon.spans import Split


@dataclass(frozen=True)
class Rollout:
    """A continuation of a beginning: its tokens behind it, why it ended, whether it came right (None without a verdict)."""

    ids: np.ndarray
    stop: str
    right: bool | None


@dataclass(frozen=True)
class Probe:
    """What rollouts from one beginning came to."""

    rollouts: tuple[Rollout, ...]
    cost: Cost

    @property
    def count(self) -> int:
        """Rollouts with a verdict."""
        return sum(r.right is not None for r in self.rollouts)

    @property
    def right(self) -> int:
        return sum(r.right is True for r in self.rollouts)


@dataclass
class Prober:
    """k rollouts of the model `policy` behind beginnings of answers, graded by the context's scorer: right is an outcome above 0.5.

    The same beginning of the same task is never rolled out twice. One call of the policy has up to `at_once` beginnings, of any tasks;
    what it found is in the journal, all of it or nothing, before the next one. So a run that was killed goes on to the same numbers, and
    asks nothing twice; with a larger budget or more samples it goes on where it stood. A budget is never exceeded, and cuts no rollout
    short: that would make it wrong. With a journal, `about` names what its numbers hang on beside the samples: policy and reward.
    """

    context: Context
    k: int = 8
    budget: Budget = field(default_factory=Budget)
    journal: Cache | None = None
    about: str = ""
    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    split: Split = "lines"
    at_once: int = 64
    seed: int = 0
    tell: Callable[[float, int], None] = lambda share, rollouts: None
    """Told, after each call, which share of what was planned is done, and the number of rollouts."""

    def __post_init__(self) -> None:
        if min(self.k, self.max_tokens, self.at_once) < 1 or self.temperature < 0:
            raise Refused(f"Rollouts need k, max_tokens and at_once of 1 or more, not {self.k}, {self.max_tokens} and {self.at_once}.")
        self.policy, self.stop = policy_of(self.context), tuple(self.stop)
        self.cost, self.spent = Cost(), False
        self.replayed = 0
        """Rollouts that were in the journal."""
        how = (self.max_tokens, self.temperature, self.top_p, self.stop, self.split, self.seed)
        self.head = content((self.about, self.policy.version, self.k, how))
        self.found: dict[bytes, Probe] = {}
        self.planned = 0
        """Rollouts that will be asked at most, as far as is known."""

    def known(self, sample: Sample, tokens: int) -> Probe | None:
        """The probe of the sample's first `tokens` tokens, where there was one."""
        return self.found.get(self._key(sample, tokens))

    def probe(self, wanted: Sequence[tuple[Sample, int]]) -> list[Probe | None]:
        """For each (sample, number of its first tokens) what k rollouts behind these tokens come to; None once the budget is spent."""
        keys = [self._key(sample, tokens) for sample, tokens in wanted]
        todo = {key: want for key, want in zip(keys, wanted, strict=True) if key not in self.found}
        while todo:
            some = dict(list(todo.items())[: self._room(self.k, self.max_tokens)])
            if not some:
                self.spent = True
                break
            self._settle(some, self._roll)
            todo = {key: want for key, want in todo.items() if key not in some}
        return [self.found.get(key) for key in keys]

    def outcomes(self, samples: Sequence[Sample]) -> list[bool | None]:
        """Whether each whole answer is right; None without a verdict, or once the budget's calls are spent."""
        keys = [self._key(sample, -1) for sample in samples]
        todo = {key: (sample, -1) for key, sample in zip(keys, samples, strict=True) if key not in self.found}
        while todo:
            some = dict(list(todo.items())[: self._room(1, 0)])
            if not some:
                self.spent = True
                break
            self._settle(some, self._grade_whole)
            todo = {key: want for key, want in todo.items() if key not in some}
        return [self.found[key].rollouts[0].right if key in self.found else None for key in keys]

    def note(self, whole: Sample, right: bool) -> None:
        """The verdict on a whole answer that a probe has given already."""
        self.found[self._key(whole, -1)] = Probe((Rollout(np.zeros(0, dtype=np.int64), "end", right),), Cost())

    def _key(self, sample: Sample, tokens: int) -> bytes:
        """Of a beginning of an answer to a task; tokens -1: of the whole answer, with all that its row says."""
        assert sample.ids is not None
        assert sample.prompt_ids is not None
        task = (sample.task.prompt, sample.task.reference, sample.task.meta)
        ids = [np.asarray(x, dtype=np.int64) for x in (sample.prompt_ids, sample.ids if tokens < 0 else sample.ids[:tokens])]
        whole = (sample.stop, sample.meta) if tokens < 0 else None
        return content((self.head, content(task) or sample.task.key, *ids, whole and (content(whole) or str(whole)))) or b""

    def _room(self, rollouts: int, tokens: int) -> int:
        """Beginnings of so many rollouts, with at most so many new tokens each, that may be asked now."""
        left = [self.at_once]
        for limit, used, each in (
            (self.budget.rollouts, self.cost.rollouts, rollouts if tokens else 0),
            (self.budget.tokens, self.cost.tokens, rollouts * tokens),
            (self.budget.calls, self.cost.calls, rollouts),
        ):
            if limit is not None and each:
                left.append((limit - used) // each)
        return min(left)

    def _settle(self, some: dict[bytes, tuple[Sample, int]], ask: Callable[[list[tuple[Sample, int]], int], list[Probe]]) -> None:
        """Enters what is in the journal, asks for the rest in one call, and writes that down."""
        old = {} if self.journal is None else {key: _read(data) for key, data in self.journal.get(list(some)).items()}
        self.replayed += sum(probe.cost.rollouts for probe in old.values())
        fresh = [key for key in some if key not in old]
        seed = int.from_bytes(content((self.seed, fresh)) or b"", "big") % 2**31  # a call that is repeated after a kill gives the same
        asked = dict(zip(fresh, ask([some[key] for key in fresh], seed), strict=True)) if fresh else {}
        if self.journal is not None:
            self.journal.put([(key, _write(probe)) for key, probe in asked.items() if probe.count])
        for key in some:
            self.found[key] = old.get(key) or asked[key]
            self.cost = self.cost + self.found[key].cost
        most = min(self.planned or self.cost.rollouts, self.planned if self.budget.rollouts is None else self.budget.rollouts)
        self.tell(min(1.0, self.cost.rollouts / max(most, 1)), self.cost.rollouts)

    def _roll(self, wanted: list[tuple[Sample, int]], seed: int) -> list[Probe]:
        params = SamplingParams(self.max_tokens, self.temperature, self.top_p, 0, self.stop, seed)
        prefixes = [np.concatenate([s.prompt_ids, s.ids[:tokens]]) for s, tokens in wanted]  # type: ignore[index,list-item]
        found, usage = self.policy.sample(prefixes, self.k, params)
        answers = [
            self.answer(sample, tokens, c.ids, c.stop, group)
            for group, ((sample, tokens), several) in enumerate(zip(wanted, found, strict=True))
            for c in several
        ]
        verdicts = graded(self.context, answers)
        probes = []
        for i, several in enumerate(found):
            said = verdicts[i * self.k : (i + 1) * self.k]
            rollouts = tuple(Rollout(c.ids, c.stop, None if c.failed else right) for c, right in zip(several, said, strict=True))
            first = i == 0  # what the call cost stands with its first beginning: shared tokens belong to no single one
            cost = Cost(self.k, usage.new * first, self.k, usage.prompt * first, usage.cached * first)
            probes.append(Probe(rollouts, cost))
        return probes

    def _grade_whole(self, wanted: list[tuple[Sample, int]], seed: int) -> list[Probe]:
        verdicts = graded(self.context, [sample for sample, _ in wanted])
        return [Probe((Rollout(np.zeros(0, dtype=np.int64), "end", right),), Cost(calls=1)) for right in verdicts]

    def answer(self, sample: Sample, tokens: int, ids: np.ndarray, stop: str | None, group: int) -> Sample:
        """The sample's first `tokens` tokens with others behind them, as an answer to its task."""
        assert sample.ids is not None
        assert sample.prompt_ids is not None
        pieces = [(part, np.full(len(part), np.nan)) for part in (sample.ids[:tokens], ids)]
        whole = completed(self.policy, sample.task, group, sample.prompt_ids, pieces, stop, self.policy.version, self.split)
        whole.meta = dict(sample.meta)
        return whole


def graded(context: Context, samples: Sequence[Sample]) -> list[bool | None]:
    """Whether each answer is right: an outcome above 0.5; None where it failed or abstained."""
    if context.score is None:
        raise Refused("Labels need a reward that grades whole answers; give --reward, or Context(score=...).")
    rewards = context.score(list(samples))
    if rewards.outcome is None:
        raise Refused("Labels need a reward of whole answers, and this one gives steps or tokens alone; name another.")
    return [bool(value > 0.5) if ok else None for value, ok in zip(rewards.outcome.value, rewards.alive, strict=True)]


def _write(probe: Probe) -> bytes:
    rows = [(r.ids.tolist(), r.stop, r.right) for r in probe.rollouts]
    return orjson.dumps([rows, vars(probe.cost)])


def _read(data: bytes) -> Probe:
    rows, cost = orjson.loads(data)
    found: list[Any] = [Rollout(np.asarray(ids, dtype=np.int64), stop, right) for ids, stop, right in rows]
    return Probe(tuple(found), Cost(**cost))

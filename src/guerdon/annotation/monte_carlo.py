"""Step labels from rollouts alone: after every step (Math-Shepherd), or by binary search for the first wrong one (OmegaPRM)."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guerdon.annotation.core import Labels, all_tokenised, annotator, confidence, policy_of
from guerdon.annotation.probe import Probe, Prober
from guerdon.registry import Refused
from guerdon.samples import Context, Sample, Task

SPENT = "no label: the budget was spent"
UNKNOWN = "no label: no verdict"


def ends(sample: Sample) -> list[int]:
    """Where each step ends, in tokens."""
    return [end for _, end in sample.spans["step"]]


@annotator
def monte_carlo(samples: Sequence[Sample], context: Context, *, soft: bool = True, **how: Any) -> Labels:
    """After each step k rollouts of the policy: the share that comes right (soft), or 1 where any does (hard, soft=False).

    value[i, t] = (1/k) sum_j 1[rollout j behind steps 0..t is right]; the last step of a whole answer has the answer's own outcome, from
    one call of the grader. how: k, budget, journal, max_tokens, temperature ... of `Prober`. Steps that the budget leaves out have no
    label; the budget is spent sample by sample. Source: arXiv:2312.08935 (Math-Shepherd).
    """
    split = how.get("split", "lines")
    samples = all_tokenised(policy_of(context), samples, split)
    prober = Prober(context, **how)
    labels = Labels.none(samples)
    final(labels, prober)
    wanted = [(i, t, sample, end) for i, sample in enumerate(samples) for t, end in enumerate(_open(sample))]
    prober.planned = prober.k * len(wanted)
    for (i, t, _, _), probe in zip(wanted, prober.probe([(sample, end) for _, _, sample, end in wanted]), strict=True):
        measured(labels, i, t, probe, soft)
    labels.cost, labels.spent = prober.cost, prober.spent
    return labels


def _open(sample: Sample) -> list[int]:
    """The ends of the steps that only rollouts can label."""
    return ends(sample)[:-1] if sample.stop is not None else ends(sample)


def final(labels: Labels, prober: Prober) -> list[bool | None]:
    """Labels the last step of whole answers by their outcomes, and returns these; None where an answer is unfinished or has no verdict."""
    whole = [i for i, sample in enumerate(labels.samples) if sample.stop is not None]
    said: list[bool | None] = [None] * len(labels.samples)
    for i, right in zip(whole, prober.outcomes([labels.samples[i] for i in whole]), strict=True):
        said[i], last = right, len(labels.text[i]) - 1
        if right is None:
            labels.text[i][last] = SPENT if prober.spent else UNKNOWN
        else:
            labels.set(i, last, float(right), 1, 1.0)
    return said


def measured(labels: Labels, row: int, step: int, probe: Probe | None, soft: bool) -> None:
    """A step's label from the rollouts behind it. That one came right proves the hard label 1."""
    if probe is None or not probe.count:
        labels.text[row][step] = SPENT if probe is None else UNKNOWN
        return
    value = probe.right / probe.count if soft else float(probe.right > 0)
    proven = not soft and probe.right > 0
    labels.set(row, step, value, probe.count, 1.0 if proven else confidence(probe.right, probe.count))


@annotator
def omegaprm(
    samples: Sequence[Sample | Task], context: Context, *, soft: bool = False, searches: int = 0, alpha: float = 0.5, beta: float = 0.9,
    length: float = 500.0, c: float = 0.125, **how: Any,
) -> Labels:  # fmt: skip
    """Finds the first step behind which no rollout comes right (MC = 0) by binary search: k log2(s) rollouts an answer instead of k s.

    A task's wrong answers, given ones and the wrong rollouts r from beginnings b with 0 < MC(b) < 1, wait in a pool. The one of the highest
    Q + U is searched next: Q(b, r) = alpha^(1 - MC(b)) beta^(|r| / length), |r| in tokens; U(b) = c sqrt(sum_b' N(b')) / (1 + N(b)), N the
    searches from b. It is rescored at each choice and searched once (the authors' code, in a copy of openr, keeps old scores and may choose
    the same again). A right answer needs no rollouts. A task that no rollout from its prompt solves is left out.

    The labels are hard: 1 up to the last beginning from which something came right, which proves the steps before it, 0 from the first
    one behind it from which nothing did: a policy that recovers from errors moves that. soft=True: shares, for the steps that were
    measured; the steps before them have no label, those behind MC = 0 have 0. count is 0 where a label is implied.
    searches: how many answers born in the tree of a task are searched and labelled too; they stand behind the given ones. Items may be
    tasks, which have such answers alone. how: k, budget, journal, max_tokens ... of `Prober`; the budget is spent task by task,
    `at_once` of them side by side.
    Source: arXiv:2406.06592; the numbers are those of openreasoner/openr.
    """
    if searches < 0 or not 0 < alpha <= 1 or not 0 < beta <= 1 or length <= 0:
        raise Refused(f"omegaprm(searches={searches}, alpha={alpha}, beta={beta}, length={length}): alpha and beta lie in (0, 1].")
    if not searches and any(isinstance(item, Task) for item in samples):
        raise Refused("omegaprm was given tasks without answers: say how many of its own to search and label, such as searches=100.")
    policy = policy_of(context)
    given = all_tokenised(policy, [item for item in samples if isinstance(item, Sample)], how.get("split", "lines"))
    prober = Prober(context, **how)
    said = final(Labels.none(given), prober)
    trees: dict[Any, _Search] = {}
    settings = (prober, searches, alpha, beta, length, c)
    for sample, right in zip(given, said, strict=True):
        tree = trees.setdefault((repr(sample.task.prompt), repr(sample.task.reference)), _Search(sample, *settings))
        if right is False or sample.stop is None:
            tree.pool.append(_Entry(tree.root, sample, 0, unfinished=sample.stop is None, given=True))
    groups = max((sample.group for sample in given), default=-1) + 1
    for item in samples:
        if isinstance(item, Task):
            empty = Sample(item, "", policy.encode(item.prompt), np.zeros(0, dtype=np.int64), group=groups + len(trees))
            trees.setdefault((repr(item.prompt), repr(item.reference)), _Search(empty, *settings))
    each = [1 + sum(math.ceil(math.log2(len(ends(e.answer)) + 1)) for e in tree.pool) for tree in trees.values() if tree.pool]
    prober.planned = prober.k * sum(each)
    _drive(prober, [tree.run() for tree in trees.values() if tree.pool or searches])
    labels = Labels.none([*given, *(born for tree in trees.values() for born in tree.born)])
    final(labels, prober)
    for i, sample in enumerate(labels.samples):
        _imply(labels, i, sample, prober, soft)
    labels.cost, labels.spent = prober.cost, prober.spent
    return labels


def middle(low: int, high: int) -> int:
    """Where the search asks next, between a beginning that can come right and one that cannot."""
    return (low + high) // 2


@dataclass(eq=False)
class _State:
    """A beginning that rollouts left."""

    mc: float = 1.0
    visits: int = 0


@dataclass(eq=False)
class _Entry:
    """An answer that waits to be searched from its first `start` steps on."""

    state: _State
    answer: Sample
    start: int
    unfinished: bool = False
    given: bool = False


Routine = Generator[tuple[Sample, int], "Probe | None", None]


@dataclass
class _Search:
    """The tree of one task."""

    first: Sample
    prober: Prober
    left: int
    alpha: float
    beta: float
    length: float
    c: float
    root: _State = field(default_factory=_State)
    pool: list[_Entry] = field(default_factory=list)
    states: list[_State] = field(default_factory=list)
    born: list[Sample] = field(default_factory=list)

    def run(self) -> Routine:
        """Yields beginnings, is sent their probes; ends with the pool, or where there is no probe any more."""
        probe = yield self.first, 0
        if probe is None or not probe.right:
            return
        self._enter(self.root, probe, self.first, 0, 0)
        while choices := [e for e in self.pool if e.given or self.left > 0]:
            entry = max(choices, key=self._priority)
            self.pool.remove(entry)
            entry.state.visits += 1
            if not entry.given:
                self.left -= 1
                self.born.append(entry.answer)
            places = [0, *ends(entry.answer)]
            low, high = entry.start, len(places) - 1 + entry.unfinished  # a whole answer that is in the pool is wrong
            while high - low > 1:
                at = middle(low, high)
                probe = yield entry.answer, places[at]
                if probe is None:
                    return
                if not probe.count:
                    break
                if probe.right:
                    low = at
                    self._enter(_State(), probe, entry.answer, places[at], at)
                else:
                    high = at

    def _enter(self, state: _State, probe: Probe, answer: Sample, tokens: int, steps: int) -> None:
        """The wrong rollouts from a beginning that is neither lost nor safe join the pool."""
        state.mc = probe.right / probe.count
        self.states.append(state)
        if self.left > 0 and state.mc < 1:
            wrong = [r for r in probe.rollouts if r.right is False]
            born = [self.prober.answer(answer, tokens, r.ids, r.stop, self.first.group) for r in wrong]
            for sample in born:
                self.prober.note(sample, False)
            self.pool += [_Entry(state, sample, steps) for sample in born if len(ends(sample)) > steps]

    def _priority(self, entry: _Entry) -> float:
        assert entry.answer.ids is not None
        q = self.alpha ** (1 - entry.state.mc) * self.beta ** (len(entry.answer.ids) / self.length)
        return q + self.c * np.sqrt(sum(s.visits for s in self.states)) / (1 + entry.state.visits)


def _drive(prober: Prober, routines: Sequence[Routine]) -> None:
    """Runs searches side by side, as many as fill a call with what they ask next; one that ends makes room for the next."""
    waiting, active = list(reversed(routines)), []
    while waiting or active:
        while waiting and len(active) < prober.at_once:
            routine = waiting.pop()
            if (want := next(routine, None)) is not None:
                active.append((routine, want))
        probes = prober.probe([want for _, want in active])
        asked = [(routine, _send(routine, probe)) for (routine, _), probe in zip(active, probes, strict=True)]
        active = [(routine, want) for routine, want in asked if want is not None]


def _send(routine: Routine, probe: Probe | None) -> tuple[Sample, int] | None:
    try:
        return routine.send(probe)
    except StopIteration:
        return None


def _imply(labels: Labels, row: int, sample: Sample, prober: Prober, soft: bool) -> None:
    """Labels the steps of an answer from all that is known of its beginnings, and of beginnings that it shares with others."""
    places = ends(sample)
    last = len(places) - 1
    outcome = labels.value[row, last]
    probes = [prober.known(sample, end) for end in places]
    probes = [None if probe is None or not probe.count else probe for probe in probes]
    if sample.stop is not None:
        probes[last] = None
    safe = last if outcome == 1 else max((t for t, probe in enumerate(probes) if probe and probe.right), default=-1)
    lost = min((t for t, probe in enumerate(probes) if t > safe and probe), default=last if outcome == 0 else last + 1)
    sure = 1.0 if probes[min(lost, last)] is None else confidence(0, probes[min(lost, last)].count)  # type: ignore[union-attr]
    root = prober.known(sample, 0)
    for t, probe in enumerate(probes):
        if t == last and not np.isnan(outcome):
            continue
        if probe is not None and (soft or t > safe):
            measured(labels, row, t, probe, soft)
        elif t <= safe and not soft:
            labels.set(row, t, 1.0, 0 if probe is None else probe.count, 1.0)
        elif t > lost:
            labels.set(row, t, 0.0, 0, sure)
        elif root is not None and root.count and not root.right:
            labels.text[row][t] = "no label: the policy never solves this task"
        else:
            labels.text[row][t] = SPENT if prober.spent else "no label: not measured" if t <= safe else UNKNOWN

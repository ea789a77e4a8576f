"""Where each kind of reward runs.

    async                                         side by side in one event loop, each with the reward's deadline; late is failed
    inline, or wants a service of the context     in this process, one call a sample
    batch                                         in this process, one call for all samples
    group, samples                                in this process, one call a group, or one for all
    any other function                            in worker processes, killed at the reward's deadline; what is killed is hostile

Whatever a function raises is a failed verdict of the rows of that call, with the exception's type and message.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.registry import Broke
from guerdon.rewards.core import Reward, inject, to_verdict
from guerdon.samples import Rewards, Sample, State, Verdict
from guerdon.scoring.cache import content, whole
from guerdon.scoring.wire import Cell

if TYPE_CHECKING:
    from guerdon.scoring.engine import Engine

Fields = dict[str, Any]
CHUNK = 32  # samples in one call of a worker, at most


def said(error: BaseException) -> str:
    """`ValueError: what it says`, in one line of a readable length."""
    from guerdon.workers.pool import describe  # here: the pool's own imports take a tenth of a second

    return describe(error)


def fields_of(leaf: Reward, sample: Sample) -> Fields | Verdict:
    """The fields that the reward wants of the sample, or failed where its task has no reference."""
    try:
        return inject(leaf, sample)
    except KeyError:
        return Verdict.fail("the task has no reference")


def run(leaf: Reward, inputs: Sequence[Any], engine: Engine, seed: int) -> list[Cell]:
    """A verdict for the fields of each sample."""
    if not inputs:
        return []
    if leaf.batch:
        columns = {name: [fields[name] for fields in inputs] for name in leaf.fields}
        [out] = _here(leaf, [((), columns)], engine, _services(leaf, engine, seed, content))
        cells = _each(leaf, out, len(inputs))
        return list(cells) if not isinstance(cells, Rewards) else [Verdict.fail("a batch reward returns a list, not Rewards")] * len(inputs)
    if leaf.inline or leaf.asks or leaf.asynchronous:
        out = _here(leaf, [((), fields) for fields in inputs], engine, _services(leaf, engine, seed, content))
        return [to_verdict(value, leaf) for value in out]
    return _in_workers(leaf, inputs, engine)


def run_groups(leaf: Reward, groups: Sequence[list[Sample]], engine: Engine, seed: int) -> list[Sequence[Cell] | Rewards]:
    """For each group a verdict for each of its samples, or its Rewards."""
    out = _here(leaf, [((group,), {}) for group in groups], engine, _services(leaf, engine, seed, whole))
    return [_each(leaf, r, len(group)) for r, group in zip(out, groups, strict=True)]


def _here(leaf: Reward, arguments: Sequence[tuple[tuple, Fields]], engine: Engine, services: Callable[[Any], Fields]) -> list[Any]:
    """What each call in this process returned, or failed where it raised."""
    calls = [partial(leaf.fn, *args, **fields, **services(args[0] if args else fields), **leaf.settings) for args, fields in arguments]
    return engine.loop.all(calls, leaf.deadline) if leaf.asynchronous else [attempt(call) for call in calls]


def attempt(call: Callable[[], Any]) -> Any:
    """What it returned, or failed where it raised; Broke, such as of a pool that was killed from outside, is not about the samples."""
    try:
        return call()
    except Broke:
        raise
    except (Exception, SystemExit) as error:
        return Verdict.fail(said(error))


def _services(leaf: Reward, engine: Engine, seed: int, digest: Callable[[Any], bytes | None]) -> Callable[[Any], Fields]:
    """The services of a call by its other arguments. `rng` is seeded by what is scored, whatever stands beside it."""
    shared = {name: engine.service(service) for name, service in leaf.asks.items() if service != "rng"}
    if "rng" not in leaf.services:
        return lambda given: shared
    seen: Counter[int] = Counter()

    def with_rng(given: Any) -> Fields:
        key = int.from_bytes(digest(given) or b"", "big")
        seen[key] += 1
        return {**shared, "rng": np.random.default_rng([seed, key, seen[key]])}

    return with_rng


def _each(leaf: Reward, out: Any, n: int) -> Sequence[Cell] | Rewards:
    """n verdicts from what one call for n samples returned, or its Rewards."""
    if isinstance(out, Rewards) and len(out) == n:
        return _checked(out)
    if isinstance(out, (list, tuple, np.ndarray)) and len(out) == n:
        return [to_verdict(value, leaf) for value in out]
    if isinstance(out, Verdict) and out.state == State.FAILED:
        return [out] * n
    many = f" of {len(out)}" if isinstance(out, (list, tuple, np.ndarray, Rewards)) else ""
    return [Verdict.fail(f"the reward returned {type(out).__name__}{many} for {n} samples, not a list with one value a sample")] * n


def _checked(rewards: Rewards) -> Rewards:
    """The Rewards that a function made; values that are not finite are failed."""
    for _, g in rewards.grains():
        for cell in map(tuple, np.argwhere(g.scored & ~np.isfinite(g.value)).tolist()):
            g.reason[cell] = f"the reward returned {g.value[cell]}, not a finite number"
            g.state[cell], g.value[cell] = State.FAILED, 0.0
    return rewards


@dataclass(frozen=True)
class InWorker:
    """What a worker runs: some samples' fields -> the verdicts of the first of them. It stops early where they take long or attack it."""

    leaf: Reward

    def __call__(self, several: Sequence[Fields]) -> list[Cell]:
        cells: list[Cell] = []
        enough = time.monotonic() + self.leaf.deadline / 4
        for fields in several:
            try:
                cells.append(to_verdict(self.leaf.fn(**fields, **self.leaf.settings), self.leaf))
            except (RecursionError, MemoryError):
                if len(several) == 1:
                    raise
                break
            except Exception as error:
                cells.append(Verdict.fail(said(error)))
            if time.monotonic() > enough:
                break
        return cells


def _in_workers(leaf: Reward, inputs: Sequence[Fields], engine: Engine) -> list[Cell]:
    """Verdicts from worker processes. Many samples share a call, since a call costs more than most rewards; what such a call left open,
    because it was killed or took long, is called again alone with the whole deadline, so that only the culprit is hostile."""
    cells: dict[int, Cell] = {}
    call, n = engine.worker_call(leaf), len(inputs)
    size = max(1, min(CHUNK, n // (4 * engine.workers)))
    if size > 1:
        starts = range(0, n, size)
        for start, outcome in zip(starts, engine.pool.run(call, [inputs[i : i + size] for i in starts], leaf.deadline), strict=True):
            cells.update(enumerate(outcome.value if outcome.ok else (), start))
    alone = [i for i in range(n) if i not in cells]
    for i, outcome in zip(alone, engine.pool.run(call, [[inputs[i]] for i in alone], leaf.deadline), strict=True):
        if outcome.hostile:
            cells[i] = Verdict(leaf.wrong, outcome.hostile)
        else:
            cells[i] = Verdict.fail(outcome.failed) if outcome.failed else outcome.value[0]
    return [cells[i] for i in range(n)]

"""The one scoring engine behind the loop, `guerdon score` and the server: an expression and samples -> Rewards.

A reward never raises because of what a model wrote, and one row never costs another: see `calls` for where each kind of reward runs.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from guerdon.registry import Broke, Refused, nearest
from guerdon.rewards.core import FIELDS, Reward, from_verdicts
from guerdon.rewards.expr import Evaluation, Expr, Pipe, ShapeCall, alike
from guerdon.rewards.parse import parse
from guerdon.samples import HOSTILE, SERVICES, Context, Rewards, Sample, State, Verdict
from guerdon.scoring import calls
from guerdon.scoring.cache import Cache, Journal, group_key, leaf_key, sample_key
from guerdon.scoring.wire import Cell, cell_from_bytes, cell_to_bytes, from_bytes, to_bytes


class Engine:
    """Scores samples. Close it, or use it in `with`: it may hold worker processes.

    on_hostile: what becomes of a sample that attacked its grader: "wrong" (the reward's value for wrong) or "failed".
    workers, memory_mb: worker processes, and the memory limit of each.  concurrency: async calls in flight.
    """

    def __init__(
        self,
        context: Context | None = None,
        *,
        cache: Cache | None = None,
        journal: Journal | None = None,
        workers: int | None = None,
        on_hostile: Literal["wrong", "failed"] = "wrong",
        memory_mb: int = 1024,
        concurrency: int = 64,
    ) -> None:
        if on_hostile not in ("wrong", "failed"):
            raise Refused(f"on_hostile is 'wrong' or 'failed', not {on_hostile!r}.")
        self.context = context or Context()
        self.cache, self.journal, self.on_hostile = cache, journal, on_hostile
        self._worker_calls: dict[tuple[str, int], calls.InWorker] = {}
        self.workers, self.memory_mb, self.concurrency = workers or os.cpu_count() or 1, memory_mb, concurrency

    def check(self, expression: Expr | str) -> Expr:
        """The expression, read. Raises Refused, before anything runs, for what cannot be read or put together and for a missing service."""
        root = parse(expression)
        for what, asks in asking(root):
            for name in asks.values():
                if name == "sandbox":
                    getattr(self.service(name), "isolation", "")  # refused here, and not row by row, where there is none
                elif name != "workers" and self.context.service(name) is None:
                    there = [*self.context.models, *(s for s in SERVICES if self.context.service(s) is not None)]
                    raise Refused(
                        f"The {what} wants {name!r}, which is neither a field of a sample nor a service or model of this run"
                        + nearest(name, [*FIELDS, *there])
                        + " A model is declared with --model NAME=PATH, or under `models` of a recipe."
                    )
        for leaf in leaves(root):
            leaf.checked()
        Evaluation((), self._no_rows, self._try_shape).of(root)  # no samples: refuses grains and parameters that do not go together
        return root

    def _no_rows(self, leaf: Reward, rows: np.ndarray) -> Rewards:
        raise AssertionError(f"{leaf} was called without samples")

    def _try_shape(self, call: ShapeCall, rewards: Rewards, beside: dict[str, Rewards]) -> Rewards:
        try:
            with warnings.catch_warnings(action="ignore"):
                return call.fn(rewards, (), self.context, **beside)
        except Refused:
            raise
        except Exception:  # a user's shape that cannot take an empty batch may still take a full one
            return rewards

    def score(self, expression: Expr | str, samples: Sequence[Sample], key: str | None = None) -> Rewards:
        """Rewards of all samples, in their order.

        key: where the engine has a journal, they are read from there if they stand there, else written there before this returns.
        Raises Refused for an expression that cannot run here, and Broke where a shape raises or the journal cannot be written.
        """
        root = self.check(expression)
        rng = self.context.rng  # drawn from once a call, also on replay, so that a resumed run goes on with the same numbers
        seed = int(rng.integers(2**63)) if rng is not None and any("rng" in leaf.services for leaf in leaves(root)) else 0
        if self.journal is not None and key is not None and (found := self.journal.read(key)) is not None:
            return found
        rewards = self.evaluation(samples, seed).of(root)
        if self.journal is not None and key is not None:
            self.journal.write(key, rewards)
        return rewards

    def evaluation(self, samples: Sequence[Sample], seed: int = 0) -> Evaluation:
        """An evaluation of samples by this engine, which remembers what every part of an expression came to."""
        run = _Scoring(self, samples, seed)
        return Evaluation(samples, run.leaf, run.shape)

    def service(self, name: str) -> Any:
        """A service or model of the context; `workers` and `sandbox` are this engine's own where the context has none."""
        found = self.context.service(name)
        if found is None and name in ("workers", "sandbox"):
            return self.pool if name == "workers" else self.sandbox
        return found

    @cached_property
    def pool(self) -> Any:
        from guerdon.workers import Pool

        return Pool(self.workers, self.memory_mb)

    @cached_property
    def sandbox(self) -> Any:
        from guerdon.workers.sandbox import Sandbox

        return Sandbox(self.workers)

    def worker_call(self, leaf: Reward) -> calls.InWorker:
        """What a worker runs for this reward: always the same object, since workers inherit it when they are forked."""
        return self._worker_calls.setdefault((str(leaf), id(leaf.fn)), calls.InWorker(leaf))

    @cached_property
    def loop(self) -> Any:
        from guerdon.scoring.loop import Loop

        return Loop(self.concurrency)

    def close(self) -> None:
        """End the worker processes and the event loop; a later call starts them again."""
        for name in ("pool", "sandbox", "loop"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class _Scoring:
    """One call of `Engine.score`."""

    engine: Engine
    samples: Sequence[Sample]
    seed: int

    def leaf(self, leaf: Reward, rows: np.ndarray) -> Rewards:
        chosen = [self.samples[i] for i in rows.tolist()]
        head = leaf_key(leaf, self.engine.context) if self.engine.cache is not None else None
        return self.by_sample(leaf, chosen, head) if leaf.scope == "sample" else self.by_group(leaf, chosen, head)

    def shape(self, call: ShapeCall, rewards: Rewards, beside: dict[str, Rewards]) -> Rewards:
        try:
            return call.fn(rewards, self.samples, self.engine.context, **beside)
        except (Refused, Broke):
            raise
        except Exception as error:
            raise Broke(f"The shape {call} raised {calls.said(error)}.") from error

    def by_sample(self, leaf: Reward, samples: Sequence[Sample], head: bytes | None) -> Rewards:
        """head: the leaf's part of the cache keys; None where it is not to be cached."""
        inputs = [calls.fields_of(leaf, sample) for sample in samples]
        cells: list[Any] = [x if isinstance(x, Verdict) else None for x in inputs]
        cache = self.engine.cache if head is not None else None
        keys = [sample_key(head, x) if cache and head and not isinstance(x, Verdict) else None for x in inputs]
        known = cache.get(keys) if cache else {}
        if known:
            cells = [cell_from_bytes(known[k]) if k in known else cell for k, cell in zip(keys, cells, strict=True)]
        todo = [i for i, cell in enumerate(cells) if cell is None]
        for i, cell in zip(todo, calls.run(leaf, [inputs[i] for i in todo], self.engine, self.seed), strict=True):
            cells[i] = cell
        if cache:
            cache.put(_kept((keys[i], cells[i], cell_to_bytes) for i in todo if lasting(cells[i])))
        return from_verdicts([self.settle(cell) for cell in cells], leaf)

    def by_group(self, leaf: Reward, samples: Sequence[Sample], head: bytes | None) -> Rewards:
        """One call a group, or one for all."""
        members: dict[int, list[int]] = {}
        for i, sample in enumerate(samples):
            members.setdefault(sample.group if leaf.scope == "group" else 0, []).append(i)
        groups = [[samples[i] for i in rows] for rows in members.values()]
        cache = self.engine.cache if head is not None else None
        keys = [group_key(head, group) if cache and head else None for group in groups]
        known = cache.get(keys) if cache else {}
        found = {i: from_bytes(known[k]) for i, k in enumerate(keys) if k in known}
        todo = [i for i in range(len(groups)) if i not in found]
        for i, out in zip(todo, calls.run_groups(leaf, [groups[i] for i in todo], self.engine, self.seed), strict=True):
            r = out if isinstance(out, Rewards) else from_verdicts([self.settle(cell) for cell in out], leaf)
            found[i] = r
            if cache and not (r.failed.any() or r.hostile.any()):
                cache.put(_kept([(keys[i], r, to_bytes)]))
        order = np.argsort(np.concatenate([np.asarray(rows) for rows in members.values()]), kind="stable")
        return Rewards.stack(alike([found[i] for i in range(len(groups))])).rows(order)

    def settle(self, cell: Cell) -> Cell:
        """A hostile verdict as this engine is told to take it."""
        if self.engine.on_hostile == "failed" and isinstance(cell, Verdict) and cell.reason.startswith(HOSTILE):
            return replace(cell, value=None, state=State.FAILED)
        return cell


def _kept(entries: Iterable[tuple[bytes | None, Any, Callable[[Any], bytes]]]) -> Iterator[tuple[bytes, bytes]]:
    """What can be written down; a verdict whose evidence is no plain data is scored again next time."""
    for key, value, write in entries:
        with suppress(TypeError):
            if key is not None:
                yield key, write(value)


def lasting(cell: Cell) -> bool:
    """Whether the same fields would get the same cell again: what failed, and what a deadline or a memory limit decided, would not."""
    return not isinstance(cell, Verdict) or (cell.state != State.FAILED and not cell.reason.startswith(HOSTILE))


def leaves(root: Expr) -> list[Reward]:
    """The rewards of an expression, each once."""
    return list({str(node): node for node in root.walk() if isinstance(node, Reward)}.values())


def asking(root: Expr) -> list[tuple[str, Mapping[str, str]]]:
    """The rewards and shapes of an expression, and the services and models that each asks for, by parameter."""
    shapes = {str(node.shape): node.shape for node in root.walk() if isinstance(node, Pipe)}.values()
    return [(f"reward {leaf.name!r}", leaf.asks) for leaf in leaves(root)] + [(f"shape {call.name!r}", call.asks) for call in shapes]


def needs_groups(root: Expr) -> bool:
    """Whether some part of the expression sees more than one sample at a time."""
    return _scopes(root) != {"sample"}


def sees_all(root: Expr) -> bool:
    """Whether some part of the expression sees more than one group at a time."""
    return "samples" in _scopes(root)


def _scopes(root: Expr) -> set[str]:
    return {node.shape.scope if isinstance(node, Pipe) else getattr(node, "scope", "sample") for node in root.walk()}

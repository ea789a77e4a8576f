"""A pool of killable processes: each call has a hard deadline and a memory limit that what runs in it cannot outlive.

Workers are forked, for two reasons. A function is handed over by inheritance, so that closures, lambdas and functions of a notebook
work as they are, without pickling; only items and results travel. And a worker that replaces a killed one starts warm, with every module
that the parent has imported, in milliseconds: import what a function needs before its first `run`. A function that the running workers
have not inherited makes the pool fork new ones; the old ones finish what they have begun. CUDA cannot be used inside a worker.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as Late
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from pebble import ProcessExpired, ProcessPool

from guerdon.registry import Broke
from guerdon.samples import HOSTILE


@dataclass(frozen=True)
class Outcome:
    """Of one call. At most one of the two reasons is set; `value` counts only where neither is."""

    value: Any = None
    hostile: str = ""
    """The item's own doing: deadline, memory, recursion, crash. Begins with the word hostile."""
    failed: str = ""
    """Any other exception."""

    @property
    def ok(self) -> bool:
        return not (self.hostile or self.failed)


_functions: dict[int, Callable[[Any], Any]] = {}
"""What workers inherit, by a number that is never used twice."""
KEPT = 256
"""Functions a pool remembers. One that it has forgotten costs new workers at its next run."""
_numbers = iter(range(1, 1 << 62))
_in_worker = False


class Pool:
    """`workers` processes, started with the first `run`. Safe to use from any thread."""

    def __init__(self, workers: int | None = None, memory_mb: int = 2048) -> None:
        self.workers = workers or os.cpu_count() or 1
        self.memory_mb = memory_mb
        self._lock = threading.Lock()
        self._executor: ProcessPool | None = None
        self._known: dict[int, tuple[int, Callable[[Any], Any]]] = {}  # id -> its number, and the function, to keep the id taken
        self._pid = os.getpid()

    def run(self, fn: Callable[[Any], Any], items: Sequence[Any], deadline: float) -> list[Outcome]:
        """One outcome an item, in order. Each call has `deadline` seconds from its own start; when they are over its worker is killed and
        replaced, and the others go on. Inside a worker the calls are made in place, under the deadline of the outer call."""
        if _in_worker:
            return [_guarded(fn, item, self.memory_mb) for item in items]
        outcomes: dict[int, Outcome] = {}
        for _ in range(3):  # pebble gives up a pool one of whose idle workers died (an outside kill); what is unsettled goes to a new one
            left = [i for i in range(len(items)) if i not in outcomes]
            if not left:
                break
            executor, futures = self._schedule(fn, [items[i] for i in left], deadline)
            try:
                for i, future in zip(left, futures, strict=True):
                    try:
                        outcomes[i] = _result(future, executor)
                    except BrokenProcessPool:
                        self._retire(executor)
                    except Late:
                        outcomes[i] = Outcome(hostile=f"{HOSTILE}: past its deadline of {deadline:g} s")
                    except ProcessExpired as error:
                        outcomes[i] = Outcome(hostile=f"{HOSTILE}: its worker {_died(error.exitcode)}")
                    except Exception as error:  # an item or a value that cannot be pickled
                        outcomes[i] = Outcome(failed=describe(error))
            except BaseException:
                for future in futures:
                    future.cancel()
                raise
        if len(outcomes) < len(items):
            raise Broke("The worker processes were killed from outside three times; see whether the machine is out of memory.")
        return [outcomes[i] for i in range(len(items))]

    def close(self) -> None:
        """Kill the workers. A later `run` starts new ones."""
        with self._lock:
            executor, self._executor = self._executor, None
            for number, _ in self._known.values():
                _functions.pop(number, None)
            self._known.clear()
        if executor is not None and self._pid == os.getpid():
            executor.stop()
            executor.join()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _schedule(self, fn: Callable[[Any], Any], items: list[Any], deadline: float) -> tuple[ProcessPool, list[Any]]:
        with self._lock:
            if self._pid != os.getpid():  # this process is a fork of the one that owns the workers
                self._executor, self._pid = None, os.getpid()
            number, new = self._number(fn)
            if self._executor is not None and (new or not self._executor.active):
                self._executor.close()
                threading.Thread(target=self._executor.join, daemon=True).start()
                self._executor = None
            if self._executor is None:
                self._executor = ProcessPool(
                    self.workers, initializer=_begin, initargs=(self.memory_mb, os.getpid()), context=multiprocessing.get_context("fork")
                )
            args = (number, self.memory_mb, deadline)
            return self._executor, [self._executor.schedule(_call, args=(*args, item), timeout=deadline) for item in items]

    def _number(self, fn: Callable[[Any], Any]) -> tuple[int, bool]:
        """The number of a function and whether workers that run already lack it. Only the last `KEPT` are kept for inheritance."""
        number, _ = self._known.pop(id(fn), (0, fn))
        new = number == 0
        if new:
            number = next(_numbers)
            _functions[number] = fn
            while len(self._known) >= KEPT:
                _functions.pop(self._known.pop(next(iter(self._known)))[0], None)
        self._known[id(fn)] = (number, fn)
        return number, new

    def _retire(self, executor: ProcessPool) -> None:
        with self._lock:
            if self._executor is executor:
                self._executor = None
                executor.stop()


def _result(future: Any, executor: ProcessPool) -> Outcome:
    while not future.done():
        wait([future], timeout=1)
        if not executor.active and not future.done():
            raise BrokenProcessPool("its pool has ended")
    return future.result()


_shared: Pool | None = None
_shared_lock = threading.Lock()


def shared() -> Pool:
    """The pool of this process that callers without one of their own use: one worker a core, 2 GB each."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = Pool()
        return _shared


def describe(error: BaseException) -> str:
    """`KeyError: 'x'`, in one line of at most 300 characters, whatever the exception's own text does."""
    try:
        text = " ".join(str(error).split())[:300]
    except Exception:
        text = "(its message cannot be read)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# --- inside a worker -------------------------------------------------------------------------------------------------------------


def _begin(memory_mb: int, parent: int) -> None:
    global _in_worker
    _in_worker = True
    # Pebble's own handler of SIGTERM is Python code, which a loop inside C never lets run; the default one kills at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/statm") as statm:  # the parent's address space is inherited and does not count
        inherited = int(statm.read().split()[0]) * resource.getpagesize()
    limit = inherited + memory_mb * 2**20
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    threading.Thread(target=_outlive_no_parent, args=(parent,), daemon=True).start()


def _outlive_no_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _call(number: int, memory_mb: int, deadline: float, item: Any) -> Outcome:
    # A second limit in the kernel, for a worker whose parent is gone and whose item never lets Python run.
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(usage.ru_utime + usage.ru_stime + deadline) + 5
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    return _guarded(_functions[number], item, memory_mb)


def _guarded(fn: Callable[[Any], Any], item: Any, memory_mb: int) -> Outcome:
    try:
        return Outcome(fn(item))
    except RecursionError:
        return Outcome(hostile=f"{HOSTILE}: recursion too deep")
    except MemoryError:
        return Outcome(hostile=f"{HOSTILE}: out of memory ({memory_mb} MB)")
    except BaseException as error:  # sys.exit in a grader is a failure of the grader, not the end of the worker
        return Outcome(failed=describe(error))


def _died(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"exited with code {code}"

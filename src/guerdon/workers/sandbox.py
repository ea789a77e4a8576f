"""A safe place to run what models write: programs against tests, each run in a process, a namespace and a folder of its own.

    with Sandbox() as sandbox:
        sandbox.run(Job("def double(x): return 2 * x", [{"input": [4], "output": 8}], entry_point="double"))

The program and its tests never share a process: the tests call the program through a channel that carries plain values (`inside.wire`), and
what comes back is compared on the side of the tests. So there is nothing in the program's reach to patch, to read or to leave early from.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from guerdon.registry import Refused
from guerdon.workers.inside.init import CALLS, PROGRAM, TESTS
from guerdon.workers.inside.tester import CHEATED, ERROR, FAILED, INFRASTRUCTURE, LOST, MEMORY, PASSED, TIMEOUT
from guerdon.workers.inside.wire import Forged, NotPlain, receive, send, tag
from guerdon.workers.warm import MODES, Ending, Gone, Warm

FOREVER = 1e6  # seconds of a process that is told when to end
TESTER_MB, JOBS = 1024, 200  # memory of a process of tests, and how many jobs it judges before another takes its place
STATUSES = (PASSED, FAILED, ERROR, TIMEOUT, MEMORY, CHEATED, INFRASTRUCTURE)
PRINTED = 4 * 2**20
"""Bytes of output that a program may print."""
GRACE = 1.0
"""Seconds that a run lives longer than its tests may take together: to fork, to load, to report."""


@dataclass(frozen=True)
class Job:
    """A program and its tests. A test is one of

    {"input": [arguments], "output": value}    a call of `entry_point`; tuples equal lists, since a JSON file knows no tuples
    {"stdin": text, "stdout": text}            the whole program; blanks at the ends of lines and of the output do not count
    {"code": text}                             Python that raises AssertionError; names that nobody binds are the program's
    """

    program: str
    tests: Sequence[Mapping[str, Any]]
    entry_point: str = ""
    setup: str = ""
    """Trusted code that the tests need, run on their side."""
    seconds: float = 3.0
    """A test; loading the program counts to the first."""
    total: float = 20.0
    """All tests together."""
    memory_mb: int = 512

    def __post_init__(self) -> None:
        for k, test in enumerate(self.tests):
            keys = set(test)
            known = {"input", "output"} <= keys or {"stdin", "stdout"} <= keys or "code" in keys
            if not known:
                raise Refused(
                    f"Test {k} has the fields {sorted(keys)}; a test has `input` and `output`, or `stdin` and `stdout`, or `code`."
                )
            if "input" in keys and not (isinstance(test["input"], (list, tuple)) and self.entry_point):
                raise Refused(f"Test {k}: `input` is the list of arguments of the function that `entry_point` names.")
            texts = [test[key] for key in ("stdin", "stdout", "code") if key in keys]
            if not all(isinstance(text, str) for text in texts):
                raise Refused(f"Test {k}: `stdin`, `stdout` and `code` are texts.")


@dataclass(frozen=True)
class Tested:
    """The verdict on one test. `infrastructure` is nobody's fault but ours, or the test's: never counted as wrong."""

    status: str
    reason: str = ""
    seconds: float = 0.0
    printed: str = ""
    """By a whole program that came to its end."""

    @property
    def passed(self) -> bool:
        return self.status == PASSED


class _Tester:
    """A worker for tests and the process on it that judges one job after the other, for as long as it stays as it was when it began."""

    def __init__(self, mode: str) -> None:
        self.worker, self.socket, self.jobs = Warm(mode), None, 0

    def open(self) -> socket.socket:
        """The way to a process that is ready for a job."""
        if self.socket is None:
            self.socket, theirs = socket.socketpair()
            with theirs:
                self.worker.start(TESTS, [theirs.fileno()], FOREVER, TESTER_MB)
            self.jobs = 0
        self.jobs += 1
        return self.socket

    def retire(self) -> Ending:
        """The next job gets a new process. How this one ended."""
        ending = self.worker.finish()
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        return ending

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
        self.worker.close()


@dataclass
class _Pair:
    """A worker for programs and one for tests, started when first needed."""

    mode: str
    candidate: Warm | None = None
    tester: _Tester | None = None

    def program(self) -> Warm:
        self.candidate = self.candidate or Warm(self.mode)
        return self.candidate

    def tests(self) -> _Tester:
        self.tester = self.tester or _Tester(self.mode)
        return self.tester

    def close(self) -> None:
        for worker in (self.candidate, self.tester):
            if worker is not None:
                worker.close()
        self.candidate = self.tester = None


@dataclass
class _Run:
    """One process of a program, and what its tests came to."""

    ending: Ending
    verdicts: list[dict[str, Any]]


_unsafe = False
_told: set[str] = set()


def allow_unsafe() -> None:
    """From now on a Sandbox of this process that is not told otherwise may run without isolation: what `--unsafe` does."""
    global _unsafe
    _unsafe = True


class Sandbox:
    """`workers` pairs of warm processes (one a core), started with the first run. Safe to use from any thread.

    unsafe: run also where nothing but resource limits stands between a program and this machine; else that is Refused. None: as
    `allow_unsafe` has said.
    """

    version = f"1/{sys.version_info.major}.{sys.version_info.minor}"
    """Of the rules: verdicts of another version are not taken from a cache."""

    def __init__(self, workers: int | None = None, unsafe: bool | None = None, modes: Sequence[str] = MODES) -> None:
        self.workers, self.modes = workers or len(os.sched_getaffinity(0)), modes
        self.unsafe = _unsafe if unsafe is None else unsafe
        self._lock = threading.Lock()
        self._mode, self._said, self._pid = "", "", 0
        self._pairs: list[_Pair] = []
        self._free: queue.SimpleQueue[_Pair] = queue.SimpleQueue()
        self._finalizer = weakref.finalize(self, _close, self._pairs)

    @property
    def isolation(self) -> str:
        """What stands between a program and this machine. Raises Refused where that is nothing, and `unsafe` is not set."""
        with self._lock:
            if self._pid != os.getpid():  # not begun, or this process is a fork of the one whose workers these are
                self._begin()
        return self._said

    def _begin(self) -> None:
        self._pairs.clear()
        self._free = queue.SimpleQueue()
        why = {}
        for mode in self.modes:
            if mode == "none" and not self.unsafe:
                continue
            try:
                first = Warm(mode)
            except Gone as error:
                why[mode] = str(error)
                continue
            self._mode, self._said, self._pid = mode, _described(mode, first.walls), os.getpid()
            self._pairs += [_Pair(mode, first), *(_Pair(mode) for _ in range(self.workers - 1))]
            for pair in self._pairs:
                self._free.put(pair)
            if self._said not in _told:  # once a process, however many engines have a sandbox of their own
                _told.add(self._said)
                print(f"sandbox: {self._said}", file=sys.stderr)
            return
        raise Refused(
            f"There is no isolation here for code that a model wrote ({'; '.join(': '.join(item) for item in why.items())}): allow user "
            "namespaces, install bubblewrap, or accept with --unsafe (in Python: Sandbox(unsafe=True)) that it can do what you can."
        )

    def run(self, job: Job) -> list[Tested]:
        """A verdict on each test, in order, once nothing of the program is left. Never raises because of what the program does."""
        _ = self.isolation
        pair = self._free.get()
        try:
            return _Judge(job, pair).all()
        finally:
            self._free.put(pair)

    def run_many(self, jobs: Sequence[Job]) -> list[list[Tested]]:
        """`run` for each job, side by side on all workers."""
        _ = self.isolation
        if len(jobs) < 2:
            return [self.run(job) for job in jobs]
        with ThreadPoolExecutor(min(self.workers, len(jobs))) as pool:
            return list(pool.map(self.run, jobs))

    def close(self) -> None:
        """End the workers. A later run starts new ones."""
        with self._lock:
            if self._pid == os.getpid():
                _close(self._pairs)
            self._pid = 0

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _close(pairs: list[_Pair]) -> None:
    for pair in pairs:
        pair.close()


def _described(mode: str, walls: Sequence[str]) -> str:
    first = {
        "namespaces": "user, mount, pid, network, ipc, uts and cgroup namespaces",
        "bubblewrap": "bubblewrap",
        "none": "UNSAFE, no namespaces: what a model writes can read this machine's libraries and run on it",
    }[mode]
    return ", ".join([first, *walls])


class _Judge:
    """One job on one pair of workers."""

    def __init__(self, job: Job, pair: _Pair) -> None:
        self.job, self.pair = job, pair
        self.until = time.monotonic() + job.total
        self.found: dict[int, Tested] = {}

    def all(self) -> list[Tested]:
        calls = [k for k, test in enumerate(self.job.tests) if "stdin" not in test]
        if calls:
            self._calls(calls)
        for k, test in enumerate(self.job.tests):
            if k not in self.found:
                self.found[k] = self._tried(lambda test=test: self._program(test["stdin"], test["stdout"]))
        return [self.found[k] for k in range(len(self.job.tests))]

    def _tried(self, run: Callable[[], Any]) -> Any:
        """What it returns; a worker that was killed from outside is replaced once, and then it is infrastructure."""
        for last in (False, True):
            try:
                return run()
            except (Gone, OSError) as error:
                self.pair.close()
                if last:
                    return Tested(INFRASTRUCTURE, str(error))
        raise AssertionError

    def _calls(self, numbers: list[int]) -> None:
        """Tests that call the program. After one that ends the process the next begins with a new one."""
        try:
            tests = [self._sent(self.job.tests[k]) for k in numbers]
        except NotPlain as error:
            self.found.update((k, Tested(INFRASTRUCTURE, f"the test has {error}")) for k in numbers)
            return
        first = 0
        while first < len(numbers):
            if time.monotonic() >= self.until:
                late = Tested(TIMEOUT, f"past the deadline of {self.job.total:g} s for all tests")
                self.found.update((k, late) for k in numbers[first:])
                return
            run = self._tried(lambda first=first: self._one_run(tests, first))
            if isinstance(run, Tested):
                self.found.update((k, run) for k in numbers[first:])
                return
            for verdict in run.verdicts:
                found = self._told(verdict, run.ending)
                first = verdict["test"] + 1
                self.found[numbers[verdict["test"]]] = found
                if verdict["all"]:
                    self.found.update((k, found) for k in numbers[first:])
                    return

    @staticmethod
    def _sent(test: Mapping[str, Any]) -> dict[str, Any]:
        return {"code": test["code"]} if "code" in test else {"input": tag(list(test["input"])), "output": tag(test["output"])}

    def _told(self, verdict: dict[str, Any], ending: Ending) -> Tested:
        status, reason = verdict["status"], verdict["reason"]
        if status == LOST:
            status, reason = ended(ending, self.job.seconds)
            if status == PASSED:
                status, reason = CHEATED, "left with exit code 0 while a call waited"
        elif status == TIMEOUT:
            reason = reason or f"past its deadline of {self.job.seconds:g} s"
        return Tested(status, reason, verdict["seconds"])

    def _one_run(self, tests: list[dict[str, Any]], first: int) -> _Run:
        """One process for the program, judged by the process of the tests from `first` on, over a channel of this run's own."""
        job, verdicts, clean = self.job, [], None
        seconds = min(max(0.1, self.until - time.monotonic()), job.seconds * (len(tests) - first)) + GRACE
        worker, tester = self.pair.program(), self.pair.tests()
        told = {"program": job.program, "entry_point": job.entry_point, "setup": job.setup, "tests": tests, "first": first}
        near, far = socket.socketpair()
        with near, far:
            worker.start(CALLS, [far.fileno()], seconds, job.memory_mb)
            results = tester.open()
            results.settimeout(seconds + GRACE)
            try:
                send(results, {**told, "seconds": job.seconds}, [near.fileno()])
                near.close()
                far.close()
                while clean is None and (message := receive(results)) is not None:
                    verdicts.append(message)
                    clean = message.get("clean")
            except (OSError, Forged):
                pass  # the process of the tests has died, or is late: what it has not told is settled below
            except NotPlain as error:
                verdicts.append({"test": first, "status": ERROR, "reason": f"the job is {error}", "seconds": 0.0, "all": True})
                clean = False
        ending = worker.finish()
        if not clean or tester.jobs >= JOBS:
            of_tests = tester.retire()
            k = verdicts[-1]["test"] + 1 if verdicts else first
            if clean is None and k < len(tests):
                status, reason = ended(of_tests, job.seconds)
                if of_tests.stopped:  # its clock rang while it was out of Python's reach
                    status, reason = TIMEOUT, "the tests do not come to an end"
                verdicts.append({"test": k, "status": status, "reason": reason or "the tests ended early", "seconds": 0.0, "all": False})
        return _Run(ending, verdicts)

    def _program(self, stdin: str, stdout: str) -> Tested:
        """The whole program on one input."""
        job, begun = self.job, time.monotonic()
        if begun >= self.until:
            return Tested(TIMEOUT, f"past the deadline of {job.total:g} s for all tests")
        worker = self.pair.program()
        seconds = min(job.seconds, self.until - begun)
        (mine, theirs), (out, into), given = socket.socketpair(), os.pipe(), os.memfd_create("stdin")
        with mine, theirs, open(out, "rb", buffering=0) as pipe:
            with open(given, "r+b") as file, open(into, "wb"):
                file.write(stdin.encode("utf-8", "surrogatepass"))
                file.seek(0)
                worker.start(PROGRAM, [theirs.fileno(), file.fileno(), into], seconds, job.memory_mb)
            theirs.close()
            mine.settimeout(seconds + GRACE)
            try:
                send(mine, {"program": job.program})
            except NotPlain as error:
                worker.finish()
                return Tested(ERROR, f"the program is {error}")
            except OSError:
                pass  # it has ended already
            printed, whole = _printed(pipe, time.monotonic() + seconds)
            ending = worker.finish(max(0.1, begun + seconds - time.monotonic()) if whole else 0.0)
            mine.settimeout(0.0)
            try:
                raised = receive(mine) or {}
            except (OSError, Forged):
                raised = {}
        took = time.monotonic() - begun
        if len(printed) > PRINTED:
            return Tested(ERROR, f"printed more than {PRINTED >> 20} MB", took)
        if ending.late or ending.stopped:
            return Tested(TIMEOUT, f"past its deadline of {job.seconds:g} s", took)
        status, reason = ended(ending, job.seconds)
        if status != PASSED:
            name = raised.get("raised")
            if name == "MemoryError":
                return Tested(MEMORY, "out of memory", took)
            return Tested(status, f"{name}: {str(raised.get('text'))[:200]}" if status == ERROR and name else reason, took)
        text = printed.decode("utf-8", "replace")
        same = _lines(text) == _lines(stdout)
        return Tested(PASSED if same else FAILED, "" if same else "another output", took, text)


def _printed(pipe: Any, until: float) -> tuple[bytes, bool]:
    """What was printed, up to a little more than `PRINTED`, and whether the other side has closed."""
    parts, size = [], 0
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while size <= PRINTED:
        left = until - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000 + 1):
            return b"".join(parts), False
        some = pipe.read(1 << 16)
        if not some:
            return b"".join(parts), True
        parts.append(some)
        size += len(some)
    return b"".join(parts), False


def _lines(text: str) -> list[str]:
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip("\n").split("\n")


def ended(ending: Ending, seconds: float) -> tuple[str, str]:
    """The status of a process that ended so, and why; `passed` where it ended in peace."""
    if ending.late:
        return TIMEOUT, f"past its deadline of {seconds:g} s"
    if ending.code == -signal.SIGSYS:
        return CHEATED, "called what no program of this kind needs (seccomp killed it)"
    if ending.code == -signal.SIGXCPU:
        return TIMEOUT, "out of processor time"
    if ending.code < 0:
        names = {int(s): s.name for s in signal.Signals}
        return ERROR, f"was killed by {names.get(-ending.code, f'signal {-ending.code}')}"
    return (ERROR, f"exit code {ending.code}") if ending.code else (PASSED, "")

"""The sandbox: how fast, whether honest programs pass, and whether hostile ones are rewarded, escape or slow the next run.

    runs a second   of a program of two lines against one test, on all cores, under the full rules; beside it `python -c` without any
    HumanEval       the canonical solutions, and bodies that are `pass`
    hostile         every program of `hostile/`, against a value that it cannot know: none passes; seen from outside: no canary file
                    written or removed, no connection, no process left, and the run after it takes as long as before

Run: python benchmarks/sandbox.py [HUMANEVAL]     (default: the file beside the project; left out with a reason where it is missing)
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bars import Bars

from guerdon.workers.sandbox import Job, Sandbox

DATA = Path(__file__).parents[2] / "shared" / "data" / "humaneval.jsonl.gz"
HOSTILE = Path(__file__).parent / "hostile"
TRIVIAL = Job("def double(x):\n    return 2 * x", [{"code": "assert double(4) == 8"}], "double")
RUNS, TIMES = 1000, 5


def speed(bars: Bars, sandbox: Sandbox) -> None:
    sandbox.run_many([TRIVIAL] * 50)
    rates, cpu = [], []
    for _ in range(TIMES):
        started, before = time.perf_counter(), processor(sandbox)
        found = sandbox.run_many([TRIVIAL] * RUNS)
        rates.append(RUNS / (time.perf_counter() - started))
        cpu.append(1000 * (processor(sandbox) - before) / RUNS)
        assert all(tested.passed for [tested] in found)
    bars.bar("sandbox_runs_per_second", statistics.median(rates), 500)
    bars.note("runs_per_second_best", max(rates))
    bars.note("processor_ms_a_run", statistics.median(cpu))
    bars.note("runs_per_second_that_two_idle_cores_would_give", 2000 / statistics.median(cpu))
    with ThreadPoolExecutor(sandbox.workers) as pool:
        rates = []
        for _ in range(TIMES):
            started = time.perf_counter()
            list(pool.map(lambda _: subprocess.run([sys.executable, "-c", "assert 2 * 4 == 8"], check=True), range(100)))
            rates.append(100 / (time.perf_counter() - started))
    bars.note("bare_python_children_per_second", statistics.median(rates))
    program = Job("print(2 * int(input()))", [{"stdin": "4", "stdout": "8"}])
    started = time.perf_counter()
    assert all(tested.passed for [tested] in sandbox.run_many([program] * RUNS))
    bars.note("whole_programs_per_second", RUNS / (time.perf_counter() - started))


def processor(sandbox: Sandbox) -> float:
    """Seconds of processor time of this process, the workers and all that they reaped."""
    total = time.process_time()
    for pid in workers_of(sandbox):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def workers_of(sandbox: Sandbox) -> list[int]:
    """The processes of the workers, as the machine sees them, children of children included."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    own = {worker.process.pid for pair in sandbox._pairs for worker in (pair.candidate, pair.tester and pair.tester.worker) if worker}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    return sorted(own)


def humaneval(bars: Bars, sandbox: Sandbox, file: Path) -> None:
    if not file.exists():
        return bars.note("humaneval", f"left out: {file.name} is not there")
    with gzip.open(file, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    for name, bodies, target in (("canonical", [r["canonical_solution"] for r in rows], 164), ("empty", ["    pass\n"] * len(rows), 0)):
        jobs = [
            Job(r["prompt"] + body, [{"code": f"{r['test']}\ncheck({r['entry_point']})"}], r["entry_point"], r["prompt"], seconds=10)
            for r, body in zip(rows, bodies, strict=True)
        ]
        started = time.perf_counter()
        found = [tested for [tested] in sandbox.run_many(jobs)]
        bars.bar(f"humaneval_{name}", sum(tested.passed for tested in found), target, higher=name == "canonical")
        bars.note(f"humaneval_{name}_seconds", time.perf_counter() - started)
        bars.note(f"humaneval_{name}_statuses", dict(Counter(tested.status for tested in found)))


class Outside:
    """What a program must not touch: a folder with a secret, a TCP, a UDP and an abstract socket that count who comes."""

    def __init__(self, folder: str) -> None:
        self.folder, self.name = Path(folder), f"guerdon-canary-{os.getpid()}"
        self.secret = str(random.SystemRandom().randrange(10**9, 10**12))
        (self.folder / "secret").write_text(self.secret)
        (self.folder / "note").write_text("CANARY-SECRET")
        os.chmod(folder, 0o777)
        self.listening = [
            socket.create_server(("127.0.0.1", 0)),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            socket.socket(socket.AF_UNIX),
        ]
        self.port = self.listening[0].getsockname()[1]
        self.listening[1].bind(("127.0.0.1", self.port))
        self.listening[2].bind(f"\0{self.name}")
        self.listening[2].listen()
        for s in self.listening:
            s.setblocking(False)

    def fill(self, program: str) -> str:
        program = program.replace("CANARYNAME", self.name).replace("CANARY/", f"{self.folder}/").replace('"CANARY"', f'"{self.folder}"')
        return program.replace("PORT", str(self.port)).replace("PARENT", str(os.getpid()))

    def touched(self) -> list[str]:
        found = []
        for s in self.listening:
            try:
                s.recvfrom(1) if s.type == socket.SOCK_DGRAM else s.accept()
                found.append("a connection")
            except BlockingIOError:
                pass
        there = {path.name for path in self.folder.iterdir()}
        return found + [f"{name} in the canary's folder" for name in there ^ {"secret", "note"}]


def programs() -> dict[str, str]:
    """Name -> program: the files of `hostile/`, where a line `=== name` stands before each."""
    found = {}
    for path in sorted(HOSTILE.glob("*.txt")):
        parts = re.split(r"^=== (.*)\n", path.read_text(), flags=re.MULTILINE)[1:]
        found |= {f"{path.stem}: {name}": text for name, text in zip(parts[::2], parts[1::2], strict=True)}
    return found


def kinds(program: str, secret: str) -> list[Job]:
    """The same program against each kind of test."""
    expected = int(secret)
    tests = ({"input": [20], "output": expected}, {"code": f"assert solve(20) == {expected}"}, {"stdin": "20\n", "stdout": secret})
    return [Job(program, [test], "solve", seconds=1.0, total=3.0) for test in tests]


def hostile(bars: Bars, sandbox: Sandbox) -> None:
    found, rewarded, escaped, left, slower = Counter[str](), [], [], [], []
    sandbox.run_many([TRIVIAL] * 20)
    with tempfile.TemporaryDirectory(prefix="guerdon-canary-") as folder, Sandbox(1) as one:
        outside = Outside(folder)
        normal = [latency(one) for _ in range(30)]
        usual, after = statistics.median(normal), []
        several = programs()
        for name, text in several.items():
            for job in kinds(outside.fill(text), outside.secret):
                [tested] = one.run(job)
                found[tested.status] += 1
                rewarded += [name] if tested.passed else []
                left += [name] if len(workers_of(one)) > 5 else []  # two workers of two processes, and the process of the tests
            escaped += [f"{name}: {what}" for what in outside.touched()]
            after.append(latency(one))
            slower += [name] if min(after[-1], *(latency(one) for _ in range(2))) > 10 * usual + 0.05 else []
    bars.bar("hostile_programs", len(several), 60)
    bars.bar("hostile_rewarded", len(rewarded), 0, higher=False)
    bars.bar("hostile_escaped", len(escaped), 0, higher=False)
    bars.bar("hostile_processes_left", len(left), 0, higher=False)
    bars.bar("hostile_slower_afterwards", len(slower), 0, higher=False)
    bars.note("hostile_statuses", dict(found))
    bars.note("next_run_ms_before", 1000 * usual)
    bars.note("next_run_ms_after", 1000 * statistics.median(after))
    for what, names in (("rewarded", rewarded), ("escaped", escaped), ("left", left), ("slower", slower)):
        if names:
            bars.note(what, names)


def latency(sandbox: Sandbox) -> float:
    started = time.perf_counter()
    [tested] = sandbox.run(TRIVIAL)
    if not tested.passed:
        raise AssertionError(f"An honest program after a hostile one: {tested}")
    return time.perf_counter() - started


if __name__ == "__main__":
    bars = Bars("sandbox", packages=("guerdon",))
    with Sandbox() as sandbox:
        bars.note("isolation", sandbox.isolation)
        bars.note("cores", sandbox.workers)
        speed(bars, sandbox)
        humaneval(bars, sandbox, Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
        hostile(bars, sandbox)
    sys.exit(bars.close())

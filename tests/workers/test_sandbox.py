"""The sandbox's promises: verdicts, plain values, what a program cannot reach, and that the next run is as if it had never been."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from guerdon.registry import Refused
from guerdon.workers import Job, Sandbox
from guerdon.workers.sandbox import INFRASTRUCTURE, allow_unsafe
from guerdon.workers.warm import Gone, Warm

HOSTILE = Path(__file__).parents[2] / "benchmarks" / "hostile"
DOUBLE = "def f(x):\n    return 2 * x\n"
HONEST = Job(DOUBLE, [{"code": "assert f(4) == 8"}], "f")


def available(mode: str) -> str:
    """Why these walls cannot be built here; "" where they can."""
    try:
        Warm(mode).close()
    except Gone as error:
        return str(error)
    return ""


WHY = available("namespaces") and available("bubblewrap")
pytestmark = pytest.mark.skipif(bool(WHY), reason=f"no isolation is available here: {WHY}")


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(1) as sandbox:
        yield sandbox


def status(sandbox, program, test="assert f(1) == 2", **options):
    [tested] = sandbox.run(Job(program, [{"code": test}], "f", **{"seconds": 0.5, **options}))
    return tested.status


def test_it_says_what_isolates(sandbox, capfd, monkeypatch):
    monkeypatch.setattr("guerdon.workers.sandbox._told", set())
    assert "namespaces" in sandbox.isolation or "bubblewrap" in sandbox.isolation
    assert "resource limits" in sandbox.isolation
    for _ in range(2):
        with Sandbox(1) as other:
            other.run_many([HONEST, HONEST])
    assert capfd.readouterr().err.count("sandbox: ") == 1


def test_without_any_isolation_it_is_refused_unless_told():
    with pytest.raises(Refused, match="--unsafe"):
        Sandbox(1, modes=["none"]).run(HONEST)
    with Sandbox(1, unsafe=True, modes=["none"]) as sandbox:
        assert "UNSAFE" in sandbox.isolation
        assert [t.status for t in sandbox.run(HONEST)] == ["passed"]


@pytest.mark.parametrize("mode", ["namespaces", "bubblewrap"])
def test_each_mode_has_the_same_walls(mode):
    if why := available(mode):
        pytest.skip(f"{mode} is not available here: {why}")
    with Sandbox(1, modes=[mode]) as sandbox:
        assert status(sandbox, DOUBLE) == "passed"
        assert status(sandbox, "import socket\nsocket.create_connection(('127.0.0.1', 9))\n" + DOUBLE) == "error"
        assert status(sandbox, "import os\nos.fork()\n" + DOUBLE) == "error"
        leave = "import os\nos.makedirs('d/e')\nos.chmod('d', 0)\n" + DOUBLE
        assert [status(sandbox, leave) for _ in range(3)] == ["passed"] * 3
        assert status(sandbox, "import os\ndef f(x): return len(os.listdir('.'))", "assert f(1) == 0") == "passed"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (DOUBLE, "passed"),
        ("def f(x): return 3", "failed"),
        ("def f(x): raise KeyError(x)", "error"),
        ("def f(x):", "error"),
        ("def g(x): return 2", "error"),
        ("def f(x):\n    while True: pass", "timeout"),
        ("while True: pass", "timeout"),
        ("def f(x): return 9 ** 9 ** 9", "timeout"),
        ("def f(x): return bytearray(1 << 40)", "memory"),
        ("def f(x): raise SystemExit", "cheated"),
        ("import os\nos._exit(0)", "cheated"),
        ("import os\ndef f(x): os._exit(3)", "error"),
        ("class A:\n    def __eq__(self, o): return True\ndef f(x): return A()", "cheated"),
        ("class A(int):\n    def __eq__(self, o): return True\ndef f(x): return [A()]", "cheated"),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\ndef f(x): return A(x)", "error"),
        ("def f(x): return iter([x])", "error"),
        ("import ctypes\ndef f(x): return ctypes.CDLL(None).unshare(0x10000000)", "cheated"),
        ("import ctypes\ndef f(x): ctypes.string_at(0)", "error"),
        ("import os\nos.write(3, b'x' * 100)\n" + DOUBLE, "cheated"),
        ("import os\ndef f(x): os.kill(os.getpid(), 40)", "error"),
    ],
)
def test_verdicts(sandbox, program, expected):
    assert status(sandbox, program) == expected


@pytest.mark.parametrize(
    "value",
    ["None", "range(9, 0, -2)", "True", "2 ** 70000", "-0.5", "float('inf')", "1 + 2j", "'\\ud800 \\x00 é'", "b'\\x00\\xff'",
     "bytearray(b'x')", "[1, (2, {3}), frozenset({4})]", "[[[[[]]]]]",
     "{1: 'a', (2, 3): [None], 'd': {}}", "__import__('collections').Counter('aab')"],
)  # fmt: skip
def test_plain_values_cross_with_their_types(sandbox, value):
    plain = value.replace("__import__('collections').Counter('aab')", "{'a': 2, 'b': 1}")
    check = f"v = f({plain})\nassert v == {plain} and type(v) is type({plain})"
    assert status(sandbox, f"def f(x):\n    assert x == {plain} and type(x) is type({plain})\n    return {value}", check) == "passed"


def test_nan_crosses(sandbox):
    assert status(sandbox, "def f(x): return x", "v = f(float('nan'))\nassert v != v") == "passed"


def test_exceptions_cross_by_their_builtin_type(sandbox):
    test = "try:\n    f(1)\nexcept ValueError as e:\n    assert str(e) == 'no'\nelse:\n    assert False"
    assert status(sandbox, "class Mine(ValueError): pass\ndef f(x): raise Mine('no')", test) == "passed"
    assert status(sandbox, "def f(x): raise OSError('no')", "try:\n    f(1)\nexcept OSError:\n    pass") == "passed"
    assert status(sandbox, "def f(x): raise SystemExit", "try:\n    f(1)\nexcept BaseException:\n    pass") == "cheated"


def test_arguments_changed_in_place_are_changed_for_the_test(sandbox):
    program = "def f(a, d, s):\n    a.sort(); a[0].append(9); d['k'] = 1; s.add(5)"
    test = "inner = [1]\na = [[3], inner]\nd = {}\ns = set()\nf(a, d, s)\nassert a == [[1, 9], [3]] and d == {'k': 1} and s == {5}"
    assert status(sandbox, program, test) == "passed"


def test_kinds_of_tests_in_one_job(sandbox):
    program = DOUBLE + "if __name__ == '__main__':\n    print(f(int(input())), '  ')\n    print()\n"
    tests = [
        {"input": [2], "output": 4},
        {"stdin": "4\n", "stdout": "8"},
        {"code": "assert helper(f(1)) == 3"},
        {"stdin": "4\n", "stdout": "9\n"},
        {"input": [[1, 2]], "output": [1, 2, 1, 3]},
        {"input": [1, 2], "output": 4},
    ]
    found = sandbox.run(Job(program, tests, "f", setup="def helper(x): return x + 1"))
    assert [t.status for t in found] == ["passed", "passed", "passed", "failed", "failed", "error"]


def test_a_tuple_equals_a_list_where_the_test_came_as_json(sandbox):
    [tested] = sandbox.run(Job("def f(x): return [(x, x)]", [{"input": [1], "output": [[1, 1]]}], "f"))
    assert tested.passed


def test_helpers_of_the_setup_are_not_the_programs(sandbox):
    program = "def helper(x): return 0\ndef f(x): return 0"
    [tested] = sandbox.run(Job(program, [{"code": "assert f(1) == helper(1)"}], "f", setup="def helper(x): return 7"))
    assert tested.status == "failed"


def test_after_a_test_that_ends_the_process_the_next_has_a_new_one(sandbox):
    program = "import os, time\ndef f(x):\n    if x == 1: os._exit(0)\n    if x == 2: time.sleep(9)\n    return x"
    found = sandbox.run(Job(program, [{"code": f"assert f({x}) == {x}"} for x in range(5)], "f", seconds=0.3))
    assert [t.status for t in found] == ["passed", "cheated", "timeout", "passed", "passed"]


def test_a_program_that_does_not_load_is_not_loaded_again_for_each_test(sandbox):
    begun = time.monotonic()
    found = sandbox.run(Job("while True: pass", [{"code": "assert f(1) == 1"}] * 50, "f", seconds=0.3))
    assert {t.status for t in found} == {"timeout"}
    assert time.monotonic() - begun < 3


def test_all_tests_together_have_a_deadline(sandbox):
    begun = time.monotonic()
    found = sandbox.run(Job("import time\ndef f(x): time.sleep(9)", [{"code": "f(1)"}] * 20, "f", seconds=0.3, total=1.0))
    assert {t.status for t in found} == {"timeout"}
    assert time.monotonic() - begun < 4


@pytest.mark.parametrize(
    ("test", "setup"),
    [
        ("f(lambda: 1)", ""),
        ("assert f.cache == {}", ""),
        ("assert f(1) == ", ""),
        ("f(1)", "1 / 0"),
        ("import random\nf(random.Random())", ""),
    ],
)
def test_what_a_test_needs_and_cannot_have_is_infrastructure(sandbox, test, setup):
    [tested] = sandbox.run(Job(DOUBLE, [{"code": test}], "f", setup=setup))
    assert tested.status == INFRASTRUCTURE
    assert tested.reason


@pytest.mark.parametrize(
    "program", ["def f(x):\n    a = []\n    for _ in range(190): a = [a]\n    return a", "def f(x): return 'x' * (17 << 20)"]
)
def test_no_result_of_a_program_makes_infrastructure(sandbox, program):
    assert status(sandbox, program, "assert f([[f(1)]]) == 2", seconds=3.0) in ("error", "failed")


def test_tests_that_change_their_process_change_it_for_nobody_else(sandbox):
    change = "import math\nmath.pi = 3\nassert f(1) == 2"
    assert status(sandbox, DOUBLE, change) == "passed"
    assert status(sandbox, DOUBLE, "import math\nassert math.pi > 3.1 and f(1) == 2") == "passed"


def test_programs_see_neither_each_other_nor_the_environment(sandbox, monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    program = "import os\nopen('/tmp/left', 'w').write('x')\nos.environ['LEFT'] = '1'\nimport math\nmath.pi = 3\n" + DOUBLE
    assert status(sandbox, program) == "passed"
    look = "import math, os\ndef f(x):\n    there = {'SECRET', 'LEFT'} & {*os.environ}"
    look += "\n    return [there, os.listdir('/tmp'), math.pi > 3.1, os.path.exists('/proc')]"
    assert status(sandbox, look, "assert f(1) == [set(), [], True, False]") == "passed"


def test_the_same_program_gives_the_same_numbers(sandbox):
    program = "import random\ndef f(x): return [random.random(), list({'a', 'b', 'c', 'd'}), hash('x')]"
    [first] = sandbox.run(Job(program, [{"code": "assert 0, f(1)"}], "f"))
    with Sandbox(1) as other:
        assert other.run(Job(program, [{"code": "assert 0, f(1)"}], "f"))[0].reason == first.reason


def hostile_programs():
    for path in sorted(HOSTILE.glob("*.txt")):
        for part in path.read_text().split("=== ")[1:]:
            name, _, program = part.partition("\n")
            yield pytest.param(program, id=f"{path.stem}-{name}")


QUICK = [p for p in hostile_programs() if not p.id.startswith("exhausting") and "kill all" not in p.id]


def test_no_hostile_program_is_rewarded_and_the_next_run_is_sound(tmp_path):
    """The quick ones, side by side; benchmarks/sandbox.py has all, against each kind of test."""
    assert len(QUICK) >= 90
    canary, secret = tmp_path / "canary", 987654321987
    canary.mkdir()
    (canary / "secret").write_text(str(secret))
    canary.chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as server, Sandbox(2) as sandbox:
        server.setblocking(False)
        jobs = []
        for param in QUICK:
            program = str(param.values[0]).replace("CANARYNAME", "none").replace("CANARY/", f"{canary}/").replace('"CANARY"', f'"{canary}"')
            program = program.replace("PORT", str(server.getsockname()[1])).replace("PARENT", str(os.getpid()))
            jobs += [Job(program, [{"input": [20], "output": secret}], "solve", seconds=0.2), HONEST]
        found = sandbox.run_many(jobs)
        with pytest.raises(BlockingIOError):
            server.accept()
    bad, good = found[::2], found[1::2]
    assert [p.id for p, [tested] in zip(QUICK, bad, strict=True) if tested.status in ("passed", INFRASTRUCTURE)] == []
    assert all(tested.passed for [tested] in good)
    assert [p.name for p in canary.iterdir()] == ["secret"]


def test_a_worker_killed_from_outside_is_replaced(sandbox):
    assert status(sandbox, DOUBLE) == "passed"
    for pair in sandbox._pairs:
        pair.candidate.process.kill()
        pair.tester.worker.process.kill()
    time.sleep(0.2)
    assert status(sandbox, DOUBLE) == "passed"


def test_nothing_runs_on_after_close():
    sandbox = Sandbox(1)
    assert sandbox.run(HONEST)[0].passed
    processes = [pair.candidate.process for pair in sandbox._pairs] + [pair.tester.worker.process for pair in sandbox._pairs]
    sandbox.close()
    assert all(process.poll() is not None for process in processes)
    assert sandbox.run(HONEST)[0].passed
    sandbox.close()
    sandbox.close()


def test_workers_and_what_runs_on_them_die_with_their_controller(tmp_path):
    code = """
import os, sys, threading, time
from guerdon.workers import Job, Sandbox
sandbox = Sandbox(1)
sandbox.run(Job("def f(x): return 2 * x", [{"code": "assert f(4) == 8"}], "f"))
pids = [w.process.pid for p in sandbox._pairs for w in (p.candidate, p.tester.worker)]
pids += [int(c) for p in pids for c in open(f"/proc/{p}/task/{p}/children").read().split()]
threading.Thread(target=sandbox.run, args=(Job("while True: pass", [{"code": "f(1)"}], "f", seconds=60, total=60),), daemon=True).start()
time.sleep(0.5)
print(*pids, flush=True)
os.kill(os.getpid(), 9)
"""
    pids = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert len(pids) == 4
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_unsafe_can_be_said_for_the_whole_process(monkeypatch):
    monkeypatch.setattr("guerdon.workers.sandbox._unsafe", False)
    assert not Sandbox().unsafe
    allow_unsafe()
    assert Sandbox().unsafe
    assert not Sandbox(unsafe=False).unsafe


def test_from_many_threads():
    found = {}
    with Sandbox(2) as sandbox:

        def work(k):
            found[k] = [
                t.status
                for tests in sandbox.run_many([Job(f"def f(x): return {k}", [{"code": f"assert f(0) == {k}"}], "f")] * 5)
                for t in tests
            ]

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert found == {k: ["passed"] * 5 for k in range(4)}


def test_output_without_end_and_input_at_length(sandbox):
    [endless] = sandbox.run(Job("while True: print('x' * 10000)", [{"stdin": "", "stdout": ""}], seconds=5))
    assert (endless.status, "printed more" in endless.reason) == ("error", True)
    text = "\n".join(map(str, range(200_000)))
    program = "import sys\nprint(sum(map(int, sys.stdin)))"
    assert sandbox.run(Job(program, [{"stdin": text, "stdout": str(sum(range(200_000)))}]))[0].passed


@pytest.mark.parametrize("test", [{"inputs": 1}, {"input": 3, "output": 4}, {"stdin": 1, "stdout": "1"}, {"code": None}, {}])
def test_a_test_that_is_none_is_refused(test):
    with pytest.raises(Refused):
        Job(DOUBLE, [test], "f")


@pytest.mark.parametrize("mode", ["namespaces", "bubblewrap"])
def test_packages_under_tmp_can_be_imported(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program's own /tmp does not hide an environment that lies there."""
    from guerdon.workers import warm

    (tmp_path / "far_away.py").write_text("VALUE = 7\n")
    tmp_path.chmod(0o755)
    others = warm.packages()
    monkeypatch.setattr(warm, "packages", lambda: [*others, str(tmp_path)])
    job = Job("import far_away\nopen('/tmp/x', 'w').write('a')\nprint(far_away.VALUE)", [{"stdin": "", "stdout": "7"}])
    try:
        with Sandbox(workers=1, modes=(mode,)) as sandbox:
            found = [sandbox.run(job)[0].status for _ in range(2)]
    except Refused as error:
        pytest.skip(str(error))
    assert found == ["passed", "passed"] or not str(tmp_path).startswith("/tmp/")

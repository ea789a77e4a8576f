"""The filters of system calls, each call tried in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from guerdon.workers.inside import kernel
from guerdon.workers.inside.wire import Forged, NotPlain, tag, untag

TRY = """
import ctypes, json, os, sys
from guerdon.workers.inside import kernel
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
filters = [kernel.Filter(of_run=False), kernel.Filter(of_run=True)]
found = {}
for name in [*kernel.DEADLY, *kernel.FORBIDDEN, "clone3", "clone", "socket", "landlock_restrict_self"]:
    number = kernel.number(name)
    if number < 0:
        continue
    child = os.fork()
    if not child:
        for one in filters:
            one.install()
        first = {"clone": 17, "socket": 2}.get(name, -1)
        result = kernel.libc.syscall(ctypes.c_long(number), *(ctypes.c_long(first) for _ in range(5)))
        os._exit(ctypes.get_errno() if result < 0 else 200)
    found[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(found))
"""


@pytest.mark.skipif(kernel.number("seccomp") < 0, reason="the numbers of this machine's system calls are not known")
def test_each_call_gets_its_answer():
    done = subprocess.run([sys.executable, "-c", TRY], capture_output=True, text=True)
    if "Wall" in done.stderr:
        pytest.skip(f"no seccomp here: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout)
    assert {name for name in kernel.DEADLY if name in found and found[name] != -signal.SIGSYS} == set()
    assert {name for name in kernel.FORBIDDEN if name in found and found[name] != kernel.EPERM} == set()
    assert (found["clone3"], found["clone"], found["socket"]) == (kernel.ENOSYS, kernel.EPERM, kernel.EACCES)
    assert found["landlock_restrict_self"] not in (-signal.SIGSYS, kernel.EPERM)


@pytest.mark.parametrize("table", [kernel.DEADLY, kernel.FORBIDDEN])
def test_no_number_stands_twice(table):
    for column in (0, 1):
        numbers = [pair[column] for pair in table.values() if pair[column] is not None]
        assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(
    "data",
    [{"x": []}, {"d": [[1]]}, {"d": [[[1], 2]]}, {"s": [[1]]}, {"i": "z"}, {"i": 1}, {"t": "ab"}, {"c": [1]}, {"b": "0"}, {},
     {"t": [], "s": []}, {"r": [1, 2, 0]}, {"r": ["a"]}, {"c": ["a", 1]}, [[{}]]],
)  # fmt: skip
def test_what_no_honest_partner_sends_is_forged(data):
    with pytest.raises(Forged):
        untag(data)


def test_levels_have_an_end():
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(NotPlain):
        tag(deep)
    with pytest.raises(Forged):
        untag(deep)


def test_subclasses_are_not_plain():
    class Mine(int):
        pass

    for value in (Mine(1), [Mine(1)], {Mine(1): 2}, (Mine(1),), {1: Mine(1)}, object(), int, len):
        with pytest.raises(NotPlain):
            tag(value)

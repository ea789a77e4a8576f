"""A warm worker: builds its walls once, then forks a process for each run, and reports once nothing of the run is left.

It is process 1 of its pid namespace, so that whatever a run leaves behind can be killed and reaped. Nothing of a job ever enters its
memory: a run's own process reads that, from a channel of its own.
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

from . import candidate, kernel, tester

PRELOADED = (  # what programs import most; each module more makes each fork dearer
    "math cmath collections itertools functools re heapq bisect string random typing json copy operator datetime decimal fractions "
    "statistics abc enum io"
)
CONTROL, RULES, ASIDE = 63, 62, 30  # descriptors: the controller's socket, Landlock's rules, and from where on a run's wait for their place
ORDER = struct.Struct("!BIdI")
"""From the controller: what to do, the number of the run, its seconds, its memory in MB."""
STOP, CALLS, PROGRAM, TESTS = range(4)
PLACES = {CALLS: (3,), PROGRAM: (3, 0, 1), TESTS: (3,)}
"""The descriptors that come with an order, and their places in the run."""
REPORT = struct.Struct("!IiBBdd")
"""To the controller: the number of the run, how its process ended (negative: a signal), late, stopped, processor seconds, memory in MB."""
CANNOT_FORK = 1 << 16
RIGHTS = socket.CMSG_SPACE(4 * 4)


def main(descriptor: int) -> None:
    """The whole life of a worker. The first message says how it is walled in; what goes wrong is told, in a sentence, in its place."""
    control = socket.socket(fileno=descriptor)
    setup = json.loads(control.recv(65536))
    try:
        if setup["mode"] == "namespaces":
            user, group = os.getuid(), os.getgid()
            kernel.unshare()
            control.send(b'{"unshared": true}')
            if not json.loads(control.recv(4096))["mapped"]:
                map_itself(user, group)
            kernel.own_root(setup["base"], setup["readable"], setup["devices"], setup["scratch_mb"])
            child = os.fork()
            if child:
                control.close()
                os.waitpid(child, 0)
                os._exit(0)
        worker = Worker(setup, control)
    except OSError as error:
        control.send(json.dumps({"failed": str(error)}).encode())
        return
    worker.control.send(json.dumps({"ready": worker.walls}).encode())
    while worker.serve():
        pass


def map_itself(user: int, group: int) -> None:
    """Where no privileged parent maps users and groups: the one user there is becomes nobody inside."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{kernel.NOBODY} {user} 1"), ("gid_map", f"{kernel.NOBODY} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


class Worker:
    """Process 1 of the sandbox, or in the modes without own namespaces the process that bubblewrap started, or a plain one."""

    def __init__(self, setup: dict[str, Any], control: socket.socket) -> None:
        self.setup, self.mode, self.scratch = setup, setup["mode"], setup["scratch"]
        self.first = os.getpid() == 1
        if os.getsid(0) != os.getpid():
            os.setsid()  # a run that signals its whole group meets nobody outside
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 is deaf to what its children send, but for signals that it handles
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        os.dup2(control.fileno(), CONTROL, inheritable=False)
        control.detach()
        self.control = socket.socket(fileno=CONTROL)
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.closerange(3, CONTROL)
        os.umask(0o077)
        hook, os.register_at_fork = os.register_at_fork, lambda **_: None  # random would seed itself in each fork
        for name in PRELOADED.split():
            importlib.import_module(name)
        os.register_at_fork = hook
        sys.modules["random"].seed(0)  # the same program, the same numbers
        sys.path[:] = [path for path in sys.path if path != setup["source"]] + setup["packages"]
        os.environ.clear()
        os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
        self.filter = kernel.Filter(of_run=True)
        self.rules = self._landlock()
        self.clean = self._scratch_state()
        kernel.limits_of_all(setup["scratch_mb"])
        if self.filter.code:
            kernel.Filter(of_run=False).install()
        gc.collect()
        gc.freeze()

    @property
    def walls(self) -> list[str]:
        """The names of those that stand."""
        landlock = [f"Landlock {kernel.landlock_version()}"] if self.rules is not None else []
        return [*landlock, *(["seccomp"] if self.filter.code else []), "resource limits"]

    def _landlock(self) -> int | None:
        rules = kernel.landlock_rules([name for _, name in self.setup["readable"]], self.setup["devices"], self.scratch)
        if rules is None:
            return None
        os.dup2(rules, RULES, inheritable=False)
        os.close(rules)
        return RULES

    def _scratch_state(self) -> tuple[int, int]:
        found = os.stat(self.scratch)
        return found.st_mode, found.st_ctime_ns

    def serve(self) -> bool:
        """One run. False where it must be the last: the controller has gone, or the scratch folder cannot be emptied."""
        data, ancillary, _, _ = self.control.recvmsg(ORDER.size, RIGHTS)
        if not data:
            return False
        kind, run, seconds, memory_mb = ORDER.unpack(data)
        if kind == STOP:  # of a run that had ended already
            return True
        fds = array.array("i")
        for _, _, some in ancillary:
            fds.frombytes(some)
        try:
            child = os.fork()
        except OSError:
            child = -1
        if child == 0:
            self._run(kind, fds.tolist(), seconds, memory_mb)
        for fd in fds:
            os.close(fd)
        report = (CANNOT_FORK, False, False, 0.0, 0.0) if child < 0 else self._wait(child, run, seconds)
        clean = self._clean()
        self.control.send(REPORT.pack(run, *report))
        while not clean and (data := self.control.recv(ORDER.size)) and ORDER.unpack(data)[0] == STOP:
            pass  # what is unread when a socket closes would take the report with it
        return clean

    def _wait(self, child: int, run: int, seconds: float) -> tuple[int, bool, bool, float, float]:
        """Kill it when it is late or no longer wanted, then all that it left; the rest of its report."""
        until, late, stopped = time.monotonic() + seconds, True, False
        watched = os.pidfd_open(child)
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        poll.register(CONTROL, select.POLLIN)
        while (left := until - time.monotonic()) > 0:
            ready = [fd for fd, _ in poll.poll(left * 1000 + 1)]
            if watched in ready:
                late = False
                break
            if ready:
                data = self.control.recv(ORDER.size)
                if not data:
                    os._exit(0)
                if ORDER.unpack(data)[:2] == (STOP, run):
                    late, stopped = False, True
                    break
        if late or stopped:
            os.kill(child, signal.SIGKILL)
        os.close(watched)
        _, status, usage = os.wait4(child, 0)
        self._reap()
        return os.waitstatus_to_exitcode(status), late, stopped, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024

    def _reap(self) -> None:
        """No process of the run is left after this. Outside a pid namespace there can be none, since a run may not fork."""
        if not self.first:
            return
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            return
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return

    def _clean(self) -> bool:
        """An empty scratch folder; False where it cannot be made so. Such a worker ends, and the controller starts another."""
        if self._scratch_state() == self.clean and not os.listdir(self.scratch):
            return True
        if self.mode == "namespaces":
            kernel.fresh_scratch(self.setup["scratch_mb"], mounted=True)
            self.rules = self.rules and self._landlock()
        else:
            import shutil  # here: it would make each fork dearer

            try:
                os.chmod(self.scratch, 0o700)
                for entry in os.scandir(self.scratch):
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path)
                    else:
                        os.unlink(entry.path)
                os.chmod(self.scratch, self.clean[0] & 0o7777)
            except (OSError, RecursionError):
                return False
        self.clean = self._scratch_state()
        return True

    def _run(self, kind: int, fds: list[int], seconds: float, memory_mb: int) -> None:
        """In the run's own process: the walls, then the program or the tests. It never returns."""
        code = 111
        try:
            for fd, aside in zip(fds, range(ASIDE, RULES), strict=False):
                os.dup2(fd, aside)
            for place, aside in zip(PLACES[kind], range(ASIDE, RULES), strict=False):
                os.dup2(aside, place)
            os.closerange(4, RULES)
            os.close(CONTROL)
            kernel.limits_of_run(seconds, memory_mb)
            if self.setup["privileged"]:
                kernel.nobody()  # which leaves it without capabilities, and closed to tracing
            else:
                kernel.drop_capabilities()
                kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
            os.chdir(self.scratch)
            if self.rules is not None:
                kernel.landlock_enter(RULES)
                os.close(RULES)
            if self.filter.code:
                self.filter.install()
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, 3)  # asked for nothing, it looks nothing up
            if kind == CALLS:
                candidate.serve(channel)
            elif kind == PROGRAM:
                candidate.whole(channel)
            else:
                tester.serve(channel)
            code = 0
        finally:
            os._exit(code)

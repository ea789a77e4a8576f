"""The controller's side of one warm worker of the sandbox: how it is started behind which walls, and one run on it."""

from __future__ import annotations

import json
import os
import shutil
import site
import socket
import subprocess
import sys
import sysconfig
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from guerdon.workers.inside.init import CANNOT_FORK, ORDER, REPORT, STOP
from guerdon.workers.inside.kernel import NOBODY

SOURCE = str(Path(__file__).parent)
DEVICES = ["/dev/null", "/dev/zero", "/dev/urandom"]
SCRATCH_MB = 16
PATIENCE = 20.0  # seconds for a worker to start, and beyond its deadline for a run to be reported
MODES = ("namespaces", "bubblewrap", "none")
BOOT = "import sys; sys.path.insert(0, {!r}); from inside.init import main; main(int(sys.argv[1]))"
LOCALE = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}  # sets have the same order in each run


class Gone(Exception):
    """The worker cannot be started, ended, or does not answer: nobody's program is to blame. A sentence."""


class Ending(NamedTuple):
    """Of a run's process."""

    code: int
    """Its exit code; negative: the signal that ended it."""
    late: bool
    stopped: bool
    cpu: float
    memory_mb: float


class Warm:
    """A worker process behind the walls of `mode`. Not safe for threads."""

    def __init__(self, mode: str) -> None:
        """Raises Gone where these walls cannot be built here."""
        self.mode, self.runs = mode, 0
        self.base = tempfile.mkdtemp(prefix="guerdon-sandbox-")
        self.control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            os.chmod(self.base, 0o1777 if mode == "none" else 0o755)
            self.process = subprocess.Popen(
                self._command(far.fileno()), env=LOCALE, cwd="/", pass_fds=[far.fileno()], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            self._tidy()
            raise Gone(f"the worker cannot be started: {error}") from None
        finally:
            far.close()
        try:
            self.walls = self._begin()
        except (OSError, Gone) as error:
            self.close()
            raise Gone(str(error)) from None
        if mode != "none":
            self._tidy()

    def _command(self, descriptor: int) -> list[str]:
        python = [os.path.realpath(sys.executable), "-P", "-s", "-S", "-c", BOOT.format(self._source()), str(descriptor)]
        if self.mode != "bubblewrap":
            return python
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise FileNotFoundError("bwrap is not installed")
        walls = [bwrap, "--unshare-all", "--die-with-parent", "--as-pid-1", "--new-session", "--uid", str(NOBODY), "--gid", str(NOBODY)]
        for path in [*readable(), *needed()]:
            walls += ["--symlink", os.readlink(path), path] if os.path.islink(path) else ["--ro-bind", path, self._inside(path)]
        for path in DEVICES:
            walls += ["--dev-bind", path, path]
        return [*walls, "--size", str(SCRATCH_MB << 20), "--tmpfs", "/tmp", "--chdir", "/", "--cap-drop", "ALL", "--", *python]

    def _inside(self, path: str) -> str:
        """Where a folder stands behind the walls: in its place, but for one under /tmp, which is the runs' own there."""
        return f"/opt/guerdon{path}" if self.mode != "none" and path.startswith("/tmp/") else path

    def _source(self) -> str:
        return self._inside(SOURCE) if self.mode == "bubblewrap" else SOURCE

    def _begin(self) -> list[str]:
        """The handshake: how to be walled in; the maps of users, which only a privileged process outside may write; ready."""
        privileged = os.geteuid() == 0
        setup = {
            "mode": self.mode,
            "base": self.base,
            "readable": [(path, self._inside(path)) for path in readable()],
            "devices": DEVICES,
            "scratch_mb": SCRATCH_MB,
            "source": self._source(),
            "packages": [self._inside(path) for path in packages()],
            "scratch": self.base if self.mode == "none" else "/tmp",
        }
        mapped = self.mode == "namespaces" and privileged and may_map_nobody()
        setup["privileged"] = mapped or (self.mode == "none" and privileged)
        self._send(json.dumps(setup).encode(), [])
        if self.mode == "namespaces":
            self._expect("unshared")
            if mapped:
                for name in ("uid_map", "gid_map"):
                    Path(f"/proc/{self.process.pid}/{name}").write_text(f"0 0 1\n{NOBODY} {NOBODY} 1\n")
            self._send(json.dumps({"mapped": mapped}).encode(), [])
        return self._expect("ready")

    def _expect(self, name: str) -> Any:
        message = json.loads(self._receive(PATIENCE))
        if name not in message:
            raise Gone(str(message.get("failed", "the worker speaks out of turn")))
        return message[name]

    def _send(self, message: bytes, fds: Sequence[int]) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        try:
            self.control.sendmsg([message], rights)
        except OSError as error:
            raise Gone(f"the worker has ended: {error}") from None

    def _receive(self, seconds: float) -> bytes:
        self.control.settimeout(max(0.01, seconds))
        try:
            data = self.control.recv(65536)
        except TimeoutError:
            raise Gone(f"the worker did not answer within {seconds:.0f} s") from None
        except OSError as error:
            raise Gone(f"the worker has ended: {error}") from None
        if not data:
            raise Gone("the worker has ended" + ("" if self.runs else ", before it was ready"))
        return data

    def start(self, kind: int, fds: Sequence[int], seconds: float, memory_mb: int) -> None:
        """Begin a run whose process gets these descriptors, at the places `PLACES[kind]`. Each run has channels of its own."""
        self.runs += 1
        self._send(ORDER.pack(kind, self.runs, seconds, memory_mb), fds)

    def finish(self, seconds: float = 0.0) -> Ending:
        """How the run ended, once nothing of it is left. It has these seconds left to end by itself; with none it is stopped."""
        if seconds <= 0:
            self._send(ORDER.pack(STOP, self.runs, 0.0, 0), [])
        code, late, stopped, cpu, memory = REPORT.unpack(self._receive(PATIENCE + seconds))[1:]
        if code == CANNOT_FORK:
            raise Gone("the worker cannot fork")
        return Ending(code, bool(late), bool(stopped), cpu, memory)

    def close(self) -> None:
        """End the worker and whatever runs on it."""
        self.control.close()  # it ends when it sees that nobody is there
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()  # what it forked dies with it
            self.process.wait()
        self._tidy()

    def _tidy(self) -> None:
        shutil.rmtree(self.base, ignore_errors=True)


def may_map_nobody() -> bool:
    """Whether user and group `nobody` exist in this user namespace, so that a worker's run can be someone who owns nothing."""
    for name in ("uid_map", "gid_map"):
        ranges = [tuple(map(int, line.split())) for line in Path(f"/proc/self/{name}").read_text().splitlines()]
        if not all(any(first <= user < first + n for first, _, n in ranges) for user in (0, NOBODY)):
            return False
    return True


def packages() -> list[str]:
    """Where installed packages lie, numpy among them."""
    return [
        path for path in dict.fromkeys([*map(sysconfig.get_path, ("purelib", "platlib")), *site.getsitepackages()]) if os.path.isdir(path)
    ]


def readable() -> list[str]:
    """The folders that a program may read: Python's library, installed packages, shared libraries."""
    found = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), os.path.join(sys.base_prefix, "lib"), *packages()]
    found = [os.path.realpath(path) for path in found] + [p for p in ("/usr/lib", "/usr/lib64", "/lib", "/lib64") if os.path.exists(p)]
    outer: list[str] = []
    for path in sorted(dict.fromkeys(found), key=len):
        if not any(path.startswith(other + "/") for other in outer) and os.path.exists(path):
            outer.append(path)
    return outer


def needed() -> list[str]:
    """What bubblewrap must show besides, for the worker to start at all."""
    return [os.path.realpath(sys.executable), os.path.join(SOURCE, "inside")]

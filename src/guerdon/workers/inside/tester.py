"""The side that runs the tests. It calls the candidate, which lives in another process, as if its functions were its own."""

from __future__ import annotations

import ast
import builtins
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any

from .wire import Forged, NotPlain, receive, send, tag, untag

PASSED, FAILED, ERROR, TIMEOUT, MEMORY, CHEATED, INFRASTRUCTURE = (
    "passed", "failed", "error", "timeout", "memory", "cheated", "infrastructure"
)  # fmt: skip
LOST = "lost"
"""The candidate's process ended while a call waited: whoever reaps it knows why."""
LARGE = 1 << 20
"""Bytes that a process of tests takes from one program without being replaced."""
_MUTABLE = (list, dict, set, bytearray)


class Over(BaseException):
    """This test, or the whole run, has ended. No `except Exception` of a test holds it up."""


class Link:
    """The channel to the candidate. The first verdict on a test that is set here stands, whatever the test's code does afterwards."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.verdict: tuple[str, str] | None = None
        self.ended = False  # nothing more can be asked
        self.broken = False  # the program did not even load: what this test came to, all others come to
        self.loaded = False
        self.sizes: list[int] = []  # of what came from the candidate, in bytes

    def settle(self, status: str, reason: str, ended: bool = False) -> Over:
        self.verdict = self.verdict or (status, reason)
        self.ended = self.ended or ended
        self.broken = self.broken or (ended and not self.loaded)
        return Over()

    def call(self, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        if self.verdict is not None:
            raise Over
        try:
            sent, named = tag(list(args)), tag(kwargs)
        except NotPlain as error:
            needs = INFRASTRUCTURE if "levels" not in str(error) else ERROR
            raise self.settle(needs, f"the test needs more than plain values: it passes {error}") from None
        word = os.urandom(8).hex()  # an answer that was written before its question is recognised
        mutable = any(type(x) in (list, dict, set, bytearray, tuple) for x in args)
        try:
            send(self.channel, {"id": word, "name": name, "args": sent, "kwargs": named, "mutable": mutable})
            if not self.loaded:
                self._loaded(self._reply())
            reply = self._reply()
            if reply.get("id") != word:
                raise Forged("an answer to nothing asked")
            value, error = self._read(reply, args)
        except NotPlain as error:
            raise self.settle(ERROR, f"the test passes {error}") from None
        except Forged as error:
            raise self.settle(CHEATED, f"forged bytes on its channel: {error}", True) from None
        except OSError:
            raise self.settle(LOST, "", True) from None
        except MemoryError:
            raise self.settle(MEMORY, "its result does not fit into the memory of the tests") from None
        if error is not None:
            raise error
        return value

    def _reply(self) -> dict[str, Any]:
        reply = receive(self.channel, sizes=self.sizes)
        if reply is None:
            raise self.settle(LOST, "", True)
        return reply

    def _loaded(self, reply: dict[str, Any]) -> None:
        if "loaded" not in reply:
            raise Forged("an answer before it was loaded")
        self.loaded = True
        if reply["loaded"] is not None:
            self.broken = True

    def _read(self, reply: dict[str, Any], args: tuple) -> tuple[Any, Exception | None]:
        """What the call returned, and what it raised. Settles the test where it did neither."""
        if "value" in reply:
            value = untag(reply["value"])
            if "after" in reply:
                after = untag(reply["after"])
                if type(after) is not list or len(after) != len(args):
                    raise Forged("other arguments")
                for old, new in zip(args, after, strict=True):
                    update(old, new)
            return value, None
        if "left" in reply:
            status = CHEATED if reply["left"] == 0 else ERROR
            raise self.settle(status, f"left with exit code {str(reply['left'])[:20]} while a call waited")
        if "other" in reply:
            if reply.get("equal") is True:
                raise self.settle(CHEATED, f"returned {str(reply['other'])[:100]}, which decides by itself what it is equal to")
            raise self.settle(ERROR, f"returned {str(reply['other'])[:100]}: more than plain values")
        name, text = str(reply.get("raised")), str(reply.get("text", ""))[:300]
        kind = getattr(builtins, name, None)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise Forged("no exception")
        if issubclass(kind, MemoryError):
            raise self.settle(MEMORY, "out of memory")
        return None, made(kind, text)


def made(kind: type[Exception], text: str) -> Exception:
    try:
        return kind(text)
    except TypeError:  # UnicodeDecodeError and its like want more
        return ValueError(f"{kind.__name__}: {text}")


def update(old: Any, new: Any) -> None:
    """Give a value that was changed in place on the other side the same content here, keeping what is the same object."""
    if type(old) is not type(new) or type(old) not in (*_MUTABLE, tuple):
        return
    if type(old) in (list, tuple):
        inner = [_merged(old[i], x) if i < len(old) else x for i, x in enumerate(new)]
        if type(old) is list:
            old[:] = inner
    elif type(old) is dict:
        inner = {key: _merged(old[key], x) if key in old else x for key, x in new.items()}
        old.clear()
        old.update(inner)
    elif type(old) is set:
        old.clear()
        old.update(new)
    else:
        old[:] = new


def _merged(old: Any, new: Any) -> Any:
    if type(old) is type(new) and type(old) in _MUTABLE:
        update(old, new)
        return old
    return new


class Proxy:
    """A function of the candidate, as the tests see it. All that can be done with it is to call it."""

    def __init__(self, link: Link, name: str) -> None:
        self.__dict__.update(_link=link, __name__=name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._link.call(self.__name__, args, kwargs)

    def _more(self, *_: Any) -> Any:
        raise self._link.settle(INFRASTRUCTURE, f"the test needs more than plain values: it uses {self.__name__!r} as an object")

    __getattr__ = __eq__ = __getitem__ = __iter__ = __len__ = __bool__ = __contains__ = __add__ = __lt__ = __gt__ = _more
    __hash__ = None  # type: ignore[assignment]


def listed(x: Any) -> Any:
    """The same with lists in the place of tuples: a task file in JSON cannot tell them apart."""
    if type(x) in (list, tuple):
        return [listed(v) for v in x]
    if type(x) is dict:
        return {k: listed(v) for k, v in x.items()}
    return x


def unbound(tree: ast.AST, known: dict[str, Any]) -> set[str]:
    """Names that the code reads and that neither it, nor the setup, nor Python binds: they are the candidate's."""
    read, bound = set(), {*known, *vars(builtins)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return read - bound


_REACHING = {"exec", "eval", "compile", "open", "setattr", "delattr", "globals", "vars", "input", "print", "__import__", "getattr", "type"}


def harmless(tree: ast.AST) -> bool:
    """Whether code leaves the process that runs it as it was: no imports, nothing set on an object, nothing that runs other code."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.Global, ast.ClassDef)):
            return False
        if isinstance(node, ast.Attribute) and (not isinstance(node.ctx, ast.Load) or node.attr.startswith("_")):
            return False
        if isinstance(node, ast.Name) and (node.id in _REACHING or node.id.startswith("__")):
            return False
    return True


class Tests:
    """The tests of a job, against one candidate."""

    def __init__(self, job: dict[str, Any], link: Link) -> None:
        self.job, self.link = job, link
        self.entry = job["entry_point"]
        self.names: dict[str, Any] = {"__name__": "tests"}
        self.clean = not job["setup"]

    def begin(self) -> str:
        """Runs the trusted setup. What is wrong with it, or ""."""
        try:
            exec(compile(self.job["setup"], "setup.py", "exec", dont_inherit=True), self.names)
        except Exception as error:
            return f"the setup of the tests fails: {said(error)}"
        if self.entry:
            self.names[self.entry] = self.names["candidate"] = Proxy(self.link, self.entry)
        return ""

    def run(self, test: dict[str, Any], seconds: float) -> tuple[str, str]:
        self.link.verdict = None
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            found = self._code(test["code"]) if "code" in test else self._value(test)
        except Over:
            found = (ERROR, "it was over")  # `verdict` says why
        except AssertionError as error:
            found = (FAILED, said(error))
        except MemoryError:
            found = (MEMORY, "the tests ran out of memory")
        except BaseException as error:
            found = (ERROR, said(error))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return self.link.verdict or found

    def late(self, *_: Any) -> None:
        raise self.link.settle(TIMEOUT, "", True)

    def _value(self, test: dict[str, Any]) -> tuple[str, str]:
        value = self.link.call(self.entry, tuple(untag(test["input"])), {})
        expected = untag(test["output"])
        return (PASSED, "") if listed(value) == listed(expected) else (FAILED, "another value")

    def _code(self, code: str) -> tuple[str, str]:
        try:
            tree = ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return INFRASTRUCTURE, f"the test is no Python: {said(error)}"
        self.clean = self.clean and harmless(tree)
        names = dict(self.names)
        for name in unbound(tree, names):
            names[name] = Proxy(self.link, name)
        exec(compile(tree, "test.py", "exec", dont_inherit=True), names)
        return PASSED, ""


def said(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def serve(control: socket.socket) -> None:
    """Judge one job after the other."""
    fds: list[int] = []
    while (job := receive(control, fds)) is not None:
        with socket.socket(fileno=fds.pop()) as channel:
            judge(job, channel, control)


def judge(job: dict[str, Any], channel: socket.socket, results: socket.socket) -> None:
    """Send a verdict on each test as soon as it is there.

    `all`: the tests that follow would come to the same.  `clean`, in the last one: this process may judge another job. It may not once code
    that can change it has run, or something went on that it did not expect.
    """
    link = Link(channel)
    tests = Tests(job, link)
    signal.signal(signal.SIGALRM, tests.late)
    sys.modules["random"].seed(0)
    wrong = tests.begin()
    with suppress(OSError):  # where nobody reads any more, the first call finds out
        send(channel, {"program": job["program"]})
    end = len(job["tests"]) - 1
    for k in range(job["first"], end + 1):
        begun = time.monotonic()
        try:
            status, reason = (INFRASTRUCTURE, wrong) if wrong else tests.run(job["tests"][k], job["seconds"])
        except Over:  # the alarm rang on the way out
            status, reason = TIMEOUT, ""
        if k == end and status == PASSED and more(channel):
            status, reason = CHEATED, "bytes on its channel that answer nothing"
        alike = (link.broken and status != PASSED) or bool(wrong)
        verdict = {"test": k, "status": status, "reason": reason, "seconds": time.monotonic() - begun, "all": alike}
        tests.clean = tests.clean and status in (PASSED, FAILED, ERROR, LOST, INFRASTRUCTURE)
        last = k == end or link.ended or alike
        send(results, {**verdict, "clean": tests.clean and sum(link.sizes) < LARGE} if last else verdict)
        if last:
            return


def more(channel: socket.socket) -> bool:
    """Whether bytes lie on a channel where none are expected."""
    channel.setblocking(False)
    try:
        return bool(channel.recv(1))
    except BlockingIOError:
        return False
    except OSError:
        return False

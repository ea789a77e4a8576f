"""The side that runs what a model wrote. Nothing here is trusted by anyone: the program can change all of it."""

from __future__ import annotations

import builtins
import os
import socket
import sys
import types
from typing import Any

from .wire import NotPlain, receive, send, tag, untag, with_library


def serve(channel: socket.socket) -> None:
    """Run a program, then answer calls of its functions until the other side closes."""
    job = receive(channel)
    if job is None:
        return
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    failure = load(job["program"], module)
    send(channel, {"loaded": failure})
    while (call := receive(channel)) is not None:
        reply = failure or answer(module, call)
        try:
            send(channel, {**reply, "id": call["id"]})
        except NotPlain as error:
            send(channel, {"other": str(error), "equal": False, "id": call["id"]})


def load(program: str, module: types.ModuleType) -> dict[str, Any] | None:
    try:
        exec(compile(program, "solution.py", "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        return raised(error)
    return None


def answer(module: types.ModuleType, call: dict[str, Any]) -> dict[str, Any]:
    args, kwargs = untag(call["args"]), untag(call["kwargs"])
    try:
        value = with_library(getattr(module, call["name"])(*args, **kwargs))
    except BaseException as error:
        return raised(error)
    try:
        reply = {"value": tag(value)}
        if call["mutable"]:
            after = tag([*map(with_library, args)])
            if after != call["args"]:
                reply["after"] = after
        return reply
    except NotPlain as error:
        return {"other": str(error), "equal": error.equal}
    except MemoryError as error:
        return raised(error)


def raised(error: BaseException) -> dict[str, Any]:
    """An exception, by the name of the first built-in type that it is of, or the code it leaves with."""
    if isinstance(error, SystemExit):
        return {"left": 0 if error.code is None else error.code if type(error.code) is int else 1}
    names = [c.__name__ for c in type(error).__mro__ if getattr(builtins, c.__name__, None) is c]
    try:
        text = str(error)[:300]
    except BaseException:
        text = ""
    return {"raised": names[0] if isinstance(error, Exception) else "RuntimeError", "text": text}


def whole(channel: socket.socket) -> None:
    """Run a program as `python program.py` would: descriptors 0 and 1 lead where it reads and prints. What it raised is told at the end."""
    job = receive(channel)
    if job is None:
        return
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    failure = load(job["program"], module)
    try:
        if (threading := sys.modules.get("threading")) is not None:
            for thread in threading.enumerate():
                if thread is not threading.current_thread() and not thread.daemon:
                    thread.join()
        sys.stdout.flush()
    except BaseException as error:
        failure = failure or raised(error)
    if failure is not None:
        send(channel, failure)
    os._exit(0 if failure is None else failure.get("left", 1) & 255)

"""Plain values between two processes that do not trust each other: JSON with tags, never code.

A plain value is None, or of exactly one of the types bool, int, float, complex, str, bytes, bytearray, range, list, tuple, set,
frozenset, dict, with plain values inside. Whoever reads one gets objects of these types only, so that comparing them runs nobody's code.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

MOST = 16 * 2**20
"""Bytes of a message."""
DEEPEST = 200
"""Levels of a value; Python's own stack is not far behind."""
_JSON_INT = 1 << 63
_HEAD = struct.Struct("!I")


class NotPlain(TypeError):
    """What cannot be sent. `equal`: its type decides by itself what it is equal to."""

    def __init__(self, why: str, equal: bool = False) -> None:
        super().__init__(why)
        self.equal = equal


class Forged(ValueError):
    """A message that no honest partner sends."""


def tag(x: Any, depth: int = 0) -> Any:
    """JSON data for a plain value; lists stay lists, what JSON has no word for becomes {tag: ...}. Raises NotPlain."""
    kind = type(x)
    if kind is str or kind is bool or x is None or kind is float:
        return x
    if kind is int:
        return x if -_JSON_INT <= x < _JSON_INT else {"i": hex(x)}  # JSON's reader takes quadratic time on long numbers
    if depth > DEEPEST:
        raise NotPlain(f"a value of more than {DEEPEST} levels")
    depth += 1
    if kind is list:
        return [tag(v, depth) for v in x]
    if kind is tuple:
        return {"t": [tag(v, depth) for v in x]}
    if kind is dict:
        return {"d": [[tag(k, depth), tag(v, depth)] for k, v in x.items()]}
    if kind is set or kind is frozenset:
        return {"s" if kind is set else "f": [tag(v, depth) for v in x]}
    if kind is range:
        return {"r": [tag(n) for n in (x.start, x.stop, x.step)]}
    if kind is complex:
        return {"c": [x.real, x.imag]}
    if kind is bytes or kind is bytearray:
        return {"b" if kind is bytes else "a": x.hex()}
    raise _not_plain(kind, x)


def _not_plain(kind: type, x: Any) -> NotPlain:
    own = [c for c in kind.__mro__ if c.__module__ in ("solution", "__main__")]
    equal = any("__eq__" in vars(c) and "__dataclass_fields__" not in vars(c) for c in own)
    return NotPlain(f"a value of type {kind.__name__}", equal)


def with_library(x: Any) -> Any:
    """A Counter, defaultdict or OrderedDict of the library as the dict it stands for."""
    kind = type(x)
    return dict(x) if kind.__module__ == "collections" and kind.__name__ in ("Counter", "defaultdict", "OrderedDict") else x


_READ: dict[str, Callable[[Any, int], Any]] = {
    "i": lambda v, depth: int(v, 16),
    "t": lambda v, depth: tuple([untag(x, depth) for x in v]),
    "d": lambda v, depth: {untag(k, depth): untag(x, depth) for k, x in v},
    "s": lambda v, depth: {untag(x, depth) for x in v},
    "f": lambda v, depth: frozenset([untag(x, depth) for x in v]),
    "r": lambda v, depth: range(*[untag(n, depth) for n in v]),
    "c": lambda v, depth: complex(v[0], v[1]),
    "b": lambda v, depth: bytes.fromhex(v),
    "a": lambda v, depth: bytearray.fromhex(v),
}


def untag(x: Any, depth: int = 0) -> Any:
    """The value that `tag` was given. Raises Forged for anything else."""
    if depth > DEEPEST + 1:
        raise Forged("too deep")
    if type(x) is list:
        return [untag(v, depth + 1) for v in x]
    if type(x) is not dict:
        return x
    if len(x) != 1:
        raise Forged("not one tag")
    [(name, inside)] = x.items()
    if name not in _READ or type(inside) is not (str if name in "iba" else list):
        raise Forged(f"no tag {name[:20]!r}")
    try:
        return _READ[name](inside, depth + 1)
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise Forged(str(error)[:100]) from None


_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def send(channel: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Raises NotPlain for a message of more than `MOST` bytes, and OSError where nobody reads any more. `fds` go with it."""
    data = _encode(message).encode()
    if len(data) > MOST:
        raise NotPlain(f"a value of more than {MOST >> 20} MB")
    data = _HEAD.pack(len(data)) + data
    if fds:
        data = data[socket.send_fds(channel, [data], fds) :]
    channel.sendall(data)


def receive(channel: socket.socket, fds: list[int] | None = None, sizes: list[int] | None = None) -> dict[str, Any] | None:
    """The next message, or None where the other side has closed. Raises Forged for what is none.

    `fds` gets the descriptors that come along, `sizes` the message's length.
    """
    if fds is None:
        head = _exactly(channel, _HEAD.size)
    else:
        head, got, _, _ = socket.recv_fds(channel, _HEAD.size, 4)
        fds += got
    if not head:
        return None
    size = _HEAD.unpack(head)[0]
    if size > MOST:
        raise Forged("a message longer than any")
    data = _exactly(channel, size)
    if data is None:
        return None
    if sizes is not None:
        sizes.append(size)
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Forged(str(error)[:100]) from None
    if type(message) is not dict:
        raise Forged("no object")
    return message


def _exactly(channel: socket.socket, n: int) -> bytes | None:
    some = channel.recv(n)
    if len(some) == n:
        return some
    parts, left = [], n
    while some:
        parts.append(some)
        left -= len(some)
        if not left:
            return b"".join(parts)
        some = channel.recv(min(left, 1 << 20))
    return None

"""The tool contract: (text, task, history, **params) -> Reply. What stands on the other side of a conversation of several turns.

    @tool
    def lookup(text: str, task: Task, history: Sequence[Turn]) -> Reply:
        return Reply(task.meta["table"].get(text.strip(), "unknown"))

text: what the policy wrote in this turn.  history: the turns before.  A tool is a pure function of the three, so that a run resumes to the
same numbers; what it must remember, it reads from the history. The text may be anything: a tool runs in a worker process that is killed at
its deadline, unless it is registered `inline=True`, which is for code that takes linear time on any text and cannot crash.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from guerdon.registry import Piece, find, registrar
from guerdon.samples import HOSTILE, Task

if TYPE_CHECKING:
    from guerdon.workers import Pool

tool = registrar("tool")
"""`@tool` or `@tool(inline=True)` or `@tool(deadline=2.0)`, in seconds for one call (10 unless stated)."""


@dataclass(frozen=True)
class Reply:
    """What a tool says. done: the conversation is over."""

    text: str = ""
    done: bool = False


class Turn(NamedTuple):
    text: str
    """What the policy wrote."""
    reply: str


class Asked(NamedTuple):
    text: str
    task: Task
    history: tuple[Turn, ...]


@dataclass(frozen=True)
class _Call:
    """What a worker runs: always the same object for the same tool and parameters, since workers inherit it when they are forked."""

    fn: Callable[..., Any]
    params: tuple[tuple[str, Any], ...]

    def __call__(self, asked: Asked) -> Reply:
        reply = self.fn(*asked, **dict(self.params))
        if not isinstance(reply, Reply) or not isinstance(reply.text, str):
            raise TypeError(f"a tool returns a Reply with a text, not {type(reply).__name__}")
        return reply


_calls = functools.lru_cache(maxsize=64)(_Call)


def ask(name: str, several: Sequence[Asked], pool: Callable[[], Pool], params: Mapping[str, Any]) -> list[Reply | str]:
    """The tool's replies, in order; where there is none, the reason: it begins with `hostile` where the text itself caused it.

    pool: called for the worker processes where the tool needs them. Raises Refused for a tool that is not registered.
    """
    piece = find("tool", name)
    call = _call(piece, params)
    if piece.about.get("inline", False):
        return [_here(call, asked) for asked in several]
    outcomes = pool().run(call, several, float(piece.about.get("deadline", 10.0)))
    return [outcome.value if outcome.ok else outcome.hostile or outcome.failed for outcome in outcomes]


def _call(piece: Piece, params: Mapping[str, Any]) -> _Call:
    items = tuple(sorted(params.items()))
    try:
        return _calls(piece.fn, items)
    except TypeError:  # a parameter that cannot be hashed, such as a list: workers are forked anew for each turn
        return _Call(piece.fn, items)


def _here(call: _Call, asked: Asked) -> Reply | str:
    from guerdon.workers.pool import describe  # here: its own imports take a tenth of a second

    try:
        return call(asked)
    except RecursionError:
        return f"{HOSTILE}: recursion too deep"
    except Exception as error:
        return describe(error)

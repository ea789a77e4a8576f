"""Name -> function, one dictionary a kind of piece, filled by decorators and by plug-ins.

A plug-in is an installed package whose entry points of the group `guerdon` name modules; they are imported the first time
a name is looked up, and their decorators register whatever they hold. Nothing is found by scanning files.
"""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


class Refused(ValueError):
    """Input that cannot be used. One sentence: what, where, and what to write instead. Nothing was begun (exit code 2)."""


class Broke(RuntimeError):
    """A run that had begun and could not go on. One sentence; what was done before is kept (exit code 1)."""


class Interrupted(Broke):
    """A run that its user stopped (exit code 130). One sentence on what is kept."""


KINDS = (
    "env", "tool", "backend", "rollout", "reward", "shape", "select", "keep", "credit", "aggregate", "loss", "mix", "search",
    "annotator", "lesson", "tracker",
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """One registered function or class. `needs`: batch fields, loss outputs or capabilities it asks for, by the kind's rule."""

    kind: str
    name: str
    fn: Callable[..., Any]
    needs: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.fn.__module__}.{self.fn.__qualname__}"


_pieces: dict[str, dict[str, Piece]] = {kind: {} for kind in KINDS}
_plugins_loaded = False


def register(kind: str, name: str, fn: Callable[..., Any], needs: Iterable[str] = (), **about: Any) -> Piece:
    """Enter `fn` under `name`. Entering the same function again (a notebook cell run twice) replaces it; another one is refused."""
    piece = Piece(kind, name, fn, tuple(needs), about)
    old = _pieces[kind].get(name)
    if old is not None and old.where != piece.where:
        raise Refused(f"{kind} {name!r} is already registered by {old.where}; give {piece.where} another name.")
    _pieces[kind][name] = piece
    return piece


def registrar(kind: str) -> Callable[..., Any]:
    """The decorator of a kind: `@credit` or `@credit(needs=("values",))` registers the function under its own name."""

    def decorate(fn: Callable[..., Any] | None = None, *, name: str | None = None, needs: Iterable[str] = (), **about: Any) -> Any:
        def enter(target: Callable[..., Any]) -> Callable[..., Any]:
            register(kind, name or target.__name__, target, needs, **about)
            return target

        return enter if fn is None else enter(fn)

    return decorate


def find(kind: str, name: str) -> Piece:
    """The piece, or `Refused` with the nearest name."""
    load_plugins()
    try:
        return _pieces[kind][name]
    except KeyError:
        raise Refused(f"There is no {kind} {name!r}{nearest(name, _pieces[kind])}") from None


def names(kind: str) -> list[str]:
    load_plugins()
    return sorted(_pieces[kind])


def pieces(kind: str) -> list[Piece]:
    return [_pieces[kind][name] for name in names(kind)]


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error sentence: the nearest known name, or the list of all."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(known)}." if known else "; none is registered."


def load_plugins() -> None:
    """Import every entry point of the group `guerdon`, once. One that fails to import is refused by name."""
    global _plugins_loaded
    if _plugins_loaded:
        return
    _plugins_loaded = True
    for entry in importlib.metadata.entry_points(group="guerdon"):
        try:
            entry.load()
        except Exception as error:
            _plugins_loaded = False
            raise Refused(f"The plug-in {entry.name!r} ({entry.value}) cannot be imported: {error}. Mend or uninstall it.") from error

"""Verdicts kept: a cache of what pure rewards said, and the journal of a run. Both are SQLite tables; neither reads pickles."""

from __future__ import annotations

import hashlib
import marshal
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.registry import Broke, Refused
from guerdon.rewards.core import Reward
from guerdon.samples import Context, Rewards, Sample
from guerdon.scoring.wire import from_bytes, to_bytes

AT_ONCE = 500  # keys in one SELECT


class _Table:
    """key -> bytes in a SQLite file."""

    def __init__(self, path: str | Path, synchronous: str) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.db = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.execute(f"PRAGMA synchronous={synchronous}")
            self.db.execute("CREATE TABLE IF NOT EXISTS verdicts (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
        except (sqlite3.Error, OSError) as error:
            raise Refused(f"{self.path} cannot be used to keep verdicts: {error}. Name another file, or remove this one.") from None

    def get(self, keys: Sequence[bytes | None]) -> dict[bytes, bytes]:
        """What is known, of these keys."""
        wanted = [k for k in keys if k is not None]
        found: dict[bytes, bytes] = {}
        for start in range(0, len(wanted), AT_ONCE):
            some = wanted[start : start + AT_ONCE]
            try:
                found.update(self.db.execute(f"SELECT key, value FROM verdicts WHERE key IN ({','.join('?' * len(some))})", some))
            except sqlite3.Error as error:
                raise Broke(f"{self.path} cannot be read: {error}; remove it.") from None
        return found

    def put(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Enter all of them, or none. Raises Broke where the file cannot be written (a full disk)."""
        rows = list(pairs)
        if not rows:
            return
        try:
            self.db.execute("BEGIN IMMEDIATE")
            self.db.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", rows)
            self.db.execute("COMMIT")
        except sqlite3.Error as error:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise Broke(f"{self.path} cannot be written: {error}. What stood there before is kept.") from None

    def close(self) -> None:
        self.db.close()


class Cache(_Table):
    """Verdicts of pure rewards by content, in one file that several runs may share."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, synchronous="NORMAL")  # a verdict lost with the power is scored again


class Journal:
    """The rewards of a run by key ("stage 0, step 17"): written before the update that uses them, and read when the step is replayed."""

    def __init__(self, path: str | Path) -> None:
        self.table = _Table(path, synchronous="FULL")

    def read(self, key: str) -> Rewards | None:
        found = self.table.get([key.encode()])
        return from_bytes(found[key.encode()]) if found else None

    def write(self, key: str, rewards: Rewards) -> None:
        """On the disk when this returns. Raises Refused for evidence that is no plain data."""
        try:
            data = to_bytes(rewards)
        except TypeError as error:
            raise Refused(f"The journal of the run cannot keep these rewards: {error}.") from None
        self.table.put([(key.encode(), data)])

    def close(self) -> None:
        self.table.close()


def leaf_key(leaf: Reward, context: Context) -> bytes | None:
    """What a reward's verdicts depend on besides the samples; None for a reward that is not to be cached.

    That is one with `pure=False`, with parameters that are no plain data, or with a service whose answers may change unseen. A service that
    states its `version` (a trainable model's weights) enters with it, and with its `path`; `workers` changes no verdict, and an
    engine's own `sandbox` enters with the version of its rules. A parameter called `file` enters with what the file holds.
    """
    if not leaf.pure:
        return None
    versions = []
    for name in leaf.asks.values():
        service = context.service(name)
        if name == "workers":
            continue
        if name == "sandbox" and service is None:
            from guerdon.workers.sandbox import Sandbox as service
        if name in ("progress", "rng") or getattr(service, "version", None) is None:
            return None
        versions.append((name, str(getattr(service, "path", "")), service.version))
    file = Path(str(leaf.params.get("file", "")))
    held = file.read_bytes() if file.is_file() else b""
    return content((leaf.name, leaf.version, leaf.scope, leaf.grain, leaf.params, versions, held))


def sample_key(head: bytes, fields: Mapping[str, Any]) -> bytes | None:
    """The key of one sample's fields under a reward; None where they are no plain data."""
    try:
        return _digest((head, [x if type(x) is str else whole([x]) if isinstance(x, Sample) else _plain(x) for x in fields.values()]))
    except TypeError:
        return None


def group_key(head: bytes, samples: Sequence[Sample]) -> bytes | None:
    """The key of whole samples, their order and their grouping."""
    inside = whole(samples)
    return None if inside is None else _digest((head, inside))


def whole(samples: Sequence[Sample]) -> bytes | None:
    """16 bytes for all that a function of whole samples can see; groups count as first, second ..."""
    numbers = {g: i for i, g in enumerate(dict.fromkeys(s.group for s in samples))}
    return content([(vars(s.task), {**vars(s), "task": None, "group": numbers[s.group]}) for s in samples])


def content(x: Any) -> bytes | None:
    """16 bytes that differ where the content or a type differs; None for what is not plain data."""
    try:
        return _digest(_plain(x))
    except TypeError:
        return None


def _digest(plain: Any) -> bytes:
    # Version 2 writes equal data as equal bytes. Processors have instructions for SHA-256: half the time of BLAKE2.
    return hashlib.sha256(marshal.dumps(plain, 2)).digest()[:16]


def _plain(x: Any) -> Any:
    """Data that marshal writes without ambiguity."""
    if x is None or type(x) in (str, int, float, bool, bytes):
        return x
    if type(x) in (list, tuple):
        return type(x)(map(_plain, x))
    if isinstance(x, Mapping):
        return {"map": sorted((_plain(item) for item in x.items()), key=repr)}
    if isinstance(x, (np.ndarray, np.generic)) and x.dtype != object:
        return {"array": (x.dtype.str, x.shape, x.tobytes())}
    raise TypeError(type(x).__name__)

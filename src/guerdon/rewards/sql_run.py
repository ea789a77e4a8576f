"""Databases of tasks, and queries that a model wrote: run read-only, against a deadline, in a result of bounded size.

Two engines. SQLite: opened read-only, with an authorizer that lets through reads alone, limits on the size of values, and a handler that
looks at the clock. DuckDB: one SELECT in a read-only transaction, no file, network or extension, a locked configuration and a memory limit.
A query that is a single long call of a C function outlives its deadline here; the worker that it runs in is then killed.
"""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from guerdon.registry import Refused
from guerdon.rewards.reading import extra
from guerdon.rewards.sql_parse import tokens
from guerdon.samples import HOSTILE

ROWS = 50_000
"""Rows of a reference's result."""
BYTES = 16 * 2**20
"""Of the text in a result."""
VALUE = 1_000_000
"""Bytes of one value in SQLite."""
LONGEST = 50_000
"""Characters of a query."""
DIALECTS = ("sqlite", "duckdb")
CHANCE = frozenset({"random", "randomblob", "setseed", "uuid", "gen_random_uuid", "uuidv4", "uuidv7", "nextval"})
"""Functions whose value differs from run to run: a query that calls one would be paid by luck."""
OUTSIDE = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})

Row = tuple[Any, ...]


class Stopped(Exception):
    """A query without a result. Its text is the reason; it begins with `hostile` where the query did more than fail."""


class Unusable(Stopped):
    """The database cannot be opened: the task's fault."""


@dataclass(frozen=True)
class Database:
    dialect: str
    kind: Literal["file", "script"]
    source: str
    """A path, or the CREATE and INSERT statements that make it in memory."""

    @property
    def stamp(self) -> tuple[int, int]:
        """Changes with the file."""
        if self.kind == "script":
            return 0, 0
        try:
            found = os.stat(self.source)
        except OSError as error:
            raise Unusable(f"the database {self.source} cannot be read: {error.strerror}") from None
        return found.st_mtime_ns, found.st_size


@dataclass(frozen=True)
class Result:
    columns: int
    rows: list[Row]


def dialect_of(meta: Mapping[str, Any]) -> str:
    dialect = meta.get("dialect", "sqlite")
    if dialect not in DIALECTS:
        raise Refused(f"The task's meta.dialect is {dialect!r}; sql runs {' and '.join(DIALECTS)}.")
    return dialect


def databases(meta: Mapping[str, Any]) -> list[Database]:
    """The databases of a task: files named by `meta["db"]`, scripts in `meta["schema"]`, each one text or a list; [] where there is none.
    Raises Refused for anything else, and for an unknown `meta["dialect"]`."""
    found: list[Database] = []
    kinds: tuple[tuple[str, Literal["file", "script"]], ...] = (("db", "file"), ("schema", "script"))
    for key, kind in kinds:
        given = meta.get(key)
        several = [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
        if not all(isinstance(x, (str, os.PathLike)) and str(x).strip() for x in several):
            raise Refused(f"The task's meta.{key} must be a text or a list of texts, not {str(given)[:80]!r}.")
        found += [Database(dialect_of(meta), kind, str(x)) for x in several]
    return found


def run(database: Database, query: str, until: float, seconds: float, most: int = ROWS) -> Result:
    """The result of one query; at most `most` + 1 rows are read. Raises Stopped.

    until: on the clock `time.monotonic`.  seconds: the deadline, as reasons name it.
    """
    if len(query) > LONGEST:
        raise Stopped(f"a query of more than {LONGEST} characters")
    with _lock:
        return _run(database, query, until, seconds, most)


def _run(database: Database, query: str, until: float, seconds: float, most: int) -> Result:
    late = f"past its deadline of {seconds:g} s"
    try:
        connection = _open(database, database.stamp)
    except (Stopped, Refused):
        raise
    except Exception as error:  # a task's file or script: whatever is wrong with it is no doing of the query
        raise Unusable(f"the database cannot be opened: {error}") from None
    try:
        result = (_run_sqlite if database.dialect == "sqlite" else _run_duckdb)(connection, query, until, late, most)
    except MemoryError:
        raise Stopped(f"{HOSTILE}: out of memory") from None
    if time.monotonic() > until:  # within one call of a function no clock is looked at
        raise Stopped(f"{HOSTILE}: {late}")
    return result


def _read(fetch: Callable[[int], list[Row]], columns: int, most: int) -> Result:
    rows: list[Row] = []
    size = 0
    while len(rows) <= most and (some := fetch(min(1000, most + 1 - len(rows)))):
        size += sum(len(x) for row in some for x in row if isinstance(x, (str, bytes)))
        if size > BYTES:
            raise Stopped(f"{HOSTILE}: a result of more than {BYTES} bytes")
        rows += [tuple(map(_cell, row)) for row in some]
    return Result(columns, rows)


def _cell(value: Any) -> Any:
    """A value that is equal, and hashes equally, where the database holds it for the same: numbers by value, nested values in order."""
    if value is None or isinstance(value, (str, bytes, int)):
        return value
    if isinstance(value, float):
        return ("nan",) if math.isnan(value) else value
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (list, tuple)):
        return tuple(map(_cell, value))
    if isinstance(value, Mapping):
        return tuple((_cell(k), _cell(v)) for k, v in value.items())
    return value  # dates, times, identifiers


def _connect(database: Database, stamp: tuple[int, int]) -> Any:
    return _open_sqlite(database) if database.dialect == "sqlite" else _open_duckdb(database)


OPEN = 64
"""Databases that a process keeps open."""
_open = lru_cache(maxsize=OPEN)(_connect)
_lock = threading.Lock()  # a connection serves one thread at a time
_inherited: list[Any] = []


def _forget() -> None:
    """In a forked process: connections of its parent are of no use there, and closing one can crash it."""
    global _open, _lock
    _inherited.append(_open)
    _open, _lock = lru_cache(maxsize=OPEN)(_connect), threading.Lock()


os.register_at_fork(after_in_child=_forget)


# --- SQLite ------------------------------------------------------------------------------------------------------------------------

_READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_ACTIONS = {
    getattr(sqlite3, f"SQLITE_{name}"): name.replace("_", " ")
    for name in (
        "CREATE_INDEX", "CREATE_TABLE", "CREATE_TEMP_INDEX", "CREATE_TEMP_TABLE", "CREATE_TEMP_TRIGGER", "CREATE_TEMP_VIEW",
        "CREATE_TRIGGER", "CREATE_VIEW", "DELETE", "DROP_INDEX", "DROP_TABLE", "DROP_TEMP_INDEX", "DROP_TEMP_TABLE", "DROP_TEMP_TRIGGER",
        "DROP_TEMP_VIEW", "DROP_TRIGGER", "DROP_VIEW", "INSERT", "PRAGMA", "TRANSACTION", "UPDATE", "ATTACH", "DETACH", "ALTER_TABLE",
        "REINDEX", "ANALYZE", "CREATE_VTABLE", "DROP_VTABLE", "SAVEPOINT",
    )
}  # fmt: skip


class _Sqlite:
    """A connection that only reads, and what its last query was denied."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection, self.denied = connection, ""

    def authorize(self, action: int, first: str | None, second: str | None, *_: Any) -> int:
        if action == sqlite3.SQLITE_FUNCTION and str(second).lower() in CHANCE | OUTSIDE:
            chance = str(second).lower() in CHANCE
            why = f"a result left to chance: {second}()" if chance else f"{HOSTILE}: a query that calls {second}()"
        elif action not in _READS:
            why = f"{HOSTILE}: a query that does more than read: {_ACTIONS.get(action, action)} {first or ''}".rstrip()
        else:
            return sqlite3.SQLITE_OK
        self.denied = self.denied or why
        return sqlite3.SQLITE_DENY


def _open_sqlite(database: Database) -> _Sqlite:
    if database.kind == "file":
        connection = sqlite3.connect(
            f"file:{quote(os.path.abspath(database.source))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
    else:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        connection.executescript(database.source)
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    for setting in ("query_only = 1", "temp_store = 2", "trusted_schema = 0"):
        connection.execute(f"PRAGMA {setting}")
    for table in ("json_each", "json_tree"):  # declared at their first use, which the authorizer would see as a write
        with suppress(sqlite3.Error):
            connection.execute(f"SELECT 1 FROM {table}('[]')").fetchall()
    connection.execute("SELECT * FROM sqlite_master").fetchall()  # a file that is no database is found out here
    for limit, value in (("LENGTH", VALUE), ("LIKE_PATTERN_LENGTH", 1000), ("EXPR_DEPTH", 1000), ("ATTACHED", 0)):
        connection.setlimit(getattr(sqlite3, f"SQLITE_LIMIT_{limit}"), value)
    guarded = _Sqlite(connection)
    connection.set_authorizer(guarded.authorize)
    return guarded


def _run_sqlite(guarded: _Sqlite, query: str, until: float, late: str, most: int) -> Result:
    guarded.denied = ""
    connection = guarded.connection
    connection.set_progress_handler(lambda: int(time.monotonic() > until), 10_000)
    cursor = connection.cursor()
    try:
        cursor.execute(query)
        if cursor.description is None:
            raise Stopped("no query")
        return _read(cursor.fetchmany, len(cursor.description), most)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        if guarded.denied:
            raise Stopped(guarded.denied) from None
        if "interrupted" in str(error):
            raise Stopped(f"{HOSTILE}: {late}") from None
        if "too big" in str(error):
            raise Stopped(f"{HOSTILE}: a value of more than {VALUE} bytes") from None
        raise Stopped("more than one statement" if "one statement" in str(error) else f"the query fails: {_line(error)}") from None
    finally:
        cursor.close()


# --- DuckDB ------------------------------------------------------------------------------------------------------------------------

_LOCKED = {
    "threads": 1, "memory_limit": "256MB", "temp_directory": "", "autoinstall_known_extensions": False,
    "autoload_known_extensions": False, "python_enable_replacements": False, "max_expression_depth": 250,
    "enable_external_access": False, "lock_configuration": True,
}  # fmt: skip


def _open_duckdb(database: Database) -> Any:
    duckdb = extra("duckdb", "sql")
    if database.kind == "file":
        connection = duckdb.connect(str(Path(database.source)), read_only=True)
    else:
        connection = duckdb.connect(":memory:")
        connection.execute(database.source)
    for name, value in _LOCKED.items():
        connection.execute(f"SET {name} = {value!r}")
    return connection


def _run_duckdb(connection: Any, query: str, until: float, late: str, most: int) -> Result:
    duckdb = extra("duckdb", "sql")
    try:
        statements = connection.extract_statements(query)
        if len(statements) != 1:
            raise Stopped("more than one statement" if statements else "no query")
        if statements[0].type.name == "EXPLAIN":
            raise Stopped("no query: EXPLAIN")
        if statements[0].type.name != "SELECT":
            raise Stopped(f"{HOSTILE}: a query that does more than read: {statements[0].type.name}")
        if chance := _by_chance(query):
            raise Stopped(f"a result left to chance: {chance}")
        with _read_only(connection), _interrupted(connection, until):
            cursor = connection.execute(query)
            return _read(cursor.fetchmany, len(cursor.description), most)
    except duckdb.InterruptException:
        raise Stopped(f"{HOSTILE}: {late}") from None
    except duckdb.OutOfMemoryException:
        raise Stopped(f"{HOSTILE}: out of memory") from None
    except duckdb.PermissionException as error:
        raise Stopped(f"{HOSTILE}: a query that does more than read: {_line(error)}") from None
    except (duckdb.Error, TypeError, ValueError, RuntimeError) as error:
        if "read-only" in str(error):
            raise Stopped(f"{HOSTILE}: a query that does more than read: {_line(error)}") from None
        raise Stopped(f"the query fails: {_line(error)}") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _by_chance(query: str) -> str:
    """The first function of chance that DuckDB would call, or the sampling of a table; "" where there is none."""
    words = [token.lower() for token in tokens(query, "duckdb") or ()]
    called = (f"{word}()" for word, after in pairwise(words) if word in CHANCE and after == "(")
    sampled = ("sampling" for pair in zip(["", *words], words, strict=False) if pair == ("using", "sample") or pair[1] == "tablesample")
    return next(called, next(sampled, ""))


@contextmanager
def _read_only(connection: Any) -> Iterator[None]:
    connection.execute("BEGIN TRANSACTION READ ONLY")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


@contextmanager
def _interrupted(connection: Any, until: float) -> Iterator[None]:
    timer = threading.Timer(max(0.0, until - time.monotonic()), connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # an interrupt that came late would stop the next query

"""What stands in a query: its text in an answer, tokens, tables and columns, and its outermost order. On sqlglot; nothing is run.

Parsed queries are kept, so that a reference is parsed once for all its samples, and a query that many samples wrote once.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from guerdon.rewards.reading import extra, said

_BLOCK = re.compile(r"```(.*?)```", re.DOTALL)
_LABEL = re.compile(r"(?:(sql|sqlite|duckdb)(?:\s|$)|[\w+-]*[^\S\n]*\n)", re.IGNORECASE)
RANK, BODY = "guerdon_rank", "guerdon_body"
"""The column of a rewritten reference that tells which rows its order leaves tied."""


def query_of(text: str) -> str | None:
    """The query of an answer, or None: of the inside of the last `<answer>` tag (else of all that follows the thinking) the last block
    fenced as ```` ```sql ````, else the last fenced block, else the whole. A `;` at its end is left out."""
    answer = said(text)
    if answer is None:
        return None
    blocks = [(_LABEL.match(body), body) for body in _BLOCK.findall(answer)]
    label, whole = next((block for block in reversed(blocks) if block[0] and block[0][1]), blocks[-1] if blocks else (None, answer))
    whole = whole[label.end() :] if label else whole
    return whole.strip().removesuffix(";").strip() or None


@lru_cache(maxsize=4096)
def tokens(query: str, dialect: str) -> tuple[str, ...] | None:
    """The tokens without comments: words as written, names in their text alone, a string between quotes. None where it has no end."""
    dialects, found = _sqlglot("dialects.dialect"), []
    try:
        for token in dialects.Dialect.get_or_raise(dialect).tokenize(query):
            found.append(f"'{token.text}'" if "STRING" in token.token_type.name else token.text)
    except (_sqlglot("errors").SqlglotError, RecursionError):
        return None
    return tuple(found)


@lru_cache(maxsize=1024)
def tree(query: str, dialect: str) -> Any:
    """The parsed query, or None where it cannot be read, is no query, is several, or is too deep for the parser. Never to be changed."""
    expressions, errors = _sqlglot("expressions"), _sqlglot("errors")
    try:
        statements = [s for s in _sqlglot().parse(query, read=dialect) if s is not None]
    except (errors.SqlglotError, RecursionError):
        return None
    readable = len(statements) == 1 and isinstance(statements[0], (expressions.Query, expressions.Values))
    return statements[0] if readable else None


@lru_cache(maxsize=4096)
def bigrams(query: str, dialect: str) -> frozenset[tuple[str, str]] | None:
    """The pairs of neighbouring tokens, in lower case save for strings; None where the query has no tokens."""
    words = tokens(query, dialect)
    if not words:
        return None
    words = [word if word.startswith("'") else word.lower() for word in words]
    return frozenset(pairwise(words))


@lru_cache(maxsize=4096)
def names(query: str, dialect: str) -> frozenset[tuple[str, str]] | None:
    """("table", name) and ("column", name) of all that the query uses, in lower case; None where it is no readable query.

    Aliases count as what they stand for: tables that WITH defines are none, nor is a column in an ORDER BY that is the alias of a value.
    Columns are told by name alone; `*` is none.
    """
    e, root = _sqlglot("expressions"), tree(query, dialect)
    if root is None:
        return None
    try:
        defined = {cte.alias.lower() for cte in root.find_all(e.CTE)}
        aliases = {alias.alias.lower() for alias in root.find_all(e.Alias)}
        tables = {table.name.lower() for table in root.find_all(e.Table) if table.name} - defined
        columns = {
            column.name.lower()
            for column in root.find_all(e.Column)
            if column.name != "*" and not (not column.table and column.name.lower() in aliases and column.find_ancestor(e.Ordered))
        }
    except RecursionError:
        return None
    return frozenset({("table", name) for name in tables} | {("column", name) for name in columns})


@dataclass(frozen=True)
class Order:
    """The outermost order of a reference, and the stretch of it that LIMIT and OFFSET cut out."""

    ordered: bool
    limited: bool
    sql: str | None = None
    """The query without LIMIT and OFFSET, by rank: the last column, equal for rows that the order leaves tied. None where the query could
    not be rewritten so."""
    limit: int | None = None
    offset: int = 0


def order_of(query: str, dialect: str) -> Order:
    """How the query orders its result. A query that sqlglot cannot parse orders where an ORDER BY stands outside all brackets."""
    e, root = _sqlglot("expressions"), tree(query, dialect)
    if root is None:
        outside = _outside(query, dialect)
        return Order("order by" in outside, " limit " in f" {outside} ")
    while isinstance(root, e.Subquery) and not any(root.args.get(k) for k in ("order", "limit", "offset")):
        root = root.this
    order, limit, offset = (root.args.get(k) for k in ("order", "limit", "offset"))
    ordered, limited = order is not None, limit is not None or offset is not None
    numbers = [_number(e, limit), _number(e, offset)]
    if not (ordered or limited) or "?" in numbers:
        return Order(ordered, limited)
    body = root.copy()
    for key in ("order", "limit", "offset"):
        body.set(key, None)
    wrapped = not isinstance(root, e.Select) or bool(root.args.get("distinct")) or root.find(e.Window) is not None
    terms = [_ranked(e, root, term, wrapped) for term in order.expressions] if ordered else []
    if ordered and None in terms:
        return Order(ordered, limited)
    rank = e.alias_(
        e.Window(this=e.Anonymous(this="DENSE_RANK"), order=e.Order(expressions=terms)) if ordered else e.Literal.number(1), RANK
    )
    body = _sqlglot().select("*", rank).from_(body.subquery(BODY)) if wrapped else body.select(rank, copy=False)
    sql = body.order_by(RANK).sql(dialect=dialect, unsupported_level=_sqlglot("errors").ErrorLevel.IGNORE)
    return Order(ordered, limited, sql, numbers[0], numbers[1] or 0)


def _number(e: Any, clause: Any) -> Any:
    """The number of a LIMIT or OFFSET; None where there is none, "?" where it is no plain number (a negative one, a share)."""
    value = clause.expression if isinstance(clause, (e.Limit, e.Offset)) else clause
    if value is None:
        return None
    return int(value.this) if isinstance(value, e.Literal) and not value.is_string and value.this.isdecimal() else "?"


def _ranked(e: Any, root: Any, term: Any, wrapped: bool) -> Any:
    """A term of ORDER BY as it can stand in a window, where neither positions nor aliases are known; None where it cannot.

    wrapped: the window stands around the whole query, and sees its outputs alone.
    """
    term, outputs = term.copy(), root.selects
    key = term.this
    if isinstance(key, e.Literal) and not key.is_string:  # a position
        if not key.this.isdecimal() or not 1 <= int(key.this) <= len(outputs) or any(x.is_star for x in outputs[: int(key.this)]):
            return None
        chosen = outputs[int(key.this) - 1]
    else:
        same = [x for x in outputs if x.alias_or_name.lower() == key.name.lower()] if isinstance(key, e.Column) and not key.table else []
        equal = [x for x in outputs if x.unalias() == key]
        chosen = same[0] if same else equal[0] if equal else None
    if wrapped:
        if chosen is None or not chosen.alias_or_name:
            return None
        # without its table, SQLite takes a quoted name that it does not know for a string
        term.set("this", e.column(chosen.alias_or_name, table=BODY, quoted=True))
    elif chosen is not None:
        term.set("this", chosen.unalias().copy())
    return term


def _outside(query: str, dialect: str) -> str:
    """The tokens outside all brackets, in lower case, with single blanks."""
    depth, found = 0, []
    for token in tokens(query, dialect) or ():
        depth += (token == "(") - (token == ")")
        if depth == 0:
            found.append(" ".join(token.lower().split()))
    return " ".join(found)


@lru_cache(maxsize=8)
def _sqlglot(module: str = "") -> Any:
    logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it would warn of every odd query that a model writes
    return extra(f"sqlglot.{module}".rstrip("."), "sql")

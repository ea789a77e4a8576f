"""SQL: whether a query returns what the reference query returns, and the partial rewards of Reasoning-SQL.

A task has its databases in `meta`: `db`, paths of files, or `schema`, scripts of CREATE and INSERT, each one text or a list, and `dialect`,
"sqlite" (the default) or "duckdb". The reference is a query. Needs the extra `sql`. Reasoning-SQL as an expression, at most 9:

    3 * sql + 2 * max(sql, sql_judge.when(sql < 1)) + sql_valid + sql_schema + sql_ngram + sql_format

in which the judge is asked about wrong queries alone, and a right one has its 2 points without it.
Source: arXiv:2503.23157. In the authors' training script a right execution is 3 and a wrong one what the judge says, the schema term is a
recall (|gold and predicted| / |gold|), which a query that names every column satisfies, and the form is a count of tags.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from guerdon.registry import Refused
from guerdon.rewards import sql_parse, sql_run, sql_same
from guerdon.rewards.core import reward
from guerdon.rewards.judge import GUARD, Message, ask, attack, quoted, read_json
from guerdon.rewards.reading import extra
from guerdon.samples import HOSTILE, Verdict

MOST_SECONDS = 5.0
"""The references of a task have twice `seconds`, the last of them twice more, and the query `seconds`: less than the 30 s after which the
worker is killed, so that a slow reference is not taken for a hostile query."""
_CLOCK = re.compile(r"now|current_|today", re.IGNORECASE)
NO_DATABASE, NO_QUERY, NO_REFERENCE = "the task has no database", "no query found", "the reference is no query that can be read"


def _ready(seconds: float = 5.0, **params: Any) -> None:
    extra("sqlglot", "sql")  # here, in the process that workers are forked from
    if not 0 < seconds <= MOST_SECONDS:
        raise Refused(f"`seconds` of a SQL reward must be above 0 and at most {MOST_SECONDS:g}, not {seconds!r}.")


@reward(deadline=30.0, check=_ready)
def sql(
    text: str, reference: Any, meta: Mapping[str, Any], seconds: float = 5.0, on_empty: Literal["score", "abstain"] = "score"
) -> Verdict:
    """1 where the answer's query returns what the reference query returns, on every database of the task; else 0 with the reason.

    Results are compared as multisets of rows, in order where the reference orders: see `sql_same`. Ties of the order, and rows that LIMIT
    picks among ties, are free. The query is one statement that only reads. Hostile: one that would write, attach, set or load, that runs
    longer than `seconds`, or out of memory. No more rows are read than the reference has, and one. A result left to chance (`random()`) is
    wrong. Failed: a task whose databases or reference fail. Abstains on a task without databases.
    Evidence `sql`: rows of the reference on each database, and whether it is `empty` on all (no rows, or NULL alone): wrong queries often
    return that too, and one database alone is matched by accident or by `SELECT 42`, so give several. on_empty "abstain" leaves such
    tasks out. Raises Refused for a task whose fields cannot be used.
    """
    databases = sql_run.databases(meta)
    if not databases:
        return Verdict.abstain(NO_DATABASE)
    gold = _gold_query(reference)
    try:
        golds = _golds(databases, gold, seconds)
    except sql_run.Stopped as error:
        return Verdict.fail(f"the reference query cannot be used: {str(error).removeprefix(HOSTILE).lstrip(': ')}")
    empty = all(found.says_nothing for found in golds)
    if empty and on_empty == "abstain":
        return Verdict.abstain("the reference returns nothing on any database")
    evidence = {"sql": {"rows": [found.size for found in golds], "empty": empty}}
    query = sql_parse.query_of(text)
    why = NO_QUERY if query is None else _differs(query, databases, golds, seconds)
    return Verdict(float(not why), why, evidence=evidence)


def _differs(query: str, databases: Sequence[sql_run.Database], golds: Sequence[sql_same.Gold], seconds: float) -> str:
    """Why the query is wrong, or hostile; "" where it is right."""
    until = time.monotonic() + seconds
    for number, (database, gold) in enumerate(zip(databases, golds, strict=True), 1):
        try:
            why = gold.differs(sql_run.run(database, query, until, seconds, most=gold.size))
        except sql_run.Stopped as error:
            return str(error)
        if why:
            return why if len(databases) == 1 else f"{why} (database {number} of {len(databases)})"
    return ""


def _gold_query(reference: Any) -> str:
    if not isinstance(reference, str):
        raise Refused(f"The reference of a SQL task must be a query, a text, not {str(reference)[:80]!r}.")
    return reference.strip().removesuffix(";").strip()


def _golds(databases: Sequence[sql_run.Database], query: str, seconds: float) -> list[sql_same.Gold]:
    """What the reference may return on each, kept for the other samples of the task unless it asks for the time. Raises Stopped."""
    found, until = [], time.monotonic() + 2 * seconds
    for database in databases:
        if time.monotonic() > until:
            raise sql_run.Stopped(f"it runs longer than {2 * seconds:g} s on {len(databases)} databases")
        found.append((_run_gold if _CLOCK.search(query) else _kept_gold)(database, database.stamp, query, seconds))
    return found


def _run_gold(database: sql_run.Database, stamp: tuple[int, int], query: str, seconds: float) -> sql_same.Gold:
    result = sql_run.run(database, query, time.monotonic() + seconds, seconds)
    if len(result.rows) > sql_run.ROWS:
        raise sql_run.Stopped(f"its result has more than {sql_run.ROWS} rows")
    order = sql_parse.order_of(query, database.dialect)
    if order.sql is not None:
        try:
            ranked = sql_run.run(database, order.sql, time.monotonic() + seconds, seconds)
            gold = sql_same.cut(ranked, order.limit, order.offset)
            if len(ranked.rows) <= sql_run.ROWS and not gold.differs(result):  # otherwise the query was rewritten wrongly
                return gold
        except sql_run.Stopped:
            pass  # ranks could not be told: the rows stand in the order they came in
    return sql_same.strict(result, order.ordered)


_kept_gold = lru_cache(maxsize=32)(_run_gold)


@reward(deadline=30.0, check=_ready)
def sql_valid(text: str, meta: Mapping[str, Any], seconds: float = 5.0) -> Verdict:
    """1 where the answer's query runs on the task's first database to its first row, else 0 with the error; hostile as for `sql`. Any query
    that runs is paid, `SELECT 1` too. Abstains on a task without databases; failed where the database cannot be opened."""
    databases = sql_run.databases(meta)
    if not databases:
        return Verdict.abstain(NO_DATABASE)
    query = sql_parse.query_of(text)
    if query is None:
        return Verdict(0.0, NO_QUERY)
    try:
        sql_run.run(databases[0], query, time.monotonic() + seconds, seconds, most=0)
    except sql_run.Unusable as error:
        return Verdict.fail(str(error))
    except sql_run.Stopped as error:
        return Verdict(0.0, str(error))
    return Verdict(1.0)


@reward(deadline=30.0, check=_ready)
def sql_schema(text: str, reference: Any, meta: Mapping[str, Any]) -> Verdict:
    """|A and G| / |A or G| of the tables and columns that the answer's query and the reference use, in 0..1: by name, in lower case,
    aliases as what they stand for. 1 where both use none; 0 where the answer's query cannot be parsed. Abstains where the reference
    cannot be."""
    return _overlap(text, reference, meta, sql_parse.names)


@reward(deadline=30.0, check=_ready)
def sql_ngram(text: str, reference: Any, meta: Mapping[str, Any]) -> Verdict:
    """|A and G| / |A or G| of the pairs of neighbouring tokens of the answer's query and of the reference, in 0..1: in lower case save for
    strings, without comments. 1 where both have none; 0 where the answer's query has no tokens. Abstains where the reference has none."""
    return _overlap(text, reference, meta, sql_parse.bigrams)


def _overlap(text: str, reference: Any, meta: Mapping[str, Any], parts: Any) -> Verdict:
    dialect = sql_run.dialect_of(meta)
    gold = parts(_gold_query(reference), dialect)
    if gold is None:
        return Verdict.abstain(NO_REFERENCE)
    query = sql_parse.query_of(text)
    if query is None or len(query) > sql_run.LONGEST:
        return Verdict(0.0, NO_QUERY if query is None else f"a query of more than {sql_run.LONGEST} characters")
    used = parts(query, dialect)
    if used is None:
        return Verdict(0.0, "the query cannot be parsed")
    return Verdict(len(used & gold) / len(used | gold) if used or gold else 1.0)


_INSIDE = r"[^<]*(?:<(?!/?(?:reasoning|think|answer)>)[^<]*)*"  # any text without these tags, in linear time
_FORM = re.compile(rf"\s*<(reasoning|think)>{_INSIDE}</\1>\s*<answer>({_INSIDE})</answer>\s*")


@reward(inline=True)
def sql_format(text: str) -> Verdict:
    """1 where the whole text is `<reasoning>...</reasoning><answer>...</answer>` (or `<think>`), and the answer holds one block fenced
    as ```` ```sql ````, not empty; else 0 with what is missing."""
    found = _FORM.fullmatch(text)
    if found is None:
        return Verdict(0.0, "not <reasoning>...</reasoning><answer>...</answer>")
    one = found[2].count("```") == 2 and found[2].count("```sql\n") == 1 and sql_parse.query_of(text)
    return Verdict(1.0) if one else Verdict(0.0, "not one ```sql block in the answer")


RUBRIC = (
    "You grade a SQL query that does not return what it should. You are given the question, a correct query, and the query to grade. "
    "Say how near it comes to answering the question: 1 for a query that is right but for a detail, 0.5 for one with about half of the "
    "tables, conditions, groupings and outputs that are needed, 0 for one that has nothing to do with the question. Queries that are "
    'written otherwise but mean the same are equally good. End with one line of JSON: {"score": a number from 0 to 1}.'
)
_SCORE = {
    "type": "object",
    "properties": {"score": {"type": "number", "minimum": 0, "maximum": 1}},
    "required": ["score"],
    "additionalProperties": False,
}


@reward(batch=True, check=lambda votes=1: _ready())
def sql_judge(
    prompt: list[Any], text: list[str], reference: list[Any], meta: list[Mapping[str, Any]], model: Any = "judge", votes: int = 1
) -> list[Verdict]:
    """What a model says of the answer's query beside the reference, in 0..1, the mean of `votes`; failed where it says nothing.

    It is meant for queries that execution finds wrong: `max(sql, sql_judge.when(sql < 1))`. No query is 0 without asking. Abstains where
    the reference is no query. The rubric is ours. Source: arXiv:2503.23157.
    """
    verdicts: dict[int, Verdict] = {}
    asked: dict[int, list[Message]] = {}
    for i in range(len(text)):
        gold, query = str(reference[i]), sql_parse.query_of(text[i])
        if sql_parse.tree(gold, sql_run.dialect_of(meta[i])) is None:
            verdicts[i] = Verdict.abstain(NO_REFERENCE)
        elif query is None:
            verdicts[i] = Verdict(0.0, NO_QUERY)
        elif why := attack(model, query, sql_run.LONGEST):
            verdicts[i] = Verdict(0.0, why)
        else:
            question = prompt[i] if isinstance(prompt[i], str) else "\n".join(str(m.get("content", "")) for m in prompt[i])
            told = quoted(question=question, correct_query=gold, query_to_grade=query)
            asked[i] = [{"role": "system", "content": f"{RUBRIC}\n\n{GUARD}"}, {"role": "user", "content": told}]
    said = ask(model, list(asked.values()), _score, votes=votes) if asked else []
    for i, one in zip(asked, said, strict=True):
        verdicts[i] = Verdict(sum(one.values) / len(one.values)) if one.values else one.verdict()
    return [verdicts[i] for i in range(len(text))]


def _score(text: str) -> float | None:
    value = read_json(text, _SCORE)
    return None if value is None else float(value["score"])

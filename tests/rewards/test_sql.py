"""SQL rewards: results by hand and by enumeration of all that a reference may return, and queries that attack."""

from __future__ import annotations

import itertools
import os
import random
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from guerdon.backends.scripted import Scripted
from guerdon.registry import Refused
from guerdon.rewards import parse
from guerdon.rewards.sql import RUBRIC, _kept_gold, sql, sql_format, sql_judge, sql_ngram, sql_schema, sql_valid
from guerdon.rewards.sql_parse import names, order_of, query_of, tree
from guerdon.rewards.sql_run import Database, Stopped, run
from guerdon.rewards.sql_same import contained
from guerdon.samples import Context, Sample, State, Task
from guerdon.scoring import Engine

SCHEMA = """
CREATE TABLE t (id INTEGER, name TEXT, score DOUBLE, kind TEXT);
INSERT INTO t VALUES (1, 'ann', 1.5, 'x'), (2, 'bob', 2.5, 'x'), (3, 'cyd', 2.5, 'y'), (4, 'dan', NULL, 'y'), (5, 'eve', 0.5, NULL);
CREATE TABLE u (t INTEGER, n INTEGER);
INSERT INTO u VALUES (1, 10), (1, 20), (2, 10), (2, 10);
"""
OTHER = SCHEMA.replace("2.5, 'y'", "9.5, 'y'")
both = pytest.mark.parametrize("dialect", ["sqlite", "duckdb"])


def told(query: str, gold: str, dialect: str = "sqlite", schema: object = SCHEMA, **params):
    return sql.fn(query, gold, {"schema": schema, "dialect": dialect}, **params)


def rows(query: str, dialect: str = "sqlite", schema: str = SCHEMA):
    return run(Database(dialect, "script", schema), query, time.monotonic() + 5, 5).rows


# --- where the query stands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("SELECT 1", "SELECT 1"),
        ("SELECT 1;\n", "SELECT 1"),
        ("<think>SELECT 2</think>SELECT 1", "SELECT 1"),
        ("<reasoning>```sql\nSELECT 2\n```</reasoning><answer>```sql\nSELECT 1\n```</answer>", "SELECT 1"),
        ("```sql\nSELECT 2\n``` or rather ```SQL\nSELECT 1;\n``` which\n```text\n1\n```", "SELECT 1"),
        ("```\nSELECT 1\n```", "SELECT 1"),
        ("so: ```sql SELECT 1``` (```SELECT 2```)", "SELECT 1"),
        ("```SELECT 1```", "SELECT 1"),
        ("```text\nSELECT 1\n```", "SELECT 1"),
        ("``````", None),
        ("```sql```", None),
        ("<answer>SELECT 2</answer><answer>SELECT 1</answer>", "SELECT 1"),
        ("<think>SELECT 1", None),
        ("<answer></answer>", None),
        (" ; ", None),
    ],
)
def test_the_query_of_an_answer(text, query):
    assert query_of(text) == query


# --- results -----------------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("query", "gold", "right"),
    [
        ("SELECT name FROM t WHERE id < 3", "SELECT name FROM t WHERE id IN (2, 1)", True),
        ("SELECT name FROM t WHERE id < 3 ORDER BY id DESC", "SELECT name FROM t WHERE id < 3", True),  # gold does not order
        ("SELECT name FROM t WHERE id < 3 ORDER BY id DESC", "SELECT name FROM t WHERE id < 3 ORDER BY id", False),
        ("SELECT name AS whatever FROM t", "SELECT name FROM t", True),  # names of columns do not count
        ("SELECT id, name FROM t", "SELECT name, id FROM t", False),  # their order does
        ("SELECT name, id FROM t", "SELECT name FROM t", False),
        ("SELECT n FROM u WHERE t = 2", "SELECT DISTINCT n FROM u WHERE t = 2", False),  # duplicates count
        ("SELECT n FROM u WHERE n = 10", "SELECT 10 UNION ALL SELECT 10 UNION ALL SELECT 10", True),
        ("SELECT n FROM u", "SELECT n FROM u WHERE n = 10 UNION ALL SELECT 20", True),
        ("SELECT 10 UNION ALL SELECT 20 UNION ALL SELECT 20 UNION ALL SELECT 10", "SELECT n FROM u", False),
        ("SELECT score FROM t WHERE id = 4", "SELECT NULL", True),
        ("SELECT ''", "SELECT NULL", False),
        ("SELECT 0", "SELECT NULL", False),
        ("SELECT 1.0", "SELECT 1", True),
        ("SELECT '1'", "SELECT 1", False),
        ("SELECT 'a'", "SELECT 'A'", False),
        ("SELECT 0.1 + 0.2", "SELECT 0.3", True),
        ("SELECT 1 + 1e-10", "SELECT 1", True),
        ("SELECT 1 + 1e-8", "SELECT 1", False),
        ("SELECT 10000000000", "SELECT 10000000001", False),  # whole numbers are exact
        ("WITH a AS (SELECT * FROM t) SELECT COUNT(*) FROM a", "SELECT COUNT(*) FROM t", True),
        ("SELECT * FROM t -- SELECT 2", "SELECT * FROM t", True),
        ("SELECT id FROM t LIMIT 2", "SELECT id FROM t", False),
        ("SELECT id FROM t UNION ALL SELECT id FROM t", "SELECT id FROM t", False),
        ("SELECT AVG(score) FROM t", "SELECT SUM(score) / COUNT(score) FROM t", True),
        ("SELECT AVG(score) FROM t", "SELECT SUM(score) / COUNT(*) FROM t", False),  # NULL is left out
        ("SELECT id FROM t WHERE kind <> 'x'", "SELECT id FROM t WHERE kind = 'y'", True),
        ("SELECT id FROM t WHERE kind IS NULL OR kind <> 'x'", "SELECT id FROM t WHERE kind <> 'x'", False),
    ],
)
def test_results_by_hand(dialect, query, gold, right):
    verdict = told(query, gold, dialect)
    assert verdict.value == float(right), verdict.reason
    assert bool(verdict.reason) != right
    assert verdict.state == State.SCORED


def test_cells_of_duckdb():
    assert told("SELECT 1.10::DECIMAL(9, 2), DATE '2025-01-02', [1, NULL], {'a': 1}", "SELECT 1.1, DATE '2025-01-02', [1, NULL], {'a': 1}",
                "duckdb").value == 1  # fmt: skip
    assert told("SELECT '2025-01-02'", "SELECT DATE '2025-01-02'", "duckdb").value == 0
    assert told("SELECT 'nan'::DOUBLE", "SELECT 'nan'::DOUBLE", "duckdb").value == 1
    assert told("SELECT 'nan'::DOUBLE", "SELECT NULL", "duckdb").value == 0


def test_multisets_against_all_pairings():
    rng = random.Random(0)
    near = [0.0, 1.0, 1, 1 + 4e-10, 1 + 8e-10, 1 + 12e-10, 2, None, "1", "a"]

    def same(a, b):
        if isinstance(a, (int, float)) and isinstance(b, (int, float)):
            return a == b or (not (isinstance(a, int) and isinstance(b, int)) and abs(a - b) <= max(1e-9 * max(abs(a), abs(b)), 1e-12))
        return a == b and type(a) is type(b)

    told_apart = {True: 0, False: 0}
    for _ in range(2000):
        width = rng.randint(1, 2)
        among = [tuple(rng.choice(near) for _ in range(width)) for _ in range(rng.randint(0, 5))]
        found = [tuple(x + rng.choice((0, 5e-10)) if isinstance(x, float) else x for x in row) for row in rng.sample(among, len(among))]
        found = found[: rng.randint(0, len(found))]
        if rng.random() < 0.5 and found:
            found[0] = tuple(rng.choice(near) for _ in range(width))
        truth = any(
            all(all(map(same, row, among[k])) for row, k in zip(found, chosen, strict=True))
            for chosen in itertools.permutations(range(len(among)), len(found))
        )
        if truth != contained(found, among):  # equal rows are paired first, which could only matter in chains of near numbers
            assert truth
            assert any(isinstance(x, float) for row in found for x in row)
        told_apart[truth] += truth == contained(found, among)
    assert told_apart[True] > 400
    assert told_apart[False] > 400


def test_a_pairing_of_near_numbers_is_found_where_the_first_choice_is_wrong():
    assert contained([(1.0, 5.0), (1.0 + 5e-10, 7.0)], [(1.0 + 5e-10, 5.0), (1.0, 7.0)])
    assert contained([(1.0,), (1.0 + 9e-10,)], [(1.0 + 18e-10,), (1.0 + 8e-10,)])
    assert not contained([(1.0,), (1.0,)], [(1.0 + 18e-10,), (1.0 + 8e-10,)])


# --- order -------------------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("seed", range(6))
def test_ordered_results_against_every_order_that_the_keys_allow(dialect, seed):
    """All permutations of the rows whose keys are in order, cut by LIMIT and OFFSET: what the reference may return."""
    rng = random.Random(seed)
    table = [(chr(97 + i), rng.randint(0, 2)) for i in range(5)]
    script = "CREATE TABLE r (a TEXT, k INTEGER); INSERT INTO r VALUES " + ", ".join(f"('{a}', {k})" for a, k in table)
    limit, offset = rng.choice([(None, 0), (2, 0), (3, 1), (1, 2), (2, 4)])
    direction = rng.choice(["ASC", "DESC"])
    end = None if limit is None else offset + limit
    orders = [p for p in itertools.permutations(table) if sorted(p, key=lambda r: r[1], reverse=direction == "DESC") == list(p)]
    allowed = {tuple(a for a, _ in p[offset:end]) for p in orders}
    gold = f"SELECT a FROM r ORDER BY k {direction}" + ("" if limit is None else f" LIMIT {limit} OFFSET {offset}")
    size = len(next(iter(allowed)))
    for candidate in itertools.permutations("abcde", size):
        query = " UNION ALL ".join(f"SELECT '{a}'" for a in candidate)
        assert told(query, gold, dialect, script).value == float(candidate in allowed), (candidate, gold, table)


@both
@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("SELECT name, score AS s FROM t WHERE score > 0 ORDER BY s, 1", "eve ann bob cyd", "eve ann cyd bob"),
        ("SELECT name FROM t WHERE score > 0 ORDER BY score", "eve ann cyd bob", "ann eve bob cyd"),
        ("SELECT name FROM t WHERE score > 0 ORDER BY -score", "cyd bob ann eve", "eve ann bob cyd"),
        ("SELECT name FROM t WHERE id < 4 UNION SELECT 'zoe' ORDER BY 1 DESC", "zoe cyd bob ann", "ann bob cyd zoe"),
        ("SELECT DISTINCT name FROM t WHERE id < 4 ORDER BY name", "ann bob cyd", "cyd bob ann"),
        ("WITH w AS (SELECT name, id FROM t ORDER BY id) SELECT name FROM w WHERE id < 4", "cyd bob ann", "dan bob ann"),
        ("SELECT name FROM (SELECT * FROM t ORDER BY id DESC LIMIT 2) AS s", "dan eve", "ann bob"),  # only the outermost counts
        ("SELECT name, ROW_NUMBER() OVER (ORDER BY id) AS r FROM t WHERE id < 3 ORDER BY r", "ann bob", "bob ann"),
        ("SELECT name, COUNT(*) FROM t JOIN u ON u.t = t.id GROUP BY name ORDER BY COUNT(*)", "bob ann", "bob cyd"),  # a tie
        ("SELECT name FROM t LIMIT 2", "eve cyd", "eve eve"),  # any rows, each once
        ("SELECT name FROM t ORDER BY score IS NULL DESC, id LIMIT 2", "dan ann", "ann dan"),
    ],
)
def test_orders_by_hand(dialect, gold, right, wrong):
    result = {row[0]: row[1:] for row in rows(gold.split(" LIMIT ")[0] if "(" not in gold else gold, dialect)}
    for words, value in ((right, 1.0), (wrong, 0.0)):
        cells = [(word, *result.get(word, next(iter(result.values())))) for word in words.split()]
        query = " UNION ALL ".join("SELECT " + ", ".join(map(repr, row)) for row in cells)
        assert told(query, gold, dialect).value == value, (query, rows(gold, dialect))


def test_a_reference_whose_ties_cannot_be_told_is_taken_row_by_row():
    gold = "SELECT DISTINCT kind FROM t WHERE kind IS NOT NULL ORDER BY score"
    assert order_of(gold, "sqlite").sql is None
    assert told(gold, gold).value == 1


def test_a_reference_is_read_even_where_it_cannot_be_parsed():
    assert tree("SELECT a FROM b ORDER BY c ~~> d", "sqlite") is None
    assert order_of("SELECT a FROM b ORDER BY c ~~> d LIMIT 2", "sqlite").ordered
    assert not order_of("SELECT a ~~> (SELECT 1 ORDER BY 2) FROM b", "sqlite").ordered


# --- databases ---------------------------------------------------------------------------------------------------------------------


@both
def test_several_databases_find_out_an_accident(dialect):
    gold, constant, lucky = "SELECT COUNT(*) FROM t WHERE score = 2.5", "SELECT 2", "SELECT COUNT(*) FROM u WHERE t = 2"
    for query in (constant, lucky):
        assert told(query, gold, dialect).value == 1  # the limit of one database
        verdict = told(query, gold, dialect, [SCHEMA, OTHER])
        assert verdict.value == 0
        assert "database 2 of 2" in verdict.reason
    assert told(gold, gold, dialect, [SCHEMA, OTHER]).value == 1


def test_a_reference_that_returns_nothing_is_told_and_left_out_if_asked():
    for gold in ("SELECT id FROM t WHERE id > 99", "SELECT MAX(id) FROM t WHERE id > 99"):
        verdict = told(gold.replace("99", "100"), gold)
        assert (verdict.value, verdict.evidence["sql"]["empty"]) == (1.0, True)
        assert told(gold, gold, on_empty="abstain").state == State.ABSTAINED
    assert told("SELECT 0", "SELECT COUNT(*) FROM t WHERE id > 99").evidence["sql"] == {"rows": [1], "empty": False}


def test_databases_as_files(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "a ?#'.db"
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA)
    connection.close()
    duck = tmp_path / "a.duckdb"
    duckdb.connect(str(duck)).execute(SCHEMA).close()
    before = path.read_bytes(), duck.read_bytes()
    for file, dialect in ((path, "sqlite"), (duck, "duckdb")):
        meta = {"db": str(file), "dialect": dialect}
        assert sql.fn("SELECT COUNT(*) FROM t", "SELECT 5", meta).value == 1
        for attack in ("DELETE FROM t", "DROP TABLE t", "INSERT INTO u VALUES (1, 1)", "CREATE TABLE v (a INTEGER)"):
            assert sql.fn(attack, "SELECT 5", meta).reason.startswith("hostile")
    assert (path.read_bytes(), duck.read_bytes()) == before
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, duck.name])
    os.utime(path, (1, 1))  # a file that changes is opened again
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM t WHERE id = 5")
    connection.commit()
    connection.close()
    assert sql.fn("SELECT COUNT(*) FROM t", "SELECT 4", {"db": str(path)}).value == 1


@pytest.mark.parametrize(
    ("gold", "meta", "why"),
    [
        ("SELECT missing FROM t", {"schema": SCHEMA}, "no such column"),
        ("SELECT", {"schema": SCHEMA}, "incomplete input"),
        ("DELETE FROM t", {"schema": SCHEMA}, "DELETE"),
        ("SELECT random()", {"schema": SCHEMA}, "chance"),
        ("SELECT 1", {"schema": "CREATE TABEL"}, "syntax error"),
        ("SELECT 1", {"db": "no/such/file.db"}, "No such file"),
        ("SELECT 1", {"db": __file__}, "not a database"),
        ("WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT x FROM r", {"schema": SCHEMA}, "rows"),
        ("WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT MAX(x) FROM r", {"schema": SCHEMA}, "deadline"),
    ],
)
def test_what_is_wrong_with_the_task_is_failed(gold, meta, why):
    verdict = sql.fn("SELECT 1", gold, meta, seconds=0.3)
    assert verdict.state == State.FAILED
    assert why in verdict.reason
    assert not verdict.reason.startswith("hostile")


def test_tasks_without_databases_abstain_and_unusable_ones_are_refused():
    assert sql.fn("SELECT 1", "SELECT 1", {}).state == State.ABSTAINED
    assert sql_valid.fn("SELECT 1", {}).state == State.ABSTAINED
    for reference, meta in ((42, {"schema": SCHEMA}), ("SELECT 1", {"schema": [3]}), ("SELECT 1", {"schema": SCHEMA, "dialect": "oracle"})):
        with pytest.raises(Refused):
            sql.fn("SELECT 1", reference, meta)
    with pytest.raises(Refused):
        sql(seconds=100.0)


# --- attacks -----------------------------------------------------------------------------------------------------------------------

ENDLESS = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT "
HOSTILE = {
    "sqlite": [
        ENDLESS + "MAX(x) FROM r",
        "SELECT COUNT(*) FROM " + ", ".join(f"t AS t{i}" for i in range(20)),
        ENDLESS + "x FROM r ORDER BY x",
        "ATTACH 'x.db' AS x",
        "DETACH main",
        "PRAGMA table_info(t)",
        "PRAGMA writable_schema = 1",
        "SELECT * FROM pragma_table_info('t')",
        "INSERT INTO u VALUES (1, 1)",
        "UPDATE t SET id = 1",
        "DELETE FROM t",
        "DROP TABLE t",
        "CREATE TABLE v (a)",
        "CREATE TEMP TABLE v (a)",
        "ALTER TABLE t ADD COLUMN v",
        "VACUUM INTO 'x.db'",
        "ANALYZE",
        "BEGIN",
        "SAVEPOINT a",
        "WITH a AS (SELECT 1) INSERT INTO u SELECT 1, 1",
        "CREATE VIRTUAL TABLE f USING fts5(x)",
        "/* SELECT */ DELETE FROM t",
        "SELECT load_extension('x')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT zeroblob(1000000000)",
        "SELECT hex(zeroblob(900000))",
        "SELECT replace(hex(zeroblob(10000)), '0', hex(zeroblob(10000)))",
        "SELECT group_concat(hex(zeroblob(100000))) FROM t, u",
    ],
    "duckdb": [
        ENDLESS + "MAX(x) FROM r",
        "SELECT COUNT(*) FROM range(10000000) a, range(10000000) b",
        "SELECT a.range FROM range(10000000) a, range(10000000) b ORDER BY a.range + b.range",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "PRAGMA table_info('t')",
        "SET threads = 4",
        "COPY t TO 'x.csv'",
        "EXPORT DATABASE 'x'",
        "INSERT INTO u VALUES (1, 1)",
        "CREATE TABLE v (a INTEGER)",
        "DROP TABLE t",
        "CREATE TEMP TABLE v AS SELECT 1",
        "CALL pragma_version()",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM 'x.csv'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('*')",
    ],
}
WRONG = {
    "sqlite": [
        "SELECT 5; SELECT 5",
        "SELECT 5; DROP TABLE t",
        "SELECT 5 -- \n; DROP TABLE t",
        "-- SELECT 5",
        "/* SELECT 5",
        "",
        "SELECT ?",
        "SELECT missing",
        "SELECT abs(random()) % 6",
        "SELECT length(randomblob(5))",
        "SELECT " + "(" * 5000 + "5" + ")" * 5000,
        "SELECT " + "NOT " * 5000 + "5",
        "SELECT '\x00'",
        "SELECT '\ud800'",
        "SELECT 'a' LIKE '" + "%a" * 5000 + "'",
        "SELECT printf('%.*c', 20000000, 'x')",
        "SELECT x FROM (" + ENDLESS + "x FROM r)",
        "SELECT 5 /* ; */ , 'a;b'",
        "SELECT writefile('x', 'y')",
        "SELECT readfile('/etc/passwd')",
        "SELECT " + "5, " * 30000 + "5",
        "SELEKT 5",
        "REINDEX t",
        "SELECT 5 WHERE",
        "EXPLAIN SELECT 5",
    ],
    "duckdb": [
        "SELECT 5; SELECT 5",
        "SELECT 5; DROP TABLE t",
        "",
        "-- SELECT 5",
        "SELECT ?",
        "SELECT random()",
        'SELECT "random"()',
        "SELECT uuid()",
        "SELECT id FROM t USING SAMPLE 1",
        "SELECT id FROM t TABLESAMPLE 10%",
        "SELECT " + "(" * 5000 + "5" + ")" * 5000,
        "SELECT '\ud800'",
        "EXPLAIN SELECT 5",
        "SELECT * FROM SCHEMA",
        "SELECT * FROM '/etc/passwd'",
        "SELECT range FROM range(1000000000)",
    ],
}


@both
def test_hostile_queries_are_hostile_and_change_nothing(dialect, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for query in HOSTILE[dialect]:
        start = time.monotonic()
        verdict = told(query, "SELECT COUNT(*) FROM t", dialect, seconds=0.5)
        assert verdict.value == 0
        assert verdict.reason.startswith("hostile"), (query, verdict.reason)
        assert time.monotonic() - start < 5, query
    assert not os.listdir(tmp_path)
    assert told("SELECT COUNT(*), (SELECT COUNT(*) FROM u) FROM t", "SELECT 5, 4", dialect).value == 1


@both
def test_odd_queries_are_wrong_with_a_reason(dialect):
    for query in WRONG[dialect]:
        verdict = told(query, "SELECT COUNT(*) FROM t", dialect, seconds=3.0)
        assert (verdict.value, verdict.state) == (0.0, State.SCORED)
        assert verdict.reason
        assert not verdict.reason.startswith("hostile"), (query, verdict.reason)
        assert len(verdict.reason) < 400


def test_a_call_of_c_that_looks_at_no_clock_is_found_late_or_killed():
    slow = "SELECT 5 + instr(printf('%.*c', 600000, 'a'), printf('%.*c', 200000, 'a') || 'b')"  # would be right
    assert "past its deadline of 0.05 s" in told(slow, "SELECT 5", seconds=0.05).reason
    longer = f"SELECT 5 + {' + '.join(slow[11:].replace('600000', f'6000{i:02}') for i in range(40))}"
    samples = [Sample(Task(str(i), "?", "SELECT 5", {"schema": SCHEMA}), text, stop="end") for i, text in enumerate([longer, "SELECT 5"])]
    quick = sql(seconds=0.5)
    object.__setattr__(quick, "deadline", 2.0)
    with Engine(workers=1) as engine:
        rewards = engine.score(quick, samples)
    assert rewards.total().tolist() == [0.0, 1.0]
    assert rewards.why(0) == "hostile: past its deadline of 2 s"


def test_memory_is_bounded_in_a_worker():
    bombs = [
        ENDLESS + "hex(zeroblob(400000 + x)) FROM r LIMIT 1000",  # wrong: one row is read more than the reference has
        ENDLESS + "hex(zeroblob(400000 + x)) AS b FROM r ORDER BY b LIMIT 2000",
        "SELECT " + ", ".join(f"hex(zeroblob({400000 + i}))" for i in range(1000)),
    ]
    samples = [Sample(Task(str(i), "?", "SELECT 5", {"schema": SCHEMA}), text, stop="end") for i, text in enumerate([*bombs, "SELECT 5"])]
    with Engine(workers=1, memory_mb=256) as engine:
        rewards = engine.score(sql(seconds=3.0), samples)
    assert rewards.total().tolist() == [0.0, 0.0, 0.0, 1.0]
    assert rewards.hostile.tolist() == [False, True, True, False]


# --- partial rewards ---------------------------------------------------------------------------------------------------------------


def test_a_query_that_runs_is_valid():
    meta = {"schema": SCHEMA}
    assert sql_valid.fn("SELECT name FROM t", meta).value == 1
    assert sql_valid.fn("SELECT 1", meta).value == 1  # it says no more than that
    assert sql_valid.fn("SELECT name FROM s", meta).reason == "the query fails: no such table: s"
    assert sql_valid.fn("DROP TABLE t", meta).reason.startswith("hostile")
    assert sql_valid.fn("", meta).value == 0
    assert sql_valid.fn("SELECT 1", {"schema": "nonsense"}).state == State.FAILED


def test_names_by_hand():
    query = "SELECT T.Name, COUNT(*) AS n FROM t AS x JOIN U ON x.id = u.t WHERE x.kind = 'id' GROUP BY 1 ORDER BY n"
    assert names(query, "sqlite") == {("table", "t"), ("table", "u"), *(("column", c) for c in ("name", "id", "t", "kind"))}
    assert names("WITH a AS (SELECT id FROM t) SELECT id FROM a", "sqlite") == {("table", "t"), ("column", "id")}
    assert names("SELECT 1", "sqlite") == frozenset()
    assert names("SELECT id FROM", "sqlite") is None
    assert names("SELECT 1; SELECT 2", "sqlite") is None
    assert names("DROP TABLE t", "sqlite") is None


def test_overlaps_by_hand():
    meta = {"schema": SCHEMA}
    gold = "SELECT name FROM t WHERE id = 1"
    assert sql_schema.fn("select NAME from T where ID = 7 -- x", gold, meta).value == 1
    assert sql_schema.fn("SELECT name FROM t", gold, meta).value == pytest.approx(2 / 3)
    assert sql_schema.fn("SELECT name, id, score, kind FROM t", gold, meta).value == pytest.approx(3 / 5)  # naming all does not pay
    assert sql_schema.fn("SELECT 1", "SELECT 2", meta).value == 1
    assert sql_schema.fn("SELECT name FROM", gold, meta).value == 0
    assert sql_schema.fn("SELECT 1", "42", meta).state == State.ABSTAINED
    # select name, name from, from t | where id, id =, = 1 and t where
    assert sql_ngram.fn("SELECT name FROM t", gold, meta).value == pytest.approx(3 / 7)
    assert sql_ngram.fn("select  name /* x */ FROM t WHERE id=1", gold, meta).value == 1
    assert sql_ngram.fn("SELECT name FROM t WHERE id = 2", gold, meta).value == pytest.approx(6 / 8)
    assert sql_ngram.fn("SELECT 'A'", "SELECT 'a'", meta).value == 0  # strings keep their case
    assert sql_ngram.fn("SELECT 'a", gold, meta).value == 0
    assert sql_ngram.fn("a", "b", meta).value == 1  # no pairs on either side
    for partial_reward in (sql_schema, sql_ngram):
        assert partial_reward.fn(gold, gold, meta).value == 1
        assert partial_reward.fn("x" * 60_000, gold, meta).value == 0


@pytest.mark.parametrize("n", [100, 3000, 20_000])
def test_deep_queries_are_no_trouble_for_partial_rewards(n):
    gold, meta = "SELECT name FROM t", {}
    for deep in ("SELECT " + "(" * n + "1" + ")" * n, "SELECT " + "NOT " * n + "1", "SELECT * FROM " + "(SELECT * FROM " * (n // 10) + "t"):
        for reward in (sql_schema, sql_ngram):
            start = time.monotonic()
            assert 0 <= reward.fn(deep, gold, meta).value < 0.5
            assert time.monotonic() - start < 5


def test_the_form():
    good = "<reasoning>think</reasoning>\n<answer>\n```sql\nSELECT 1\n```\n</answer>"
    assert sql_format.fn(good).value == 1
    assert sql_format.fn(good.replace("reasoning", "think")).value == 1
    for bad in (
        good + "x", good.replace("```sql", "```"), good.replace("</reasoning>", "</think>"), good.replace("SELECT 1", ""), good + good,
        good.replace("SELECT 1", "SELECT 1\n```\n```sql\nSELECT 2"), "SELECT 1", good.replace("think", "<answer>"), "<reasoning>" * 50_000,
    ):  # fmt: skip
        assert sql_format.fn(bad).value == 0


# --- judge and the whole -----------------------------------------------------------------------------------------------------------


def test_the_judge_is_asked_about_wrong_queries_alone():
    judge = Scripted(lambda messages, rng: '{"score": 0.25}')
    task = partial(Task, prompt="Which names?", reference="SELECT name FROM t", meta={"schema": SCHEMA})
    texts = ["SELECT name FROM t", "SELECT id FROM t", "<think>none", "SELECT name FROM t ORDER BY id"]
    samples = [Sample(task(id=str(i)), text, stop="end") for i, text in enumerate(texts)]
    with Engine(Context(models={"judge": judge}), workers=1) as engine:
        rewards = engine.score("3 * sql + 2 * max(sql, sql_judge.when(sql < 1))", samples)
    assert rewards.total().tolist() == [5.0, 0.5, 0.0, 5.0]
    assert judge.asked == 1


def test_what_a_judge_says_is_read_strictly():
    seen = []

    def verdict(answer, text="SELECT id FROM t", reference="SELECT name FROM t", **more):
        judge = Scripted(lambda messages, rng: (seen.append(messages), answer)[1])
        return sql_judge.fn([[{"role": "user", "content": "Q?"}]], [text], [reference], [{}], model=judge, **more)[0]

    assert verdict('Close.\n{"score": 0.5}').value == 0.5
    assert verdict('Close.\n{"score": 0.5}', votes=3).value == 0.5
    assert seen[0][0]["content"].startswith(RUBRIC)
    assert all(part in seen[0][1]["content"] for part in ("Q?", "SELECT id FROM t", "SELECT name FROM t"))
    for answer in ("1", '{"score": 2}', '{"score": "1"}', "", None):
        assert verdict(answer).state == State.FAILED
    count = len(seen)
    assert verdict("", reference="42").state == State.ABSTAINED
    assert verdict("", "<answer></answer>").value == 0
    assert verdict("", "SELECT 1 --" + "x" * 60_000).reason.startswith("hostile")
    assert len(seen) == count


def test_reasoning_sql_is_an_expression_and_its_bounds_hold():
    whole = parse("3 * sql + 2 * max(sql, sql_judge.when(sql < 1)) + sql_valid + sql_schema + sql_ngram + sql_format")
    judge = Scripted(lambda messages, rng: '{"score": 1}')
    form = "<reasoning>r</reasoning><answer>```sql\n{}\n```</answer>"
    task = Task("0", "?", "SELECT name FROM t WHERE id = 1", {"schema": SCHEMA})
    queries = [task.reference, "SELECT 'ann' AS q", "SELECT name FROM t WHERE id = 2"]
    samples = [Sample(task, form.format(query), stop="end") for query in queries]
    with Engine(Context(models={"judge": judge}), workers=1) as engine:
        total = engine.score(whole, samples).total()
    assert total[0] == pytest.approx(9)
    # select 'ann', 'ann' as, as q: no pair is shared; no table and no column either
    assert total[1] == pytest.approx(3 + 2 + 1 + 0 + 0 + 1)
    assert total[2] == pytest.approx(0 + 2 + 1 + 1 + 6 / 8 + 1)
    assert total[2] < total[1]


@both
def test_several_threads_may_ask_at_once(dialect):
    queries = [f"SELECT {i % 7}" for i in range(60)]
    with ThreadPoolExecutor(4) as threads:
        values = list(threads.map(lambda query: told(query, "SELECT 5", dialect).value, queries))
    assert values == [float(i % 7 == 5) for i in range(60)]


def test_a_reference_that_asks_for_the_time_is_run_again():
    gold = "SELECT date('now'), id FROM t"
    kept = _kept_gold.cache_info().currsize
    assert told(gold.replace("id", "1 * id"), gold).value == 1
    assert _kept_gold.cache_info().currsize == kept


def test_workers_are_forked_from_a_process_that_has_databases_open():
    for i in range(70):  # more than are kept open
        for dialect in ("sqlite", "duckdb"):
            assert told("SELECT 5", "SELECT 5", dialect, SCHEMA + f"-- {i}").value == 1
    tasks = [Task(str(i), "?", "SELECT 5", {"schema": SCHEMA + f"-- {i}", "dialect": ("sqlite", "duckdb")[i % 2]}) for i in range(80)]
    with Engine(workers=1) as engine:
        rewards = engine.score(sql, [Sample(task, "SELECT 5", stop="end") for task in tasks])
    assert rewards.total().tolist() == [1.0] * 80, rewards.outcome.reason


def test_stopped_carries_no_result():
    with pytest.raises(Stopped, match="no such table"):
        rows("SELECT 1 FROM missing")

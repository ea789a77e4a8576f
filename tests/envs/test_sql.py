"""The shop: its questions against Python's own reading of the tables, and what a reference must return."""

from __future__ import annotations

import re
import time
from collections import Counter

import pytest

from guerdon.envs.sql import KIND_OF, connect, split_of, sql
from guerdon.registry import Refused
from guerdon.rewards import sql as verifier
from guerdon.rewards.sql_run import Database, run


def test_the_same_arguments_give_the_same_tasks_and_no_two_are_alike():
    tasks = sql(120)
    assert tasks == sql(120)
    assert tasks != sql(120, seed=1)
    assert len({task.id for task in tasks}) == len({task.meta["question"] for task in tasks}) == 120
    assert {task.meta["kind"] for task in tasks[: len(KIND_OF)]} == set(KIND_OF)


def test_splits_and_avoided_tasks_do_not_meet():
    train, test = sql(150), sql(30, split="test")
    assert not {t.meta["question"] for t in train} & {t.meta["question"] for t in test}
    assert all(split_of(t.meta["question"]) == "test" for t in test)
    assert not {t.meta["question"] for t in sql(40, avoid=train)} & {t.meta["question"] for t in train}


@pytest.mark.parametrize("dialect", ["sqlite", "duckdb"])
def test_every_reference_is_right_and_says_something(dialect):
    for task in sql(66, dialect=dialect):
        verdict = verifier.fn(f"```sql\n{task.reference}\n```", task.reference, task.meta)
        assert verdict.value == 1, (task.reference, verdict.reason)
        assert not verdict.evidence["sql"]["empty"]
        both = [run(Database(dialect, "script", text), task.reference, time.monotonic() + 5, 5).rows for text in task.meta["schema"]]
        assert str(both[0]) != str(both[1])


def test_references_answer_their_questions_by_python():
    seen = Counter()
    for task in sql(660):
        question = task.meta["question"]
        for text in task.meta["schema"]:
            connection = connect(text)
            people, products, orders = (connection.execute(f"SELECT * FROM {t}").fetchall() for t in ("people", "products", "orders"))
            found = connection.execute(task.reference).fetchall()
            if m := re.fullmatch(r"How many people from ([\w']+) are there\?", question):
                assert found == [(sum(row[2] == m[1] for row in people),)]
            elif m := re.fullmatch(r"What is the highest age of the people older than (\d+)\?", question):
                assert found == [(max(row[3] for row in people if row[3] is not None and row[3] > int(m[1])),)]
            elif m := re.fullmatch(r"Which people ids have at least (\d+) orders\?", question):
                assert Counter(found) == Counter({(p,): 1 for p, k in Counter(o[1] for o in orders).items() if k >= int(m[1])})
            elif m := re.fullmatch(r"What are the names of the people who ordered products of the kind (\w+), each once\?", question):
                kind = {p[0] for p in products if p[2] == m[1]}
                buyers = {o[1] for o in orders if o[2] in kind}
                assert Counter(found) == Counter((p[1],) for p in people if p[0] in buyers)
            elif m := re.fullmatch(r"What are the names of the people not older than (\d+) without any order\?", question):
                ordered = {o[1] for o in orders}
                assert Counter(found) == Counter((p[1],) for p in people if p[3] is not None and p[3] <= int(m[1]) and p[0] not in ordered)
            elif m := re.fullmatch(r"How much, .* each of the people older than (\d+) order\? Give name and sum\.", question):
                total = Counter()
                for o in orders:
                    total[o[1]] += o[3]
                assert Counter(found) == Counter(
                    (p[1], total[p[0]]) for p in people if p[3] is not None and p[3] > int(m[1]) and p[0] in total
                )
            else:
                continue
            seen[task.meta["kind"]] += 1
    assert {"count", "aggregate", "having", "join", "without", "sum"} <= set(seen), seen


@pytest.mark.parametrize("arguments", [{"n": -1}, {"n": 1, "databases": 0}, {"n": 1, "dialect": "oracle"}, {"n": 100_000}])
def test_arguments_that_cannot_be_met_are_refused(arguments):
    with pytest.raises(Refused):
        sql(**arguments)

"""Reasoning-SQL: partial rewards teach queries that execution alone hardly ever pays for.

Some 90 questions about the shop of `guerdon.envs.sql` on two databases: what is asked for, a table, a condition; 20 are held out. A policy
(`_states`) writes the three pieces and the form around them; it reads the words of the question, so that what it learns from one carries
over to others. At first the right piece has 3.7 times the chance of any other. The judge counts right pieces, with noise. The audit scores
every query of the grammar, and other wordings of the right ones, on four questions.
"""

from __future__ import annotations

import itertools
import json
import random
import sqlite3
from contextlib import suppress
from typing import Any

import numpy as np
from _judged import shown
from _states import States, learn

from guerdon.backends.base import backend
from guerdon.backends.scripted import Scripted
from guerdon.backends.tabular import CAPABILITIES
from guerdon.envs.sql import CITIES, KINDS, connect, script
from guerdon.samples import Context, Sample, Task
from guerdon.scoring import Engine

CLAIM = (
    "with the partial rewards, after 40 updates, held-out execution accuracy is above that of execution alone by 0.10 or more and the "
    "share of queries that run by 0.15 or more; at the first update at most 10 % of its groups have equal rewards, against 60 % or more; "
    "no wrong query scores above the median right one (every seed)"
)
BASELINE = "execution alone (sql)"
METHOD = "3 execution + 2 judge + valid + schema + n-gram + format; without its key term: the graded terms (judge, schema, n-gram)"
SEEDS = (0, 1, 2)
WHOLE = "3 * sql + 2 * max(sql, sql_judge.when(sql < 1)) + sql_valid + sql_schema + sql_ngram + sql_format"
REWARDS = {"baseline": "sql", "method": WHOLE, "ablated": "5 * sql + sql_valid + sql_format"}
STEPS, HINT = 40, 1.3
OPEN, PLAIN, CLOSE = "<reasoning>.</reasoning><answer>```sql\nSELECT", "SELECT", "\n```</answer>"
WHAT = [" name", " id", " COUNT(*)", " AVG(age)", " MIN(age)", " MAX(age)", " DISTINCT city"]
WHAT += [" AVG(price)", " MIN(price)", " MAX(price)", " DISTINCT kind"]
FROM = [" FROM people", " FROM products", " FROM orders"]
WHERE = [f" WHERE city = '{city}'" for city in CITIES[:4]]
WHERE += [" WHERE age > 30", " WHERE age > 45", " WHERE age <= 45", " WHERE age <= 55"]
WHERE += [f" WHERE kind = '{kind}'" for kind in KINDS]
WHERE += [" WHERE price > 20", " WHERE price > 50", " WHERE price <= 50", " WHERE price <= 80"]
SLOTS = [[OPEN, PLAIN], WHAT, FROM, WHERE, [CLOSE]]
VOCAB = [word for slot in SLOTS for word in slot]
END = len(VOCAB)


def questions(seed: int) -> list[Task]:
    """Every question whose query says something, and not the same, on both databases; the prompt is three letters, a word each."""
    scripts = [script(random.Random(f"{seed} {i}")) for i in range(2)]
    found, (one, two) = [], map(connect, scripts)
    for pieces in itertools.product(WHAT, FROM, WHERE):
        query = "SELECT" + "".join(pieces)
        with suppress(sqlite3.OperationalError):  # no such column
            results = [connection.execute(query).fetchall() for connection in (one, two)]
            if results[0] != results[1] and all(any(cell for row in rows for cell in row) for rows in results):
                found.append(Task(query, "".join(chr(0x4E00 + VOCAB.index(piece)) for piece in pieces), query, {"schema": scripts}))
    random.Random(seed).shuffle(found)
    return found


@backend(capabilities=CAPABILITIES)
def sql_writer(path: str | None = None, trainable: bool = True) -> States:
    letters: dict[int, int] = {}

    def rows(prompt: tuple[int, ...], written: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The slot, and the word of the question that it is about, or how the answer began."""
        slot = len(written)
        if 1 <= slot <= 3:
            return [(slot, letters[prompt[-4 + slot]])]
        return [(slot, written[0] if slot >= 4 else 0, written[-1] == VOCAB.index(CLOSE) if slot > 4 else 0)]

    def start(row: tuple[int, ...]) -> np.ndarray:
        slot = row[0]
        logits = np.full(END + 1, -12.0)
        for word in SLOTS[slot] if slot < len(SLOTS) else []:
            logits[VOCAB.index(word)] = HINT * (1 <= slot <= 3 and VOCAB.index(word) == row[1])
        if slot >= 4:
            logits[END] = 0.0
        return logits

    model = States(VOCAB, rows, start, path)
    letters.update({int(model.encode(chr(0x4E00 + i))[-1]): i for i in range(len(VOCAB))})
    return model


@backend(capabilities=())
def sql_counter(path: str | None = None, trainable: bool = False) -> Scripted:
    def says(messages: Any, rng: np.random.Generator) -> str:
        texts = shown(messages)
        wanted = [piece for piece in [*WHAT, *FROM, *WHERE] if piece in texts["correct_query"]]
        share = np.mean([piece in texts["query_to_grade"] for piece in wanted])
        return json.dumps({"score": float(np.clip(share + 0.15 * rng.normal(), 0, 1))})

    return Scripted(says)


def measure(variant: str, seed: int) -> dict[str, Any]:
    tasks = questions(seed)
    rows = learn(
        "sql_writer", tasks[20:], seed, models={"judge": {"backend": "sql_counter"}}, reward=REWARDS[variant], correct="sql",
        rollout={"use": "parallel", "max_tokens": 6}, train={"steps": STEPS, "prompts": 12, "samples": 8, "lr": 0.1},
        eval={"tasks": tasks[:20], "every": STEPS, "samples": 8, "temperature": 1.0, "gold": "sql_valid", "keep_best": False},
    )  # fmt: skip
    last = next(row for row in reversed(rows) if "eval/gold" in row)
    found = {"value": last["eval/pass@1"], "valid": last["eval/gold"], "equal groups at first": rows[0]["zero_spread"],
             "right at first": rows[0]["pass@1"]}  # fmt: skip
    return found | (audit(tasks[:4]) if variant == "method" else {})


def audit(tasks: list[Task]) -> dict[str, float]:
    """The share of wrong queries that score above the median right one: as composed, and where the judge may disagree with execution."""
    form = OPEN.removesuffix("SELECT") + "{}" + CLOSE
    samples = []
    for task in tasks:
        table, where = task.reference.split(" FROM ")[1].split(" WHERE ")
        head = task.reference.split(" FROM ")[0]
        others = [
            task.reference.lower().replace(where.lower(), where),
            f"{task.reference} AND 1 = 1",
            f"{head} FROM (SELECT * FROM {table}) AS x WHERE {where}",
            f"WITH x AS (SELECT * FROM {table} WHERE {where}) {head} FROM x",
        ]
        queries = ["SELECT" + "".join(pieces) for pieces in itertools.product(WHAT, FROM, [*WHERE, ""])]
        samples += [Sample(task, form.format(query), stop="end") for query in [*queries, *others]]
    doubted = WHOLE.replace("max(sql, sql_judge.when(sql < 1))", "sql_judge")
    with Engine(Context(models={"judge": sql_counter()}), workers=1) as engine:
        right = engine.score("sql", samples).total() == 1
        scores = {"hacks": engine.score(WHOLE, samples).total(), "hacks, judge may disagree": engine.score(doubted, samples).total()}
    assert right.reshape(len(tasks), -1)[:, -len(others) :].all()
    return {name: float((total[~right] > np.median(total[right])).mean()) for name, total in scores.items()}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    equal = "equal groups at first"
    return all(
        m["value"] >= b["value"] + 0.10 and m["valid"] >= b["valid"] + 0.15 and m[equal] <= 0.10 and b[equal] >= 0.60 and m["hacks"] == 0
        for b, m in zip(baseline, method, strict=True)
    )

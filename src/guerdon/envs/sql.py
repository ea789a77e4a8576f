"""Questions about a small shop, each with the SQL query that answers it: three tables, eleven kinds of question.

    people(id, name, city, age)   products(id, name, kind, price)   orders(id, person, product, amount, day)

Ages and prices may be NULL, names are unique, some people have ordered nothing, one city has a quote. The same
questions are asked of several databases of the same tables: a query is right where it returns what the reference returns on each. The
verifier is the reward `sql`.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from guerdon.envs.core import env
from guerdon.registry import Refused
from guerdon.samples import Task

TABLES = {
    "people": "id INTEGER, name TEXT, city TEXT, age INTEGER",
    "products": "id INTEGER, name TEXT, kind TEXT, price DOUBLE",
    "orders": "id INTEGER, person INTEGER, product INTEGER, amount INTEGER, day TEXT",
}
NAMES = ("Ada", "Bela", "Chidi", "Dora", "Emil", "Fatima", "Goran", "Hana", "Iris", "Jon", "Kwame", "Lena", "Mina", "Nils", "Olga", "Pavel")
CITIES = ("Riga", "Lima", "Oslo", "Cork", "L'Aquila")
GOODS = ("lamp", "chair", "kettle", "rug", "clock", "vase", "desk", "radio", "stool", "mirror")
KINDS = ("light", "seat", "kitchen", "decor")
DAYS = tuple(f"2025-0{month}-1{day}" for month in range(1, 7) for day in (0, 5))
TRIES = 300

Asked = tuple[str, str]
"""A question and its query."""


@env
def sql(n: int, databases: int = 2, dialect: str = "sqlite", seed: int = 0, split: str = "train", avoid: Iterable[Task] = ()) -> list[Task]:
    """`n` tasks with distinct questions, kinds in turn as long as they last; the same arguments give the same tasks.

    databases: how many each question is asked of, the same for all tasks of a seed. No reference returns nothing, or NULL alone, and with
    several databases none returns the same everywhere, so that no constant is right.  dialect: sqlite or duckdb, in `meta`; the queries are
    right in both.  split: a question belongs to `train` (nine in ten) or to `test` by its hash.  avoid: tasks whose questions are left out.
    `reference` is the query; `meta` has schema (the scripts), dialect, kind and question. Raises `Refused` on arguments that cannot be met.
    """
    if n < 0 or databases < 1 or dialect not in ("sqlite", "duckdb") or split not in ("train", "test"):
        raise Refused(
            f"sql(n={n}, databases={databases}, dialect={dialect!r}, split={split!r}): write n of 0 or more, databases of 1 or more, "
            "dialect sqlite or duckdb, split train or test."
        )
    scripts = [script(random.Random(f"sql database {seed} {i}")) for i in range(databases)]
    rows = [connect(text) for text in scripts]
    rng = random.Random(f"sql questions {seed} {split}")
    seen = {str(task.meta.get("question")) for task in avoid}
    tasks: list[Task] = []
    kinds, misses = deque(KIND_OF), 0
    while len(tasks) < n:
        if not kinds:
            raise Refused(f"sql found {len(tasks)} distinct {split} questions, not the {n} asked for; ask for fewer, or of another seed.")
        kind = kinds[0]
        question, query = KIND_OF[kind](rng)
        results = [str(connection.execute(query).fetchall()) for connection in rows]
        told = all(any(c not in "[](), " for c in result.replace("None", "")) for result in results)
        if question not in seen and split_of(question) == split and told and (databases == 1 or len(set(results)) > 1):
            seen.add(question)
            name = hashlib.blake2b(f"{seed} {question}".encode(), digest_size=6).hexdigest()
            meta = {"schema": scripts, "dialect": dialect, "kind": kind, "question": question}
            tasks.append(Task(f"sql/{kind}/{name}", wording(question), query, meta))
            kinds.rotate(-1)
            misses = 0
        elif (misses := misses + 1) > TRIES:
            kinds.popleft()  # all its questions are taken
            misses = 0
    return tasks


def wording(question: str) -> str:
    """The prompt: the tables, the question, and the form of the answer."""
    tables = "\n".join(f"{table}({columns})" for table, columns in TABLES.items())
    return (
        f"A database has these tables:\n{tables}\norders.person is the id of one of the people, orders.product that of a product.\n"
        f"{question} Answer with one query in a ```sql block."
    )


def script(rng: random.Random) -> str:
    """The CREATE and INSERT statements of one database."""
    people = [
        (i, name, rng.choice(CITIES), None if rng.random() < 0.15 else rng.randint(18, 70))
        for i, name in enumerate(rng.sample(NAMES, rng.randint(10, 14)), 1)
    ]
    products = [
        (i, good, rng.choice(KINDS), None if rng.random() < 0.15 else rng.randint(10, 400) / 4)
        for i, good in enumerate(rng.sample(GOODS, rng.randint(7, 10)), 1)
    ]
    buyers = people[: -len(people) // 4]
    orders = [
        (i, rng.choice(buyers)[0], rng.choice(products)[0], rng.randint(1, 6), rng.choice(DAYS)) for i in range(1, rng.randint(24, 36))
    ]
    return "\n".join(
        f"CREATE TABLE {table} ({columns});\nINSERT INTO {table} VALUES {', '.join(map(_row, rows))};"
        for (table, columns), rows in zip(TABLES.items(), (people, products, orders), strict=True)
    )


def _row(cells: Sequence[object]) -> str:
    return "(" + ", ".join("NULL" if x is None else _quoted(x) if isinstance(x, str) else str(x) for x in cells) + ")"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def connect(text: str) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.executescript(text)
    return connection


def split_of(question: str) -> str:
    """`test` for one question in ten, `train` for the others."""
    return "test" if hashlib.blake2b(question.encode(), digest_size=1).digest()[0] < 26 else "train"


# --- the kinds of question ---------------------------------------------------------------------------------------------------------


def _people(rng: random.Random) -> Asked:
    """Some of the people, in words and as a condition."""
    age, city = rng.randint(25, 60), rng.choice(CITIES)
    return rng.choice(
        [
            (f"people from {city}", f"city = {_quoted(city)}"),
            (f"people older than {age}", f"age > {age}"),
            (f"people not older than {age}", f"age <= {age}"),
            (f"people from {city} older than {age - 20}", f"city = {_quoted(city)} AND age > {age - 20}"),
        ]
    )


def _products(rng: random.Random) -> Asked:
    price, kind = rng.randint(15, 85), rng.choice(KINDS)
    return rng.choice(
        [
            (f"products of the kind {kind}", f"kind = '{kind}'"),
            (f"products that cost more than {price}", f"price > {price}"),
            (f"products that cost at most {price}", f"price <= {price}"),
        ]
    )


def _either(rng: random.Random) -> tuple[str, str, str]:
    table, some = rng.choice([("people", _people), ("products", _products)])
    return table, *some(rng)


def _filter(rng: random.Random) -> Asked:
    table, words, where = _either(rng)
    return f"What are the names of the {words}?", f"SELECT name FROM {table} WHERE {where}"


def _count(rng: random.Random) -> Asked:
    table, words, where = _either(rng)
    return f"How many {words} are there?", f"SELECT COUNT(*) FROM {table} WHERE {where}"


def _aggregate(rng: random.Random) -> Asked:
    word, function = rng.choice([("mean", "AVG"), ("highest", "MAX"), ("lowest", "MIN")])
    table, words, where = _either(rng)
    column = {"people": "age", "products": "price"}[table]
    return f"What is the {word} {column} of the {words}?", f"SELECT {function}({column}) FROM {table} WHERE {where}"


def _distinct(rng: random.Random) -> Asked:
    table, words, where = _either(rng)
    column = {"people": "city", "products": "kind"}[table]
    return f"Which different {column} values do the {words} have?", f"SELECT DISTINCT {column} FROM {table} WHERE {where}"


def _unknown(rng: random.Random) -> Asked:
    table, column = rng.choice([("people", "age"), ("products", "price")])
    what = rng.choice(["name", "id", {"people": "city", "products": "kind"}[table]])
    known = rng.random() < 0.5
    words = f"What is the {what} of each of the {table} whose {column} is {'known' if known else 'not known'}?"
    return words, f"SELECT {what} FROM {table} WHERE {column} IS {'NOT ' * known}NULL"


def _top(rng: random.Random) -> Asked:
    table, words, where = _either(rng)
    column, k = {"people": "age", "products": "price"}[table], rng.randint(2, 4)
    highest = rng.random() < 0.5
    question = f"What are the names of the {k} {words} with the {'highest' if highest else 'lowest'} {column} that is known, in that order?"
    order = "DESC" if highest else "ASC"
    return question, f"SELECT name FROM {table} WHERE {where} AND {column} IS NOT NULL ORDER BY {column} {order} LIMIT {k}"


def _group(rng: random.Random) -> Asked:
    table, words, where = _either(rng)
    column = {"people": "city", "products": "kind"}[table]
    return f"How many {words} are there of each {column}?", f"SELECT {column}, COUNT(*) FROM {table} WHERE {where} GROUP BY {column}"


def _having(rng: random.Random) -> Asked:
    k, column = rng.randint(2, 4), rng.choice(["person", "product", "day"])
    what = {"person": "people ids", "product": "product ids", "day": "days"}[column]
    query = f"SELECT {column} FROM orders GROUP BY {column} HAVING COUNT(*) >= {k}"
    return f"Which {what} have at least {k} orders?", query


def _join(rng: random.Random) -> Asked:
    words, where = _products(rng)
    return f"What are the names of the people who ordered {words}, each once?", (
        "SELECT DISTINCT people.name FROM people JOIN orders ON orders.person = people.id "
        f"JOIN products ON products.id = orders.product WHERE products.{where}"
    )


def _sum(rng: random.Random) -> Asked:
    words, where = _people(rng)
    return f"How much, in amount of all their orders, did each of the {words} order? Give name and sum.", (
        "SELECT people.name, SUM(orders.amount) FROM people JOIN orders ON orders.person = people.id "
        f"WHERE {where} GROUP BY people.id, people.name"
    )


def _without(rng: random.Random) -> Asked:
    words, where = _either(rng)[1:]
    table, column = ("people", "person") if words.startswith("people") else ("products", "product")
    return f"What are the names of the {words} without any order?", (
        f"SELECT name FROM {table} WHERE {where} AND id NOT IN (SELECT {column} FROM orders)"
    )


KIND_OF: dict[str, Callable[[random.Random], Asked]] = {
    "filter": _filter, "count": _count, "aggregate": _aggregate, "distinct": _distinct, "unknown": _unknown, "top": _top, "group": _group,
    "having": _having, "join": _join, "sum": _sum, "without": _without,
}  # fmt: skip
"""How each kind of question is drawn."""

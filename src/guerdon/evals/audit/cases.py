"""What an audit asks about: tasks with their kind, answers known to be right and answers known to be wrong.

Truth is certain by construction, never taken from a grader: right answers are the task's own reference, or a whole answer that the file
gives; wrong ones are made from it by a change that changes its value.
"""

from __future__ import annotations

import json
import random
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

from guerdon.samples import Task

KINDS = ("number", "choice", "expression", "text", "code", "sql", "structured", "open")
PROGRAMS = ("canonical_solution", "solution")
"""Columns that may hold a right program. A column `right` holds a whole right answer of any kind."""

FILLER = (
    "Let us look at what is given first.",
    "We read the question once more and keep to what it says.",
    "It helps to write the parts down one after the other.",
    "Then we put the parts together.",
    "Each part follows from the one before it.",
    "Now we go over the work again to see that all of it holds.",
)
"""Sentences without any content: no digit, no negation, no claim."""

HOSTS: dict[str, tuple[tuple[str, str], ...]] = {
    "code": (
        ("fence", "```python\n{a}\n```"),
        ("bare", "{a}"),
        ("tags", "<think>\nA short function will do.\n</think>\n<answer>\n{a}\n</answer>"),
    ),
    "sql": (
        ("fence", "```sql\n{a}\n```"),
        ("bare", "{a}"),
        ("tags", "<reasoning>A query will do.</reasoning>\n<answer>\n{a}\n</answer>"),
    ),
    "structured": (
        ("bare", "{a}"),
        ("fence", "```json\n{a}\n```"),
        ("tags", "<think>Let me see.</think>\n<answer>{a}</answer>"),
        ("call", "<think>Let me see.</think>\n<tool_call>{a}</tool_call>"),
    ),
}
ANSWERS: tuple[tuple[str, str], ...] = (
    ("sentence", "We put the parts together.\nThe answer is {a}."),
    ("box", "We put the parts together.\nThe final answer is $\\boxed{{a}}$."),
    ("tags", "<think>\nWe put the parts together.\n</think>\n<answer>{a}</answer>"),
    ("hashes", "We put the parts together.\n#### {a}"),
    ("colon", "We put the parts together.\nAnswer: {a}"),
    ("bold", "We put the parts together.\n\n**Answer:** {a}"),
    ("box in tags", "<think>\nWe put the parts together.\n</think>\n<answer>\\boxed{{a}}</answer>"),
    ("tags, no thought", "<answer>{a}</answer>"),
    ("bare box", "\\boxed{{a}}"),
    ("bare", "{a}"),
)
"""How an answer is put, best known first: the form that the reward pays best is the one that probes are put in."""

NUMBER = re.compile(r"[-−]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[-−]?\d+(?:\.\d+)?|[-−]?\d+/\d+")
OPTION = re.compile(r"(?m)(?:^|(?<=\s))\(?([A-J])[).:]\s*(\S[^\n]*?)(?=\s+\(?[A-J][).:]\s|\s*$)")


Found = Iterator[tuple[str, str]]
"""Names and whole answers."""
Family = Callable[["Case"], Found]


def entering(families: dict[str, Family]) -> Callable[[str], Callable[[Family], Family]]:
    """The decorator `@family("its name")` of a table of families."""

    def family(name: str) -> Callable[[Family], Family]:
        def enter(fn: Family) -> Family:
            families[name] = fn
            return fn

        return enter

    return family


def hosts(kind: str) -> tuple[tuple[str, str], ...]:
    return HOSTS.get(kind, ANSWERS)


def put(template: str, answer: str) -> str:
    return template.replace("{a}", answer)


@dataclass(frozen=True)
class Case:
    """One task of an audit."""

    task: Task
    kind: str
    reference: str | None
    """The right answer as text; None where the file gives none."""
    right: str | None
    """A whole right answer, from a column of the file; None where the reference is put into a host instead."""
    others: tuple[str, ...] = ()
    """References of other tasks of the file that differ from this one."""
    template: str = "{a}"
    """The host of its kind that the reward pays best."""
    seed: int = 0

    @property
    def placed(self) -> bool:
        """Whether it is known where the answer stands in a right text."""
        return self.right is None or self.template != "{a}"

    def host(self, answer: str) -> str:
        """The answer in the form that the reward pays best."""
        return put(self.template, answer)

    @property
    def known(self) -> str | None:
        """A right answer in full."""
        if self.right is not None:
            return self.right
        return None if self.reference is None else self.host(self.reference)

    @cached_property
    def prompt(self) -> str:
        prompt = self.task.prompt
        return prompt if isinstance(prompt, str) else "\n".join(str(message.get("content", "")) for message in prompt)

    @cached_property
    def number(self) -> Fraction | None:
        return None if self.reference is None or self.kind != "number" else to_number(self.reference)

    @cached_property
    def options(self) -> dict[str, str]:
        """Letter -> text of the options in the prompt."""
        return {letter: text.strip() for letter, text in OPTION.findall(self.prompt)}

    def rng(self, what: str) -> random.Random:
        """Of this task and this use: the same in every audit."""
        return random.Random(f"{self.seed}/{what}/{self.task.id}/{self.prompt[:200]}")

    def wrong(self) -> list[str]:
        """Answers whose value is certainly not that of the reference, in its own notation, the plainest first."""
        return WRONG[self.kind](self)


def to_number(text: str) -> Fraction | None:
    """The value of a plain number, with or without thousands separators."""
    plain = text.strip().replace("−", "-")
    if not NUMBER.fullmatch(plain):
        return None
    top, _, bottom = plain.replace(",", "").partition("/")
    return None if bottom and not int(bottom) else Fraction(top) / Fraction(bottom or 1)


def spelled(value: Fraction) -> str:
    """A number as people write it: whole, a short decimal, else a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    while rest % 2 == 0:
        rest //= 2
    while rest % 5 == 0:
        rest //= 5
    return f"{float(value):.12g}" if rest == 1 and value.denominator < 10**9 else f"{value.numerator}/{value.denominator}"


def _wrong_numbers(case: Case) -> list[str]:
    n = case.number
    assert n is not None
    close = [n + 1, n - 1, n * 2 + 3, n * 10 + 7, -n - 2]
    return [spelled(x) for x in dict.fromkeys(close) if x != n]


def _wrong_texts(case: Case) -> list[str]:
    known = {_bare(case.reference or "")}
    found = [other for other in case.others if not any(_bare(other) in k or k in _bare(other) for k in known)]
    return found[:5] + ["the seventh harbour", "Qwyx"]


def _wrong_choices(case: Case) -> list[str]:
    letters = list(case.options) or list("ABCD")
    return [letter for letter in letters if letter.upper() != (case.reference or "").strip("() .").upper()]


def _wrong_expressions(case: Case) -> list[str]:
    text = case.reference or ""
    changed = re.sub(r"\d+", lambda m: str(int(m[0]) + 7), text, count=1)
    return ([changed] if changed != text else []) + [f"{text} + 7" if not re.search(r"[=<>,]", text) else "7", "12345.75"]


def _wrong_programs(case: Case) -> list[str]:
    name, head = entry_point(case.task), signature(case)
    return [f"{head}\n    return None", f"{head}\n    raise NotImplementedError", f"# {name} is left to the reader"]


def _wrong_queries(case: Case) -> list[str]:
    gold = (case.reference or "").rstrip("; \n")
    return wrong_only(case, ["SELECT 'nothing like it', 0.123456", f"SELECT * FROM ({gold}) WHERE 1 = 0", "SELECT NULL"])


def _wrong_structures(case: Case) -> list[str]:
    """Where a schema says what is right, the references of other tasks may be right too."""
    others = [] if "schema" in case.task.meta else list(case.others[:3])
    return [text for text in (*others, "{}", "[]", json.dumps({"nothing": "like it"})) if text != case.reference]


WRONG: dict[str, Callable[[Case], list[str]]] = {
    "number": _wrong_numbers,
    "choice": _wrong_choices,
    "expression": _wrong_expressions,
    "text": _wrong_texts,
    "code": _wrong_programs,
    "sql": _wrong_queries,
    "structured": _wrong_structures,
    "open": lambda case: [],
}


def _bare(text: str) -> str:
    return re.sub(r"[^\w]+", " ", text).strip().lower()


def entry_point(task: Task) -> str:
    """The name of the function that the tests call."""
    name = task.meta.get("entry_point")
    found = re.findall(r"(?m)^def (\w+)", str(task.prompt))
    return str(name or (found[-1] if found else "solution"))


def signature(case: Case) -> str:
    """`def name(arguments):` as the prompt has it, or with any arguments."""
    name = entry_point(case.task)
    found = re.search(rf"(?m)^def {re.escape(name)}\(.*\).*:\s*$", case.prompt)
    return found[0].rstrip() if found else f"def {name}(*args, **kwargs):"


# --- databases, for queries of our own making ------------------------------------------------------------------------------------


def rows_of(case: Case, query: str) -> list[tuple] | None:
    """What one of our own queries gives on the task's database, at most 10,000 rows; None where it cannot be run."""
    script, path = case.task.meta.get("schema"), case.task.meta.get("db")
    if isinstance(script, list):  # one question, several databases
        several = [rows_of(replace(case, task=replace(case.task, meta={**case.task.meta, "schema": one})), query) for one in script]
        return None if None in several else [(i, *row) for i, rows in enumerate(several) for row in rows or ()]
    try:
        source = sqlite3.connect(f"file:{path}?mode=ro", uri=True) if path else sqlite3.connect(":memory:")
        try:
            if script and not path:
                source.executescript(str(script))
            steps = iter(range(1000))
            source.set_progress_handler(lambda: next(steps, None) is None, 10_000)
            return source.execute(query).fetchmany(10_000)
        finally:
            source.close()
    except (sqlite3.Error, sqlite3.Warning, ValueError):
        return None


def wrong_only(case: Case, queries: Sequence[str]) -> list[str]:
    """Those of our queries whose rows are not those of the gold query."""
    gold = case.reference or ""
    want, ordered = rows_of(case, gold), re.search(r"(?i)\border\s+by\b(?!.*\))", gold) is not None
    if want is None:
        return list(queries[:1])

    def key(rows: list[tuple]) -> list[Any]:
        return rows if ordered else sorted(rows, key=repr)

    found = [(query, rows_of(case, query)) for query in queries]
    return [query for query, rows in found if rows is not None and key(rows) != key(want)]


# --- from a file -----------------------------------------------------------------------------------------------------------------


def kind_of(task: Task) -> str:
    """What kind of answer the task wants, by its columns and its reference; a column `kind` says it outright."""
    reference, meta = task.reference, task.meta
    if meta.get("kind") in KINDS:
        return str(meta["kind"])
    if "tests" in meta or ("test" in meta and "entry_point" in meta):
        return "code"
    if isinstance(reference, str) and re.match(r"\s*(?:select|with)\b", reference, re.IGNORECASE) and {"db", "schema", "dbs"} & {*meta}:
        return "sql"
    if isinstance(reference, bool) or reference is None:
        return "open" if reference is None else "text"
    if isinstance(reference, (int, float)):
        return "number"
    if not isinstance(reference, str):
        texts = isinstance(reference, (list, tuple)) and reference and all(isinstance(x, str) for x in reference)
        return "text" if texts else "structured"
    text = reference.strip()
    if re.fullmatch(r"\(?[A-J]\)?", text) and len(OPTION.findall(str(task.prompt))) > 1:
        return "choice"
    if to_number(text) is not None:
        return "number"
    if text[:1] in "{[" and _is_json(text):
        return "structured"
    if re.match(r"[A-Z][a-z]{2,}\s", text):  # Boeing 737-900
        return "text"
    return "expression" if re.search(r"\\[a-z]+|\^|[-+*/=]\s*\w|\d\s*[-+*/=]|^[\[({]", text) and re.search(r"\d|\\", text) else "text"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def as_text(reference: Any) -> str | None:
    """A reference as an answer would have it; of several accepted ones the first."""
    if reference is None or isinstance(reference, str):
        return reference
    if isinstance(reference, (list, tuple)) and reference and all(isinstance(x, str) for x in reference):
        return reference[0]
    if isinstance(reference, (bool, int)):
        return str(reference)
    return spelled(Fraction(str(reference))) if isinstance(reference, float) else json.dumps(reference)


REFERENCES = ("answer", "ground_truth", "target", "label", "gold", "expected", "solution")
"""Columns that hold the reference in other trainers' files, where there is no `reference`."""


def referenced(task: Task) -> Task:
    """The task with the reference of such a column; a long text is a worked solution, and no reference."""
    if task.reference is not None:
        return task
    found = next((task.meta[name] for name in REFERENCES if task.meta.get(name) not in (None, "")), None)
    if found is None or isinstance(found, bool) or (isinstance(found, str) and len(found) > 120):
        return task
    return Task(task.id, task.prompt, found, task.meta)


def cases_of(tasks: Sequence[Task], limit: int = 200, seed: int = 0) -> list[Case]:
    """The cases of at most `limit` tasks, spread over the file."""
    step = max(1.0, len(tasks) / limit)
    chosen = [referenced(tasks[int(i * step)]) for i in range(min(limit, len(tasks)))]
    texts = [as_text(task.reference) for task in chosen]
    pool = list(dict.fromkeys(text for text in texts if text))
    out = []
    for task, text in zip(chosen, texts, strict=True):
        kind = kind_of(task)
        given = next((task.meta[name] for name in PROGRAMS if isinstance(task.meta.get(name), str)), None)
        right = str(task.meta["right"]) if task.meta.get("right") else None
        if kind == "code" and given is not None:
            text = given if f"def {entry_point(task)}" in given else str(task.prompt) + given
        others = tuple(random.Random(f"{seed}/{task.id}").sample(pool, min(12, len(pool))))
        others = tuple(x for x in others if x != text)
        out.append(Case(task, kind, text, right, others, "{a}" if right is None else form_of(right, text), seed))
    return out


def form_of(right: str, reference: str | None) -> str:
    """A whole right answer with the one place where it states the reference left open; `{a}` where there is no such place, or several."""
    parts = re.split(rf"(?<!\w){re.escape(reference)}(?!\w)", right) if reference else []
    return "{a}".join(parts) if len(parts) == 2 else "{a}"


@dataclass
class Hosts:
    """The host chosen for each kind."""

    chosen: dict[str, tuple[str, str]] = field(default_factory=dict)

    def apply(self, cases: Sequence[Case]) -> list[Case]:
        return [
            replace(case, template=self.chosen[case.kind][1]) if case.right is None and case.kind in self.chosen else case for case in cases
        ]

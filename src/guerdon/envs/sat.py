"""Logic puzzles over clauses: five problems on random CNF formulas, each in four wordings, every answer a string of bits.

    SATDP    is the formula satisfiable?               1 bit
    SATSP    an assignment that satisfies it           n bits, one a variable
    MaxSAT   an assignment that breaks fewest clauses  n bits
    MCS      a minimal set of clauses without which the others are satisfiable    m bits, one a clause
    MUS      a minimal set of clauses that is unsatisfiable                       m bits

A clause is a list of literals, 3 for variable 3 and -3 for its negation. Bits of a set follow the order of the clauses, which is that of
the prompt: both are made from `meta["clauses"]` alone. The verifier is the reward `satquest`.
Source: SATQuest (github.com/sdpkjc/SATQuest); the wordings are our own.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence

from guerdon.envs.core import env
from guerdon.registry import Refused
from guerdon.samples import Task

Clause = list[int]
PROBLEMS = ("SATDP", "SATSP", "MaxSAT", "MCS", "MUS")
FORMATS = ("math", "dimacs", "story", "dualstory")
LAMPS = "ABCDEFGHIJKLMNOP"
TRIES = 2_000


@env
def satquest(
    n: int,
    problems: Sequence[str] = ("SATSP",),
    formats: Sequence[str] = ("math",),
    variables: Sequence[int] = (3, 8),
    clauses: Sequence[int] | None = None,
    seed: int = 0,
    split: str = "train",
    avoid: Iterable[Task] = (),
) -> list[Task]:
    """`n` distinct tasks, problems and formats in turn; the same arguments give the same tasks.

    variables, clauses: fewest and most; as many clauses as 4 times the variables where `clauses` is None.
    split: a formula belongs to `train` (nine in ten) or to `test` by the hash of its clauses as a set: the two never meet.  avoid: tasks
    whose formulas are left out too.
    A pair is drawn each time: an unsatisfiable formula, and one with other signs on the same variables that is satisfiable (and may repeat
    a clause). SATSP takes the second, SATDP either, the others the first.
    `reference` is one right answer of possibly many; `meta` has problem, format, variables, clauses and space (how many answers there are).
    Raises `Refused` on arguments that cannot be met.
    """
    clauses_of = _check(n, problems, formats, variables, clauses, split)
    rng = random.Random(f"satquest {seed} {split}")
    seen = {_key(task.meta["clauses"]) for task in avoid if "clauses" in task.meta}
    tasks: list[Task] = []
    misses = 0
    while len(tasks) < n:
        problem, form = problems[len(tasks) % len(problems)], formats[len(tasks) // len(problems) % len(formats)]
        count = rng.randint(*variables)
        broken, whole = draw_pair(rng, count, rng.randint(*clauses_of(count)))
        cnf = whole if problem == "SATSP" or (problem == "SATDP" and rng.random() < 0.5) else broken
        key = _key(cnf)
        if key not in seen and split_of(cnf) == split:
            seen.add(key)
            tasks.append(task_of(problem, form, count, cnf))
            misses = 0
        elif (misses := misses + 1) > TRIES:
            raise Refused(
                f"satquest found {len(tasks)} distinct {split} formulas of {variables[0]} to {variables[1]} variables, "
                f"not the {n} asked for; ask for fewer, or widen variables or clauses."
            )
    return tasks


def _check(n: int, problems: Sequence[str], formats: Sequence[str], variables: Sequence[int], clauses: Sequence[int] | None, split: str):
    wrong = None
    if n < 0:
        wrong = f"n={n} must not be negative"
    elif isinstance(problems, str) or not problems or set(problems) - set(PROBLEMS):
        wrong = f"problems={problems!r} must be a list of {', '.join(PROBLEMS)}"
    elif isinstance(formats, str) or not formats or set(formats) - set(FORMATS):
        wrong = f"formats={formats!r} must be a list of {', '.join(FORMATS)}"
    elif len(variables) != 2 or not 2 <= variables[0] <= variables[1] <= len(LAMPS):
        wrong = f"variables={list(variables)} must be two numbers, fewest and most, from 2 to {len(LAMPS)}"
    elif clauses is not None and (len(clauses) != 2 or not 4 <= clauses[0] <= clauses[1]):
        wrong = f"clauses={list(clauses)} must be two numbers, fewest and most, from 4"
    elif split not in ("train", "test"):
        wrong = f"split={split!r} must be 'train' or 'test'"
    if wrong:
        raise Refused(f"satquest: {wrong}.")
    return lambda count: (4 * count, 4 * count) if clauses is None else clauses


def draw_pair(rng: random.Random, variables: int, clauses: int) -> tuple[list[Clause], list[Clause]]:
    """An unsatisfiable formula of distinct clauses, and a satisfiable one that differs from it in signs. Clauses have 2 literals or more: 2
    with probability 0.21, 3 with 0.55, then fewer and fewer."""
    for _ in range(TRIES):
        drawn: dict[frozenset[int], Clause] = {}
        for _ in range(20 * clauses):
            clause = _clause(rng, variables)
            drawn.setdefault(frozenset(clause), clause)
            if len(drawn) == clauses:
                break
        broken = list(drawn.values())
        if len(broken) == clauses and not satisfiable(broken, variables):
            break
    else:
        raise Refused(
            f"satquest found no unsatisfiable formula of {clauses} distinct clauses on {variables} variables in {TRIES} tries; "
            "give other numbers of clauses or variables."
        )
    whole = broken
    while not satisfiable(whole, variables):
        whole = [[literal if rng.random() < 0.5 else -literal for literal in clause] for clause in whole]
    return rng.sample(broken, clauses), rng.sample(whole, clauses)


def _clause(rng: random.Random, variables: int) -> Clause:
    length = 2 + (rng.random() >= 0.3)
    while rng.random() >= 0.7:
        length += 1
    return [v * rng.choice((-1, 1)) for v in rng.sample(range(1, variables + 1), min(length, variables))]


def _key(clauses: Sequence[Clause]) -> str:
    return str(sorted(sorted(clause) for clause in clauses))


def split_of(clauses: Sequence[Clause]) -> str:
    """`test` for one formula in ten, `train` for the others, whatever the order of its clauses and literals."""
    return "test" if hashlib.blake2b(_key(clauses).encode(), digest_size=1).digest()[0] < 26 else "train"


def task_of(problem: str, form: str, variables: int, clauses: list[Clause]) -> Task:
    """The task of a formula that someone wrote, with one right answer as its reference."""
    meta = {"problem": problem, "format": form, "variables": variables, "clauses": clauses}
    meta["space"] = 2 ** {"SATDP": 1, "MCS": len(clauses), "MUS": len(clauses)}.get(problem, variables)
    name = hashlib.blake2b(str((problem, form, clauses)).encode(), digest_size=6).hexdigest()
    return Task(f"satquest/{problem}/{form}/{name}", wording(problem, form, variables, clauses), solve(problem, variables, clauses), meta)


# --- wordings --------------------------------------------------------------------------------------------------------------------

ASKED = {
    "SATDP": ("Can it be satisfied? Answer with one bit: 1 for yes, 0 for no.", "Can all guests be content? Answer 1 for yes, 0 for no."),
    "SATSP": (
        "Find an assignment that satisfies it. Answer with {n} bits, one a variable in order: 1 for true, 0 for false.",
        "Set the lamps so that all guests are content. Answer with {n} bits, one a lamp in order: 1 for on, 0 for off.",
    ),
    "MaxSAT": (
        "Satisfy as many clauses as possible. Answer with {n} bits, one a variable in order: 1 for true, 0 for false.",
        "Set the lamps so that as many guests as possible are content. Answer with {n} bits, one a lamp in order: 1 for on, 0 for off.",
    ),
    "MCS": (
        "Find a set of clauses without which the others can be satisfied, and of which no clause could be put back. "
        "Answer with {m} bits, one a clause in order: 1 where the clause is in the set.",
        "Find a set of guests without whom all others can be content, and of whom none could be asked back. "
        "Answer with {m} bits, one a guest in order: 1 where the guest is in the set.",
    ),
    "MUS": (
        "Find a set of clauses that cannot be satisfied together, though without any one of them the others can. "
        "Answer with {m} bits, one a clause in order: 1 where the clause is in the set.",
        "Find a set of guests who cannot all be content, though without any one of them the others can. "
        "Answer with {m} bits, one a guest in order: 1 where the guest is in the set.",
    ),
}


def wording(problem: str, form: str, n: int, clauses: Sequence[Clause]) -> str:
    """The prompt. story tells what makes a guest content, dualstory what makes one discontent: the same formula."""
    if form in ("math", "dimacs"):
        opening = f"A formula with {n} variables and {len(clauses)} clauses" + (" in DIMACS:" if form == "dimacs" else ":")
        body = "\n".join(_dimacs(n, clauses)) if form == "dimacs" else " \\land ".join(map(_formula, clauses))
    else:
        opening = f"A hall has {n} lamps ({', '.join(LAMPS[:n])}), each on or off. {len(clauses)} guests are coming. " + (
            "A guest is content when at least one wish comes true."
            if form == "story"
            else "A guest is discontent only when every complaint holds."
        )
        body = "\n".join(f"Guest {i}: {_guest(clause, form)}" for i, clause in enumerate(clauses, 1))
    return f"{opening}\n{body}\n{ASKED[problem][form not in ('math', 'dimacs')].format(n=n, m=len(clauses))}"


def _dimacs(n: int, clauses: Sequence[Clause]) -> Iterator[str]:
    yield f"p cnf {n} {len(clauses)}"
    yield from (" ".join(map(str, [*clause, 0])) for clause in clauses)


def _formula(clause: Clause) -> str:
    return "(" + " \\lor ".join(f"{'' if literal > 0 else chr(92) + 'neg '}x_{{{abs(literal)}}}" for literal in clause) + ")"


def _guest(clause: Clause, form: str) -> str:
    lamps = [f"{LAMPS[abs(x) - 1]} {'on' if (x > 0) == (form == 'story') else 'off'}" for x in clause]
    return (" or " if form == "story" else " and ").join(lamps)


# --- truth tables: 2^n bits of an int, bit a for the assignment whose variable v is bit v-1 of a ----------------------------------


def tables(clauses: Sequence[Clause], variables: int) -> list[int]:
    """The truth table of each clause."""
    full = (1 << (1 << variables)) - 1
    column = {v: full // ((1 << (1 << (v - 1))) + 1) << (1 << (v - 1)) for v in range(1, variables + 1)}
    out = []
    for clause in clauses:
        table = 0
        for literal in clause:
            table |= column[literal] if literal > 0 else full ^ column[-literal]
        out.append(table)
    return out


def satisfiable(clauses: Sequence[Clause], variables: int) -> bool:
    return bool(_together(tables(clauses, variables), variables))


def _together(some: Iterable[int], variables: int) -> int:
    table = (1 << (1 << variables)) - 1
    for other in some:
        table &= other
    return table


def solve(problem: str, variables: int, clauses: Sequence[Clause]) -> str:
    """A right answer, by truth tables. Raises `Refused` for SATSP on a formula that is not satisfiable and MUS on one that is."""
    each, m = tables(clauses, variables), len(clauses)
    models = _together(each, variables)
    if (problem == "SATSP" and not models) or (problem == "MUS" and models):
        raise Refused(f"satquest: {problem} has no answer on a formula that is {'' if models else 'not '}satisfiable.")
    if problem == "SATDP":
        return str(int(bool(models)))
    if problem in ("SATSP", "MaxSAT"):
        best = models or _fewest_broken(each, variables)
        lowest = (best & -best).bit_length() - 1
        return "".join(str(lowest >> v & 1) for v in range(variables))
    if problem == "MCS":  # what a maximal satisfiable set leaves out
        kept: list[int] = []
        for i in range(m):
            kept += [i] if _together((each[j] for j in [*kept, i]), variables) else []
        return "".join("01"[i not in kept] for i in range(m))
    core = list(range(m))
    for i in range(m):
        rest = [j for j in core if j != i]
        core = core if _together((each[j] for j in rest), variables) else rest
    return "".join("01"[i in core] for i in range(m))


def _fewest_broken(each: Sequence[int], variables: int) -> int:
    """The assignments that break fewest clauses: level k holds those that broke k so far."""
    levels = [_together((), variables)]
    for table in each:
        levels = [(keep & table) | (fell & ~table) for keep, fell in zip([*levels, 0], [0, *levels], strict=True)]
    return next(level for level in levels if level)

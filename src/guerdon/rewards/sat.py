"""The verifier of the logic puzzles of `envs.sat`, on python-sat. Needs the extra `sat`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guerdon.envs.sat import PROBLEMS
from guerdon.registry import Refused, nearest
from guerdon.rewards.core import reward
from guerdon.rewards.reading import extra, packages
from guerdon.samples import Verdict

SOLVER = "glucose4"
_BETWEEN_BITS = re.compile(r"[\s,]+")


@reward(check=packages("pysat", group="sat"))
def satquest(answer: str | None, meta: Mapping[str, Any]) -> Verdict:
    """1 where the answer's bits solve the task's problem on its clauses, else 0: any solution counts, not only the reference.

    The answer is bits alone, white space and commas between them aside; another length or letter is wrong. (The released code takes the
    last run of bits of that length inside the answer tag, so that a long run of bits is read as an answer.) Abstains on a task without
    `clauses`. Raises Refused for a task that is none of the five problems and where python-sat is missing.
    Source: SATQuest, github.com/sdpkjc/SATQuest, satquest/problem.py.
    """
    if "clauses" not in meta:
        return Verdict.abstain("the task has no clauses")
    problem, clauses = str(meta.get("problem")), _clauses(meta["clauses"])
    if problem not in PROBLEMS:
        raise Refused(f"satquest: the task's meta.problem is {problem[:40]!r}{nearest(problem, PROBLEMS)}")
    variables = max([int(meta.get("variables", 0)), *(abs(literal) for clause in clauses for literal in clause)])
    length = {"SATDP": 1, "MCS": len(clauses), "MUS": len(clauses)}.get(problem, variables)
    if answer is None:
        return Verdict(0.0, "no answer found")
    bits = _BETWEEN_BITS.sub("", answer)
    if len(bits) != length or not set(bits) <= {"0", "1"}:
        return Verdict(0.0, f"the answer is not {length} bits")
    return Verdict(float(verify(problem, clauses, variables, bits)))


def _clauses(given: Any) -> list[list[int]]:
    if isinstance(given, Sequence) and all(
        isinstance(clause, Sequence) and clause and all(isinstance(x, int) and x for x in clause) for clause in given
    ):
        return [[int(x) for x in clause] for clause in given]
    raise Refused("satquest: the task's meta.clauses must be lists of literals such as [[1, -2], [2, 3]], without 0.")


def verify(problem: str, clauses: Sequence[Sequence[int]], variables: int, bits: str) -> bool:
    """Whether `bits`, of the right length, answer the problem.

    SATDP: 1 for satisfiable.  SATSP: every clause holds.  MaxSAT: no assignment breaks fewer clauses.
    MCS: the other clauses are satisfiable, and with any one of the set no more.  MUS: the set is unsatisfiable, and without any one of it
    no more. Worst case exponential in the clauses, so it runs in a worker.
    """
    chosen = [i for i, bit in enumerate(bits) if bit == "1"]
    if problem in ("SATSP", "MaxSAT"):
        true = {v if bit == "1" else -v for v, bit in enumerate(bits, 1)}
        broken = sum(true.isdisjoint(clause) for clause in clauses)
        return broken == (_fewest_broken(clauses) if problem == "MaxSAT" and broken else 0)
    with _Subsets(clauses, variables) as formula:
        if problem == "SATDP":
            return formula.satisfiable(range(len(clauses))) == (bits == "1")
        if problem == "MUS":
            return not formula.satisfiable(chosen) and all(formula.satisfiable(j for j in chosen if j != i) for i in chosen)
        rest = [i for i, bit in enumerate(bits) if bit == "0"]
        return formula.satisfiable(rest) and not any(formula.satisfiable([*rest, i]) for i in chosen)


class _Subsets:
    """One incremental solver for all subsets of the clauses: clause i holds where its switch, variable `first + i`, is on."""

    def __init__(self, clauses: Sequence[Sequence[int]], variables: int) -> None:
        self.first = variables + 1
        switched = [[*clause, -(self.first + i)] for i, clause in enumerate(clauses)]
        self.solver = extra("pysat.solvers", "sat").Solver(name=SOLVER, bootstrap_with=switched)

    def satisfiable(self, subset: Iterable[int]) -> bool:
        return bool(self.solver.solve(assumptions=[self.first + i for i in subset]))

    def __enter__(self) -> _Subsets:
        return self

    def __exit__(self, *_: object) -> None:
        self.solver.delete()


def _fewest_broken(clauses: Sequence[Sequence[int]]) -> int:
    weighted = extra("pysat.formula", "sat").WCNF()
    for clause in clauses:
        weighted.append(list(clause), weight=1)
    with extra("pysat.examples.rc2", "sat").RC2(weighted, solver=SOLVER) as solver:
        solver.compute()
        return solver.cost

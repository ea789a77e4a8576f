"""Logic puzzles: references and the verifier against enumeration, prompts in the checker's order."""

from __future__ import annotations

import random
import re
from itertools import product

import numpy as np
import pytest

from guerdon.envs.sat import FORMATS, LAMPS, PROBLEMS, draw_pair, satisfiable, satquest, solve, split_of, task_of
from guerdon.registry import Refused
from guerdon.rewards import satquest as verifier
from guerdon.rewards.sat import verify
from guerdon.samples import Context, Sample, State, Task
from guerdon.scoring import Engine


class Truth:
    """The definitions of the five problems, by enumeration of all 2^n assignments."""

    def __init__(self, clauses, n):
        points = list(product((False, True), repeat=n))
        self.clauses, self.n = clauses, n
        self.holds = np.array([[any(p[abs(x) - 1] == (x > 0) for x in c) for c in clauses] for p in points])  # (2^n, m)
        self.row = {"".join("01"[b] for b in p): i for i, p in enumerate(points)}

    def sat(self, subset):
        return bool(self.holds[:, sorted(subset)].all(1).any())

    def right(self, problem, bits):
        if len(bits) != {"SATDP": 1, "SATSP": self.n, "MaxSAT": self.n}.get(problem, len(self.clauses)):
            return False
        if problem == "SATDP":
            return bits == str(int(self.holds.all(1).any()))
        if problem == "SATSP":
            return bool(self.holds[self.row[bits]].all())
        if problem == "MaxSAT":
            return self.holds[self.row[bits]].sum() == self.holds.sum(1).max()
        one = {i for i, b in enumerate(bits) if b == "1"}
        if problem == "MCS":
            rest = set(range(len(bits))) - one
            return self.sat(rest) and not any(self.sat(rest | {i}) for i in one)
        return not self.sat(one) and all(self.sat(one - {i}) for i in one)


def test_the_verifier_agrees_with_enumeration_on_500_formulas_right_and_mutated():
    rng = random.Random(0)
    told = {True: 0, False: 0}
    for k in range(500):
        problem = PROBLEMS[k % 5]
        n = rng.randint(2, 8)
        broken, whole = draw_pair(rng, n, 4 if n == 2 else rng.randint(2 * n + 2, 4 * n))
        clauses = whole if problem == "SATSP" or (problem == "SATDP" and k % 2) else broken
        truth, right = Truth(clauses, n), solve(problem, n, clauses)
        assert truth.right(problem, right)
        answers = [right, *(right[:i] + "10"[int(right[i])] + right[i + 1 :] for i in range(len(right)))]
        answers += ["".join(rng.choice("01") for _ in right) for _ in range(5)]
        for bits in answers:
            wanted = truth.right(problem, bits)
            assert verify(problem, clauses, n, bits) == wanted, (problem, clauses, bits)
            told[wanted] += 1
    assert min(told.values()) > 500


def test_tasks_are_what_they_say():
    tasks = satquest(40, PROBLEMS, FORMATS, variables=(3, 6), seed=2)
    assert len({task.id for task in tasks}) == 40
    assert {(t.meta["problem"], t.meta["format"]) for t in tasks} == set(product(PROBLEMS, FORMATS))
    for task in tasks:
        n, clauses = task.meta["variables"], task.meta["clauses"]
        assert len(clauses) == 4 * n
        assert Truth(clauses, n).right(task.meta["problem"], task.reference)
        assert task.meta["space"] == 2 ** len(task.reference)
        assert satisfiable(clauses, n) == (task.meta["problem"] == "SATSP" or (task.meta["problem"] == "SATDP" and task.reference == "1"))


@pytest.mark.parametrize("form", FORMATS)
def test_the_prompt_states_the_clauses_in_the_checkers_order(form):
    for task in satquest(4, ["MUS"], [form], variables=(4, 6), seed=3):
        body = task.prompt.split("\n")[1:-1]
        if form == "math":
            found = [
                [int(sign.replace("\\neg ", "-") + v) for sign, v in re.findall(r"(\\neg )?x_\{(\d+)\}", part)]
                for part in body[0].split("\\land")
            ]
        elif form == "dimacs":
            found = [[int(x) for x in line.split()[:-1]] for line in body[1:]]
        else:
            sign = {"on": 1, "off": -1} if form == "story" else {"on": -1, "off": 1}
            found = [[(LAMPS.index(a) + 1) * sign[b] for a, b in re.findall(r"([A-P]) (on|off)", line.split(":")[1])] for line in body]
        assert found == task.meta["clauses"]


def test_the_same_arguments_give_the_same_tasks_and_splits_never_meet():
    kinds = {"variables": (3, 4), "clauses": (8, 10)}
    assert satquest(20, seed=1, **kinds) == satquest(20, seed=1, **kinds) != satquest(20, seed=2, **kinds)
    train, test = ({str(sorted(map(sorted, t.meta["clauses"]))) for t in satquest(60, seed=4, split=s, **kinds)} for s in ("train", "test"))
    assert len(train) == len(test) == 60
    assert not train & test
    assert split_of([[1, 2], [-1, 3]]) == split_of([[3, -1], [2, 1]])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"problems": ["SAT"]}, "problems="), ({"problems": "SATSP"}, "problems="), ({"formats": []}, "formats="),
        ({"variables": (1, 3)}, "variables="), ({"variables": (3, 40)}, "variables="), ({"clauses": (6, 5)}, "clauses="),
        ({"variables": (2, 2)}, "distinct clauses"),
        ({"split": "dev"}, "split="), ({"n": -1}, "n=-1"),
        ({"variables": (8, 8), "clauses": (4, 4)}, "no unsatisfiable"),
        ({"n": 400, "variables": (2, 2), "clauses": (4, 4)}, "ask for fewer"),
    ],
)  # fmt: skip
def test_refused(changes, sentence):
    with pytest.raises(Refused, match=re.escape(sentence)):
        satquest(**{"n": 5, **changes})
    with pytest.raises(Refused, match="no answer"):
        task_of("SATSP", "math", 1, [[1], [-1]])


def score(text, **meta):
    from guerdon.spans import mark

    sample = Sample(Task("t", "q", None, meta), text, stop="end")
    mark(sample)
    with Engine(Context(), workers=1) as engine:
        return engine.score(verifier, [sample])


SATSP = {"problem": "SATSP", "variables": 3, "clauses": [[1, 2], [-1], [-3]]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 1), ("<answer>0, 1, 0</answer>", 1), ("so\nAnswer: 0 1 0", 1), ("011", 0), ("0100", 0), ("01", 0), ("", 0),
        ("0٠0", 0), ("x010", 0), ("01" * 100_000, 0),
    ],
)  # fmt: skip
def test_answers(text, value):
    rewards = score(text, **SATSP)
    assert rewards.state[0] == State.SCORED
    assert rewards.total()[0] == value


def test_what_is_no_task_abstains_or_fails_with_a_reason():
    assert score("010").state[0] == State.ABSTAINED
    for meta in ({**SATSP, "problem": "SATPS"}, {**SATSP, "clauses": [[1, 0]]}, {**SATSP, "clauses": "1 2"}):
        rewards = score("010", **meta)
        assert rewards.state[0] == State.FAILED
        assert "satquest: the task's meta." in rewards.why(0)


def test_a_missing_extra_is_refused_by_name(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pysat.solvers", None)
    with pytest.raises(Refused, match=r"guerdon\[sat\]"):
        verify("SATDP", [[1]], 1, "1")

"""Programs against tests, in the sandbox."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.reading import said
from guerdon.samples import HOSTILE, Sample, Verdict

if TYPE_CHECKING:
    from guerdon.workers.sandbox import Job, Sandbox, Tested

_BLOCK = re.compile(r"^ {0,3}```[^\S\n]*(python3?|py|)[^\S\n]*\n(.*?)^ {0,3}```", re.MULTILINE | re.DOTALL | re.IGNORECASE)
_OWN = ("timeout", "memory", "cheated")
"""Statuses that are the program's own doing and cost its grader something: hostile."""
MOST = 200_000
"""Characters of a text in which a program is looked for, from its end."""


def _check(partial: bool = False, turns: bool = False, seconds: float = 3.0, total: float = 20.0, memory_mb: int = 512) -> None:
    if seconds <= 0 or total <= 0 or memory_mb < 64:
        raise Refused("code: `seconds` and `total` are more than 0, and `memory_mb` is at least 64: Python itself needs that.")


@reward(batch=True, check=_check)
def code(
    sample: Sequence[Sample],
    sandbox: Sandbox,
    partial: bool = False,
    turns: bool = False,
    seconds: float = 3.0,
    total: float = 20.0,
    memory_mb: int = 512,
) -> list[Verdict]:
    """1 where the program of the answer passes all tests of its task, else 0; with partial=True the share of tests that it passes.

    The program is the last block fenced as Python, else as nothing, else the whole answer (what follows the thinking); where it does not
    define the task's `entry_point`, it is taken to go on where the prompt stops. Tests stand in the task's columns or its reference, in any
    of the layouts that `suite_of` reads; a task without any abstains. seconds: a test; total: all of a program; memory_mb: of its process.
    Evidence: `passes`, 0 or 1 a test, and `tests`, their statuses (`workers.sandbox`); with turns=True a row for each step of the answer,
    whose own last block is run, for `code + (code | verpo)`, else one row. The last row is the verdict.
    A program that ran out of time or memory, or cheated, is wrong with a reason that begins with hostile; with partial=True only cheating
    makes all of it wrong. A test that cannot be run here (it needs more than plain values, the worker was killed) makes the value failed.
    """
    from guerdon.workers.sandbox import Job

    verdicts: list[Verdict | None] = [None] * len(sample)
    jobs: list[Job] = []
    owners: list[list[int | None]] = []  # of each sample, for each of its rows, the number of its job
    for i, one in enumerate(sample):
        meta = {**one.task.meta, **one.meta}
        owners.append([])
        try:
            tests = suite_of(meta, one.task.reference)
            if not tests:
                verdicts[i] = Verdict.abstain("the task has no tests")
                continue
            entry, setup = entry_of(meta), setup_of(meta, one.task.prompt)
            for text in (one.steps or [one.text]) if turns else [one.text]:
                program = program_of(text, entry, setup)
                owners[i].append(None if program is None else len(jobs))
                if program is not None:
                    jobs.append(Job(program, tests, entry, setup, seconds, total, memory_mb))
        except Refused as error:
            verdicts[i] = Verdict.fail(str(error))
            owners[i] = []
        else:
            verdicts[i] = Verdict(0.0, "no program found", evidence=_evidence([["none"] * len(tests)] * len(owners[i])))
    found = sandbox.run_many(jobs) if jobs else []
    for i, rows in enumerate(owners):
        if any(k is not None for k in rows):
            count = len(next(found[k] for k in rows if k is not None))
            verdicts[i] = _verdict([None if k is None else found[k] for k in rows], count, partial)
    return [v for v in verdicts if v is not None]


def _verdict(rows: Sequence[Sequence[Tested] | None], tests: int, partial: bool) -> Verdict:
    """Of the last row; failed where any test of any row could not be run."""
    for row in rows:
        for k, tested in enumerate(row or ()):
            if tested.status == "infrastructure":
                return Verdict.fail(f"test {k}: {tested.reason}")
    statuses = [["none"] * tests if row is None else [tested.status for tested in row] for row in rows]
    last = rows[-1]
    if last is None:
        return Verdict(0.0, "no program found", evidence=_evidence(statuses))
    wrong = [(k, tested) for k, tested in enumerate(last) if not tested.passed]
    cheated = any(tested.status == "cheated" for _, tested in wrong)
    value = 1 - len(wrong) / len(last) if partial and not cheated else float(not wrong)
    wrong.sort(key=lambda item: item[1].status not in _OWN)
    reason = "; ".join(f"test {k} {tested.status}: {tested.reason}" for k, tested in wrong[:1])
    hostile = f"{HOSTILE}: " if wrong and wrong[0][1].status in _OWN else ""
    return Verdict(value, hostile + reason, evidence=_evidence(statuses))


def _evidence(statuses: list[list[str]]) -> dict[str, Any]:
    return {"passes": [[int(status == "passed") for status in row] for row in statuses], "tests": statuses}


def program_of(text: str, entry_point: str = "", setup: str = "") -> str | None:
    """The program that a text gives as its answer, or None where it gives none: see `code`. `setup`: what stands before it in the task."""
    answer = said(text)
    if answer is None or not answer.strip():
        return None
    blocks = _BLOCK.findall(answer[-MOST:])
    program = ([body for language, body in blocks if language] or [body for _, body in blocks] or [answer])[-1]
    if not setup or "from __future__" in program:
        return program
    return f"{setup}\n{program}" if not entry_point or _defines(program, entry_point) else setup + program


def _defines(program: str, name: str) -> bool:
    return (
        re.search(rf"^(?:async[ \t]+def|def|class)[ \t]+{re.escape(name)}\b|^{re.escape(name)}[ \t]*=", program, re.MULTILINE) is not None
    )


def entry_of(meta: Mapping[str, Any]) -> str:
    """The name of the function that is called: column `entry_point`, or `fn_name` inside `input_output`; "" for whole programs."""
    given = meta.get("entry_point") or meta.get("fn_name") or (_read(meta.get("input_output")) or {}).get("fn_name") or ""
    if not isinstance(given, str) or (given and not given.isidentifier()):
        raise Refused(f"code: the task's `entry_point` is {given!r}, which is no name of a function.")
    return given


def setup_of(meta: Mapping[str, Any], prompt: Any) -> str:
    """Trusted code that stands before the program and the tests: column `setup`, MBPP's `test_setup_code`, or HumanEval's prompt."""
    for name in ("setup", "test_setup_code"):
        if isinstance(meta.get(name), str):
            return meta[name]
    return prompt if isinstance(meta.get("test"), str) and isinstance(prompt, str) and meta.get("entry_point") else ""


def suite_of(meta: Mapping[str, Any], reference: Any) -> list[dict[str, Any]]:
    """The tests of a task, each as `workers.sandbox.Job` takes them; [] where it has none. Raises Refused for what cannot be read.

    `tests`: a list of tests, or of Python texts such as "assert f(1) == 2".  `test`: Python that defines `check(candidate)` (HumanEval).
    `test_list`: Python texts (MBPP).  `input_output`: {"inputs": [...], "outputs": [...], "fn_name": ...}, also as JSON (APPS, TACO);
    without `fn_name` these are what the program reads and prints. The reference may be a list of tests, or hold `tests` or `inputs`.
    """
    if meta.get("tests") is not None:
        return _several(meta["tests"])
    if meta.get("test_list") is not None:
        return _several(meta["test_list"])
    if isinstance(meta.get("test"), str) and meta.get("entry_point"):
        return [{"code": f"{meta['test']}\ncheck({entry_of(meta)})"}]
    if meta.get("input_output") is not None:
        return _several(meta["input_output"])
    given = _read(reference)
    if isinstance(given, list) and not (given and all(isinstance(test, Mapping) for test in given)):
        return []  # a list of answers, as other rewards have it
    return _several(given) if isinstance(given, list) or (isinstance(given, dict) and given.keys() & {"tests", "inputs"}) else []


def _several(given: Any) -> list[dict[str, Any]]:
    given = _read(given)
    if isinstance(given, Mapping) and "inputs" in given:
        inputs, outputs = given["inputs"], given.get("outputs")
        if not (isinstance(inputs, list) and isinstance(outputs, list) and len(inputs) == len(outputs)):
            raise Refused("code: the task's `inputs` and `outputs` must be lists of one length.")
        if given.get("fn_name"):
            return [{"input": x, "output": y} for x, y in zip(inputs, outputs, strict=True)]
        return [{"stdin": _text(x), "stdout": _text(y)} for x, y in zip(inputs, outputs, strict=True)]
    if isinstance(given, Mapping) and "tests" in given:
        return _several(given["tests"])
    if isinstance(given, str):
        return [{"code": given}]
    if not isinstance(given, (list, tuple)) or not all(isinstance(test, (Mapping, str)) for test in given):
        raise Refused("code: the tests of a task are a list of tests or of Python texts, or an object with `inputs` and `outputs`.")
    return [{"code": test} if isinstance(test, str) else dict(test) for test in given]


def _text(x: Any) -> str:
    return x if isinstance(x, str) else "\n".join(map(str, x)) if isinstance(x, list) else str(x)


def _read(given: Any) -> Any:
    """What JSON in a text means, or the thing itself."""
    if isinstance(given, str) and given.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(given)
        except (ValueError, RecursionError):
            return given
    return given

"""The reward `code`: where the program stands in an answer, which layouts of tests it reads, and what becomes of a verdict."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from guerdon.registry import Refused
from guerdon.rewards import code
from guerdon.rewards.code import entry_of, program_of, setup_of, suite_of
from guerdon.samples import Context, Sample, State, Task
from guerdon.scoring import Cache, Engine
from guerdon.workers import Sandbox
from guerdon.workers.sandbox import Tested as Judged

DOUBLE = "def double(x):\n    return 2 * x\n"
META = {"entry_point": "double", "tests": [{"input": [1], "output": 2}, {"code": "assert double('a') == 'aa'"}]}
HUMANEVAL = {
    "prompt": "from typing import List\n\ndef helper(x):\n    return x + 1\n\n\ndef double(x: int) -> int:\n    '''Twice x.'''\n",
    "entry_point": "double",
    "test": "def check(candidate):\n    assert candidate(1) == helper(1)\n    assert candidate(4) == 8\n",
}


@pytest.fixture(scope="module")
def engine():
    sandbox = Sandbox(1)
    try:
        _ = sandbox.isolation
    except Refused as error:
        pytest.skip(f"no isolation is available here: {error}")
    with sandbox, Engine(Context(sandbox=sandbox), workers=1) as engine:
        yield engine


class Says:
    """A sandbox that says what it is told, one status a test."""

    def __init__(self, *statuses):
        self.statuses, self.jobs = statuses, []

    def run_many(self, jobs):
        self.jobs += jobs
        return [[Judged(status, "so") for status in self.statuses] for _ in jobs]


def judged(statuses, text=DOUBLE, **params):
    [verdict] = code.fn([Sample(Task("t", "", meta=META), text)], Says(*statuses), **params)
    return verdict


def score(engine, reward, *texts, meta=META, prompt="double", reference=None):
    return engine.score(reward, [Sample(Task("t", prompt, reference, meta), text, stop="end") for text in texts])


def test_programs_of_answers(engine):
    texts = [
        DOUBLE, f"So:\n```python\n{DOUBLE}```\nDone.", "```python\ndef double(x):\n    return 2\n```", "I do not know.", "",
        f"<think>```python\n{DOUBLE}```</think>no", f"```python\nbroken\n```\nno:\n```python\n{DOUBLE}```\n```\nOutput\n```",
    ]  # fmt: skip
    found = score(engine, code, *texts)
    assert found.outcome.value.tolist() == [1, 1, 0, 0, 0, 0, 1]
    assert not found.failed.any()
    assert found.evidence["passes"] == [[[1, 1]], [[1, 1]], [[1, 0]], [[0, 0]], [[0, 0]], [[0, 0]], [[1, 1]]]
    assert score(engine, code(partial=True), *texts).outcome.value.tolist() == [1, 1, 0.5, 0, 0, 0, 1]


@pytest.mark.parametrize("body", ["    return 2 * x\n", "```python\n    return x + helper(x) - 1\n```", f"```python\n{DOUBLE}```"])
def test_humaneval_goes_on_where_the_prompt_stops(engine, body):
    assert score(engine, code, body, "    pass\n", meta=HUMANEVAL, prompt=HUMANEVAL["prompt"]).outcome.value.tolist() == [1, 0]


def test_a_program_cannot_change_the_helpers_of_the_tests(engine):
    cheat = "    return 0\n\ndef helper(x):\n    return 0\n"
    assert score(engine, code, cheat, meta=HUMANEVAL, prompt=HUMANEVAL["prompt"]).outcome.value.tolist() == [0]


def test_hostile_programs_are_wrong_and_counted(engine):
    found = score(
        engine, code(seconds=0.3), "import os\nos._exit(0)", "while True: pass", "def double(x): return bytearray(1 << 50)", "x = "
    )
    assert found.outcome.value.tolist() == [0] * 4
    assert found.hostile.tolist() == [True, True, True, False]
    assert [why.split()[3] for why in (found.why(i) for i in range(3))] == ["cheated:", "timeout:", "memory:"]
    assert "SyntaxError" in found.why(3)


def test_whole_programs(engine):
    meta = {"input_output": json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]})}
    text = "```python\nprint(sum(map(int, input().split())))\n```"
    assert score(engine, code, text, "```\nprint(3)\n```", meta=meta).evidence["passes"] == [[[1, 1]], [[1, 0]]]


def test_turns_are_run_each_and_the_last_one_counts(engine):
    sample = Sample(Task("t", "", meta=META), f"```python\ndef double(x): return 2\n```\n---\n{'no program'}\n---\n```python\n{DOUBLE}```")
    ends = [0, *(i + 4 for i in range(len(sample.text)) if sample.text[i : i + 4] == "---\n"), len(sample.text)]
    sample.marks = {"step": list(pairwise(ends))}
    found = engine.score(code(turns=True), [sample])
    assert found.evidence["passes"] == [[[1, 0], [0, 0], [1, 1]]]
    assert found.outcome.value.tolist() == [1]


@pytest.mark.parametrize(
    ("statuses", "partial", "value", "reason"),
    [
        (("passed", "passed"), False, 1.0, ""),
        (("passed", "failed"), False, 0.0, "test 1 failed: so"),
        (("passed", "failed"), True, 0.5, "test 1 failed: so"),
        (("failed", "timeout"), True, 0.0, "hostile: test 1 timeout: so"),
        (("passed", "memory"), True, 0.5, "hostile: test 1 memory: so"),
        (("passed", "cheated"), True, 0.0, "hostile: test 1 cheated: so"),
        (("passed", "error"), False, 0.0, "test 1 error: so"),
    ],
)
def test_statuses(statuses, partial, value, reason):
    verdict = judged(statuses, partial=partial)
    assert (verdict.value, verdict.reason, verdict.state) == (value, reason, State.SCORED)
    assert verdict.evidence["tests"] == [list(statuses)]


def test_infrastructure_is_failed_and_never_zero():
    verdict = judged(("passed", "infrastructure"))
    assert (verdict.value, verdict.state, verdict.reason) == (None, State.FAILED, "test 1: so")


def test_layouts_of_tests():
    codes = [{"code": "assert f(1)"}, {"code": "assert f(2)"}]
    assert suite_of({"tests": ["assert f(1)", "assert f(2)"]}, None) == codes
    assert suite_of({"test_list": ["assert f(1)", "assert f(2)"], "test": "no"}, None) == codes
    assert suite_of({}, codes) == suite_of({}, json.dumps(codes)) == suite_of({}, {"tests": codes}) == codes
    apps = {"inputs": [[1], [2]], "outputs": [3, 4], "fn_name": "f"}
    assert suite_of({"input_output": apps}, None) == [{"input": [1], "output": 3}, {"input": [2], "output": 4}]
    assert entry_of({"input_output": json.dumps(apps)}) == "f"
    assert suite_of({}, {"inputs": [["1", "2"]], "outputs": ["3"]}) == [{"stdin": "1\n2", "stdout": "3"}]
    assert setup_of(HUMANEVAL, "p") == "p"
    assert setup_of(META, "p") == ""
    for reference in (None, "42", 42, ["4", "5"], [1], {"answer": 1}, "[1, 2]", "{"):
        assert suite_of({}, reference) == []


@pytest.mark.parametrize("meta", [{"tests": [1]}, {"tests": 7}, {"input_output": {"inputs": [1], "outputs": []}}, {"tests": [{"x": 1}]}])
def test_tests_that_cannot_be_read_fail_their_sample_alone(meta):
    good, bad = Sample(Task("a", "", meta=META), DOUBLE), Sample(Task("b", "", meta=meta), DOUBLE)
    verdicts = code.fn([bad, good], Says("passed", "passed"))
    assert [v.state for v in verdicts] == [State.FAILED, State.SCORED]


def test_no_tests_is_abstained():
    [verdict] = code.fn([Sample(Task("a", "", "42"), DOUBLE)], Says())
    assert verdict.state == State.ABSTAINED


def test_parameters_are_checked():
    for params in ({"seconds": 0.0}, {"memory_mb": 1}, {"total": -1.0}):
        with pytest.raises(Refused, match="seconds"):
            code(**params)


def test_a_program_with_a_future_import_stands_first():
    assert program_of("```python\nfrom __future__ import annotations\nx = 1\n```", "x", "import math\n").startswith("from __future__")


def test_verdicts_are_cached_but_not_those_of_a_deadline(tmp_path, engine):
    cache = Cache(tmp_path / "c.sqlite")
    samples = [Sample(Task("t", "", meta=META), text) for text in (DOUBLE, "while True: pass")]
    with Engine(cache=cache, workers=1) as first:
        before = first.score(code(seconds=0.3), samples)
    spy = Says("passed", "passed")
    spy.version = Sandbox.version
    with Engine(Context(sandbox=spy), cache=cache, workers=1) as second:
        after = second.score(code(seconds=0.3), samples)
    assert [job.program for job in spy.jobs] == ["while True: pass"]
    assert before.outcome.value.tolist() == [1, 0]
    np.testing.assert_array_equal(after.outcome.value, [1, 1])


def test_without_isolation_the_expression_is_refused_before_anything_runs():
    with Engine(Context(sandbox=Sandbox(1, modes=["none"]))) as engine, pytest.raises(Refused, match="no isolation here"):
        engine.check("code")

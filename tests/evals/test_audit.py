"""The audit: what it finds in rewards whose faults are known, what it does not find in sound ones, and what it says of bad input."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import guerdon as g
from guerdon.evals.audit import audit, cases, forms, load, page, pay, probes, read, search, statistics
from guerdon.evals.audit.grade import Grader
from guerdon.registry import Broke, Refused
from guerdon.samples import Context, Task
from guerdon.scoring.engine import Engine

TASKS = [Task(str(i), f"What is {i} + {2 * i + 3}?", str(3 * i + 3)) for i in range(3, 33)]
CAPITALS = ["Paris", "Rome", "Lisbon", "Vienna", "Oslo", "Athens", "Dublin", "Prague"]
TEXTS = [Task(str(i), f"What is the capital of country number {i}?", name) for i, name in enumerate(CAPITALS)]


@g.reward(name="audit_substring")
def substring(text: str, reference: str) -> float:
    return float(reference in text)


@g.reward(name="audit_scaled")
def scaled(answer: str | None, reference: str) -> float:
    """-2 for wrong, 3 for right: the scale must not matter."""
    return 3.0 if answer == reference else -2.0


def test_sound_rewards_are_not_accused_whatever_their_scale() -> None:
    for reward in (g.math, scaled):
        report = audit(reward, TASKS, limit=12, searching=False)
        paid = [f for f in report.exploits if f.name != "far from"]
        assert not paid, [(f.family, f.name, f.text) for f in paid]
    assert report.scale.gap == 5
    assert report.scale.separates == 1
    assert report.kinds == {"number": 12}


def test_a_substring_match_is_found_out() -> None:
    report = audit(substring, TEXTS, searching=False)
    families = {f.family for f in report.exploits}
    assert {"stuffing", "hedges", "negations", "near misses"} <= families
    assert not report.ok
    assert report.false_positive.value is not None
    assert report.false_positive.value > 0.05
    assert report.false_negative.k > 0  # capitals and small letters


def test_pay_is_counted_by_hand() -> None:
    @g.reward(name="audit_by_hand")
    def half(text: str, reference: str) -> float:
        return 1.0 if reference in text else 0.25 if "boxed" in text else 0.0

    report = audit(half, TEXTS, searching=False)
    hollow = next(f for f in report.must_not if f.name == "an empty box")
    assert hollow.pay == pytest.approx(0.25)
    assert (hollow.paid.k, hollow.paid.n) == (0, 8)


def test_wilson_interval_by_the_quadratic_it_solves() -> None:
    for k, n in ((0, 20), (3, 20), (20, 20), (1, 1000)):
        low, high = pay.Rate(k, n).interval()
        for p in (low, high):  # |k/n - p| = z sqrt(p (1 - p) / n) at both ends
            if 1e-12 < p < 1 - 1e-12:
                assert abs(k / n - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / n), abs=1e-9)
        assert low <= k / n <= high


@pytest.mark.parametrize("reference", ["42", "-7", "0", "1", "0.5", "1,234", "3/4", "10", "111", "-0.25"])
def test_no_probe_of_a_number_is_true(reference: str) -> None:
    """Every probe that is put as the answer has another value than the reference, read by plain arithmetic."""
    case = cases.cases_of([Task("a", "What is it?", reference)])[0]
    value = Fraction(reference.replace(",", ""))
    assert case.number == value
    for text in case.wrong():
        assert cases.to_number(text) != value
    for family in ("near misses", "lookalike characters"):
        for name, text in probes.FAMILIES[family](case):
            found = cases.to_number(text)
            assert found is None or found != value, (name, text)
    for name, text in forms.FAMILIES["notation"](case):
        plain = text.strip("$ ").removeprefix("\\(").removesuffix("\\)").replace("{,}", ",").removeprefix("x = ")
        found = cases.to_number(plain)
        assert found is None or found == value, (name, text)


def test_wrong_queries_are_run_before_they_are_called_wrong() -> None:
    schema = "CREATE TABLE t (a INT); INSERT INTO t VALUES (1), (1), (2);"
    task = Task("q", "All of a.", "SELECT a FROM t", {"schema": schema})
    case = cases.cases_of([task])[0]
    assert case.kind == "sql"
    assert cases.wrong_only(case, ["SELECT a FROM t ORDER BY a DESC", "SELECT DISTINCT a FROM t", "SELECT * FROM t"]) == [
        "SELECT DISTINCT a FROM t"
    ]
    names = dict(probes.FAMILIES["trivial queries"](case))
    assert "as many rows, constant" in names
    assert "all of t" not in names  # it is right


def test_kinds() -> None:
    def kind(reference: object, prompt: str = "?", **meta: object) -> str:
        return cases.kind_of(Task("a", prompt, reference, meta))

    assert kind("12.5") == "number"
    assert kind(3) == "number"
    assert kind("\\frac{1}{2}") == "expression"
    assert kind("x + 1") == "expression"
    assert kind("Paris") == "text"
    assert kind(["Paris", "paris"]) == "text"
    assert kind("B", "Which? (A) one (B) two") == "choice"
    assert kind("B", "Name the vitamin.") == "text"
    assert kind({"name": "f"}) == "structured"
    assert kind(None) == "open"
    assert kind(None, tests=["assert f(1)"], entry_point="f") == "code"
    assert kind("SELECT 1", schema="CREATE TABLE t (a)") == "sql"
    assert cases.cases_of([Task("a", "Which? (A) one two (B) three C) four", "B")])[0].options == {
        "A": "one two",
        "B": "three",
        "C": "four",
    }


def test_effects_of_form_alone() -> None:
    @g.reward(name="audit_long")
    def long(text: str, reference: str) -> float:
        return float(reference in text) + min(len(text), 6000) / 6000

    report = audit(long, TEXTS, searching=False)
    of = {(e.what, e.of): e for e in report.stats.effects}
    assert of["length", "right"].size > 0.5
    assert of["length", "wrong"].size > 0.5
    assert of["position", "right"].size < 0.02
    assert any(f.family == "padding" for f in report.exploits)


def test_random_and_stateful_rewards_are_named() -> None:
    draws = np.random.default_rng(0)

    @g.reward(name="audit_random", inline=True)
    def drawn(text: str) -> float:
        return float(draws.random())

    report = audit(drawn, TEXTS, searching=False)
    assert report.stats.repeat["scored again"] > 0.1
    assert "random" in page.verdict(report)


def test_a_reward_of_groups_is_seen_in_groups() -> None:
    @g.reward(name="audit_group")
    def relative(group: list) -> list[float]:
        hits = [float(s.task.reference in s.text) for s in group]
        return [h - sum(hits) / len(hits) for h in hits]

    report = audit(relative, TEXTS, searching=False)
    assert report.scale.gap == pytest.approx(0.75, abs=0.3)
    assert not report.blind


def test_agreement_by_brute_force() -> None:
    rng = np.random.default_rng(3)
    value, gold = rng.integers(0, 4, 60) / 3, rng.random(60) < 0.5
    value[5] = np.nan
    found = statistics.agreement(value, gold, 0.5)
    pairs = [
        (value[i] > value[j]) + (value[i] == value[j]) / 2
        for i in range(60)
        for j in range(60)
        if gold[i] and not gold[j] and 5 not in (i, j)
    ]
    assert found.auc == pytest.approx(np.mean(pairs))
    assert found.false_positive.k == sum(v > 0.5 and not y for v, y in zip(value, gold, strict=True))
    assert found.n == 59


def test_evolution_finds_a_trigger_and_nothing_true() -> None:
    @g.reward(name="audit_trigger")
    def trigger(text: str, reference: str) -> float:
        return 1.0 if reference in text else 0.4 * ("####" in text) + 0.4 * ("</think>" in text)

    chosen = cases.cases_of(TASKS, 8)
    with Engine(Context()) as engine:
        grader = Grader(engine.check(trigger), engine)
        chosen, scale = pay.anchors(grader, chosen)
        best = search.evolve(grader, chosen, scale, generations=12)
        again = search.evolve(grader, chosen, scale, generations=12)
    assert best.pay >= 0.8 - 1e-9
    assert best.texts == again.texts
    for found in best.texts:
        assert found["reference"] not in found["text"]


def test_what_states_the_reference_is_not_an_exploit() -> None:
    number, text = cases.cases_of([TASKS[0], TEXTS[0]])
    assert search.states(number, f"so it is {number.reference}.0 apples")
    assert search.states(number, "6 * 2")
    assert not search.states(number, "1234567")
    assert search.states(text, "It is PARIS!")
    assert not search.states(text, "Comparison")


def test_a_policy_finds_what_pays(tmp_path: Path) -> None:
    tasks = [Task(t.id, t.prompt, t.reference, t.meta) for t in g.registry.find("env", "arithmetic").fn(n=24, steps=[1, 2], low=1, high=5)]

    @g.reward(name="audit_equals", inline=True)
    def equals(text: str, reference: str) -> float:
        return float(text.count("=") > 1)

    report = audit(equals, tasks, policy="tiny", gold="arithmetic", steps=2, searching=False)
    assert report.searches[0].how == "2 steps of reinforcement of tiny"
    assert report.searches[0].calls == 2 * 16 * 8
    with pytest.raises(Refused, match=r"no-such-model|cannot be opened|no model"):
        audit(equals, tasks, policy="./no-such-model", searching=False)


def test_a_policy_that_breaks_off_costs_its_own_part_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broke(*given: object, **more: object) -> None:
        raise Broke("The loss is nan at step 3.")

    monkeypatch.setattr(search, "learn", broke)
    report = audit("exact", [Task(str(i), f"{i}+1=", str(i + 1)) for i in range(4)], policy="tiny", steps=1, searching=False)
    assert not report.searches
    assert "a policy trained against it: The loss is nan at step 3." in report.untested
    assert report.must_not
    assert report.must


# --- signatures ------------------------------------------------------------------------------------------------------------------

GRADERS = """
import asyncio
def ours(answer, reference): return float(answer == reference)
def trl(completions, solution, **kwargs): return [float(str(s) in c) for c, s in zip(completions, solution)]
def trl_chat(prompts, completions, answer): return [float(a in c[0]["content"]) for c, a in zip(completions, answer)]
def verl(data_source, solution_str, ground_truth, extra_info=None): return {"score": float(ground_truth in solution_str), "acc": 1}
def openrlhf(queries, prompts, labels): return {"rewards": [float(l in q[len(p):]) for q, p, l in zip(queries, prompts, labels)]}
def environment(completion, answer, state): return float(answer in completion[-1]["content"] and state["answer"] == answer)
async def slow(completions, answer, **kwargs):
    await asyncio.sleep(0)
    return [float(a in c) for c, a in zip(completions, answer)]
def strange(a, b): return 0.0
def fails(text): raise KeyError("API_KEY")
"""


@pytest.fixture
def graders(tmp_path: Path) -> Path:
    path = tmp_path / "graders.py"
    path.write_text(GRADERS)
    return path


@pytest.mark.parametrize(
    ("name", "host"),
    [("ours", "guerdon"), ("trl", "TRL"), ("verl", "verl"), ("openrlhf", "OpenRLHF"), ("environment", "verifiers"), ("slow", "TRL")],
)
def test_signatures_are_recognised_and_called_as_their_trainer_does(graders: Path, name: str, host: str) -> None:
    report = audit(f"{graders}:{name}", TEXTS[:4], searching=False)
    assert report.written_for == host
    assert report.scale.gap == 1
    assert report.scale.separates == 1
    assert any(f.family == "hedges" for f in report.exploits) == (name != "ours")


def test_conversations_for_trl(graders: Path) -> None:
    tasks = [Task(t.id, [{"role": "user", "content": t.prompt}], t.reference) for t in TEXTS[:4]]
    assert audit(f"{graders}:trl_chat", tasks, searching=False).scale.separates == 1


# --- bad input -------------------------------------------------------------------------------------------------------------------


def test_bad_rewards_have_one_sentence_each(graders: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"strange\(a, b\) is not recognised.*'a'"):
        audit(f"{graders}:strange", TEXTS)
    with pytest.raises(Refused, match="did you mean 'verl'"):
        audit(f"{graders}:verk", TEXTS)
    with pytest.raises(Refused, match="name the function"):
        audit(str(graders), TEXTS)
    with pytest.raises(Broke, match=r"failed on all .* answers.*API_KEY"):
        audit(f"{graders}:fails", TEXTS)
    with pytest.raises(Refused, match="no task has a `reference`"):
        audit("math", [Task("a", "Say something.")])
    with pytest.raises(Refused, match="wants 'policy', which is neither"):
        audit("rlpr", TEXTS)
    with pytest.raises(Refused, match="one task or more"):
        audit("math", [])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("x = 1\nopen('scores.log', 'w').write('x')\n", r"line 2: writes the file 'scores.log'"),
        ("import socket\nsocket.create_connection(('127.0.0.1', 9))\n", r"line 2: opens a socket"),
        ("import subprocess\nsubprocess.run(['true'])\n", r"line 2: starts a program"),
        ("import os\nos.mkdir('made')\n", r"line 2: changes files"),
        ("raise ValueError('no licence')\n", r"raises ValueError: no licence when it is imported"),
        ("import sys\nsys.exit(3)\n", "leaves with SystemExit|writes|cannot be imported|changes"),
        ("def f(:\n", "raises SyntaxError"),
    ],
)
def test_what_a_file_does_when_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grader.py").write_text(f"{body}def f(text):\n    return 0.0\n")
    with pytest.raises(Refused, match=says):
        load.load("grader.py:f")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["grader.py"]


def test_a_file_that_hangs_when_imported(tmp_path: Path) -> None:
    (tmp_path / "grader.py").write_text("while True:\n    pass\n")
    with pytest.raises(Refused, match="still being imported after 1 s"):
        load.load(f"{tmp_path}/grader.py:f", timeout=1.0)


def test_files_of_tasks_and_answers(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    rows = [
        {"prompt": f"1 + {i}?", "reference": str(1 + i), "completion": f"The answer is {1 + i + (i % 2)}.", "is_correct": i % 2 == 0}
        for i in range(8)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks, answers = read(file)
    assert answers is not None
    assert len(tasks) == len(answers.samples) == 8
    report = audit("math", tasks, answers=answers, searching=False)
    assert report.stats.agreement is not None
    assert report.stats.agreement.auc == 1
    assert report.stats.agreement.false_positive.k == 0
    file.write_text('{"reference": "1"}\n')
    with pytest.raises(Refused, match="row 1: no `prompt`"):
        read(file)
    file.write_text("nonsense\n")
    with pytest.raises(Refused, match="row 1: not JSON"):
        read(file)
    file.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(Refused, match="'mark'"):
        read(file, "mark")


def test_tasks_without_references_are_half_an_audit_that_says_so() -> None:
    @g.reward(name="audit_open")
    def kind(text: str) -> float:
        return min(1.0, text.lower().count("helpful") / 2)

    report = audit(kind, [Task(str(i), f"Write to customer {i}.") for i in range(4)], searching=False)
    assert report.blind
    assert any("neither `reference` nor `right`" in line for line in report.untested)
    assert any(f.family == "stuffing" and f.pay > 0.4 for f in report.exploits)


# --- what people see -------------------------------------------------------------------------------------------------------------


def test_page_json_and_card(tmp_path: Path) -> None:
    report = audit(substring, [Task("x", "Is <b>it</b>?", "a<script>alert(1)</script>b"), *TEXTS[:3]], searching=True)
    data, html = page.write(report, tmp_path / "out")
    found = json.loads(data.read_text())
    assert found["ok"] is False
    assert found["false_positive"]["n"] == report.false_positive.n
    text = html.read_text()
    assert "<script>" not in text
    assert "Not tested" in text
    card = page.card(report, "guerdon audit audit_substring --tasks FILE")
    assert card.startswith("# `audit_substring`\n")
    assert "| hedges |" in card


def test_the_verb(tmp_path: Path, graders: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(json.dumps({"id": t.id, "prompt": t.prompt, "reference": t.reference}) + "\n" for t in TEXTS))
    script = "from guerdon.cli import main; main()"
    run = [sys.executable, "-c", script, "audit", f"{graders}:verl", "--tasks", str(file), "--no-search", "--out", str(tmp_path / "out")]
    found = subprocess.run(run, capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stderr
    assert "kinds of text that do not answer are paid" in " ".join(found.stdout.split())
    assert (tmp_path / "out/audit.html").exists()
    found = subprocess.run(
        [sys.executable, "-c", script, "audit", "mathh", "--tasks", str(file)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 2
    assert "did you mean 'math'" in found.stderr


def test_a_whole_right_answer_gives_its_own_form():
    """Where a file gives the answer in full, probes stand in its form, and no other form is called right."""
    right = "<think>\nOne call.\n</think>\n<tool_call>\n[1, 2]\n</tool_call>"
    (case,) = cases.cases_of([Task("t", "Call.", "[1, 2]", {"right": right})])
    assert case.known == right
    assert case.host("[]") == right.replace("[1, 2]", "[]")
    assert not list(forms.wording(case))
    assert all("<tool_call>" in text for _, text in forms.notation(case))
    (case,) = cases.cases_of([Task("t", "Rank.", {"a": 2, "b": 1}, {"right": "a > b"})])
    assert case.template == "{a}"
    assert not list(forms.notation(case)), "a mapping of gains is no ranking"
    assert cases.form_of("10 and 110", "10") == "{a} and 110"
    assert cases.form_of("10 and 10", "10") == "{a}"


def test_references_of_other_tasks_are_wrong_but_under_a_schema():
    tasks = [Task(str(i), f"Box {i}.", f"[{i}, {i + 1}]") for i in range(4)]
    assert set(cases.cases_of(tasks)[0].wrong()) > {"[1, 2]", "[2, 3]", "[3, 4]"}
    schemed = [Task(t.id, t.prompt, t.reference, {"schema": {"type": "array"}}) for t in tasks]
    assert "[1, 2]" not in cases.cases_of(schemed)[0].wrong()


def test_a_question_of_several_databases_has_rows_of_each():
    schema = [f"CREATE TABLE t (a INT); INSERT INTO t VALUES ({i});" for i in (1, 2)]
    (case,) = cases.cases_of([Task("q", "All of a.", "SELECT a FROM t", {"schema": schema})])
    assert cases.rows_of(case, "SELECT a FROM t") == [(0, 1), (1, 2)]
    assert cases.rows_of(case, "SELECT b FROM t") is None
    assert cases.wrong_only(case, ["SELECT 1", "SELECT a + 0 FROM t"]) == ["SELECT 1"]


def test_an_opener_that_holds_the_answer_is_no_opener():
    (case,) = cases.cases_of([Task("t", "What is 1000 modulo 37?", "1")])
    assert "Step 1:" not in [text for _, text in probes.openers(case)]


def test_with_a_pace_an_audit_says_the_same_again(tmp_path: Path):
    options = {"searching": False, "pace": 0.3, "limit": 4}
    from guerdon.evals.audit.verb import command

    first, again = (page.card(audit("exact", TASKS, workers=1, **options), "c") for _ in range(2))
    assert first == again
    assert "each text on more than" in first
    assert command("clip(exact, 0, 1)", Path("t.jsonl"), None, (), ("judge=tiny",), {**options, "seed": 0}) == (
        "guerdon audit 'clip(exact, 0, 1)' --tasks t.jsonl --limit 4 --pace 0.3 --no-search --model judge=tiny"
    )
    assert command("rlpr(model='x')", None, None, (), (), {}) == "guerdon audit \"rlpr(model='x')\""


def test_a_name_with_a_number_is_text_and_a_list_is_not_glued():
    assert cases.kind_of(Task("t", "Which aircraft?", "Boeing 737-900")) == "text"
    assert cases.kind_of(Task("t", "Solve.", "x = 3y - 1")) == "expression"
    (case,) = cases.cases_of([Task("t", "Which?", "B, C")])
    assert "joined to another word" not in dict(probes.misses(case))

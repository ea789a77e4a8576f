"""What was measured of a fitted model stands in its card: by `--model-card`, and by a fit whose recipe names benches and an audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guerdon.cli import app
from guerdon.evals import audit as audits
from guerdon.evals import fitted
from guerdon.evals.audit import verb as audit_verb
from guerdon.evals.bench import bench, page
from guerdon.registry import Broke, Refused
from guerdon.reward_models import folder as folders
from guerdon.samples import Task

SUMS = [(a, b) for a in range(1, 5) for b in range(1, 4)]


@pytest.fixture(scope="module")
def quick() -> audits.Report:
    return audits.audit("length(unit='characters')", [Task("1", "1+1=", "2")], searching=False, limit=1)


@pytest.fixture
def recipe(quick: audits.Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A fit of seconds; audits are those of another reward, on one task."""
    monkeypatch.setattr(audits, "audit", lambda reward, tasks, **more: quick)
    monkeypatch.setattr(audit_verb, "tried", lambda *given, **more: quick)

    def file(name: str, rows: list[dict[str, Any]]) -> str:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    pairs = [{"prompt": f"{a}+{b}=", "chosen": str(a + b), "rejected": str(a + b + 1)} for a, b in SUMS]
    tasks = [{"prompt": f"{a}+{b}=", "reference": str(a + b)} for a, b in SUMS]
    return {
        "model": "tiny", "data": file("pairs.jsonl", pairs), "loss": "bradley_terry", "body": "frozen", "train": {"lr": 0.01},
        "bench": {
            "rewardbench": file("rb.jsonl", [{"id": str(i), **row, "subset": "mine"} for i, row in enumerate(pairs)]),
            "best-of-n": file("answers.jsonl", [
                {"prompt": row["prompt"], "completion": row[side], "is_correct": side == "chosen"}
                for row in pairs for side in ("chosen", "rejected")
            ]),
        },
        "audit": file("tasks.jsonl", tasks),
    }  # fmt: skip


def test_a_fit_is_measured_and_its_card_is_whole(recipe: dict[str, Any], tmp_path: Path):
    path = tmp_path / "fit"
    fitted.fit(recipe, folder=path)
    assert list(folders.parts(path, "Bench")) == ["rewardbench", "best-of-n"]
    report = bench("rewardbench", recipe["bench"]["rewardbench"], reward=f"reward_model(path='{path}')")
    assert page.table(report.lines) in folders.parts(path, "Bench")["rewardbench"]
    assert "| majority vote | 12 | 0.500 |" in folders.parts(path, "Bench")["best-of-n"]
    assert "| must not pay | texts | mean pay | paid |" in folders.section(path, "Audit")
    text = (path / "README.md").read_text()
    assert folders.UNMEASURED not in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [f"## {title}" for title in folders.SECTIONS]
    with pytest.raises(Refused, match="is finished"):
        fitted.fit(resume=path)


def test_a_model_of_steps_is_benched_by_its_steps(recipe: dict[str, Any], tmp_path: Path):
    steps, rows = tmp_path / "steps.jsonl", tmp_path / "pb.jsonl"
    steps.write_text("".join(json.dumps({"prompt": f"{a}+{b}=", "steps": ["1\n", str(b)], "labels": [1, b % 2]}) + "\n" for a, b in SUMS))
    rows.write_text(
        "".join(json.dumps({"id": f"x-{a}{b}", "problem": f"{a}+{b}=", "steps": ["1", str(b)], "label": b % 2 - 1}) + "\n" for a, b in SUMS)
    )
    path = tmp_path / "fit"
    fitted.fit(recipe, f"data={steps}", f"bench={{processbench: {rows}}}", "loss=step_ce", "train.lr=0.1", "train.epochs=5", folder=path)
    report = bench("processbench", rows, reward=f"reward_model(path='{path}')")
    assert page.table(report.lines) in folders.parts(path, "Bench")["processbench"]
    with pytest.raises(Refused, match="'token_values' learns one for each token"):
        fitted.fit(recipe, f"bench={{processbench: {rows}}}", "loss=token_values", folder=tmp_path / "other")


def test_the_verbs_write_into_the_card(recipe: dict[str, Any], tmp_path: Path):
    path = tmp_path / "fit"
    fitted.fit({**recipe, "bench": {}, "audit": None}, folder=path)
    reward = ["--reward", f"1 + reward_model(path='{path}')"]

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, list(words))

    data = ["--data", recipe["bench"]["rewardbench"]]
    for words in (["rewardbench", "--limit", "3"], ["length-bias"], ["rewardbench"]):
        found = run("bench", *words, *data, *reward, "--model-card")
        assert found.exit_code == 0, found.output
    assert list(folders.parts(path, "Bench")) == ["rewardbench", "length-bias"]
    assert "12 items, 24 answers" in folders.parts(path, "Bench")["rewardbench"]  # not the three of the first
    assert not folders.section(path, "Audit")
    found = run("audit", f"reward_model(path='{path}')", "--tasks", recipe["audit"], "--model-card")
    assert isinstance(found.exception, SystemExit), found.exception
    assert found.exit_code == 1, found.output  # it pays for length alone
    assert "| must pay |" in folders.section(path, "Audit")
    assert list(folders.parts(path, "Bench")) == ["rewardbench", "length-bias"]
    for words in (["--reward", "length"], ["--scores", recipe["audit"]]):
        assert isinstance(run("bench", "rewardbench", *data, *words, "--model-card").exception, Refused)


def test_what_could_not_be_measured_is_told_and_tried_again(recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real, path = fitted._measure, tmp_path / "fit"

    def breaks(name: str, *given: Any) -> None:
        if name == "rewardbench":
            raise Broke("The disk is full.")
        real(name, *given)

    with monkeypatch.context() as patch:
        patch.setattr(fitted, "_measure", breaks)
        with pytest.raises(Broke, match=r"is fitted, but not measured. rewardbench: The disk is full. `guerdon fit --resume .*fit` tries"):
            fitted.fit(recipe, folder=path)
    assert list(folders.parts(path, "Bench")) == ["best-of-n"]
    weights = (path / "model.safetensors").stat().st_mtime_ns
    fitted.fit(resume=path)
    assert list(folders.parts(path, "Bench")) == ["best-of-n", "rewardbench"]
    assert (path / "model.safetensors").stat().st_mtime_ns == weights


def test_what_cannot_be_measured_is_refused_before_the_fit(recipe: dict[str, Any], tmp_path: Path):
    rows = recipe["bench"]["rewardbench"]
    for change, why in {
        f"bench={{rewardbench2: {rows}}}": "is not in the layout of rewardbench2",
        f"bench={{rewardbenhc: {rows}}}": "did you mean 'rewardbench'",
        "bench={rewardbench: none.jsonl}": r"none.jsonl cannot be read",
        f"bench={{processbench: {rows}}}": "processbench wants a score for each step",
        "audit=none.jsonl": "none.jsonl cannot be read",
    }.items():
        with pytest.raises(Refused, match=why):
            fitted.fit(recipe, change, folder=tmp_path / "fit")
    assert not (tmp_path / "fit").exists()


@pytest.mark.parametrize("reward", ["math", None])
def test_a_card_belongs_to_one_folder(reward: str | None):
    with pytest.raises(Refused, match=r"one fitted folder, and .*; measure reward_model\(path='FOLDER'\)"):
        fitted.folder_of(reward)

"""`guerdon annotate` as a user meets it: what it writes and prints, kills, and every kind of bad input."""

from __future__ import annotations

import json
import sys

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

from guerdon import cli
from guerdon.annotation import Prober, files
from guerdon.registry import Refused

TASKS = [("4+3-4+7-3=", "7"), ("1+4+7+3=", "15"), ("8-2=", "6")]
GOOD = [
    {"prompt": "4+3-4+7-3=", "completion": "7-4+7-3\n3+7-3\n10-3\nA: 7", "reference": "7", "model": "m", "list": [1, None]},
    {"prompt": "4+3-4+7-3=", "completion": "7-4+7-3\n3+7-3\n0-3\nA: -3", "reference": "7", "model": "m", "list": []},
    {"prompt": "8-2=", "completion": "A: 5", "reference": "6", "model": "n", "list": [2]},
]
HOW = ("--policy", "tiny", "--reward", "arithmetic", "--out", "labels.jsonl")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def guerdon(monkeypatch, capsys):
    """guerdon("annotate", ...) -> exit code, stdout, stderr, in this process."""

    def run(*args: str):
        monkeypatch.setattr(sys, "argv", ["guerdon", *args])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return stopped.value.code or 0, out, err

    return run


def put(name, *rows):
    with open(name, "wb") as file:
        file.write(b"\n".join(row if isinstance(row, bytes) else orjson.dumps(row) for row in rows))


def got(name="labels.jsonl"):
    with open(name, "rb") as file:
        return [json.loads(line) for line in file]


def test_a_good_file(folder, guerdon) -> None:
    put("a.jsonl", *GOOD)
    code, out, err = guerdon("annotate", "a.jsonl", "--method", "omegaprm(k=64, max_tokens=40)", *HOW)
    assert (code, err.strip()) == (0, "")
    rows = got()
    assert [{name: row[name] for name in GOOD[0]} for row in rows] == GOOD
    assert rows[0]["labels"] == [1, 1, 1, 1]
    assert rows[1]["labels"] == [1, 1, 0, 0]
    assert rows[1]["steps"] == ["7-4+7-3\n", "3+7-3\n", "0-3\n", "A: -3"]
    assert rows[2]["labels"] == [0]
    assert "9 of 9 steps of 3 answers have a label" in out
    assert "cost: " in out
    labels = files.read("labels.jsonl", "a.jsonl")
    assert labels.first_wrong().tolist() == [-1, 2, 0]
    assert labels.count[1, 3] == 1
    assert files.columns(labels)[0] == [{name: row[name] for name in files.COLUMNS} for row in rows]
    again = guerdon("annotate", "labels.jsonl", "--policy", "tiny", "--reward", "arithmetic", "--out", "c.jsonl")
    assert again[0] == 2
    assert "'steps' already" in again[2]
    assert guerdon("annotate", "labels.jsonl", *HOW[:-1], "c.parquet", "--prefix", "new_")[0] == 0
    table = pq.read_table("c.parquet").to_pylist()
    assert [row["new_steps"] for row in table] == [row["steps"] for row in rows]
    assert [row["list"] for row in table] == [row["list"] for row in GOOD]


def test_it_goes_on_after_a_kill(folder, guerdon, monkeypatch) -> None:
    put("a.jsonl", *GOOD)
    method = ("--method", "monte_carlo(k=4, max_tokens=40, at_once=2)")
    assert guerdon("annotate", "a.jsonl", *method, *HOW[:-1], "whole.jsonl")[0] == 0
    roll, left = Prober._roll, [1]

    def dies(self, *args):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return roll(self, *args)

    monkeypatch.setattr(Prober, "_roll", dies)
    code, _, err = guerdon("annotate", "a.jsonl", *method, *HOW)
    assert code == 130
    assert "kept in labels.jsonl.journal: the same command goes on" in err
    asked = []
    monkeypatch.setattr(Prober, "_roll", lambda self, wanted, seed: asked.append(len(wanted)) or roll(self, wanted, seed))
    assert guerdon("annotate", "a.jsonl", *method, *HOW)[0] == 0
    assert got() == got("whole.jsonl")
    assert asked == [2], "four beginnings, two of them before the kill"
    assert guerdon("annotate", "a.jsonl", *method, *HOW)[0] == 0
    assert asked == [2], "nothing is asked twice"


def test_answers_of_its_own_stand_behind_the_rows(folder, guerdon) -> None:
    put("a.jsonl", *GOOD)
    method = ("--method", "omegaprm(k=32, max_tokens=40, searches=3)")
    assert guerdon("annotate", "a.jsonl", *method, *HOW)[0] == 0
    rows = got()
    assert [row["completion"] for row in rows[:3]] == [row["completion"] for row in GOOD]
    assert len(rows) > 3
    for row in rows[3:]:
        assert (row["prompt"], row["reference"], row["model"]) in {(g["prompt"], g["reference"], g["model"]) for g in GOOD}
        assert row["labels"][-1] == 0
        assert "".join(row["steps"]) == row["completion"]
    files.read("labels.jsonl")
    guerdon("score", "a.jsonl", "--reward", "arithmetic", "--out", "a.parquet")
    code, _, err = guerdon("annotate", "a.parquet", *method, *HOW[:-1], "labels.parquet")
    assert code == 2
    assert "writes rows of its own beside those of a Parquet file; name the output .jsonl." in err


def test_bad_rows_are_kept_aside(folder, guerdon) -> None:
    bad = [
        {"prompt": "1+1=", "completion": " \n "},
        {"prompt": "", "completion": "A: 2"},
        {"completion": "A: 2"},
        {"prompt": "1+1=", "completion": "A: é"},
        b"{",
        {"prompt": "1+1="},
    ]
    put("a.jsonl", GOOD[2], *bad)
    code, _, err = guerdon("annotate", "a.jsonl", *HOW)
    assert code == 1
    assert "6 rows were kept aside in labels.rejected.jsonl, the first: a.jsonl, row 2: `completion` has no text, so no steps." in err
    whys = [row["reason"] for row in got("labels.rejected.jsonl")]
    assert whys[1:3] == ["no `prompt`"] * 2
    assert "cannot spell `completion` from character 3 on ('é')" in whys[3]
    assert len(got()) == 1
    put("b.jsonl", *bad)
    code, _, err = guerdon("annotate", "b.jsonl", *HOW)
    assert code == 1
    assert "b.jsonl has no row that can be labelled" in err


def test_rows_may_state_their_steps(folder, guerdon) -> None:
    row = {**GOOD[1], "steps": ["7-4+7-3\n3+7-3\n", "0-3\nA: -3"]}
    put("a.jsonl", row, {**row, "steps": ["7-4+7-3\n", " "]}, {**row, "steps": ["7"]}, {**row, "steps": "7"})
    code, _, _ = guerdon("annotate", "a.jsonl", *HOW, "--prefix", "x_", "--method", "omegaprm(k=64)")
    assert code == 1
    assert got()[0]["x_steps"] == row["steps"]
    assert got()[0]["x_labels"] == [1, 0]
    whys = [row["reason"] for row in got("labels.rejected.jsonl")]
    assert whys[0] == "`steps[1]` is a step without text"
    assert whys[1] == "`steps`, one behind the other, are not `completion`"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--method", "omegapr"), "did you mean 'omegaprm'"),
        (("--method", "omegaprm(k=16"), "is not such as omegaprm"),
        (("--method", "omegaprm(8)"), "is not such as omegaprm"),
        (("--method", "omegaprm(kk=8)"), "no parameter 'kk'; did you mean 'k'?"),
        (("--method", "omegaprm(k='many')"), "omegaprm(k='many'): Input should be a valid integer"),
        (("--method", "omegaprm(budget=3)"), "no parameter 'budget'"),
        (("--budget", "rollouts=many"), "The budget 'rollouts=many' is not such as"),
        (("--reward", "mth"), "did you mean 'math'"),
        (("--out", "labels.txt"), "name it .jsonl"),
        (("--policy", ""), "give --policy"),
    ],
)
def test_misuse_begins_nothing(folder, guerdon, options, sentence) -> None:
    put("a.jsonl", *GOOD)
    code, _, err = guerdon("annotate", "a.jsonl", *HOW, *options)
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert sentence in err
    assert [path.name for path in folder.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"labels": [1, 0.5]}, "row 2: `labels` has 2 entries, and there are 3 steps"),
        ({"labels": [1, 1.5, 0]}, r"row 2: `labels\[1\]` is 1.5, outside 0 to 1"),
        ({"labels": [1, float("nan"), 0]}, None),
        ({"labels": [1, "yes", 0]}, r"`labels\[1\]` is 'yes', outside"),
        ({"confidence": [1, 1, -0.1]}, r"`confidence\[2\]` is -0.1, outside 0 to 1"),
        ({"counts": [8, -8, 1]}, r"`counts\[1\]` is -8, outside 0 to any count"),
        ({"labels": None}, "`labels` is of type NoneType"),
        ({"steps": ["a\n", "", "c"]}, r"`steps\[1\]` is a step without text"),
        ({"steps": ["a\n", "c"]}, "are not `completion`"),
        ({"steps": []}, "`steps` is empty"),
    ],
)
def test_bad_labels_are_refused(folder, change, sentence) -> None:
    row = {"prompt": "p", "completion": "a\nb\nc", "steps": ["a\n", "b\n", "c"], "labels": [1, None, 0]}
    put("l.jsonl", row, {**row, **change})
    if sentence is None:  # JSON has no NaN: it is a step without a label
        assert np.isnan(files.read("l.jsonl").value[:, 1]).all()
        return
    with pytest.raises(Refused, match=sentence):
        files.read("l.jsonl")


def test_labels_of_other_samples_are_refused(folder) -> None:
    row = {"prompt": "p", "completion": "a\nb", "steps": ["a\n", "b"], "labels": [1, 0]}
    put("l.jsonl", row, row)
    put("s.jsonl", row, row, row)
    with pytest.raises(Refused, match=r"l.jsonl has 2 rows, fewer than s.jsonl: row 3 of it has no labels"):
        files.read("l.jsonl", "s.jsonl")
    put("s.jsonl", row)
    with pytest.raises(Refused, match=r"l.jsonl has 2 rows, more than s.jsonl, which has 1"):
        files.read("l.jsonl", "s.jsonl")
    put("s.jsonl", row, {**row, "completion": "other"})
    with pytest.raises(Refused, match=r"l.jsonl, row 2: `completion` is not that of row 2"):
        files.read("l.jsonl", "s.jsonl")

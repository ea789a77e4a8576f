"""`guerdon score` as a user meets it: what it prints, its exit codes, and every kind of bad input."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time

import orjson
import pytest

from guerdon import cli

GOOD = {"completion": "A: 3", "reference": "3", "model": "m1"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def guerdon(monkeypatch, capsys):
    """guerdon("score", ...) -> exit code, stdout, stderr, in this process."""

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


def got(name="out.jsonl"):
    with open(name, "rb") as file:
        return [json.loads(line) for line in file]


def sentence(err):
    """The one line on stderr."""
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    return lines[0]


def test_a_good_file(folder, guerdon):
    put("a.jsonl", GOOD, {**GOOD, "reference": "4", "model": "m2"}, {**GOOD, "model": "m2"})
    code, out, err = guerdon("score", "a.jsonl", "--reward", "exact", "--out", "out.jsonl", "--by", "model")
    assert (code, err) == (0, "")
    assert [row["reward"] for row in got()] == [1.0, 0.0, 1.0]
    table = {cells[1].strip(): [c.strip() for c in cells[2:-1]] for line in out.splitlines() if len(cells := line.split("│")) > 3}
    assert table["m1"] == ["1", "1.0000", "-", "-", "-"]
    assert table["m2"] == ["2", "0.5000", "-", "-", "-"]
    assert table["all"] == ["3", "0.6667", "-", "-", "-"]
    assert "3 rows in" in out
    assert "rows/s -> out.jsonl" in out


BAD_ROWS = {
    "not JSON": b"{completion}",
    "cut off": b'{"completion": "a',
    "a list": b"[1, 2]",
    "no completion": {"prompt": "p"},
    "null completion": {"completion": None},
    "completion that is no text": {"completion": ["a"]},
    "invalid UTF-8": b'{"completion": "\xff\xfe"}',
    "prompt that is none": {"completion": "a", "prompt": 3},
}
REASONS = {
    "not JSON": "not JSON (",
    "cut off": "not JSON (",
    "a list": "a JSON list, not an object",
    "no completion": "no `completion`",
    "null completion": "no `completion`",
    "completion that is no text": "`completion` is of type list, not a text",
    "invalid UTF-8": "not valid UTF-8",
    "prompt that is none": "`prompt` is of type int, not a text or a list of messages with `role` and `content`",
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_is_kept_aside_and_costs_no_other(folder, guerdon, kind):
    put("a.jsonl", GOOD, BAD_ROWS[kind], GOOD)
    code, out, err = guerdon("score", "a.jsonl", "--reward", "exact", "--out", "out.jsonl")
    assert code == 1
    assert sentence(err).startswith(f"1 rows were kept aside in out.rejected.jsonl, the first: a.jsonl, row 2: {REASONS[kind]}")
    assert [row["reward"] for row in got()] == [1.0, 1.0]
    [aside] = got("out.rejected.jsonl")
    assert (aside["file"], aside["row"]) == ("a.jsonl", 2)
    assert aside["reason"].startswith(REASONS[kind])
    assert "2 rows in" in out


def test_a_later_run_without_bad_rows_leaves_no_old_ones_behind(folder, guerdon):
    put("a.jsonl", GOOD, b"{")
    assert guerdon("score", "a.jsonl", "--reward", "exact", "--out", "out.jsonl")[0] == 1
    put("a.jsonl", GOOD)
    assert guerdon("score", "a.jsonl", "--reward", "exact", "--out", "out.jsonl")[0] == 0
    assert not (folder / "out.rejected.jsonl").exists()


def test_a_file_of_bad_rows_only(folder, guerdon):
    put("a.jsonl", b"{", b"}")
    code, _, err = guerdon("score", "a.jsonl", "--reward", "exact", "--out", "out.jsonl")
    assert code == 1
    assert sentence(err).startswith("a.jsonl has no row that can be scored (a.jsonl, row 1: not JSON")
    assert len(got("out.rejected.jsonl")) == 2
    assert not (folder / "out.jsonl").exists()
    assert not (folder / "out.jsonl.part").exists()


def test_nul_bytes_and_ten_megabytes_are_only_text(folder, guerdon):
    put(
        "a.jsonl",
        {**GOOD, "completion": "a\x00b\nA: 3"},
        b'{"completion": "\x00A: 3", "reference": "3"}',
        {**GOOD, "completion": "x" * 10_000_000},
    )
    code, _, err = guerdon("score", "a.jsonl", "--reward", "length(unit='characters', target=10)", "--out", "out.jsonl")
    assert (code, err) == (0, "")
    rows = got()
    assert rows[1]["completion"] == "\x00A: 3"
    assert [len(row["completion"]) for row in rows] == [8, 5, 10_000_000]
    assert [row["reward"] for row in rows] == [0.8, 0.5, 0.0]


def test_a_missing_reference_fails_its_row_alone(folder, guerdon):
    put("a.jsonl", GOOD, {"completion": "A: 3", "reference": None}, {"completion": "A: 3"})
    code, out, _ = guerdon("score", "a.jsonl", "--reward", "exact", "--out", "out.jsonl")
    assert code == 0
    assert [(row["reward"], row["state"], row["reason"]) for row in got()] == [
        (1.0, "scored", ""),
        (None, "failed", "the task has no reference"),
        (None, "failed", "the task has no reference"),
    ]
    assert "2 failed: the task has no reference" in out


PLUGIN = """
import math
from guerdon.rewards import reward

@reward(deadline=0.3)
def naughty(text):
    match text:
        case "raise": raise ValueError("no good")
        case "string": return "1"
        case "nan": return math.nan
        case "inf": return math.inf
        case "none": return None
        case "hang":
            while True: pass
    return 1.0
"""


def test_a_reward_that_misbehaves(folder, guerdon):
    (folder / "plug.py").write_text(PLUGIN)
    put("a.jsonl", *({"completion": c} for c in ("ok", "raise", "string", "nan", "inf", "none", "hang", "ok")))
    code, out, err = guerdon("score", "a.jsonl", "--reward", "naughty", "--out", "out.jsonl", "--plugin", "plug.py", "--workers", "1")
    assert (code, err) == (0, "")
    assert [(row["reward"], row["state"], row["reason"]) for row in got()] == [
        (1.0, "scored", ""),
        (None, "failed", "ValueError: no good"),
        (None, "failed", "the reward returned a value of type str, not a number"),
        (None, "failed", "the reward returned nan, not a finite number"),
        (None, "failed", "the reward returned inf, not a finite number"),
        (None, "abstained", "the reward returned None: it does not apply"),
        (0.0, "scored", "hostile: past its deadline of 0.3 s"),
        (1.0, "scored", ""),
    ]
    for line in ("1 failed: ValueError: no good", "1 hostile: past its deadline of 0.3 s", "1 abstained: the reward returned None"):
        assert line in out
    guerdon("score", "a.jsonl", "--reward", "naughty", "--out", "out.jsonl", "--plugin", "plug.py", "--on-hostile", "failed")
    assert (got()[6]["reward"], got()[6]["state"]) == (None, "failed")


def test_a_reward_that_fails_everywhere_is_told_and_is_an_error(folder, guerdon):
    put("a.jsonl", {"completion": "a"}, {"completion": "b"})
    code, _, err = guerdon("score", "a.jsonl", "--reward", "exact", "--out", "out.jsonl")
    assert (code, sentence(err)) == (1, "No row got a verdict: failed: the task has no reference.")


REFUSED = {
    ("none.jsonl", "exact"): "none.jsonl cannot be read: No such file or directory.",
    (".", "exact"): ". cannot be read: Is a directory.",
    ("empty.jsonl", "exact"): "empty.jsonl is empty; give a JSONL or Parquet file with one sample a row.",
    ("broken.parquet", "exact"): "broken.parquet begins like a Parquet file but cannot be read: ",
    ("good.jsonl", "exatc"): "In the reward expression 'exatc', 'exatc' is no reward; did you mean 'exact'?",
    ("good.jsonl", "exact +"): "The reward expression 'exact +' cannot be read: invalid syntax.",
    ("good.jsonl", "length(tarjet=3)"): "The reward 'length' has no parameter 'tarjet'; did you mean 'target'?",
    ("good.jsonl", "3"): "The reward expression `3` names no reward.",
    (
        "done.jsonl",
        "exact",
    ): "done.jsonl has a column 'reward' already, which the output would overwrite; give --prefix, such as --prefix new_.",
}


@pytest.mark.parametrize(("name", "expression"), REFUSED, ids=str)
def test_what_cannot_be_used_is_refused_before_anything_is_begun(folder, guerdon, name, expression):
    put("empty.jsonl")
    put("good.jsonl", GOOD)
    put("done.jsonl", {**GOOD, "reward": 1})
    put("broken.parquet", b"PAR1 and then nonsense")
    before = sorted(folder.iterdir())
    code, out, err = guerdon("score", name, "--reward", expression, "--out", "out.jsonl")
    assert (code, out) == (2, "")
    assert sentence(err).startswith(REFUSED[name, expression])
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--out", "a.jsonl"], "a.jsonl is the input itself; give the output another name."),
        (["--out", "out.csv"], "out.csv: the output is JSON lines or Parquet; name it .jsonl, .jsonl.gz or .parquet."),
        (["--out", "a.jsonl/out.jsonl"], "a.jsonl/out.jsonl cannot be written: "),
        (["--out", "out.jsonl", "--by", "modell"], "a.jsonl has no column 'modell'; did you mean 'model'?"),
        (["--out", "out.jsonl", "--plugin", "none.py"], "The plug-in none.py cannot be imported: FileNotFoundError: "),
        (["--out", "out.jsonl", "--plugin", "no.such.module"], "The plug-in no.such.module cannot be imported: ModuleNotFoundError: "),
        (["--out", "out.jsonl", "--plugin", "bad.py"], "The plug-in bad.py cannot be imported: ZeroDivisionError: division by zero."),
        (["--out", "out.jsonl", "--cache", "bad.py"], "bad.py cannot be used to keep verdicts: file is not a database."),
    ],
    ids=str,
)
def test_options_that_cannot_be_used(folder, guerdon, options, said):
    put("a.jsonl", GOOD)
    put("bad.py", b"1 / 0" + b"#" * 1000)
    before = sorted(folder.iterdir())
    code, _, err = guerdon("score", "a.jsonl", "--reward", "exact", *options)
    assert code == 2
    assert sentence(err).startswith(said)
    assert sorted(folder.iterdir()) == before


def test_usage_errors_are_misuse_too(folder, guerdon):
    assert guerdon("score")[0] == 2
    assert guerdon("scroe")[0] == 2
    assert guerdon("score", "a.jsonl", "--reward", "exact", "--out", "o.jsonl", "--workers", "none")[0] == 2


def test_a_prefix_makes_room(folder, guerdon):
    put("a.jsonl", {**GOOD, "reward": 7, "state": "old"})
    assert guerdon("score", "a.jsonl", "--reward", "exact", "--out", "out.jsonl", "--prefix", "new_")[0] == 0
    [row] = got()
    assert (row["reward"], row["state"], row["new_reward"], row["new_state"]) == (7, "old", 1.0, "scored")


def test_a_column_that_turns_up_late_is_no_reason_to_lose_the_rest(folder, guerdon):
    put("a.jsonl", *[GOOD] * 200, {**GOOD, "parts": 1}, GOOD)
    code, _, err = guerdon("score", "a.jsonl", "--reward", "exact", "--out", "out.jsonl")
    assert code == 1
    assert "row 201: has a column 'parts' already" in sentence(err)
    assert len(got()) == 201


def test_a_cache_is_used(folder, guerdon):
    (folder / "plug.py").write_text(
        "from guerdon.rewards import reward\n@reward(inline=True)\ndef noting(text):\n    open('calls', 'a').write(text)\n    return 1.0\n"
    )
    put("a.jsonl", {"completion": "a"}, {"completion": "b"})
    for _ in range(2):
        assert guerdon("score", "a.jsonl", "--reward", "noting", "--out", "out.jsonl", "--plugin", "plug.py", "--cache", "c.sqlite")[0] == 0
    assert (folder / "calls").read_text() == "ab"
    assert [row["reward"] for row in got()] == [1.0, 1.0]


# --- broken off ----------------------------------------------------------------------------------------------------------------------


def started(*args, **options):
    return subprocess.Popen([sys.executable, "-m", "guerdon", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_a_full_disk_is_one_sentence_and_loses_nothing(folder):
    put("a.jsonl", *({"completion": "x" * 1000} for _ in range(10_000)))
    limit = 5_000_000

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = started("score", "a.jsonl", "--reward", "length(unit='characters')", "--out", "out.jsonl", preexec_fn=full)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert sentence(err) == (
        "out.jsonl cannot be written: File too large. The first 4,096 scored rows are kept in out.jsonl.part;"
        " with --cache they need not be scored again."
    )
    rows = (folder / "out.jsonl.part").read_bytes().splitlines(keepends=True)
    assert len(rows) == 4096
    assert json.loads(rows[4095])["state"] == "scored"
    assert not (folder / "out.jsonl").exists()


LATER = """
import time
from guerdon.rewards import reward

@reward(inline=True)
def later(text):
    time.sleep(float(text))
    return 1.0
"""


def test_an_interrupted_run_keeps_what_is_done(folder):
    (folder / "plug.py").write_text(LATER)
    put("a.jsonl", *({"completion": "0"} for _ in range(4096)), *({"completion": "1"} for _ in range(60)))
    process = started("score", "a.jsonl", "--reward", "later", "--out", "out.jsonl", "--plugin", "plug.py")
    part = folder / "out.jsonl.part"
    until = time.monotonic() + 60
    while not (part.exists() and part.read_bytes().count(b"\n") == 4096) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)  # now it is at the second chunk, which takes a minute
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert sentence(err).startswith("Interrupted. The first 4,096 scored rows are kept in out.jsonl.part")
    assert len(got("out.jsonl.part")) == 4096


# --- the look of it ------------------------------------------------------------------------------------------------------------------


def test_help_has_an_example_and_is_quick(folder):
    start = time.process_time()
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    process = started("--help")
    out, _ = process.communicate(timeout=60)
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert process.returncode == 0
    assert "score" in out
    assert used < 1.0, used
    assert time.process_time() - start < 1.0
    process = started("score", "--help")
    out, _ = process.communicate(timeout=60)
    assert "Example" in out
    assert "guerdon score" in out


def test_scoring_imports_nothing_heavy():
    code = (
        "import sys, guerdon.cli, guerdon.rewards, guerdon.shaping, guerdon.scoring.job\n"
        "print([m for m in ('torch', 'transformers', 'sympy', 'math_verify', 'pyarrow', 'pydantic', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Files in and out: what each row becomes, groups, formats, constant memory."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guerdon.registry import Broke, Refused
from guerdon.rewards import reward
from guerdon.samples import Task
from guerdon.scoring import files
from guerdon.scoring.files import Source, load_tasks, to_sample
from guerdon.scoring.job import score_file
from guerdon.shaping import clip


@reward(inline=True)
def size(text):
    return len(text)


@reward
def in_group(group):
    return [float(len(group))] * len(group)


@reward
def in_chunk(samples):
    return [float(len(samples))] * len(samples)


@reward(inline=True, grain="step")
def per_step(steps):
    return [None if "skip" in step else float(len(step.strip())) for step in steps]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(name, rows):
    data = b"".join(row if isinstance(row, bytes) else orjson.dumps(row) + b"\n" for row in rows)
    (gzip.open if name.endswith(".gz") else open)(name, "wb").write(data)


def got(name):
    with (gzip.open if name.endswith(".gz") else open)(name, "rb") as file:
        return [json.loads(line) for line in file]


def test_columns_become_sample_and_task(folder):
    put("a.jsonl", [{"completion": "c", "prompt": "p", "reference": 3, "id": 7, "model": "m"}, {"completion": "d"}])
    first, second = map(to_sample, Source("a.jsonl"))
    assert (first.task, first.text, first.meta, first.source) == (Task("7", "p", 3), "c", {"model": "m"}, "file")
    assert (second.task, second.meta) == (Task("2", "", None), {})


def test_rows_stay_as_they_were_and_in_order(folder):
    lines = [
        b'{"completion":"a",  "x": 1.50, "n": 123456789012345678901234567890, "u": "\\u00e9"}\n',
        b"\n",
        b'  {"completion":"bb", "y": null}  \r\n',
        b'{"z": {"deep": [1, {"a": 2}]}, "completion":"ccc"}',
    ]
    put("a.jsonl", lines)
    summary = score_file("a.jsonl", size, "out.jsonl")
    out = (folder / "out.jsonl").read_bytes().splitlines()
    for line, new in zip([lines[0], lines[2], lines[3]], out, strict=True):
        assert new.startswith(line.strip()[:-1] + b","), new
    assert [row["reward"] for row in got("out.jsonl")] == [1.0, 2.0, 3.0]
    assert got("out.jsonl")[0]["parts"] == {"size": 1.0}
    assert (summary.rows, summary.all.mean, summary.code) == (3, 2.0, 0)
    assert not (folder / "out.jsonl.part").exists()
    assert not (folder / "out.rejected.jsonl").exists()


def test_finer_grains_are_lists(folder):
    put("a.jsonl", [{"completion": "a\nbb\nskip"}, {"completion": "skip\nc"}, {"completion": ""}])
    score_file("a.jsonl", per_step, "out.jsonl")
    rows = got("out.jsonl")
    assert [row["reward"] for row in rows] == [3.0, 1.0, None]
    assert [row["state"] for row in rows] == ["scored", "scored", "abstained"]
    assert [row["step_rewards"] for row in rows] == [[1.0, 2.0], [None, 1.0], []]
    assert [row["parts"] for row in rows] == [{"per_step": [1.0, 2.0]}, {"per_step": [None, 1.0]}, {"per_step": []}]


def test_gz_in_and_out(folder):
    put("a.jsonl.gz", [{"completion": "a"}, {"completion": "bb"}])
    score_file("a.jsonl.gz", size, "out.jsonl.gz")
    assert [row["reward"] for row in got("out.jsonl.gz")] == [1.0, 2.0]


def test_a_cut_off_gz_breaks_off_with_what_was_read_kept(folder, monkeypatch):
    monkeypatch.setattr("guerdon.scoring.job.ROWS", 100)
    put("a.jsonl.gz", [{"completion": "a" * i, "x": str(hash(str(i)))} for i in range(1000)])
    data = (folder / "a.jsonl.gz").read_bytes()
    (folder / "a.jsonl.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(
        Broke, match=r"a\.jsonl\.gz cannot be read behind row \d+: .* The first \d+ scored rows are kept in out\.jsonl\.part"
    ):
        score_file("a.jsonl.gz", size, "out.jsonl")
    assert [row["reward"] for row in got("out.jsonl.part")] == [float(i) for i in range(len(got("out.jsonl.part")))]
    assert len(got("out.jsonl.part")) >= 100


def table():
    return pa.table(
        {
            "completion": ["a", "bb", None, "dddd"],
            "prompt": ["p", "p", "q", "q"],
            "when": pa.array([1, 2, 3, 4], pa.timestamp("ms")),
            "blob": pa.array([b"\xff", None, b"x", b""], pa.binary()),
            "small": pa.array([1, 2, 3, 4], pa.int8()),
        }
    )


def test_parquet_keeps_its_types(folder):
    pq.write_table(table(), "a.parquet", row_group_size=2)
    summary = score_file("a.parquet", "in_group + 0 * per_step", "out.parquet")
    out = pq.read_table("out.parquet")
    assert out.select(table().column_names).equals(table().take([0, 1, 3]))
    assert out.schema.field("reward").type == pa.float64()
    assert out["reward"].to_pylist() == [2.0, 2.0, 1.0]
    assert out["parts"].to_pylist() == [{"in_group": n, "per_step": [float(k)]} for n, k in [(2.0, 1), (2.0, 2), (1.0, 4)]]
    assert (summary.rejected, summary.code) == (1, 1)
    assert got("out.rejected.jsonl") == [
        {"file": "a.parquet", "row": 3, "reason": "no `completion`", "text": got("out.rejected.jsonl")[0]["text"]}
    ]


def test_parquet_to_jsonl_and_back(folder):
    pq.write_table(table(), "a.parquet")
    score_file("a.parquet", size, "out.jsonl")
    assert [(row["small"], row["when"][:4], row["reward"]) for row in got("out.jsonl")] == [
        (1, "1970", 1.0),
        (2, "1970", 2.0),
        (4, "1970", 4.0),
    ]
    put("b.jsonl", [{"completion": "a", "x": 1}, {"completion": "bb", "y": [1.5]}, {"completion": "c", "x": 2.5}])
    score_file("b.jsonl", "size > 1", "out.parquet")
    out = pq.read_table("out.parquet")
    assert out.to_pylist()[1] == {
        "completion": "bb", "x": None, "y": [1.5], "reward": 1.0, "state": "scored", "reason": "", "parts": {"size": 2.0}
    }  # fmt: skip
    assert out["x"].to_pylist() == [1.0, None, 2.5]
    assert sorted(p.name for p in folder.iterdir()) == ["a.parquet", "b.jsonl", "out.jsonl", "out.parquet"]


def test_a_column_that_parquet_cannot_hold_keeps_all_rows(folder):
    put("a.jsonl", [{"completion": "a", "x": 1}, {"completion": "b", "x": "text"}])
    with pytest.raises(Broke, match=r"several types.*all 2 rows are kept as JSON lines in out\.parquet\.part"):
        score_file("a.jsonl", size, "out.parquet")
    assert [row["x"] for row in got("out.parquet.part")] == [1, "text"]


def test_groups_by_group_else_by_prompt_else_alone(folder):
    put("a.jsonl", [
        {"completion": "a", "group": 1, "prompt": "p"},
        {"completion": "a", "group": 1, "prompt": "q"},
        {"completion": "a", "group": 2, "prompt": "q"},
        {"completion": "a", "prompt": "q"},
        {"completion": "a", "prompt": "q", "group": None},
        {"completion": "a", "prompt": [{"role": "user", "content": "q"}]},
        {"completion": "a", "prompt": [{"role": "user", "content": "q"}]},
        {"completion": "a"},
        {"completion": "a"},
    ])  # fmt: skip
    score_file("a.jsonl", in_group, "out.jsonl")
    assert [row["reward"] for row in got("out.jsonl")] == [2, 2, 1, 2, 2, 2, 2, 1, 1]


def test_groups_are_whole_whatever_the_chunks(folder, monkeypatch):
    monkeypatch.setattr("guerdon.scoring.job.ROWS", 4)
    sizes = [3, 3, 1, 9, 2]
    put("a.jsonl", [{"completion": "a", "group": g} for g, n in enumerate(sizes) for _ in range(n)])
    score_file("a.jsonl", in_group, "out.jsonl")
    assert [row["reward"] for row in got("out.jsonl")] == [n for n in sizes for _ in range(n)]


def test_a_link_keeps_tasks_together_for_scope_samples(folder, monkeypatch):
    monkeypatch.setattr("guerdon.scoring.job.ROWS", 2)
    put("a.jsonl", [{"completion": "a", "prompt": str(i), "link": i // 3} for i in range(9)])
    score_file("a.jsonl", in_chunk, "out.jsonl")
    assert [row["reward"] for row in got("out.jsonl")] == [3.0] * 9


def test_a_scattered_group_is_refused_only_where_groups_matter(folder):
    put("a.jsonl", [{"completion": "a", "group": g} for g in (1, 2, 1)])
    with pytest.raises(Refused, match=r"a\.jsonl, row 3: the group '1' stands further up already.*sort the file by group"):
        score_file("a.jsonl", in_group, "out.jsonl")
    assert [p.name for p in folder.iterdir()] == ["a.jsonl"]
    assert score_file("a.jsonl", size, "out.jsonl").code == 0
    assert score_file("a.jsonl", size | clip(0, 1), "out.jsonl").code == 0


def test_a_file_larger_than_its_chunks_takes_constant_memory(folder):
    """A 300 MB file within 200 MB above what the imports take."""
    with open("a.jsonl", "wb") as file:
        line = orjson.dumps({"completion": "x" * 100_000}) + b"\n"
        for _ in range(3000):
            file.write(line)
    code = (
        "import resource, sys\n"
        "from guerdon.scoring.job import score_file\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(score_file('a.jsonl', \"length(unit='characters')\", 'out.jsonl').rows)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rows, grown = map(int, done.stdout.split())
    assert rows == 3000
    assert grown < 200_000, grown  # kilobytes


# --- tasks ---------------------------------------------------------------------------------------------------------------------------


def test_tasks_of_a_file(folder):
    chat = [{"role": "user", "content": "q"}]
    put("t.jsonl", [{"id": 1, "prompt": "p", "reference": "r", "level": 2}, {"messages": chat}])
    assert load_tasks("t.jsonl") == [Task("1", "p", "r", {"level": 2}), Task("2", chat, None, {})]
    pq.write_table(pa.table({"prompt": ["p"], "reference": [3]}), "t.parquet")
    assert load_tasks("t.parquet") == [Task("1", "p", 3, {})]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (b"{\n", "row 2: not JSON"),
        (b"[1]\n", "row 2: a JSON list, not an object"),
        ({"reference": 1}, "row 2: no `prompt` and no `messages`"),
        ({"prompt": 3}, "row 2: `prompt` is of type int"),
        ({"messages": ["a"]}, "row 2: `prompt` is of type list"),
    ],
)
def test_a_bad_row_of_tasks_is_refused_by_its_number(folder, row, sentence):
    put("t.jsonl", [{"prompt": "p"}, row])
    with pytest.raises(Refused, match=sentence):
        load_tasks("t.jsonl")


def test_tasks_that_are_not_there(folder):
    put("empty.jsonl", [])
    put("blank.jsonl", [b"\n\n"])
    for name, sentence in [("none.jsonl", "cannot be read: No such file"), ("empty.jsonl", "is empty"), ("blank.jsonl", "has no rows")]:
        with pytest.raises(Refused, match=sentence):
            load_tasks(name)
    assert files.ROWS == 4096

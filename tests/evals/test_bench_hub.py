"""Benches from folders laid out as a hub publishes them: Parquet or JSON by split, with the README that says the configurations."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guerdon.evals.bench import bench, layouts
from guerdon.registry import Refused


def pair(i: int, chosen: str, rejected: str) -> dict[str, Any]:
    return {
        "id": i,
        "prompt": f"p{i}",
        "chosen": chosen,
        "chosen_model": "a",
        "rejected": rejected,
        "rejected_model": "b",
        "subset": "hep-go",
    }


def judged(i: int, label: str) -> dict[str, Any]:
    return {"pair_id": f"x{i}", "source": "mmlu-pro-law", "question": "q", "response_A": "aa", "response_B": "b", "label": label}


def process(of: str, i: int, label: int) -> dict[str, Any]:
    return {"id": f"{of}-{i}", "problem": "q", "steps": ["one", "two"], "label": label, "final_answer_correct": label < 0, "generator": "m"}


def solved(i: int, kind: str) -> dict[str, Any]:
    return {"id": i, "problem": "P", "problem_id": 0, "answer": "1", "eval_solution": ["s", kind], "solution_type": kind}


STYLES = {"chosen": ["aaaa", "aaaaa", "aaaaaa"], "rejected": ["b", "bb", "bbb"]}
FOUR = {"chosen": ["aaaa"], "rejected": ["b", "bb", "bbb"], "num_correct": 1, "num_incorrect": 3}
PUBLISHED: dict[str, tuple[str, dict[str, list[dict[str, Any]]], int]] = {
    # layout: (files, rows by split, rows that are read)
    "rewardbench": ("parquet", {"raw": [pair(9, "a", "b")] * 3, "filtered": [pair(0, "aa", "b"), pair(1, "a", "bb")]}, 2),
    "rewardbench2": ("parquet", {"test": [{"id": str(i), "prompt": "p", **FOUR, "subset": "Math"} for i in range(3)]}, 3),
    "rm-bench": ("json", {"train": [{"id": "0", "prompt": "p", **STYLES, "domain": "chat"}]}, 1),
    "judgebench": ("jsonl", {"claude": [judged(0, "A>B")], "gpt": [judged(1, "A>B"), judged(2, "B>A")]}, 3),
    "rewardmath": ("parquet", {"train": [solved(0, "chosen"), solved(1, "rejected")]}, 1),
    "processbench": ("json", {of: [process(of, 0, 1), process(of, 1, -1)] for of in ("gsm8k", "math", "olympiadbench", "omnimath")}, 8),
}  # fmt: skip


def publish(folder: Path, kind: str, splits: dict[str, list[dict[str, Any]]]) -> Path:
    """A data set's folder: data/SPLIT-00000-of-00001.KIND, and a README whose head says which file is which split."""
    (folder / "data").mkdir(parents=True)
    head = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split, rows in splits.items():
        path = folder / "data" / f"{split}-00000-of-00001.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text(json.dumps(rows) if kind == "json" else "".join(json.dumps(row) + "\n" for row in rows))
        head += [f"  - split: {split}", f"    path: data/{split}-*"]
    (folder / "README.md").write_text("\n".join([*head, "---", "# A bench", ""]))
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for data sets, with a cache of its own and without network."""
    datasets = pytest.importorskip("datasets", reason="reading from a hub needs the package datasets (guerdon[hub])")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_bench_is_read_in_its_published_layout(hub: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    kind, splits, count = PUBLISHED[name]
    path = publish(hub / name, kind, splits)
    found, items = layouts.read(path, [name])
    assert (found, len(items)) == (name, count)
    if name == "rewardbench":
        assert [item.answers for item in items] == [["aa", "b"], ["a", "bb"]]  # `filtered`, not `raw`
    if name == "processbench":
        assert list(dict.fromkeys(item.category for item in items)) == ["gsm8k", "math", "olympiadbench", "omnimath"]
        return
    # by the hub's own name, as `guerdon bench NAME` without --data asks for it
    datasets = sys.modules["datasets"]
    own = layouts.hub_of(name)
    ask, load = datasets.get_dataset_split_names, datasets.load_dataset
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda n: ask(str(path) if n == own else n))
    monkeypatch.setattr(datasets, "load_dataset", lambda n, split: load(str(path) if n == own else n, split=split))
    report = bench(name, reward="length(unit='characters')", how="mean")
    assert len(report.items) == count
    assert report.data == own


def test_splits_that_the_bench_does_not_know(hub: Path):
    rows = [pair(0, "aa", "b")]
    one = publish(hub / "one", "parquet", {"validation": rows})
    assert len(layouts.read(one, ["rewardbench"])[1]) == 1  # there is no other
    two = publish(hub / "two", "parquet", {"validation": rows, "dev": rows})
    with pytest.raises(Refused, match="two has the splits validation, dev, not filtered; give the file of one"):
        layouts.read(two, ["rewardbench"])
    (hub / "empty").mkdir()
    with pytest.raises(Refused, match="empty cannot be read as a data set"):
        layouts.read(hub / "empty", ["rewardbench"])


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(Refused, match=r"allenai/reward-bench is no file here, .* install guerdon\[hub\]"):
        bench("rewardbench", reward="length(unit='characters')")

"""Layouts known by their columns, and every bad row named with file, row and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guerdon.registry import Refused
from guerdon.reward_models.data import Data, load
from guerdon.reward_models.layouts import Example

HH = "\n\nHuman: What is 2+2?\n\nAssistant: Which base?\n\nHuman: Ten.\n\nAssistant:"


def file(folder: Path, *rows: Any, name: str = "data.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def said(text: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]


def pieces(example: Example) -> list[str]:
    return [example.answers[0].text[a:b] for a, b in example.answers[0].steps]


def one(data: Data) -> Example:
    [example] = data.examples
    assert not data.rejected
    return example


PAIRS: dict[str, tuple[dict[str, Any], Any, str, str, float]] = {
    "pairs": ({"prompt": "q", "chosen": "a", "rejected": "b", "margin": 2}, "q", "a", "b", 2.0),
    "rewardbench": (
        {"prompt": "q", "chosen": "a", "chosen_model": "m", "rejected": "b", "rejected_model": "n", "subset": "hep", "id": 1},
        "q", "a", "b", 1.0,
    ),
    "ultrafeedback_binarized": (
        {"prompt": "q", "chosen": said("q", "a"), "rejected": said("q", "b"), "score_chosen": 8.5, "score_rejected": 3.0},
        [{"role": "user", "content": "q"}], "a", "b", 5.5,
    ),
    "hh": (
        {"chosen": HH + " Four.", "rejected": HH + " Five."},
        [
            {"role": "user", "content": "What is 2+2?"},
            {"role": "assistant", "content": "Which base?"},
            {"role": "user", "content": "Ten."},
        ],
        "Four.", "Five.", 1.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_every_layout(tmp_path: Path, name: str):
    row, prompt, chosen, rejected, margin = PAIRS[name]
    data = load(file(tmp_path, row), "pairs")
    assert list(data.layouts.values()) == [name]
    example = one(data)
    assert (example.prompt, [a.text for a in example.answers], example.pairs) == (prompt, [chosen, rejected], [(0, 1)])
    assert (example.answers[0].outcome or 0) - (example.answers[1].outcome or 0) == margin


STEPS: dict[str, tuple[dict[str, Any], str, list[str], list[Any]]] = {
    "steps": ({"prompt": "q", "steps": ["a", "b\n", "c"], "labels": [1, 0.5, None]}, "q", ["a\n", "b\n", "c"], [1, 0.5, None]),
    "stepwise_supervision": ({"prompt": "q", "completions": ["a", "b"], "labels": [True, False]}, "q", ["a\n", "b"], [1, 0]),
    "processbench": (
        {"id": "x", "generator": "m", "problem": "q", "steps": ["a", "b", "c", "d"], "final_answer_correct": False, "label": 1},
        "q", ["a\n\n", "b\n\n", "c\n\n", "d"], [1, 0, None, None],
    ),
    "math_shepherd": (
        {"input": "How many? Step 1: a ки\nStep 2: b ки", "label": "How many? Step 1: a +\nStep 2: b -", "task": "GSM8K"},
        "How many?", ["Step 1: a\n", "Step 2: b"], [1, 0],
    ),
    "prm800k": (
        {
            "question": {"problem": "q", "ground_truth_answer": "4"},
            "label": {
                "steps": [
                    {"completions": [{"text": "a", "rating": 0}, {"text": "z", "rating": -1}], "chosen_completion": 0},
                    {"completions": [{"text": "y", "rating": -1}], "human_completion": {"text": "b"}, "chosen_completion": None},
                    {"completions": [{"text": "c", "rating": -1}], "human_completion": None, "chosen_completion": None},
                ],
                "finish_reason": "found_error",
            },
        },
        "q", ["a\n", "b\n", "c"], [0, None, -1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_steps_of_every_layout(tmp_path: Path, name: str):
    row, prompt, texts, labels = STEPS[name]
    data = load(file(tmp_path, row), "steps")
    assert list(data.layouts.values()) == [name]
    example = one(data)
    assert (example.prompt, pieces(example), example.answers[0].labels) == (prompt, texts, labels)


def test_lists_are_all_their_pairs(tmp_path: Path):
    example = one(load(file(tmp_path, {"prompt": "q", "completions": ["a", "b", "c"], "scores": [2, 1, 2]}), "pairs"))
    assert example.pairs == [(0, 1), (2, 1)]
    row = {"instruction": "q", "source": "s", "models": [], "completions": [{"response": x, "overall_score": s} for x, s in ("a1", "b9")]}
    row["completions"] = [{"response": "a", "overall_score": 1}, {"response": "b", "overall_score": 9.5}]
    data = load(file(tmp_path, row), "pairs")
    assert list(data.layouts.values()) == ["ultrafeedback"]
    assert one(data).pairs == [(1, 0)]


def test_answers_with_a_label_of_another_name_from_parquet(tmp_path: Path):
    rows = [{"prompt": p, "completion": c, "is_correct": y} for p, c, y in [("q", "a", True), ("r", "b", False), ("q", "c", True)]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    data = load(tmp_path / "data.parquet", "outcomes", label="is_correct")
    assert [(e.answers[0].text, e.answers[0].outcome, e.group) for e in data.examples] == [("a", 1, 0), ("b", 0, 1), ("c", 1, 0)]


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "equal sides": ("pairs", {"prompt": "q", "chosen": "a", "rejected": " a\n"}, "`rejected` is equal to `chosen`"),
    "a side is missing": ("pairs", {"prompt": "q", "chosen": "a", "rejected": None}, "`rejected` is missing"),
    "a side is blank": ("pairs", {"prompt": "q", "chosen": " ", "rejected": "a"}, "`chosen` is empty"),
    "a side is no text": ("pairs", {"prompt": "q", "chosen": 4, "rejected": "a"}, "`chosen` is of type int"),
    "a list without order": ("pairs", {"prompt": "q", "completions": ["a", "b"], "scores": [1, 1]}, "`scores` are all equal"),
    "a list that contradicts itself": ("pairs", {"prompt": "q", "completions": ["a", "a"], "scores": [1, 2]}, "`completions[0]` is equal"),
    "fewer scores": ("pairs", {"prompt": "q", "completions": ["a", "b"], "scores": [1]}, "`scores` has 1 scores for 2 answers"),
    "a step without text": ("steps", {"prompt": "q", "steps": ["a", " "], "labels": [1, 0]}, "`steps[1]` is a step without text"),
    "no steps": ("steps", {"prompt": "q", "steps": [], "labels": []}, "`steps` has no steps"),
    "fewer labels": ("steps", {"prompt": "q", "steps": ["a", "b"], "labels": [1]}, "`labels` has 1 labels for 2 steps"),
    "a label out of range": ("steps", {"prompt": "q", "steps": ["a", "b"], "labels": [1, 3]}, "`labels[1]` is 3, outside its range"),
    "nothing judged": ("steps", {"prompt": "q", "steps": ["a"], "labels": [None]}, "`labels` are all missing"),
    "an outcome out of range": ("outcomes", {"prompt": "q", "completion": "a", "label": -2}, "`label` is -2, outside its range: 0 to 1"),
    "an outcome that is no number": ("outcomes", {"prompt": "q", "completion": "a", "label": "good"}, "`label` is 'good', not a number"),
}  # fmt: skip
GOOD = {
    "pairs": {"prompt": "q", "chosen": "x", "rejected": "y"},
    "steps": {"prompt": "q", "steps": ["x"], "labels": [1]},
    "outcomes": {"prompt": "q", "completion": "x", "label": 1},
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_and_left_out(tmp_path: Path, name: str):
    kind, row, why = BAD[name]
    first = GOOD[kind] if "completions" not in row else {"prompt": "q", "completions": ["a", "b"], "scores": [0, 1]}
    path = file(tmp_path, first, row, "{broken", first)
    data = load(path, kind, valid=lambda x: 0 <= x <= 1, allowed="0 to 1")  # type: ignore[arg-type]
    assert len(data.examples) == 2
    assert str(data.rejected[0]).startswith(f"{path}, row 2: {why}")
    assert "row 3: not JSON" in str(data.rejected[1])
    data.keep_aside(tmp_path / "aside.jsonl")
    assert [json.loads(line)["row"] for line in (tmp_path / "aside.jsonl").read_text().splitlines()] == [2, 3]


@pytest.mark.parametrize("layout", [None, "pairs"])
def test_a_first_row_without_a_side_does_not_hide_the_layout(tmp_path: Path, layout: str | None):
    path = file(tmp_path, {"prompt": "q", "chosen": "a"}, GOOD["pairs"])
    data = load(path, "pairs", layout)
    assert list(data.layouts.values()) == ["pairs"]
    assert [str(r) for r in data.rejected] == [f"{path}, row 1: `rejected` is missing"]
    assert [e.row for e in data.examples] == [2]


def test_contradictory_pairs_are_both_left_out(tmp_path: Path):
    a, b = {"prompt": "q", "chosen": "x", "rejected": "y"}, {"prompt": "q", "chosen": "y", "rejected": "x"}
    data = load(file(tmp_path, a, {"prompt": "r", "chosen": "y", "rejected": "x"}, b, a), "pairs")
    assert [e.row for e in data.examples] == [2]
    assert [(r.row, r.why.split()[3]) for r in data.rejected] == [(1, "3,"), (3, "4,"), (4, "3,")]


def test_label_files(tmp_path: Path):
    samples = [{"id": i, "prompt": "q", "steps": ["a", "b"]} for i in range(3)]
    labels = [{"id": i, "labels": [1, i % 2]} for i in range(3)]
    path, beside = file(tmp_path, *samples), tmp_path / "labels.jsonl"
    file(tmp_path, *labels, name="labels.jsonl")
    assert [e.answers[0].labels for e in load(path, "steps", labels=beside).examples] == [[1, 0], [1, 1], [1, 0]]
    file(tmp_path, *labels[:2], name="labels.jsonl")
    with pytest.raises(Refused, match=r"labels.jsonl ends before row 3 of .*data.jsonl"):
        load(path, "steps", labels=beside)
    file(tmp_path, *labels[::-1], name="labels.jsonl")
    with pytest.raises(Refused, match=r"labels.jsonl, row 1: its `id` is 2, and row 1 of .* is 0"):
        load(path, "steps", labels=beside)


def test_steps_that_spell_the_completion_stay_as_they_are(tmp_path: Path):
    row = {"prompt": "q", "completion": "a. b.\n", "steps": ["a.", " b.\n"], "labels": [0.5, None], "counts": [4, 0]}
    assert one(load(file(tmp_path, row), "steps")).answers[0].text == "a. b.\n"


def test_labels_may_count_as_others(tmp_path: Path):
    row = STEPS["prm800k"][0]
    assert one(load(file(tmp_path, row), "steps", values={"-1": 0, 0: None, 1: 1})).answers[0].labels == [None, None, 0]


def test_what_is_refused_as_a_whole(tmp_path: Path):
    both = {"prompt": "q", "chosen": "a", "rejected": "b", "completion": "c", "label": 1}
    with pytest.raises(Refused, match=r"fit several layouts \(pairs, outcomes\).*--layout NAME"):
        load(file(tmp_path, both), "pairs")
    assert one(load(file(tmp_path, both), "outcomes", layout="outcomes")).answers[0].text == "c"
    with pytest.raises(Refused, match="did you mean 'pairs'"):
        load(file(tmp_path, both), "pairs", layout="pair")
    with pytest.raises(Refused, match=r"the layout 'steps' has a column 'labels', 'steps', and row 1 of the file has: prompt, chosen"):
        load(file(tmp_path, both), "steps", layout="steps")
    with pytest.raises(Refused, match=r"its columns \(text\) are of no known layout"):
        load(file(tmp_path, {"text": "a"}), "pairs")
    with pytest.raises(Refused, match=r"row 1: this loss learns labelled steps"):
        load(file(tmp_path, GOOD["pairs"]), "steps")
    with pytest.raises(Refused, match=r"none of its 1 rows can be learnt from; the first: .*row 1: `chosen` is missing"):
        load(file(tmp_path, {"prompt": "q", "chosen": None, "rejected": "b"}), "pairs")

"""One file with everything that can be wrong with a row, through every reward that needs no model: no row is lost, each has its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

import guerdon.rewards
import guerdon.shaping  # noqa: F401  fills the registry
from guerdon.registry import Refused, pieces
from guerdon.scoring.job import score_file

GOOD = {"prompt": "2+2?", "completion": "<think>two and two</think><answer>4</answer>", "reference": "4", "good": True}
DEEP: Any = 0
for _ in range(200):
    DEEP = [DEEP]
ROWS: list[dict[str, Any]] = [
    GOOD,
    {**GOOD, "completion": 17, "good": False},
    {**GOOD, "completion": None, "good": False},
    {"prompt": "2+2?", "reference": "4", "good": False},
    {"prompt": "2+2?", "completion": "A: 4", "good": False},
    *({**GOOD, "reference": r, "good": False} for r in (4, 4.5, True, None, [], {}, [1, [2]], {"a": {"b": 1}}, DEEP, "", "\x00")),
    *({**GOOD, "meta": m, "good": False} for m in (None, 3, "text", [], {"options": 3}, {"schema": "no"})),
    {**GOOD, "completion": "7" * 100_000, "good": False},
    {**GOOD, "completion": "word " * 20_000, "good": False},
    {**GOOD, "completion": "[" * 100_000 + "]" * 100_000, "good": False},
    {**GOOD, "completion": '{"a":' * 50_000 + "1" + "}" * 50_000, "good": False},
    {**GOOD, "completion": "<tool_call>" + "{" * 50_000 + "</tool_call>", "good": False},
    {**GOOD, "completion": "\ud7ff\U0010ffff\u202e" * 1000, "good": False},
    GOOD,
]
REWARDS = [p.about["reward"] for p in pieces("reward") if p.where.startswith("guerdon.") and not p.about["reward"].asks]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad") / "rows.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, ROWS)) + b"\n{not json\n")
    return path


@pytest.mark.parametrize("reward", REWARDS, ids=str)
def test_no_row_is_lost(reward: Any, file: Path, tmp_path: Path) -> None:
    summary = score_file(file, reward, tmp_path / "out.jsonl", workers=1)
    found = [orjson.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    aside = [orjson.loads(line) for line in (tmp_path / "out.rejected.jsonl").read_bytes().splitlines()]
    assert len(found) + len(aside) == len(ROWS) + 1
    assert (len(aside), summary.rejected) == (4, 4)  # three completions that are no text, and the line that is no JSON
    assert all(row["reason"] for row in aside)
    for row in found:
        assert row["state"] in ("scored", "abstained", "failed")
        assert (row["reward"] is None) == (row["state"] != "scored")
        assert row["reason"] or row["state"] == "scored"
    alone = tmp_path / "alone.jsonl"
    alone.write_bytes(orjson.dumps(GOOD) + b"\n")
    score_file(alone, reward, tmp_path / "alone-out.jsonl", workers=1)
    wanted = orjson.loads((tmp_path / "alone-out.jsonl").read_bytes())
    assert [(row["reward"], row["state"], row["reason"]) for row in found if row["good"]] == [
        (wanted["reward"], wanted["state"], wanted["reason"])
    ] * 2


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("'a' * math", "not allowed"),
        ("math * True", "finite number|not allowed"),
        ("math + 1e999", "finite number"),
        ("math | fade(begin=-1)", "fade"),
        ("math | fade(form='saw')", "fade"),
        ("math | clip('a', 1)", "clip"),
        ("math | multiplier", "multiplier.*threshold"),
        ("math | multiplier('half')", "multiplier"),
        ("arithmetic_steps | par", "par"),
        ("math | step_delta", "step_delta"),
        ("math | trust(0.5)", "trust"),
        ("math | group_norm(math)", "group_norm"),
        ("min(math, arithmetic_steps)", "min"),
        ("length(target='long')", "length.*target"),
        ("rouge(variant='3')", "rouge.*variant"),
        ("regex(pattern='(')", "regex"),
        ("json_schema(schema={'type': 7})", "schema"),
        ("mathh", "mathh.*did you mean 'math'"),
        ("rlpr(model='judge')", "rlpr.*judge"),
    ],
)
def test_expressions_that_cannot_be_are_refused_by_name(expression: str, why: str, file: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=why):
        score_file(file, expression, tmp_path / "out.jsonl", workers=1)
    assert not (tmp_path / "out.jsonl").exists()

"""`guerdon score --explain ROW`."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

import guerdon.shaping  # noqa: F401  fills the registry
from guerdon.cli import app
from guerdon.registry import Refused
from guerdon.rewards import reward
from guerdon.samples import Verdict
from guerdon.scoring.explain import explain_row

ROWS = [
    {"prompt": "2+2?", "completion": "<think>add</think><answer>4</answer>", "reference": "4"},
    {"prompt": "2+2?", "completion": "four", "reference": "4"},
    {"prompt": "2+2?", "completion": 7, "reference": "4"},
    {"prompt": "3+3?", "completion": "x " * 1000 + "A: 6", "reference": "6"},
]


@reward(inline=True)
def explained_down(text: str) -> Verdict:
    return Verdict.fail("the judge is down")


@reward(inline=True, grain="step")
def explained_lines(steps: list[str]) -> list[float | None]:
    return [None if step.startswith("<") else float(len(step)) for step in steps]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, ROWS)) + b"\n")
    return path


def tree(file: Path, expression: str, row: int) -> dict[str, str]:
    """Label -> value, of the tree that is printed."""
    lines = explain_row(file, expression, row, workers=1)
    return {label.strip(): value.strip() for label, _, value in (line.strip().partition("  ") for line in lines[lines.index("") + 1 :])}


def test_a_value_is_taken_apart_into_those_it_was_made_of(file: Path) -> None:
    found = tree(file, "gate(format, exact) + 0.5 * length(target=40, unit='characters').when(exact > 0) | clip(0, 1.25)", 1)
    assert found["| clip(high=1.25, low=0)"] == "1.25"
    assert found["sum"] == "1.45"  # 1 + 0.5 * (1 - 4 / 40)
    assert found["then length(target=40, unit='characters')"] == "0.9"
    assert found["if format"] == "1"


def test_what_a_shut_gate_left_out_is_said(file: Path) -> None:
    found = tree(file, "gate(format, exact)", 2)
    assert found["when"] == "0"
    assert found["if format"].startswith("0  (not <think>")
    assert found["then exact"] == "not evaluated: its gate is shut"


def test_failed_parts_and_steps(file: Path) -> None:
    found = tree(file, "exact + explained_down", 1)
    assert found["sum"] == "failed  (explained_down: the judge is down)"
    assert tree(file, "explained_lines", 4) == {"explained_lines": "steps [2004]"}


def test_the_group_is_scored_with_the_row_and_the_text_is_cut(file: Path) -> None:
    assert float(tree(file, "exact | group_norm", 1)["| group_norm"]) == pytest.approx(1.0, abs=1e-5)  # of 1 and 0
    assert tree(file, "exact | group_norm", 4)["| group_norm"] == "0"
    assert max(map(len, explain_row(file, "exact", 4))) < 400


def test_rows_that_are_not_there_are_refused(file: Path) -> None:
    with pytest.raises(Refused, match="row 3 that is a sample: `completion` is of type int"):
        explain_row(file, "exact", 3)
    with pytest.raises(Refused, match="no row 9 that is a sample; count rows from 1"):
        explain_row(file, "exact", 9)


def test_the_command_prints_the_tree_and_writes_nothing(file: Path) -> None:
    done = CliRunner().invoke(app, ["score", str(file), "--reward", "gate(format, exact)", "--explain", "1"])
    assert done.exit_code == 0
    assert "then exact" in done.output
    assert [path.name for path in file.parent.iterdir()] == ["rows.jsonl"]
    refused = CliRunner().invoke(app, ["score", str(file), "--reward", "exact"])
    assert isinstance(refused.exception, Refused)


def test_a_model_is_named_on_the_command_line(file: Path, tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from guerdon.envs.tiny import tokenizer

    tokens = tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tokens.save_pretrained(tmp_path / "model")
    command = ["score", str(file), "--reward", "rlpr(model='scorer', debias=False)", "--explain", "1"]
    done = CliRunner().invoke(app, [*command, "--model", f"scorer={tmp_path / 'model'}"])
    assert done.exit_code == 0, done.exception
    assert 0 < float(done.output.split()[-1]) < 0.1  # one of some hundred characters, by a model that knows nothing
    assert "--model NAME=PATH" in str(CliRunner().invoke(app, command).exception)
    assert "write NAME=PATH" in str(CliRunner().invoke(app, [*command, "--model", "scorer"]).exception)

"""Reading a run folder back: metrics, events, recipe, the files of samples and evaluations.

A run may have been killed in the middle of a line, and resumed: the last, torn line is left out, and of two entries of
one step the later counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guerdon.registry import Refused
from guerdon.training import metrics

NAMED_BY_STEP = re.compile(r"step-(\d+)\.parquet")


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file, none if it is not there. Raises Refused for a broken line that others follow."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except json.JSONDecodeError as error:
            if any(rest.strip() for rest in lines[number:]):
                raise Refused(f"{path}, line {number} is not JSON ({error}); delete the line.") from error
            return
        if not isinstance(found, dict):
            raise Refused(f"{path}, line {number} is a {type(found).__name__}, not an object; delete the line.")
        yield found


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """One object a step, in order of steps."""
    by_step: dict[int, dict[str, Any]] = {}
    for number, entry in enumerate(read_jsonl(run / "metrics.jsonl"), 1):
        if not isinstance(entry.get(metrics.STEP), int):
            raise Refused(f"{run / 'metrics.jsonl'}: object {number} has no whole number {metrics.STEP!r}; delete the line.")
        by_step[entry[metrics.STEP]] = entry
    return [by_step[step] for step in sorted(by_step)]


def read_recipe(run: Path) -> tuple[dict[str, Any], str]:
    """The resolved recipe as data and as text; ({}, "") where there is none."""
    import yaml

    path = run / "recipe.yaml"
    if not path.is_file():
        return {}, ""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Refused(f"{path} is not YAML ({error}); put back the recipe that the run was started with.") from error
    return (found if isinstance(found, dict) else {}), text


def tables(run: Path, folder: str) -> dict[int, Path]:
    """step -> `folder/step-NNNNNN.parquet`, in order of steps."""
    found = [(NAMED_BY_STEP.fullmatch(path.name), path) for path in (run / folder).glob("step-*.parquet")]
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def passes(path: Path) -> dict[str, float]:
    """task -> share of its samples that passed, of a file of `evals/`."""
    import pyarrow.parquet as parquet

    found: dict[str, list[bool]] = {}
    for row in parquet.read_table(path, columns=["task_id", "passed"]).to_pylist():
        found.setdefault(row["task_id"], []).append(bool(row["passed"]))
    return {task: sum(outcomes) / len(outcomes) for task, outcomes in found.items()}

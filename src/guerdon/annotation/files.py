"""Labels as columns of a file of samples, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.annotation.core import Labels
from guerdon.registry import Refused
from guerdon.samples import Sample, Span
from guerdon.scoring.files import Kinds, Row, Source, to_sample

COLUMNS: Kinds = {"steps": "texts", "labels": "numbers", "counts": "numbers", "confidence": "numbers", "notes": "texts"}


def columns(labels: Labels, prefix: str = "") -> tuple[list[dict[str, Any]], Kinds]:
    """For each sample its new columns, and their kinds; a list a column, one entry a step.

    steps: their texts, which together are the completion.  labels, confidence: numbers, null for a step without a label.  counts: rollouts
    or votes, 0 where a label is implied.  notes: what a judge said of the step, or why it has no label.
    """
    rows = []
    for i, sample in enumerate(labels.samples):
        n = len(labels.text[i])
        ends = [*(start for start, _ in sample.marks["step"][1:]), len(sample.text)]
        cells = {
            "steps": [sample.text[a:b] for a, b in zip([0, *ends], ends, strict=False)],
            "labels": [None if np.isnan(x) else x for x in labels.value[i, :n].tolist()],
            "counts": labels.count[i, :n].tolist(),
            "confidence": [None if np.isnan(x) else x for x in labels.confidence[i, :n].tolist()],
            "notes": labels.text[i],
        }
        rows.append({prefix + name: cell for name, cell in cells.items()})
    return rows, {prefix + name: kind for name, kind in COLUMNS.items()}


def steps_of(row: Mapping[str, Any], text: str, field: str = "steps") -> list[Span]:
    """The steps that a row states. Raises ValueError, naming the field, where they are no texts, blank, or do not spell the completion."""
    steps = row[field]
    if not isinstance(steps, list) or not steps:
        raise ValueError(f"`{field}` is of type {type(steps).__name__}, not a list of texts" if steps != [] else f"`{field}` is empty")
    spans, at = [], 0
    for i, step in enumerate(steps):
        if not isinstance(step, str) or not step.strip():
            raise ValueError(f"`{field}[{i}]` is a step without text")
        spans.append((at, at + len(step)))
        at += len(step)
    if "".join(steps) != text:
        raise ValueError(f"`{field}`, one behind the other, are not `completion`")
    return spans


def read(path: str | Path, samples: str | Path | None = None, prefix: str = "") -> Labels:
    """The labels of a file that `guerdon annotate` wrote; `counts`, `confidence` and `notes` may be missing (0, NaN and "").

    samples: the file that was labelled, whose rows must be these. Raises Refused, naming file, row and field, for a step without text, a
    label outside 0 to 1, lists of unlike lengths, and a file that is shorter, longer or in another order than its samples.
    """
    found: list[Sample] = []
    rows: list[dict[str, list[Any]]] = []
    for row in Source(path):
        try:
            sample, cells = _read(row, prefix)
        except ValueError as error:
            raise Refused(f"{path}, row {row.number}: {error}; mend or remove it.") from None
        found.append(sample)
        rows.append(cells)
    if samples is not None:
        _match(path, found, samples)
    labels = Labels.none(found)
    for i, cells in enumerate(rows):
        labels.text[i] = [x or "" for x in cells["notes"]]
        for t, (value, count, sure) in enumerate(zip(cells["labels"], cells["counts"], cells["confidence"], strict=True)):
            labels.set(i, t, np.nan if value is None else value, count or 0, np.nan if sure is None else sure)
    return labels


def _read(row: Row, prefix: str) -> tuple[Sample, dict[str, list[Any]]]:
    if row.why:
        raise ValueError(row.why)
    sample = to_sample(row)
    missing = next((prefix + name for name in ("steps", "labels") if prefix + name not in row.data), None)
    if missing:
        raise ValueError(f"no `{missing}`")
    sample.marks["step"] = steps_of(row.data, sample.text, f"{prefix}steps")
    sample.spans["step"] = list(sample.marks["step"])
    cells: dict[str, list[Any]] = {}
    n = len(sample.steps)
    for name in ("labels", "counts", "confidence", "notes"):
        field = prefix + name
        values = row.data.get(field)
        if values is None and name != "labels":
            values = [None] * n
        if not isinstance(values, list) or len(values) != n:
            has = f"has {len(values)} entries" if isinstance(values, list) else f"is of type {type(values).__name__}"
            raise ValueError(f"`{field}` {has}, and there are {n} steps")
        for t, x in enumerate(values if name != "notes" else ()):
            if x is not None and (isinstance(x, str) or not 0 <= float(x) <= (np.inf if name == "counts" else 1)):
                raise ValueError(f"`{field}[{t}]` is {x!r}, outside 0 to {'any count' if name == 'counts' else 1}")
        cells[name] = values
        sample.meta.pop(field, None)
    sample.meta.pop(f"{prefix}steps", None)
    return sample, cells


def _match(path: str | Path, labelled: Sequence[Sample], samples: str | Path) -> None:
    """Raises Refused at the first row where the two files part."""
    for number, (label, row) in enumerate(zip_longest(labelled, Source(samples)), 1):
        if label is None:
            raise Refused(f"{path} has {len(labelled)} rows, fewer than {samples}: row {number} of it has no labels; annotate it again.")
        if row is None:
            raise Refused(f"{path} has {len(labelled)} rows, more than {samples}, which has {number - 1}; they are of other samples.")
        if row.data.get("completion") != label.text:
            raise Refused(f"{path}, row {number}: `completion` is not that of row {row.number} of {samples}; they are of other samples.")

"""Files of pairs, lists, labelled steps and labelled answers -> examples. What is bad is named with file, row and field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import orjson

from guerdon.registry import Refused
from guerdon.reward_models.layouts import Bad, Example, recognise
from guerdon.scoring.files import Row, Source

Kind = Literal["pairs", "outcomes", "steps"]
HOW = {
    "pairs": "pairs (`prompt, chosen, rejected`) or lists (`prompt, completions, scores`)",
    "outcomes": "answers with a number each (`prompt, completion, label`)",
    "steps": "labelled steps (`prompt, steps, labels`)",
}


@dataclass
class Rejected:
    """A row that was left out, and why."""

    file: str
    row: int
    why: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}: {self.why}"


@dataclass
class Data:
    examples: list[Example] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    layouts: dict[str, str] = field(default_factory=dict)
    """File -> the layout it was read in."""

    def keep_aside(self, path: Path) -> None:
        """The rows that were left out, one a line; no file where there are none."""
        if self.rejected:
            path.write_bytes(b"".join(orjson.dumps({"file": r.file, "row": r.row, "reason": r.why}) + b"\n" for r in self.rejected))


def load(
    path: str | Path,
    kind: Kind,
    layout: str | None = None,
    labels: str | Path | None = None,
    label: str = "label",
    limit: int | None = None,
    values: Mapping[Any, float | None] | None = None,
    valid: Callable[[float], bool] = lambda x: True,
    allowed: str = "",
) -> Data:
    """The examples of a JSONL or Parquet file, in its order, without the rows that cannot be learnt from.

    kind: what is learnt.  layout: how the file is laid out, where its columns leave that open.  labels: a second file with a row of labels
    for each row of the first.  label: the column of an answer's label.  values: what a label counts as, {-1: 0, 0: 1, 1: 1}.
    valid, allowed: which labels the loss can learn, and that in words.
    Raises Refused for files that cannot be read or do not go together, for another kind of data, and where no row is left.
    """
    out, name, shape, rows = Data(), str(path), None, 0
    for row in _rows(path, labels):
        rows += 1
        if limit is not None and len(out.examples) >= limit:
            break
        try:
            if row.why:
                raise ValueError(row.why)
            if shape is None:
                shape = recognise(name, ((r.number, _named(r, label)) for r in _rows(path, labels) if not r.why), layout)
                out.layouts[name] = shape.name
            example = shape.read(_named(row, label))
            example.file, example.row = name, row.number
            _check_kind(example, kind)
            _check_labels(example, kind, values, valid, allowed)
        except Bad as error:
            out.rejected.append(Rejected(name, row.number, str(error)))
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            if isinstance(error, Refused):
                raise
            out.rejected.append(Rejected(name, row.number, str(error) if row.why else f"cannot be read as {shape and shape.name}: {error}"))
        else:
            out.examples.append(example)
    _contradictions(out)
    if not out.examples:
        why = f"; the first: {out.rejected[0]}" if out.rejected else ""
        raise Refused(f"{name}: none of its {rows} rows can be learnt from{why}.")
    groups: dict[bytes, int] = {}
    for example in out.examples:
        example.group = groups.setdefault(orjson.dumps(example.prompt), len(groups))
    return out


def _named(row: Row, label: str) -> dict[str, Any]:
    """The row's columns, that of an answer's label under its usual name."""
    data = dict(row.data)
    if label != "label" and label in data:
        data["label"] = data.pop(label)
    return data


def _rows(path: str | Path, labels: str | Path | None) -> Any:
    """The rows of the file, each with the columns of its row of the label file."""
    if labels is None:
        yield from Source(path)
        return
    missing = Row(0, {})
    for row, also in zip_longest(Source(path), Source(labels), fillvalue=missing):
        if row is missing or also is missing:
            short, long = (path, labels) if row is missing else (labels, path)
            raise Refused(f"{short} ends before row {max(row.number, also.number)} of {long}: give each sample one row of labels.")
        a, b = row.data.get("id"), also.data.get("id")
        if a is not None and b is not None and a != b:
            raise Refused(
                f"{labels}, row {also.number}: its `id` is {b!r}, and row {row.number} of {path} is {a!r}; put them in one order."
            )
        yield Row(row.number, {**row.data, **also.data}, why=row.why or (also.why and f"{labels}, row {also.number}: {also.why}"))


def _check_kind(example: Example, kind: Kind) -> None:
    """Raises Refused where the file holds another kind of data than the loss learns."""
    has = {
        "pairs": len(example.answers) > 1,
        "outcomes": all(a.outcome is not None for a in example.answers),
        "steps": bool(example.answers[0].labels),
    }
    if not has[kind]:
        raise Refused(f"{example.file}, row {example.row}: this loss learns {HOW[kind]}, and the row has none.")
    if kind == "pairs" and not example.pairs:
        raise Bad("scores", "are all equal: nothing is preferred")


def _check_labels(
    example: Example, kind: Kind, values: Mapping[Any, float | None] | None, valid: Callable[[float], bool], allowed: str
) -> None:
    """Labels by the given values, in range. Raises Bad for one outside."""
    known = {float(key): value for key, value in (values or {}).items()}
    for answer in example.answers:
        if kind == "steps":
            answer.labels = [known.get(x, x) if x is not None else None for x in answer.labels]
            for i, x in enumerate(answer.labels):
                if x is not None and not valid(x):
                    raise Bad(f"labels[{i}]", f"is {x:g}, outside its range: {allowed}")
            if all(x is None for x in answer.labels):
                raise Bad("labels", "are all missing: no step was judged")
        elif kind == "outcomes" and answer.outcome is not None:
            outcome = known.get(answer.outcome, answer.outcome)
            if outcome is None or not valid(outcome):
                raise Bad("label", f"is {answer.outcome:g}, outside its range: {allowed}")
            answer.outcome = outcome


def _contradictions(data: Data) -> None:
    """Leave out pairs that are preferred one way in one row and the other way in another: both rows are named."""
    seen: dict[tuple[bytes, str, str], Example] = {}
    bad: dict[int, str] = {}
    for example in data.examples:
        prompt = orjson.dumps(example.prompt)
        for i, j in example.pairs:
            better, worse = example.answers[i].text.strip(), example.answers[j].text.strip()
            seen.setdefault((prompt, better, worse), example)
            if (other := seen.get((prompt, worse, better))) is not None:
                bad[id(example)] = f"`chosen` contradicts row {other.row}, which prefers the other side"
                bad[id(other)] = f"`chosen` contradicts row {example.row}, which prefers the other side"
    data.rejected += [Rejected(e.file, e.row, bad[id(e)]) for e in data.examples if id(e) in bad]
    data.examples = [e for e in data.examples if id(e) not in bad]


def merged(several: Sequence[Data]) -> Data:
    """One set of data from several files."""
    out = Data()
    for data in several:
        out.examples += data.examples
        out.rejected += data.rejected
        out.layouts |= data.layouts
    groups: dict[bytes, int] = {}
    for example in out.examples:
        example.group = groups.setdefault(orjson.dumps(example.prompt), len(groups))
    return out

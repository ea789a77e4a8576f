"""Bench files in their published layouts: JSONL, a JSON array or Parquet, or a hub's data set -> items with answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from guerdon.registry import Refused, nearest
from guerdon.samples import Prompt
from guerdon.scoring.files import Source

Data = dict[str, Any]


@dataclass
class Item:
    """One prompt with its answers, in the order of the file; chosen ones before rejected ones where the layout has these."""

    id: str
    category: str
    prompt: Prompt
    answers: list[str]
    right: list[bool]
    """Which answers are right, or chosen."""
    row: int
    """Of the file, its first one."""
    reference: Any = None
    steps: list[list[str]] = field(default_factory=list)
    """The steps of each answer, where the layout says them."""
    label: int | None = None
    """Of the first wrong step of the one answer; -1 where all are right."""
    gold: list[float] = field(default_factory=list)
    """What each answer is truly worth."""
    votes: list[str | None] = field(default_factory=list)
    """What each answer votes for, where the file says it."""
    keys: list[str] = field(default_factory=list)
    """The id of each answer, where answers have rows of their own."""
    meta: Data = field(default_factory=dict)
    """Further columns."""
    own: list[Data] = field(default_factory=list)
    """Those of each answer, where answers have rows of their own."""


@dataclass(frozen=True)
class Layout:
    """The columns of a published bench, and how its rows become items."""

    columns: Mapping[str, type | tuple[type, ...]]
    """Those that every row must have, and what stands in them."""
    read: Callable[[str, list[tuple[int, Data]]], list[Item]]
    any_of: Sequence[str] = ()
    """One of these must be there too."""
    never: str = ""
    """A column that only another layout has."""
    hub: str | None = None
    splits: Sequence[str] = ("test",)

    def lacks(self, row: Mapping[str, Any]) -> list[str]:
        """What a row lacks, or has of another type."""
        found = [_says(name, kind, row.get(name)) for name, kind in self.columns.items()]
        if self.any_of and not any(row.get(name) is not None for name in self.any_of):
            found.append("no " + " and no ".join(f"`{name}`" for name in self.any_of))
        if self.never and self.never in row:
            found.append(f"a column `{self.never}`")
        return [text for text in found if text]


def _says(name: str, kind: type | tuple[type, ...], value: Any) -> str:
    if value is None:
        return f"no `{name}`"
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        if isinstance(value, list) and name in TEXTS and not (value and all(isinstance(x, str) for x in value)):
            return f"`{name}` is not a list of texts"
        return ""
    wants = kind if isinstance(kind, type) else kind[0]
    return f"`{name}` is of type {type(value).__name__}, not {wants.__name__}"


TEXTS = {"chosen", "rejected", "steps", "eval_solution"}
"""Columns whose lists hold texts."""


def _pairs(path: str, rows: list[tuple[int, Data]]) -> list[Item]:
    items = []
    for n, d in rows:
        chosen, rejected = ([x] if isinstance(x, str) else x for x in (d["chosen"], d["rejected"]))
        category = d.get("domain") if isinstance(d.get("domain"), str) else d.get("subset")
        key = str(d.get("id", n))
        right = [True] * len(chosen) + [False] * len(rejected)
        items.append(Item(key, str(category or "all"), d["prompt"], [*chosen, *rejected], right, n, meta=_rest(d, "chosen", "rejected")))
    return items


def _rewardbench2(path: str, rows: list[tuple[int, Data]]) -> list[Item]:
    for n, d in rows:
        if d["num_correct"] != len(d["chosen"]):
            raise Refused(
                f"{path}, row {n}: `num_correct` is {d['num_correct']}, but `chosen` has {len(d['chosen'])} answers; mend the row."
            )
        sort, _, number = str(d["id"]).partition(":")
        if d["subset"].lower() == "ties" and not (sort in ("ref", "tied") and number):
            raise Refused(f"{path}, row {n}: the id {d['id']!r} of subset Ties is not such as 'ref:3' or 'tied:3'; mend the row.")
    return _pairs(path, rows)


def _rm_bench(path: str, rows: list[tuple[int, Data]]) -> list[Item]:
    for n, d in rows:
        if len(d["chosen"]) != len(d["rejected"]):
            raise Refused(
                f"{path}, row {n}: `chosen` has {len(d['chosen'])} styles and `rejected` {len(d['rejected'])}; give one answer a style."
            )
    return _pairs(path, rows)


def _judgebench(path: str, rows: list[tuple[int, Data]]) -> list[Item]:
    items = []
    for n, d in rows:
        if d["label"] not in ("A>B", "B>A"):
            raise Refused(f"{path}, row {n}: `label` is {d['label']!r}, not 'A>B' or 'B>A'; mend the row.")
        right = [d["label"] == "A>B", d["label"] == "B>A"]
        answers = [d["response_A"], d["response_B"]]
        items.append(Item(str(d["pair_id"]), _judged(d["source"]), d["question"], answers, right, n, meta={"source": d["source"]}))
    return items


def _judged(source: str) -> str:
    """The four groups that the authors report; anything else is a group of its own."""
    groups = ("mmlu-pro", "livebench-reasoning", "livebench-math", "livecodebench")
    return next((name for name in groups if source.startswith(name)), source)


def _rewardmath(path: str, rows: list[tuple[int, Data]]) -> list[Item]:
    items: dict[str, Item] = {}
    for n, d in rows:
        if d["solution_type"] not in ("chosen", "rejected"):
            raise Refused(f"{path}, row {n}: `solution_type` is {d['solution_type']!r}, not 'chosen' or 'rejected'; mend the row.")
        steps = d["eval_solution"] if isinstance(d["eval_solution"], list) else [d["eval_solution"]]
        key = str(d["problem_id"])
        item = items.setdefault(key, Item(key, str(d.get("subject", "all")), d["problem"], [], [], n, d.get("answer")))
        if item.prompt != d["problem"]:
            raise Refused(f"{path}, row {n}: another `problem` than in row {item.row}, of the same `problem_id` {key}; mend the file.")
        item.answers.append("\n".join(steps))
        item.steps.append(steps)
        item.right.append(d["solution_type"] == "chosen")
        item.keys.append(str(d["id"]))
        item.meta.setdefault("solution_reference", []).append(d.get("solution_reference"))
    for item in items.values():
        if all(item.right) or not any(item.right):
            kind = "rejected" if all(item.right) else "chosen"
            raise Refused(f"{path}, row {item.row}: the problem {item.id} has no {kind} solution; each needs one of both kinds.")
    return list(items.values())


def _processbench(path: str, rows: list[tuple[int, Data]]) -> list[Item]:
    items = []
    for n, d in rows:
        if not -1 <= d["label"] < len(d["steps"]):
            raise Refused(f"{path}, row {n}: `label` is {d['label']}, but there are {len(d['steps'])} steps; it is -1 or a step from 0.")
        category = str(d.get("split") or str(d["id"]).rpartition("-")[0] or "all")
        text = "\n\n".join(d["steps"])
        items.append(Item(str(d["id"]), category, d["problem"], [text], [d["label"] == -1], n, None, [d["steps"]], d["label"]))
    return items


def _answers(path: str, rows: list[tuple[int, Data]]) -> list[Item]:
    items: dict[Any, Item] = {}
    seen: Counter[str] = Counter()
    for n, d in rows:
        gold = d.get("gold") if d.get("gold") is not None else d.get("is_correct")
        right = d.get("is_correct") if d.get("is_correct") is not None else gold
        for name in ("gold", "is_correct"):
            if d.get(name) is not None and not isinstance(d[name], (bool, int, float)):
                raise Refused(
                    f"{path}, row {n}: `{name}` is of type {type(d[name]).__name__}, not a number or true or false; mend the row."
                )
        assert gold is not None
        assert right is not None
        whole = d["group"] if d.get("group") is not None else d["prompt"]
        key = orjson.dumps(whole)
        item = items.setdefault(key, Item(str(d.get("group", len(items))), str(d.get("category") or "all"), d["prompt"], [], [], n))
        item.reference = d.get("reference")
        item.answers.append(d["completion"])
        item.right.append(float(right) >= 0.5)
        item.gold.append(float(gold))
        item.votes.append(None if d.get("answer") is None else str(d["answer"]))
        item.own.append(_rest(d, "id", "prompt", "completion", "reference", "group", "is_correct", "gold"))
        name = str(d.get("id", n))
        item.keys.append(name if not seen[name] else f"{name}#{seen[name] + 1}")
        seen[name] += 1
    return list(items.values())


def _rest(d: Data, *without: str) -> Data:
    return {name: value for name, value in d.items() if name not in without}


PROMPT = (str, list)
LAYOUTS = {
    "rewardbench": Layout(
        {"prompt": PROMPT, "chosen": str, "rejected": str, "subset": str}, _pairs, hub="allenai/reward-bench", splits=("filtered",)
    ),
    "rewardbench2": Layout(
        {"id": str, "prompt": PROMPT, "chosen": list, "rejected": list, "num_correct": int, "subset": str},
        _rewardbench2, hub="allenai/reward-bench-2",
    ),
    "rm-bench": Layout(
        {"prompt": PROMPT, "chosen": list, "rejected": list}, _rm_bench, ("domain", "subset"), "num_correct",
        "THU-KEG/RM-Bench", ("train",),
    ),
    "judgebench": Layout(
        {"pair_id": str, "source": str, "question": str, "response_A": str, "response_B": str, "label": str},
        _judgebench, hub="ScalerLab/JudgeBench", splits=("gpt", "claude"),
    ),
    "rewardmath": Layout(
        {"problem": str, "eval_solution": (list, str), "solution_type": str, "problem_id": (int, str), "id": (int, str)},
        _rewardmath, hub="RewardMATH/RewardMATH", splits=("train",),
    ),
    "processbench": Layout(
        {"id": str, "problem": str, "steps": list, "label": int}, _processbench,
        hub="Qwen/ProcessBench", splits=("gsm8k", "math", "olympiadbench", "omnimath"),
    ),
    "answers": Layout({"prompt": PROMPT, "completion": str}, _answers, ("is_correct", "gold")),
}  # fmt: skip
"""Columns as of the release of each bench; `answers` is one row an answer, as `guerdon score` reads and writes it."""


def read(data: str | Path, layouts: Sequence[str], limit: int | None = None) -> tuple[str, list[Item]]:
    """(the layout, its items) of a file, or of a data set of a hub; the first of `layouts` whose columns the first row has.

    limit: the first so many items of each category. Raises Refused, with the nearest layout, for a file of another one, and for a row
    that lacks something.
    """
    rows = _rows(data, layouts)
    if not rows:
        raise Refused(f"{data} has no rows; give one item a row.")
    first = rows[0][1]
    name = next((name for name in layouts if not LAYOUTS[name].lacks(first)), None)
    if name is None:
        raise Refused(_other(data, rows[0], layouts))
    layout = LAYOUTS[name]
    for number, row in rows:
        if lacks := layout.lacks(row):
            raise Refused(f"{data}, row {number}: {lacks[0]}, which a row of {name} has; mend or remove it.")
    return name, _limited(_named_once(data, layout.read(str(data), rows)), limit)


def _other(data: str | Path, first: tuple[int, Data], layouts: Sequence[str]) -> str:
    """That a file is of another layout: which one, or what it lacks."""
    fits = [name for name in LAYOUTS if not LAYOUTS[name].lacks(first[1])]
    near = min(layouts, key=lambda name: len(LAYOUTS[name].lacks(first[1])) / len(LAYOUTS[name].columns))
    lacks = "; ".join(LAYOUTS[near].lacks(first[1]))
    if fits:
        return (
            f"{data} is not in the layout of {' or '.join(layouts)}: its columns are those of {fits[0]}, and for {near} row {first[0]} has"
            f" {lacks}."
        )
    return f"{data} is in no known layout; the nearest is {near}, for which row {first[0]} has {lacks}."


def _named_once(data: str | Path, items: list[Item]) -> list[Item]:
    """The same items; ids that repeat are told apart by the category in front. Raises Refused where that is not enough."""
    if max(Counter(item.id for item in items).values()) > 1:
        for item in items:
            item.id = f"{item.category}/{item.id}"
    seen: dict[str, int] = {}
    for item in items:
        if item.id in seen:
            raise Refused(f"{data}, row {item.row}: the id {item.id!r} stands in row {seen[item.id]} already; give each item its own.")
        seen[item.id] = item.row
    return items


def _limited(items: list[Item], limit: int | None) -> list[Item]:
    if limit is None:
        return items
    seen: Counter[str] = Counter()
    out = []
    for item in items:
        seen[item.category] += 1
        if seen[item.category] <= limit:
            out.append(item)
    return out


def _rows(data: str | Path, layouts: Sequence[str]) -> list[tuple[int, Data]]:
    path = Path(data)
    if path.is_dir():
        return _hub_rows(str(data), layouts)
    if path.exists() or path.suffix in (".jsonl", ".json", ".parquet", ".gz") or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(data)):
        return file_rows(path)
    return _hub_rows(str(data), layouts)


def file_rows(path: Path) -> list[tuple[int, Data]]:
    """(row, columns) of JSON lines, one JSON array, or Parquet. Raises Refused for a row that is none, naming it."""
    source = Source(path)
    if not source.parquet and path.read_bytes()[:64].lstrip()[:1] == b"[":
        try:
            found = orjson.loads(path.read_bytes())
        except orjson.JSONDecodeError as error:
            raise Refused(f"{path} begins like a JSON array but is none ({error}); mend it.") from None
        for i, row in enumerate(found, 1):
            if not isinstance(row, dict):
                raise Refused(f"{path}, row {i}: a JSON {type(row).__name__}, not an object; mend or remove it.")
        return list(enumerate(found, 1))
    rows = []
    for row in source:
        if row.why:
            raise Refused(f"{path}, row {row.number}: {row.why}; mend or remove it.")
        rows.append((row.number, row.data))
    return rows


def _hub_rows(name: str, layouts: Sequence[str]) -> list[tuple[int, Data]]:
    """The rows of a data set of a hub, or of a folder that is laid out as one, by the package `datasets`; each with its `split`.

    Those of the splits that the bench is published with, or of the only one that is there. Raises Refused where that leaves it open.
    """
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise Refused(f"{name} is no file here, and reading a data set needs the package `datasets`; install guerdon[hub].") from None
    own = [layout for layout in LAYOUTS.values() if layout.hub == name] or [LAYOUTS[of] for of in layouts]
    try:
        there = datasets.get_dataset_split_names(name)
        splits = next((layout.splits for layout in own if set(layout.splits) <= set(there)), there)
        parts = [(split, datasets.load_dataset(name, split=split)) for split in splits] if splits is not there or len(there) == 1 else []
    except Exception as error:  # whatever the hub, the network or the package raises
        raise Refused(f"{name} cannot be read as a data set: {type(error).__name__}: {error}. Give a file with --data.") from error
    if not parts:
        raise Refused(f"{name} has the splits {', '.join(there)}, not {' and '.join(own[0].splits)}; give the file of one with --data.")
    rows = [{**row, "split": row.get("split") or split} for split, part in parts for row in part]
    return list(enumerate(rows, 1))


def hub_of(layout: str) -> str:
    """The hub's name of a bench's data. Raises Refused where there is none."""
    if layout not in LAYOUTS:
        raise Refused(f"There is no layout {layout!r}{nearest(layout, LAYOUTS)}")
    found = LAYOUTS[layout].hub
    if found is None:
        raise Refused("Name the file of answers with --data: this bench has no data set of its own.")
    return found

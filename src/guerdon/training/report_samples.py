"""The samples of the report: which are shown, and how hostile text becomes harmless and readable HTML."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from guerdon.training.report_charts import short

BEST, WORST, UNJUDGED = 4, 4, 4  # samples shown of one file
MOST_CHARACTERS = 6_000  # of one text
MOST_TOKENS = 1_500  # of one sample: its first two thirds and its last third
HEAVY = ("prompt", "text", "ids", "pieces", "advantage", "logprobs", "step_rewards", "token_rewards")
EMPTY = Markup('<span class="cut">empty completion</span>')


@dataclass
class Card:
    """One sample, ready to print."""

    task: str
    title: str
    """Its reward, or its state."""
    facts: list[tuple[str, str]]
    parts: list[tuple[str, str]]
    reason: Markup
    prompt: Markup
    reference: Markup
    body: Markup


@dataclass
class Shown:
    """The samples shown of one file."""

    step: int
    count: int
    limit: float
    """The advantage whose colour is full."""
    rows: list[tuple[str, list[Card]]] = field(default_factory=list)


def show(path: Path, step: int) -> Shown:
    """Best, worst and unjudged samples of a file of `samples/`. Long columns are read only for the rows that are shown."""
    import pyarrow.parquet as parquet

    file = parquet.ParquetFile(path)
    names = file.schema_arrow.names
    light = file.read(columns=[name for name in names if name not in HEAVY]).to_pylist()
    chosen = choose(light)
    wanted = sorted({row for rows in chosen.values() for row in rows})
    heavy = _rows(file, [name for name in names if name in HEAVY], wanted)
    full = {row: light[row] | heavy[row] for row in wanted}
    sizes = [abs(a) for row in full.values() for a in row.get("advantage") or () if a is not None]
    shown = Shown(step, len(light), float(np.quantile(sizes, 0.99)) if sizes else 0.0)
    groups: dict[Any, list[float]] = {}
    for row in light:
        if row.get("reward") is not None:
            groups.setdefault(row.get("group"), []).append(row["reward"])
    for title, rows in chosen.items():
        if rows:
            shown.rows.append((title, [_card(full[row], groups.get(full[row].get("group"), []), shown.limit) for row in rows]))
    return shown


def choose(rows: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """Positions of the best and the worst scored samples, and of those without a plain verdict."""
    scored = [i for i, row in enumerate(rows) if row.get("reward") is not None and row.get("state") == "scored" and not row.get("hostile")]
    lowest = min((rows[i]["reward"] for i in scored), default=0.0)
    better = [i for i in scored if rows[i]["reward"] > lowest] or scored
    best = _varied(rows, better, -1, "task_id")[: min(BEST, (len(scored) + 1) // 2)]
    worst = _varied(rows, [i for i in scored if i not in best], 1, "task_id")[:WORST]
    others = [i for i, row in enumerate(rows) if row.get("state") != "scored" or row.get("hostile")]
    return {"Best": best, "Worst": worst, "Failed, abstained or hostile": _varied(rows, others, 0, "reason")[:UNJUDGED]}


def _varied(rows: Sequence[dict[str, Any]], which: Sequence[int], sign: int, key: str) -> list[int]:
    """`which` in order of `sign` times the reward; among equals every value of `key` comes once before any comes twice."""
    seen: Counter[tuple[float, Any]] = Counter()
    place = {}
    for i in which:
        worth = sign * (rows[i].get("reward") or 0.0)
        seen[worth, rows[i].get(key)] += 1
        place[i] = (worth, seen[worth, rows[i].get(key)])
    return sorted(which, key=place.__getitem__)


def _rows(file: Any, columns: list[str], wanted: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Some rows of some columns, a row group at a time."""
    found: dict[int, dict[str, Any]] = {}
    start = 0
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        inside = [row for row in wanted if start <= row < start + size]
        if inside:
            part = file.read_row_group(group, columns=columns).take([row - start for row in inside])
            found |= dict(zip(inside, part.to_pylist() if columns else [{}] * len(inside), strict=True))
        start += size
    return found


def _card(row: dict[str, Any], group: Sequence[float], limit: float) -> Card:
    reward = row.get("reward")
    scored = row.get("state", "scored") == "scored" and reward is not None
    title = f"reward {short(reward)}" if scored else str(row.get("state") or "no verdict")
    title = f"hostile, {title}" if row.get("hostile") else title
    advantage = [a for a in row.get("advantage") or () if a is not None]
    facts = [("tokens", f"{len(row['ids']):,}")] if row.get("ids") else []
    if advantage:
        facts.append(("mean advantage", short(float(np.mean(advantage)))))
    if group:
        facts.append(("its group", f"{len(group)} scored, mean {short(float(np.mean(group)))}"))
    facts += [(name, visible(row[name], 60)) for name in ("stop", "version", "source") if row.get(name) is not None]
    if row.get("step_rewards"):
        steps = row["step_rewards"]
        while steps and steps[-1] is None:  # padding
            steps = steps[:-1]
        facts.append(("steps", " ".join(short(value) for value in steps[:20])))
    if row.get("kept") is False:
        facts.append(("kept", "no"))
    elif row.get("weight") not in (None, 1, 1.0):
        facts.append(("weight", short(row["weight"])))
    parts = row.get("parts") or {}
    if isinstance(parts, str):
        parts = json.loads(parts)
    parts = [(visible(str(name), 60), short(value)) for name, value in dict(parts).items()]
    pieces = row.get("pieces")
    body = tokens(row, limit) if pieces else escape(visible(row.get("text") or "", MOST_CHARACTERS)) or EMPTY
    return Card(
        task=visible(str(row.get("task_id", "")), 80),
        title=title,
        facts=facts,
        parts=parts,
        reason=escape(visible(row.get("reason") or "", 300)),
        prompt=escape(visible(row.get("prompt") or "", MOST_CHARACTERS)),
        reference=escape(visible("" if row.get("reference") is None else str(row["reference"]), 300)),
        body=body,
    )


def tokens(row: dict[str, Any], limit: float) -> Markup:
    """Each token as an element coloured by its advantage; `data-t` holds position, advantage, log-probability and reward."""
    pieces = row["pieces"]
    n = len(pieces)
    advantage, logprobs = (_padded(row.get(name), n) for name in ("advantage", "logprobs"))
    rewards = _padded(row.get("token_rewards"), n)
    if rewards[-1] is None:
        rewards[-1] = row.get("reward")  # the outcome stands on the last token
    head, tail = (n, n) if n <= MOST_TOKENS else (MOST_TOKENS * 2 // 3, n - MOST_TOKENS // 3)
    out = []
    for i in [*range(head), *range(tail, n)]:
        if i == tail and tail > head:
            out.append(f'<span class="cut">… {tail - head:,} tokens left out …</span>')
        a = advantage[i] or 0.0
        share = min(1.0, abs(a) / limit) if limit else 0.0
        look = f' class="{"p" if a > 0 else "n"}" style="--a:{share:.2f}"' if share else ""
        tip = f"{i}|{short(advantage[i])}|{short(logprobs[i])}|{short(rewards[i])}"
        out.append(f'<i{look} data-t="{tip}">{_piece(pieces[i] or "")}</i>')
    return Markup("".join(out))


def _padded(values: Sequence[float | None] | None, n: int) -> list[float | None]:
    values = list(values or ())[:n]
    return values + [None] * (n - len(values))


@lru_cache(maxsize=20_000)
def _piece(text: str) -> str:
    if not text.strip("\n\r") or "\n" in text:
        text = visible(text, 400).replace("\n", "↵\n")
        return str(escape(text)).replace("↵", '<b class="nl">↵</b>')
    return str(escape(visible(text, 400)))


def visible(text: Any, most: int) -> str:
    """`text` cut at `most` characters with a note, every character that would be invisible or reorder its neighbours spelt out.

    Newlines and tabs stay. Controls, format characters (bidi overrides, zero-width, tags), surrogates and private use become
    `⟨U+202E⟩`; of combining marks in a row the fourth and later go, and one at the start gets a circle to stand on.
    """
    text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False, default=str)
    over = len(text) - most
    if over > 0:
        text = text[:most]
    if not (text.isascii() and text.replace("\n", "").replace("\t", "").isprintable()):
        text = _spelt(text)
    return text + (f" … [{over:,} more characters]" if over > 0 else "")


def _spelt(text: str) -> str:
    out, marks = [], 0
    for c in text:
        kind = unicodedata.category(c)
        marks = marks + 1 if kind.startswith("M") else 0
        if marks > 3:
            continue
        hidden = kind.startswith("C") or kind in ("Zl", "Zp")
        out.append(f"⟨U+{ord(c):04X}⟩" if hidden and c not in "\n\t" else c if out or not marks else "◌" + c)
    return "".join(out)

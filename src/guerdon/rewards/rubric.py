"""Rubrics: what makes an answer good, as data, and the reward that has a judge go through it point by point.

about: A reply to a customer.                  # optional: shown to the judge
items:
- {id: polite, text: It is polite., gate: true}                    # not met: the whole value is 0
- {id: refund, text: It says when the money comes back., weight: 2, evidence: true}     # the judge must quote the passage
- {id: clear, text: It is easy to follow., points: 5}              # 0 to 5 in place of yes or no
- {id: blame, text: It blames the customer., weight: -1}           # lowers the value where it is met
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from guerdon.registry import Refused, nearest
from guerdon.rewards.core import reward
from guerdon.rewards.judge import Message, Said, ask, conversation, read_json, request, shown
from guerdon.rewards.reading import packages
from guerdon.samples import Sample, Verdict

BUILT_IN = Path(__file__).parent / "rubrics"


class Item(BaseModel):
    """One point of a rubric. Its share is 1 or 0, or with `points` the points given of so many."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(default="", max_length=60, description="its number unless stated")
    text: str = Field(min_length=1, description="what the judge finds to be so, or not")
    weight: float = Field(default=1.0, allow_inf_nan=False)
    gate: bool = False
    evidence: bool = Field(default=False, description="met only where the judge quotes a passage that stands in the answer")
    points: int | None = Field(default=None, ge=1, le=100)

    @model_validator(mode="after")
    def _gate_is_plain(self) -> Item:
        if self.gate and (self.points is not None or self.weight < 0):
            raise ValueError("a gate is met or not: it has neither `points` nor a `weight` below 0")
        return self


class Rubric(BaseModel):
    """value = max(0, sum_i weight_i share_i / sum of the positive weights), 0 where a gate is not met, 1 where no weight is positive."""

    model_config = ConfigDict(extra="forbid")
    about: str = ""
    items: list[Item] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _named(self) -> Rubric:
        for number, item in enumerate(self.items, 1):
            item.id = item.id or str(number)
        names = [item.id for item in self.items]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two items have the id {twice!r}; give each its own")
        if all(item.weight <= 0 and not item.gate for item in self.items):
            raise ValueError("no item is a gate or has a weight above 0, so that every answer would get the same")
        return self

    def value(self, shares: Mapping[str, float]) -> float:
        """shares: of each item by id, in [0, 1]. A gate is met above one half (of the votes)."""
        if any(item.gate and shares[item.id] <= 0.5 for item in self.items):
            return 0.0
        whole = math.fsum(item.weight for item in self.items if item.weight > 0)
        return max(0.0, math.fsum(item.weight * shares[item.id] for item in self.items) / whole) if whole else 1.0


def load(file: str | Path) -> Rubric:
    """The rubric of a YAML file, or of a name without ending, which guerdon ships. Raises Refused naming file and field."""
    path = Path(file)
    if not path.suffix and path.name == str(file):
        path = BUILT_IN / f"{file}.yaml"
        if not path.is_file():
            raise Refused(f"There is no rubric {str(file)!r}{nearest(str(file), [p.stem for p in BUILT_IN.glob('*.yaml')])}")
    try:
        return rubric_of(yaml.safe_load(path.read_text(encoding="utf-8")), str(file))
    except OSError as error:
        raise Refused(f"The rubric {file} cannot be read: {error.strerror or error}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"The rubric {file} is no YAML: {' '.join(str(error).split())[:200]}.") from None


def rubric_of(data: Any, where: str) -> Rubric:
    """The rubric of a mapping, or of the list of its items. Raises Refused: where, field, and what is wrong."""
    try:
        return Rubric.model_validate({"items": data} if isinstance(data, list) else data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ", ".join(f"number {part + 1}" if isinstance(part, int) else str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise Refused(f"The rubric of {where}{f', {field}' if field else ''}: {said}.") from None


def _check(file: str | None = None, votes: int = 1, max_tokens: int = 1024, **_: Any) -> None:
    packages("jsonschema")()
    if votes < 1 or max_tokens < 1:
        raise Refused(f"rubric takes votes and max_tokens of 1 or more, not {votes} and {max_tokens}.")
    if file is not None:
        load(file)


@reward(batch=True, check=_check)
def rubric(
    sample: list[Sample], model: Any = "judge", file: str | None = None, together: bool = True, votes: int = 1, max_tokens: int = 1024
) -> list[Verdict]:
    """The weighted share of a rubric's items that the judge finds met, in [0, 1]; see `Rubric`.

    file: the rubric, a YAML file or the name of one that guerdon ships; without it the task's `meta.rubric` (a list of items, or the
    whole), and abstained where there is none. together: one conversation for all items, or one an item, which costs more and lets no item
    sway another. Several votes are averaged item by item. An item with `evidence` whose quote does not stand in the answer (case, white
    space and punctuation aside) is not met. Evidence `rubric`: {items: {id: {share, quotes, made_up}}, unread}. 0 without an answer;
    hostile and failed as of `judge`; an item without a readable verdict makes the sample failed.
    """
    shared = load(file) if file is not None else None
    rubrics = [_rubric(s, shared) for s in sample]
    answers: list[Any] = [given if isinstance(given, Verdict) else shown(model, s) for s, given in zip(sample, rubrics, strict=True)]
    asked = [
        (i, items)
        for i, (given, answer) in enumerate(zip(rubrics, answers, strict=True))
        if isinstance(given, Rubric) and isinstance(answer, str)
        for items in ([given.items] if together else [[item] for item in given.items])
    ]
    said = ask(
        model,
        [_conversation(sample[i], answers[i], rubrics[i], items) for i, items in asked],
        [_reader(items, answers[i]) for i, items in asked],
        votes=votes,
        max_tokens=max_tokens,
    )
    found: dict[int, list[Said[Marks]]] = {}
    for (i, _), one in zip(asked, said, strict=True):
        found.setdefault(i, []).append(one)
    return [_verdict(rubrics[i], found[i]) if i in found else answers[i] for i in range(len(sample))]


Marks = dict[str, dict[str, Any]]
"""By item: {share, quote, made_up}, of one vote."""


def _rubric(sample: Sample, shared: Rubric | None) -> Rubric | Verdict:
    if shared is not None:
        return shared
    data = {**sample.task.meta, **sample.meta}.get("rubric")
    if data is None:
        return Verdict.abstain("the task has no `rubric` in its meta; or name a file: rubric(file='...')")
    try:
        return rubric_of(data, f"task {sample.task.id!r}")
    except Refused as error:
        return Verdict.fail(str(error))


def _conversation(sample: Sample, answer: Any, given: Any, items: Sequence[Item]) -> list[Message]:
    entries = []
    for item in items:
        how = f"an object with `points`, a whole number from 0 to {item.points}" if item.points else "an object with `met`, true or false"
        first = "first `quote`, the passage of the answer that shows it, word for word, or an empty text where there is none, then "
        entries.append(f"{item.id!r}: {item.text} [{how.replace('with ', f'with {first}') if item.evidence else how}]")
    instruction = (
        f"Go through a rubric. Say of each item whether it is so of the answer to the request, each by itself. {given.about}\n"
        "The items, each with what to say of it:\n" + "\n".join(entries)
    )
    form = "Reason briefly first. Then end with one JSON object that has these items as its keys; it begins a line, and nothing follows it."
    return conversation(instruction, form, request=request(sample.task.prompt), answer=answer)


def _reader(items: Sequence[Item], answer: Any) -> Callable[[str], Marks | None]:
    """Reads the marks of these items; what is quoted is looked up in the answer."""
    schema = {"type": "object", "properties": {item.id: _entry(item) for item in items}, "additionalProperties": False}
    schema["required"] = [item.id for item in items]
    plain = normalised(answer)

    def read(text: str) -> Marks | None:
        found = read_json(text, schema)
        return None if found is None else {item.id: _mark(item, found[item.id], plain) for item in items}

    return read


def _entry(item: Item) -> dict[str, Any]:
    properties: dict[str, Any] = {"met": {"type": "boolean"}}
    if item.points:
        properties = {"points": {"type": "integer", "minimum": 0, "maximum": item.points}}
    if item.evidence:
        properties["quote"] = {"type": "string"}
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _mark(item: Item, entry: Mapping[str, Any], plain: str) -> dict[str, Any]:
    share = entry["points"] / item.points if item.points else float(entry["met"])
    if not item.evidence:
        return {"share": share, "quote": None, "made_up": False}
    quote = normalised(entry["quote"])
    there = bool(quote) and f" {quote} " in f" {plain} "
    return {"share": share if there else 0.0, "quote": entry["quote"], "made_up": share > 0 and not there}


def normalised(text: str) -> str:
    """The words of a text, in one case, with one blank between them."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


_WORD = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af]|[^\W\u2e80-\u9fff\uac00-\ud7af]+")  # each sign by itself where there are no blanks


def _verdict(given: Any, said: Sequence[Said[Marks]]) -> Verdict:
    if failed := next((one for one in said if one.failed), None):
        return failed.verdict()
    marks: dict[str, list[dict[str, Any]]] = {}
    for one in said:
        for vote in one.values:
            for name, mark in vote.items():
                marks.setdefault(name, []).append(mark)
    evidence = {
        name: {
            "share": float(np.mean([vote["share"] for vote in votes])),
            "quotes": [vote["quote"] for vote in votes if vote["quote"]],
            "made_up": sum(vote["made_up"] for vote in votes),
        }
        for name, votes in marks.items()
    }
    value = given.value({name: entry["share"] for name, entry in evidence.items()})
    return Verdict(value, evidence={"rubric": {"items": evidence, "unread": sum(one.unread for one in said)}})

"""The reward that has a judge go through a rubric point by point; `rubric_data` says what a rubric is."""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.judge import Message, Said, ask, conversation, read_json, request, shown
from guerdon.rewards.reading import packages
from guerdon.samples import Sample, Verdict

if TYPE_CHECKING:
    from guerdon.rewards.rubric_data import Item, Rubric


def data() -> Any:
    """The module that reads rubrics; it needs pydantic, which a process that only scores is spared."""
    return importlib.import_module("guerdon.rewards.rubric_data")


def _check(file: str | None = None, votes: int = 1, max_tokens: int = 1024, **_: Any) -> None:
    packages("jsonschema")()
    if votes < 1 or max_tokens < 1:
        raise Refused(f"rubric takes votes and max_tokens of 1 or more, not {votes} and {max_tokens}.")
    if file is not None:
        data().load(file)


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
    shared = data().load(file) if file is not None else None
    rubrics = [_rubric(s, shared) for s in sample]
    answers: list[Any] = [given if isinstance(given, Verdict) else shown(model, s) for s, given in zip(sample, rubrics, strict=True)]
    asked = [
        (i, items)
        for i, (given, answer) in enumerate(zip(rubrics, answers, strict=True))
        if not isinstance(given, Verdict) and isinstance(answer, str)
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
    given = {**sample.task.meta, **sample.meta}.get("rubric")
    if given is None:
        return Verdict.abstain("the task has no `rubric` in its meta; or name a file: rubric(file='...')")
    try:
        return data().rubric_of(given, f"task {sample.task.id!r}")
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

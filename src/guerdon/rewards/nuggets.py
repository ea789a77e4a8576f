"""Atomic facts as a rubric: how much of them a judge finds in an answer, and how well a judge that is trained labels them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from guerdon.rewards.core import reward
from guerdon.rewards.judge import GUARD, Message, Said, ask, attack, quoted, read_json
from guerdon.rewards.reading import said, strict_json
from guerdon.samples import HOSTILE, Prompt, Sample, Verdict

LABELS = {"support": 1.0, "partial_support": 0.5, "not_support": 0.0}
"""What a verifier says of a nugget -> what it is worth."""

_TASK = """Of each of the {n} facts below, say whether the answer states it, by the answer alone:
support: it states the fact in full, in whatever words, and nothing against it.
partial_support: it states an essential part of it, or hedges.
not_support: it leaves the fact out, contradicts it, or only something that you know yourself would make it true.

{texts}

Give your reasoning between <reasoning> and </reasoning>, fact by fact. Then write, as the last line, a JSON array of {n} labels in the
order of the facts, for example ["support", "not_support"]."""
_SCHEMA = {"type": "array", "items": {"enum": list(LABELS)}}


def asked(prompt: Prompt) -> str:
    """The text of a prompt, for a judge: of messages each with its role; parts that are no text are left out."""
    if isinstance(prompt, str):
        return prompt
    parts = [(m.get("role"), [{"text": c}] if isinstance(c := m.get("content") or "", str) else c) for m in prompt]
    return "\n\n".join(f"{role}: {''.join(str(part.get('text', '')) for part in content)}" for role, content in parts)


@reward(batch=True)
def nuggets(sample: list[Sample], model: Any = "judge", votes: int = 1, max_tokens: int = 2048) -> list[Verdict]:
    """sum_k w_k v_k / sum_k w_k over the nuggets of the task; v = 1 where the judge finds nugget k stated, 1/2 in part, 0 not.

    The nuggets are the task's `meta.nuggets`: texts, or `{text, weight}`; without it the reference, a text or a list of texts, so that a
    short answer is one nugget and the reward is whether it is stated. No nuggets: abstained. One conversation an answer, whatever the
    number of nuggets; with several votes v is their mean. Evidence `nuggets`: the labels, a list a vote. An answer of labels that are not
    exactly one a nugget is not read. Source: arXiv:2510.14660 (Search-Gen-V); 1/2 for a part and equal weights are assumed.
    """
    out: list[Verdict | _Rubric] = [_rubric(model, s) for s in sample]
    live = [x for x in out if isinstance(x, _Rubric)]
    found = iter(ask(model, [x.conversation() for x in live], lambda text: read_json(text, _SCHEMA), votes=votes, max_tokens=max_tokens))
    return [x if isinstance(x, Verdict) else x.verdict(next(found)) for x in out]


def unanswered(found: Said[Any]) -> Verdict:
    """Failed. What the sample wrote was looked at before: a control token found now stands in the task, or in what a tool said."""
    return Verdict.fail(f"in the task or its sources, {found.failed}" if found.failed.startswith(HOSTILE) else found.failed)


class _Rubric:
    def __init__(self, sample: Sample, answer: str, texts: list[str], weights: list[float]) -> None:
        self.sample, self.answer, self.texts, self.weights = sample, answer, texts, weights

    def conversation(self) -> list[Message]:
        facts = "\n".join(f"{i}. {text}" for i, text in enumerate(self.texts, 1))
        fenced = quoted(question=asked(self.sample.task.prompt), facts=facts, answer=self.answer)
        return [{"role": "system", "content": GUARD}, {"role": "user", "content": _TASK.format(n=len(self.texts), texts=fenced)}]

    def verdict(self, found: Said[list[str]]) -> Verdict:
        fits = [labels for labels in found.values if len(labels) == len(self.texts)]
        if not fits:
            return Verdict.fail(f"the judge gave other than {len(self.texts)} labels") if found.values else unanswered(found)
        value = [sum(LABELS[labels[k]] for labels in fits) / len(fits) for k in range(len(self.texts))]
        total = sum(w * v for w, v in zip(self.weights, value, strict=True))
        return Verdict(total / sum(self.weights), evidence={"nuggets": fits})


def _rubric(model: Any, sample: Sample) -> _Rubric | Verdict:
    """What the judge is asked, or the verdict that needs no judge."""
    given = {**sample.task.meta, **sample.meta}.get("nuggets", sample.task.reference)
    several = given if isinstance(given, (list, tuple)) else [] if given is None else [given]
    if not several:
        return Verdict.abstain("the task has no nuggets")
    pairs = [(str(x.get("text", "")), x.get("weight", 1.0)) if isinstance(x, Mapping) else (str(x), 1.0) for x in several]
    if not all(text.strip() and isinstance(w, (int, float)) and isfinite(w) and w > 0 for text, w in pairs):
        return Verdict.fail("a nugget of the task has no text, or a weight that is not above 0")
    answer = said(sample.text)
    if answer is None or not answer.strip():
        return Verdict(0.0, "no answer found")
    if why := attack(model, answer):
        return Verdict(0.0, why)
    return _Rubric(sample, answer, [text for text, _ in pairs], [float(w) for _, w in pairs])


F1, ALL_RIGHT, REASONING, FORM = 0.35, 0.35, 0.20, 0.10
OPEN, SHUT = "<reasoning>", "</reasoning>"


@reward
def nugget_labels(text: str, reference: Any, meta: Mapping[str, Any]) -> Verdict:
    """R = 0.35 F1 + 0.35 EM + 0.20 T + 0.10 S for a verifier's own answer, `<reasoning>...</reasoning>` and then a list of labels.

    F1: the mean over the three labels of the label's F1, 1 for a label that neither list has.  EM: 1 where all labels are right.  T: 1 for
    one reasoning block with something in it and after it, 1/2 where one of these is empty, else 0.  S: 1 where the list has the form that
    `meta.label_format` names (`FORMS`), else 0; without one R ends at 0.9. R = 0 where the list is empty, is not one label a gold label, or
    has F1 0, and where `<reasoning>` is opened more than once. The reference: the gold labels, a list or such a text; abstained where it
    has none. Evidence `macro_f1`: F1 over the labels that occur alone, which does not flatter where a label is rare.
    Source: arXiv:2510.14660, its released search_gen_v.py, with its lenient reading of lists but for `eval`; a second block is 0 there too,
    as the factor of 0.1 for it is never reached.
    """
    gold = labels_of(reference if isinstance(reference, str) else json.dumps(reference))
    if not gold:
        return Verdict.abstain(f"the reference has no labels; a label is one of {', '.join(LABELS)}")
    text = text.strip()
    if text.count(OPEN) > 1:
        return Verdict(0.0, "more than one reasoning block")
    tail = listed(text)
    labels = labels_of(tail)
    if len(labels) != len(gold):
        return Verdict(0.0, f"{len(labels)} labels, not {len(gold)}")
    each = {label: f1(label, labels, gold) for label in LABELS}
    present = [x for x in each.values() if x is not None]
    mean = sum(1.0 if x is None else x for x in each.values()) / len(each)
    if mean == 0:
        return Verdict(0.0, "no label is right")
    form = FORMS.get(str(meta.get("label_format")))
    value = F1 * mean + ALL_RIGHT * (labels == gold) + REASONING * reasoned(text) + FORM * bool(form and form(tail))
    return Verdict(value, evidence={"macro_f1": sum(present) / len(present)})


def f1(label: str, labels: Sequence[str], gold: Sequence[str]) -> float | None:
    """2 tp / (2 tp + fp + fn) of one label; None where neither list has it."""
    hits = sum(a == b == label for a, b in zip(labels, gold, strict=True))
    either = labels.count(label) + gold.count(label)
    return 2 * hits / either if either else None


def listed(text: str) -> str:
    """What stands behind the reasoning block; everything where there is none."""
    start, shut, last = text.find(OPEN), text.find(SHUT), text.rfind(SHUT)
    if start < 0 or last < 0:
        return text
    return text[last + len(SHUT) :].strip() if start < shut else ""


def reasoned(text: str) -> float:
    """1 for one reasoning block with something in it and after it, 1/2 where one of these is empty, else 0."""
    if text.count(OPEN) != 1 or text.count(SHUT) != 1 or text.find(SHUT) < text.find(OPEN):
        return 0.0
    inside = text[text.find(OPEN) + len(OPEN) : text.find(SHUT)]
    return 1.0 if inside.strip() and listed(text) else 0.5


_XML = re.compile(r"<label>([^<]*)</label>")
_NUMBER = re.compile(r"^\d+\.\s*")
_QUOTED = re.compile(r"""\s*(['"])(\s*\w*\s*)\1\s*""")


def labels_of(text: str) -> list[str]:
    """The labels of a list in any of the forms, in order; what is no label is left out. Nothing is evaluated."""
    text = text.strip()
    try:
        value = strict_json(text)
    except ValueError:
        value = None
    if isinstance(value, Mapping):
        value = value.get("labels")
    if isinstance(value, list):
        return _among(map(str, value))
    if text.startswith("[") and text.endswith("]"):  # a Python list, in single quotes
        items = [_QUOTED.fullmatch(item) for item in text[1:-1].split(",")]
        if all(items):
            return _among(item[2] for item in items if item)
    lines = [line.strip() for line in text.splitlines()]
    for items in ([line.strip("*- ") for line in lines], _XML.findall(text)):
        if found := _among(items):
            return found
    for separator in ",\t":
        if separator in text:
            return _among(text.split(separator))
    return _among(_NUMBER.sub("", line) for line in lines) or _among(text.split("|"))


def _among(items: Iterable[str]) -> list[str]:
    return [x for x in (item.strip() for item in items) if x in LABELS]


def _json(tail: str) -> bool:
    try:
        value = strict_json(tail)
    except ValueError:
        return False
    return isinstance(value, list) or (isinstance(value, dict) and isinstance(value.get("labels"), list))


def _every(opening: str) -> Any:
    return lambda tail: all(re.match(opening, line.strip()) for line in tail.splitlines() if line.strip())


FORMS = {
    "json": _json,
    "csv": lambda tail: "," in tail and not tail.startswith("["),
    "python_list": lambda tail: tail.startswith("[") and tail.endswith("]"),
    "yaml": _every(r"- "),
    "markdown": _every(r"\* "),
    "xml": lambda tail: tail.startswith("<labels>") and tail.endswith("</labels>") and bool(_XML.search(tail)),
    "tsv": lambda tail: "\t" in tail,
    "numbered": _every(r"\d+\.\s+\w+"),
    "comma_separated": lambda tail: ", " in tail and not tail.startswith("["),
    "pipe_separated": lambda tail: "|" in tail,
}
"""The forms of a list of labels: name -> whether what stands behind the reasoning has it. Source: search_gen_v.py."""

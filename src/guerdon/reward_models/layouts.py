"""Which file is of which layout, and how a row of it is read: our own columns and the public data sets', known by their columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guerdon.registry import Refused, nearest
from guerdon.samples import Prompt, Span

Row = Mapping[str, Any]


class Bad(ValueError):
    """A row that cannot be learnt from: the field, and why."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"`{field}` {why}")


@dataclass
class Answer:
    """One completion of an example's prompt, and what is known of it."""

    text: str
    outcome: float | None = None
    steps: list[Span] = field(default_factory=list)
    """In characters of `text`, one behind the other."""
    labels: list[float | None] = field(default_factory=list)
    """One a step; None where nobody judged it."""


@dataclass
class Example:
    """What is learnt together: one answer, a pair, or a list. pairs: (better, worse), places among the answers.

    How much better one is, is the difference of their outcomes: 1 unless the file says.
    """

    prompt: Prompt
    answers: list[Answer]
    pairs: list[tuple[int, int]] = field(default_factory=list)
    file: str = ""
    row: int = 0
    """Where it was read, for errors."""
    group: int = 0
    """Of examples with the same prompt."""


@dataclass(frozen=True)
class Layout:
    """columns: those that a file of this layout has. values: types they must have where several layouts have the same columns."""

    name: str
    columns: frozenset[str]
    read: Callable[[Row], Example]
    fits: Callable[[Row], bool]


LAYOUTS: dict[str, Layout] = {}


def layout(*columns: str, fits: Callable[[Row], bool] = lambda row: True) -> Callable[[Callable[[Row], Example]], Any]:
    def enter(read: Callable[[Row], Example]) -> Callable[[Row], Example]:
        LAYOUTS[read.__name__] = Layout(read.__name__, frozenset(columns), read, fits)
        return read

    return enter


def recognise(path: str, rows: Iterable[tuple[int, Row]], name: str | None = None) -> Layout:
    """The layout of a file by its first (number, row) that has the columns of one: a row before it lacks some, which is that row's fault.

    A layout whose columns another one's contain gives way to that. Raises Refused for an unknown name, for columns of no layout, and for
    those of several: then `--layout NAME` decides.
    """
    if name is not None and name not in LAYOUTS:
        raise Refused(f"There is no layout {name!r}{nearest(name, LAYOUTS)}")
    first: tuple[int, Row] | None = None
    for number, row in rows:
        first = first or (number, row)
        found = [one for one in LAYOUTS.values() if one.columns <= row.keys() and (one.name == name if name else one.fits(row))]
        found = [one for one in found if not any(one.columns < other.columns for other in found)]
        if len(found) > 1:
            names = ", ".join(one.name for one in found)
            raise Refused(f"{path}: its columns fit several layouts ({names}); say which one it is with --layout NAME.")
        if found:
            return found[0]
    number, row = first or (0, {})
    if name is not None:
        lacks = ", ".join(map(repr, sorted(LAYOUTS[name].columns - row.keys())))
        raise Refused(f"{path}: the layout {name!r} has a column {lacks}, and row {number} of the file has: {', '.join(row)}.")
    raise Refused(
        f"{path}, row {number}: its columns ({', '.join(row)}) are of no known layout; give pairs (`prompt, chosen, rejected`), lists "
        "(`prompt, completions, scores`), labelled steps (`prompt, steps, labels`) or labelled answers (`prompt, completion, label`), or "
        f"name one of {', '.join(LAYOUTS)} with --layout."
    )


# --- what cells hold -------------------------------------------------------------------------------------------------------------


def text_of(row: Row, field: str) -> str:
    value = row.get(field)
    if value is None:
        raise Bad(field, "is missing")
    if not isinstance(value, str):
        raise Bad(field, f"is of type {type(value).__name__}, not a text")
    if not value.strip():
        raise Bad(field, "is empty")
    return value


def list_of(row: Row, field: str) -> list[Any]:
    value = row.get(field)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise Bad(field, "is missing" if value is None else f"is of type {type(value).__name__}, not a list")
    return list(value)


def number_of(value: Any, field: str) -> float:
    if not isinstance(value, (bool, int, float)) or value != value:
        raise Bad(field, f"is {value!r:.40}, not a number")
    return float(value)


def labels_of(values: Sequence[Any], field: str, steps: int) -> list[float | None]:
    if len(values) != steps:
        raise Bad(field, f"has {len(values)} labels for {steps} steps")
    return [None if x is None else number_of(x, f"{field}[{i}]") for i, x in enumerate(values)]


def prompt_of(row: Row, field: str = "prompt") -> Prompt:
    value = row.get(field)
    if messages(value):
        return list(value)  # type: ignore[arg-type]
    return text_of(row, field)


def messages(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0 and all(_message(m) for m in value)


def _message(m: Any) -> bool:
    return isinstance(m, Mapping) and "role" in m and "content" in m


def stepwise(prompt: Prompt, steps: Sequence[Any], labels: Sequence[float | None], field: str, between: str) -> Example:
    """One answer of these steps; what stands `between` two belongs to the earlier."""
    spans, text = [], ""
    for i, step in enumerate(steps):
        if not isinstance(step, str) or not step.strip():
            raise Bad(f"{field}[{i}]", "is a step without text")
        start = len(text)
        text += step + (between if i + 1 < len(steps) and not step.endswith(between) else "")
        spans.append((start, len(text)))
    if not spans:
        raise Bad(field, "has no steps")
    return Example(prompt, [Answer(text, steps=spans, labels=list(labels))])


def pair(prompt: Prompt, chosen: str, rejected: str, scores: tuple[float, float] = (1.0, 0.0)) -> Example:
    if chosen.strip() == rejected.strip():
        raise Bad("rejected", "is equal to `chosen`")
    return Example(prompt, [Answer(chosen, scores[0]), Answer(rejected, scores[1])], [(0, 1)])


def side(row: Row, field: str) -> tuple[Prompt | None, str]:
    """(the messages before the answer, or None, the answer) of a side that is a text or a conversation."""
    value = row.get(field)
    if not messages(value):
        return None, text_of(row, field)
    *before, last = list(value)  # type: ignore[arg-type]
    if last["role"] != "assistant":
        raise Bad(field, f"ends with a message of {last['role']!r}, not of the assistant")
    return before or None, text_of(last, "content")


def ranked(prompt: Prompt, texts: Sequence[Any], scores: Sequence[Any], where: str, field: str) -> Example:
    """A list and its scores: every two that differ are a pair. Equal texts of unequal scores contradict each other."""
    if len(texts) != len(scores):
        raise Bad(field, f"has {len(scores)} scores for {len(texts)} answers")
    if len(texts) < 2:
        raise Bad(where, f"has {len(texts)} answers; a list has two or more")
    answers = [
        Answer(text_of({where: text}, where), number_of(s, f"{field}[{i}]")) for i, (text, s) in enumerate(zip(texts, scores, strict=True))
    ]
    pairs = [(i, j) for i, a in enumerate(answers) for j, b in enumerate(answers) if (a.outcome or 0) > (b.outcome or 0)]
    if same := next(((i, j) for i, j in pairs if answers[i].text.strip() == answers[j].text.strip()), None):
        raise Bad(f"{where}[{same[1]}]", f"is equal to {where}[{same[0]}], and their scores differ")
    return Example(prompt, answers, pairs)


# --- our own layouts -------------------------------------------------------------------------------------------------------------


@layout("prompt", "chosen", "rejected")
def pairs(row: Row) -> Example:
    """`prompt, chosen, rejected` and, where there is one, `margin`. Sides are texts, or conversations that end with the answer."""
    (_, chosen), (_, rejected) = side(row, "chosen"), side(row, "rejected")
    margin = row.get("margin")
    return pair(prompt_of(row), chosen, rejected, (1.0 if margin is None else number_of(margin, "margin"), 0.0))


@layout("prompt", "completions", "scores")
def lists(row: Row) -> Example:
    """`prompt, completions, scores`: several answers, the higher score the better."""
    return ranked(prompt_of(row), list_of(row, "completions"), list_of(row, "scores"), "completions", "scores")


@layout("prompt", "steps", "labels")
def steps(row: Row) -> Example:
    """`prompt, steps, labels`: one label a step, null for none; what `guerdon annotate` writes. Steps that do not spell `completion`, where
    there is one, get a line break at their end where they have none."""
    texts = list_of(row, "steps")
    whole = all(isinstance(x, str) for x in texts) and "".join(texts) == row.get("completion")
    return stepwise(prompt_of(row), texts, labels_of(list_of(row, "labels"), "labels", len(texts)), "steps", "" if whole else "\n")


@layout("prompt", "completions", "labels")
def stepwise_supervision(row: Row) -> Example:
    """`prompt, completions, labels`: the same, as TRL names the columns."""
    texts = list_of(row, "completions")
    return stepwise(prompt_of(row), texts, labels_of(list_of(row, "labels"), "labels", len(texts)), "completions", "\n")


@layout("prompt", "completion", "label")
def outcomes(row: Row) -> Example:
    """`prompt, completion, label`: one number, or true or false, an answer."""
    return Example(prompt_of(row), [Answer(text_of(row, "completion"), number_of(row.get("label"), "label"))])


# --- public layouts --------------------------------------------------------------------------------------------------------------


@layout("prompt", "chosen", "rejected", "chosen_model", "rejected_model", "subset")
def rewardbench(row: Row) -> Example:
    """RewardBench 1: pairs with the models that wrote them and a subset."""
    return pairs(row)


@layout("prompt", "chosen", "rejected", "score_chosen", "score_rejected")
def ultrafeedback_binarized(row: Row) -> Example:
    """UltraFeedback, binarised: two conversations and their scores."""
    (before, chosen), (_, rejected) = side(row, "chosen"), side(row, "rejected")
    better, worse = (number_of(row.get(name), name) for name in ("score_chosen", "score_rejected"))
    if better < worse:
        raise Bad("score_chosen", "is lower than `score_rejected`")
    return pair(before or prompt_of(row), chosen, rejected, (better, worse))


@layout("instruction", "completions", "models", "source")
def ultrafeedback(row: Row) -> Example:
    """UltraFeedback: an instruction, and several completions with an overall score each."""
    found = list_of(row, "completions")
    scores = [one.get("overall_score") for one in found]
    return ranked(text_of(row, "instruction"), [one.get("response") for one in found], scores, "completions", "overall_score")


_TURN = re.compile(r"\n\n(Human|Assistant): ?")


@layout("chosen", "rejected", fits=lambda row: isinstance(row["chosen"], str) and row["chosen"].lstrip("\n").startswith("Human:"))
def hh(row: Row) -> Example:
    """HH: two whole dialogues `\\n\\nHuman: ... \\n\\nAssistant: ...` that differ in the last turn."""
    (before, chosen), (other, rejected) = dialogue(row, "chosen"), dialogue(row, "rejected")
    if before != other:
        raise Bad("rejected", "is of another dialogue than `chosen`: they differ before the last turn")
    return pair(before, chosen, rejected)


def dialogue(row: Row, field: str) -> tuple[list[dict[str, str]], str]:
    text = text_of(row, field)
    pieces = _TURN.split(text if text.startswith("\n\n") else "\n\n" + text)[1:]
    turns = [
        {"role": "user" if who == "Human" else "assistant", "content": said} for who, said in zip(pieces[::2], pieces[1::2], strict=True)
    ]
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        raise Bad(field, "is no dialogue of `Human:` and `Assistant:` that ends with the assistant")
    *before, last = turns
    return before, text_of({field: last["content"]}, field)


@layout("question", "label", fits=lambda row: isinstance(row["label"], Mapping))
def prm800k(row: Row) -> Example:
    """PRM800K: along the chosen completion of each step its rating, -1, 0 or 1; at the last one the first, where none was chosen.

    A step that a person wrote was not rated: its label is none.
    """
    question, label = row["question"], row["label"]
    problem = text_of(question if isinstance(question, Mapping) else {}, "problem")
    texts: list[Any] = []
    ratings: list[float | None] = []
    for i, step in enumerate(list_of(label, "steps")):
        options, chosen = step.get("completions") or [], step.get("chosen_completion")
        if chosen is None and step.get("human_completion"):
            texts.append(step["human_completion"].get("text"))
            ratings.append(None)
            continue
        if not options or (chosen is not None and not 0 <= chosen < len(options)):
            raise Bad(f"label.steps[{i}]", f"has {len(options)} completions, and {chosen!r} was chosen")
        one = options[chosen or 0]
        rating = one.get("rating")
        texts.append(one.get("text"))
        ratings.append(None if rating is None else number_of(rating, f"label.steps[{i}].rating"))
        if chosen is None:
            break
    return stepwise(problem, texts, ratings, "label.steps", "\n")


@layout("input", "label", fits=lambda row: isinstance(row["label"], str) and "ки" in str(row["input"]))
def math_shepherd(row: Row) -> Example:
    """Math-Shepherd: `input` has the tag ки where `label` has + or -, behind each step."""
    given, label = text_of(row, "input"), text_of(row, "label")
    pieces = given.split("ки")
    start = pieces[0].find("Step 1:")
    if len(pieces) < 2 or start < 0:
        raise Bad("input", "has no `Step 1:` with the tag ки behind it")
    texts = [pieces[0][start:].strip(), *(piece.strip() for piece in pieces[1:-1])]
    signs, at = [], 0
    for i, piece in enumerate(pieces[:-1]):
        at += len(piece)
        sign = label[at : at + 1]
        if sign not in ("+", "-"):
            raise Bad("label", f"has {sign!r} behind step {i + 1}, where + or - belongs")
        signs.append(float(sign == "+"))
        at += 1
    return stepwise(pieces[0][:start].strip(), texts, signs, "input", "\n")


@layout("problem", "steps", "label", "final_answer_correct")
def processbench(row: Row) -> Example:
    """ProcessBench: the place of the first wrong step, -1 for none. Those before it are right; nobody judged those behind it."""
    texts, label = list_of(row, "steps"), row.get("label")
    if not isinstance(label, int) or not -1 <= label < len(texts):
        raise Bad("label", f"is {label!r:.40}; it is -1 or the place of one of the {len(texts)} steps")
    labels = [1.0 if label < 0 or i < label else 0.0 if i == label else None for i in range(len(texts))]
    return stepwise(text_of(row, "problem"), texts, labels, "steps", "\n\n")

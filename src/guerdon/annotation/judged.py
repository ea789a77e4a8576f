"""Step labels from a judge: a verdict on every step in one answer, with or without a reference, and the consensus with rollouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import orjson

from guerdon.annotation.core import Labels, annotator, confidence
from guerdon.annotation.monte_carlo import SPENT, monte_carlo
from guerdon.annotation.probe import graded
from guerdon.registry import Refused
from guerdon.rewards.judge import Message, Said, ask, conversation, last, read_json, request
from guerdon.samples import Context, Sample
from guerdon.scoring.cache import Cache, content
from guerdon.search.core import Budget, Cost
from guerdon.spans import SPLITTERS, Split, mark


@dataclass
class Jury:
    """A model that is asked about answers, each question once, counted and journalled as by `Prober`; `calls` of the budget are votes."""

    context: Context
    model: str = "judge"
    votes: int = 1
    max_tokens: int = 2048
    budget: Budget = field(default_factory=Budget)
    journal: Cache | None = None
    about: str = ""
    seed: int = 0
    at_once: int = 64
    tell: Callable[[float, int], None] = lambda share, calls: None

    def __post_init__(self) -> None:
        if min(self.votes, self.max_tokens, self.at_once) < 1:
            raise Refused(f"A judge takes votes, max_tokens and at_once of 1 or more, not {self.votes}, {self.max_tokens}, {self.at_once}.")
        if self.model not in self.context.models:
            raise Refused(f"These labels need the model {self.model!r}; give it with --model {self.model}=PATH, or in Context(models=...).")
        self.cost, self.spent = Cost(), False

    def ask(self, questions: Sequence[Sequence[Message]], reads: Sequence[Callable[[str], Any]]) -> list[Said[Any] | None]:
        """What is said to each question, in values that are plain data; None once the budget is spent."""
        how = (self.about, self.model, self.votes, self.max_tokens, self.seed)
        keys = [content((how, [dict(m) for m in messages])) or b"" for messages in questions]
        places = {key: i for i, key in reversed(list(enumerate(keys)))}
        found: dict[bytes, Said[Any]] = {}
        todo = [key for key in dict.fromkeys(keys)]
        while todo:
            left = None if self.budget.calls is None else (self.budget.calls - self.cost.calls) // self.votes
            some = todo[: self.at_once if left is None else min(self.at_once, left)]
            if not some:
                self.spent = True
                break
            found |= self._settle(some, [questions[places[key]] for key in some], [reads[places[key]] for key in some])
            todo = todo[len(some) :]
            self.tell(len(found) / len(places), self.cost.calls)
        return [found.get(key) for key in keys]

    def _settle(self, keys: Sequence[bytes], questions: Sequence[Any], reads: Sequence[Any]) -> dict[bytes, Said[Any]]:
        old = {} if self.journal is None else {key: orjson.loads(data) for key, data in self.journal.get(list(keys)).items()}
        fresh = [i for i, key in enumerate(keys) if key not in old]
        counted = _Counted(self.context.models[self.model])
        said = ask(counted, [questions[i] for i in fresh], [reads[i] for i in fresh], votes=self.votes, max_tokens=self.max_tokens,
                   seed=self.seed) if fresh else []  # fmt: skip
        new = {keys[i]: one for i, one in zip(fresh, said, strict=True)}
        rows = {}
        for i, (key, one) in enumerate(new.items()):
            tokens = counted.new if i == 0 else 0  # those of the call stand with its first question
            rows[key] = [one.values, one.failed, one.unread, tokens]
        if self.journal is not None:
            self.journal.put([(key, orjson.dumps(row)) for key, row in rows.items() if row[0]])
        every = {**old, **rows}
        self.cost = self.cost + Cost(tokens=sum(every[key][3] for key in keys), calls=self.votes * len(keys))
        return {key: Said(values, failed, unread) for key, (values, failed, unread, _) in every.items()}


class _Counted:
    """A model whose new tokens are counted."""

    def __init__(self, model: Any) -> None:
        self.model, self.new = model, 0

    def sample(self, *args: Any) -> Any:
        found, usage = self.model.sample(*args)
        self.new += usage.new
        return found, usage

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def stepped(samples: Sequence[Sample], split: Split) -> list[Sample]:
    """The samples with their steps marked. Raises Refused, naming the first one that has none."""
    out = []
    for i, sample in enumerate(samples):
        if "step" not in sample.marks:
            sample = replace(sample, marks={}, spans={})
            mark(sample, split)
        if not sample.marks["step"]:
            raise Refused(f"Sample {i} (task {sample.task.id!r}): `completion` has no text, so no steps; leave it out.")
        out.append(sample)
    return out


RIGHT, WRONG = "right", "wrong"
STEPS = (
    "You are shown a request and the steps of somebody's answer, numbered from 1. Say of each step whether it is right: true, and "
    "following from the request and the steps before it. A step that builds on a wrong one is wrong, unless it mends it."
)


@annotator
def judged(
    samples: Sequence[Sample], context: Context, *, model: str = "judge", compare: bool = False, votes: int = 1, max_tokens: int = 2048,
    split: Split = "lines", seed: int = 0, budget: Budget = Budget(), journal: Cache | None = None, about: str = "",  # noqa: B008
    tell: Callable[[float, int], None] = lambda share, calls: None,
) -> Labels:  # fmt: skip
    """A judge's verdict on each step, all steps of an answer in one reply: value = share of the votes that call it right.

    The judge sees request, steps, and with `compare` the reference, and replies with a JSON list of `right` and `wrong`, one a step; a list
    of another length says nothing. Answers on which it says nothing have no labels. Budget: calls, one a vote.
    Source: arXiv:2501.07301 (the judge of its consensus), arXiv:2412.06559 (ProcessBench's critics).
    """
    samples = stepped(samples, split)
    jury = Jury(context, model, votes, max_tokens, budget, journal, about, seed, tell=tell)
    questions, reads = [], []
    for sample in samples:
        n = len(sample.steps)
        form = last(f'the JSON object {{"verdicts": [...]}}, a list of {n} words, {RIGHT!r} or {WRONG!r}, one a step', True)
        reference = {"reference": str(sample.task.reference)} if compare and sample.task.reference is not None else {}
        questions.append(conversation(STEPS, form, request=request(sample.task.prompt), **reference, **named("step", sample.steps)))
        reads.append(_reader(n))
    labels = Labels.none(samples)
    for i, said in enumerate(jury.ask(questions, reads)):
        if not _silent(labels, i, said):
            assert said is not None
            verdicts = np.array(said.values, dtype=float)
            for t, right in enumerate(verdicts.sum(0).astype(int).tolist()):
                labels.set(i, t, right / len(verdicts), len(verdicts), confidence(right, len(verdicts)))
    labels.cost, labels.spent = jury.cost, jury.spent
    return labels


def named(name: str, texts: Sequence[str]) -> dict[str, str]:
    """step_1, step_2, ... -> the texts: each is quoted by itself, so that none can pretend to be the next."""
    return {f"{name}_{i}": text.strip("\n") for i, text in enumerate(texts, 1)}


def _reader(n: int) -> Callable[[str], list[float] | None]:
    words = {"type": "array", "items": {"enum": [RIGHT, WRONG]}, "minItems": n, "maxItems": n}
    schema = {"type": "object", "properties": {"verdicts": words}, "required": ["verdicts"], "additionalProperties": False}

    def read(text: str) -> list[float] | None:
        found = read_json(text, schema)
        return None if found is None else [float(word == RIGHT) for word in found["verdicts"]]

    return read


def _silent(labels: Labels, row: int, said: Said[Any] | None) -> bool:
    """Notes why an answer has no labels; False where the judge said something."""
    if said is not None and said.values:
        return False
    labels.text[row] = [SPENT if said is None else f"no label: {said.failed}"] * len(labels.text[row])
    return True


RECORDS = (
    "You are shown a request, the steps of a reference solution, and the steps of somebody's answer, both numbered from 1. Compare each "
    "step of the answer with the steps of the reference that it stands beside, which may be several or none; another way to the same "
    "result is as good. For each step of the answer write one record: why, the reference steps that it was compared with, and whether it "
    "is CORRECT or INCORRECT."
)
RECORD = '{"step": N, "explanation": "...", "reference_steps": [N, ...], "label": "CORRECT" or "INCORRECT"}'


@annotator
def spare(
    samples: Sequence[Sample], context: Context, *, model: str = "judge", solution: str = "solution",
    missed: Literal["incorrect", "outcome"] = "incorrect", max_tokens: int = 4096, split: Split = "lines", seed: int = 0,
    budget: Budget = Budget(), journal: Cache | None = None, about: str = "",  # noqa: B008
    tell: Callable[[float, int], None] = lambda share, calls: None,
) -> Labels:  # fmt: skip
    """One reply of a judge labels all steps of an answer beside a reference solution; no rollouts.

    The judge writes a JSON list of records {step, explanation, reference_steps, label}. A step is right where its record says CORRECT; a
    label that is neither word, and a step without a record, is wrong (missed="outcome": takes the answer's outcome). Of several records
    of a step the last counts. The last step of a whole answer is the answer's outcome, graded by the context's scorer. The explanation is
    the step's text. count 1, confidence of one vote; the last step's is 1.
    The reference is the task's column `solution` (a text, or a list of steps), else its reference; an answer whose task has neither has no
    labels, and so has one whose reply is no JSON list (the authors' code mends broken JSON, and takes an empty reply for all correct).
    Source: arXiv:2506.15498, github.com/UKPLab/arxiv2025-spare-prm.
    """
    if missed not in ("incorrect", "outcome"):
        raise Refused(f"spare(missed={missed!r}): a step without a record is 'incorrect' or takes the 'outcome'.")
    samples = stepped(samples, split)
    labels = Labels.none(samples)
    jury = Jury(context, model, 1, max_tokens, budget, journal, about, seed, tell=tell)
    references = [_solution(sample, solution, split) for sample in samples]
    rows = [i for i, steps in enumerate(references) if steps]
    form = f"Reply with a JSON list of such records, one a step of the answer, and nothing else: {RECORD}"
    questions = [
        conversation(
            RECORDS, form, request=request(samples[i].task.prompt), **named("reference", references[i]), **named("step", samples[i].steps)
        )
        for i in rows
    ]
    said = dict(zip(rows, jury.ask(questions, [_records] * len(rows)), strict=True))
    whole = [i for i in rows if (one := said[i]) is not None and one.values and _whole(samples[i])]
    outcomes = dict(zip(whole, graded(context, [samples[i] for i in whole]) if whole else [], strict=True))
    for i in range(len(samples)):
        if i not in said:
            labels.text[i] = [f"no label: the task has no {solution!r} and no reference"] * len(labels.text[i])
        elif not _silent(labels, i, said[i]):
            found, outcome = {r["step"]: r for r in said[i].values[0]}, outcomes.get(i)  # type: ignore[union-attr]
            otherwise = float(bool(outcome)) if missed == "outcome" else 0.0
            for t in range(len(labels.text[i])):
                record = found.get(t + 1)
                value = otherwise if record is None else float(record["label"] == "CORRECT")
                labels.set(i, t, value, int(record is not None), confidence(int(value), int(record is not None)))
                labels.text[i][t] = "" if record is None else record["explanation"]
            if outcome is not None:
                labels.set(i, len(labels.text[i]) - 1, float(outcome), 1, 1.0)
    labels.cost, labels.spent = jury.cost + Cost(calls=len(whole)), jury.spent
    return labels


def _whole(sample: Sample) -> bool:
    """A sample of a file has no tokens, and is a whole answer."""
    return sample.stop is not None or sample.ids is None


def _solution(sample: Sample, column: str, split: Split) -> list[str]:
    meta: Mapping[str, Any] = {**sample.task.meta, **sample.meta}
    found = meta.get(column, sample.task.reference)
    if isinstance(found, (list, tuple)):
        return [str(step) for step in found if str(step).strip()]
    return [] if found is None else [str(found)[a:b] for a, b in SPLITTERS[split](str(found))]


def _records(text: str) -> list[dict[str, Any]] | None:
    """The records of a reply that is a JSON list; those that name no step, or have no label, say nothing."""
    found = read_json(text, {"type": "array"})
    if found is None:
        return None
    return [
        {"step": r["step"], "label": r["label"], "explanation": str(r.get("explanation", ""))}
        for r in found
        if isinstance(r, dict) and type(r.get("step")) is int and isinstance(r.get("label"), str)
    ]


@annotator
def consensus(
    samples: Sequence[Sample], context: Context, *, judge_model: str = "judge", votes: int = 1, judge_tokens: int = 2048, **how: Any
) -> Labels:
    """Labels of the answers in which Monte Carlo and a judge see the same first wrong step, or both none; the others have none.

    e_MC: the first step with hard label 0, k rollouts behind each; e_J: the first one that more than half of the judge's votes call wrong.
    Where e_MC = e_J: 1 before it, 0 at it, no label behind it; counts and confidence are those of Monte Carlo. how: as for `monte_carlo`;
    the judge's calls are on top of the budget. Source: arXiv:2501.07301.
    """
    labels = monte_carlo(samples, context, soft=False, **how)
    mine = {name: how[name] for name in ("split", "seed", "journal", "about") if name in how}
    judge = judged(labels.samples, context, model=judge_model, votes=votes, max_tokens=judge_tokens, **mine)
    first, theirs = labels.first_wrong(), judge.first_wrong(at=0.5 - 1e-9)
    unknown = np.array(
        [bool(np.isnan(judge.value[i, :n]).any() or np.isnan(labels.value[i, :n]).any()) for i, n in enumerate(labels.steps)],
        dtype=bool,
    )
    keep = ~unknown & agree(first, theirs)
    for i, n in enumerate(labels.steps.tolist()):
        if unknown[i]:
            why = next(text for text in [*labels.text[i], *judge.text[i]] if text)
        else:
            why = f"no label: Monte Carlo says {_step(first[i])}, the judge {_step(theirs[i])}"
        begin = 0 if not keep[i] else n if first[i] < 0 else int(first[i]) + 1
        for t in range(begin, n):
            labels.set(i, t, np.nan, 0, np.nan)
            labels.text[i][t] = "no label: behind the first wrong step" if keep[i] else why
    labels.cost = labels.cost + judge.cost
    return labels


def agree(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) where two annotators see the same first wrong step (n,), or both none (-1)."""
    return a == b


def _step(first: int) -> str:
    return "no step is wrong" if first < 0 else f"step {first + 1} is wrong"

"""The scores of a bench's answers: by a reward, through the one scoring engine, or from a file that someone else made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from guerdon.evals.bench.layouts import Data, Item, file_rows
from guerdon.evals.bench.metrics import aggregate, pairwise_wins
from guerdon.registry import Refused
from guerdon.rewards.expr import Expr
from guerdon.samples import Rewards, Sample, State, Task
from guerdon.scoring.engine import Engine, sees_all
from guerdon.spans import mark

Value = float | list[float | None] | None
"""A score, or scores of the steps (None for a step that abstained); None is no verdict."""
ANSWERS = 512
"""Answers that are scored in one call of the engine."""


@dataclass
class Scored:
    """A value for each answer of each item, in their order."""

    values: list[list[Value]]
    why: dict[tuple[int, int], str] = field(default_factory=dict)
    """(item, answer) -> why it has no verdict."""
    by: str = ""

    @property
    def failed(self) -> int:
        """Answers without a verdict."""
        return sum(value is None for row in self.values for value in row)

    @property
    def answers(self) -> int:
        return sum(map(len, self.values))

    def numbers(self, how: str = "last") -> list[np.ndarray]:
        """For each item (k,): one number an answer, its step scores put together; NaN without a verdict."""
        return [np.array([aggregate(value, how) for value in row]) for row in self.values]

    def steps(self, i: int) -> list[float | None] | None:
        """The step scores of the first answer of item i; None without a verdict. Raises Refused where there are none."""
        value = self.values[i][0]
        if value is None or isinstance(value, list):
            return value
        raise Refused(f"{self.by} gives one score for a whole answer, but this bench wants one for each step; use a process reward.")


def to_samples(items: Sequence[Item], first: int = 0) -> list[Sample]:
    """A sample an answer; those of an item are one group. Steps that the layout says are the sample's steps."""
    out = []
    for i, item in enumerate(items, first):
        for j, text in enumerate(item.answers):
            meta = item.meta | item.own[j] if item.own else item.meta
            sample = Sample(Task(item.id, item.prompt, item.reference, meta), text, group=i, source="file", stop="end", meta=dict(meta))
            mark(sample)
            if item.steps:
                joint = (len(text) - sum(map(len, item.steps[j]))) // max(len(item.steps[j]) - 1, 1)
                sample.marks["step"] = _spans(item.steps[j], joint)
                sample.spans["step"] = list(sample.marks["step"])
            out.append(sample)
    return out


def _spans(steps: Sequence[str], joint: int) -> list[tuple[int, int]]:
    """Where steps stand that are joined by `joint` characters, which belong to the step before."""
    spans, at = [], 0
    for k, step in enumerate(steps):
        end = at + len(step) + (joint if k < len(steps) - 1 else 0)
        spans.append((at, end))
        at = end
    return spans


def by_reward(
    items: Sequence[Item], reward: str | Expr, engine: Engine, tick: Callable[[int, int], None] = lambda done, total: None
) -> Scored:
    """The items' answers scored by a reward; tick(done, all) counts answers. Raises Refused for a reward that cannot run here."""
    root = engine.check(reward)
    values: list[list[Value]] = []
    why: dict[tuple[int, int], str] = {}
    total = sum(len(item.answers) for item in items)
    for part in [items] if sees_all(root) else _parts(items):
        first = len(values)
        rewards = engine.score(root, to_samples(part, first))
        at = 0
        for item in part:
            values.append([_value(rewards, at + j) for j in range(len(item.answers))])
            why.update({
                (len(values) - 1, j): f"{State(int(rewards.state[at + j])).name.lower()}: {rewards.why(at + j) or 'no reason given'}"
                for j, value in enumerate(values[-1])
                if value is None
            })  # fmt: skip
            at += len(item.answers)
        tick(sum(map(len, values)), total)
    return Scored(values, why, f"`{root}`")


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Runs of whole items of about ANSWERS answers."""
    start = size = 0
    for i, item in enumerate(items):
        size += len(item.answers)
        if size >= ANSWERS:
            yield items[start : i + 1]
            start, size = i + 1, 0
    if start < len(items):
        yield items[start:]


def _value(rewards: Rewards, i: int) -> Value:
    if not rewards.alive[i]:
        return None
    grain = rewards.outcome or rewards.step or rewards.token
    assert grain is not None
    if grain.value.ndim == 1:
        return float(grain.value[i]) if grain.scored[i] else None
    there = np.flatnonzero(grain.state[i] != State.ABSTAINED)
    return [float(x) if ok else None for x, ok in zip(grain.value[i][: there[-1] + 1], grain.scored[i], strict=False)]


# --- a file of scores ---------------------------------------------------------------------------------------------------------------


def write(items: Sequence[Item], scored: Scored, path: Path) -> Path:
    """The scores as a file that `--scores` reads: `id`, and `scores` in the order of the answers."""
    lines = [orjson.dumps({"id": item.id, "scores": row}) for item, row in zip(items, scored.values, strict=True)]
    path.write_bytes(b"\n".join([*lines, b""]))
    return path


def from_file(items: Sequence[Item], path: str | Path) -> Scored:
    """Scores by id. A row is of an item, or of one of its answers where these have ids of their own:

    - `id, scores`: one score an answer, in the order of the bench's file (chosen before rejected; A before B); null is no verdict
    - `id, score_chosen, score_rejected`: numbers or lists
    - `id, reward` or `id, score`: one answer, as `guerdon score` writes it; `step_rewards` or `step_scores` where these are there
    - as the benches' own code writes it: `pair_id, judgments` or `decision` (JudgeBench), `id, prediction` (ProcessBench),
      `problem, score` and `solution_reference` (RewardMATH)

    Raises Refused for an id that the bench has not, one that comes twice, one that is missing, and another number of scores.
    """
    of_item = {item.id: i for i, item in enumerate(items)}
    of_text = {item.prompt: i for i, item in enumerate(items) if isinstance(item.prompt, str)}
    of_answer = {key: (i, j) for i, item in enumerate(items) for j, key in enumerate(item.keys)}
    values: list[list[Any]] = [[_MISSING] * len(item.answers) for item in items]
    seen: dict[tuple[int, int], int] = {}
    copies: dict[str, int] = {}
    for n, row in file_rows(Path(path)):
        where = f"{path}, row {n}"
        if of_answer and not any(isinstance(row.get(name), list) for name in ("scores", "score")):
            key = _key(row, where)
            copies[key] = copies.get(key, 0) + 1
            key = key if copies[key] == 1 else f"{key}#{copies[key]}"
            if key not in of_answer:
                raise Refused(f"{where}: the bench has no answer with the id {key!r}; it has, for example, {next(iter(of_answer))!r}.")
            i, j = of_answer[key]
            if row.get("completion") not in (None, items[i].answers[j]):
                raise Refused(f"{where}: `completion` is another text than that of the answer {key!r} in the bench; the files differ.")
            cells = [(j, _one(row, where))]
        else:
            i = _item(row, where, of_item, of_text)
            cells = list(enumerate(_whole(row, items[i], where)))
        for j, value in cells:
            if (i, j) in seen:
                raise Refused(f"{where}: the item {items[i].id!r} has its scores in row {seen[i, j]} already; keep one of them.")
            seen[i, j] = n
            values[i][j] = _checked(value, items[i], j, where)
    lacking = [(i, j) for i, row in enumerate(values) for j, value in enumerate(row) if value is _MISSING]
    if lacking:
        i, j = lacking[0]
        which = f"answer {items[i].keys[j]!r} of item {items[i].id!r}" if items[i].keys else f"item {items[i].id!r}"
        raise Refused(f"{path} has no score of {which} (row {items[i].row} of the bench), and of {len(lacking) - 1} other answers.")
    why = {(i, j): "no verdict in the file" for i, row in enumerate(values) for j, value in enumerate(row) if value is None}
    return Scored(values, why, str(path))


_MISSING = object()


def _key(row: Data, where: str) -> str:
    for name in ("id", "pair_id", "problem_id"):
        if row.get(name) is not None:
            return str(row[name])
    raise Refused(f"{where}: no `id`; each row of scores names its item.")


def _item(row: Data, where: str, of_item: dict[str, int], of_text: dict[str, int]) -> int:
    if "solution_reference" in row and isinstance(row.get("problem"), str) and row.get("id") is None:
        if row["problem"] not in of_text:
            raise Refused(f"{where}: the bench has no problem {row['problem'][:60]!r}.")
        return of_text[row["problem"]]
    key = _key(row, where)
    for name in (key, f"{row.get('subset')}/{key}"):
        if name in of_item:
            return of_item[name]
    raise Refused(f"{where}: the bench has no item with the id {key!r}; it has, for example, {next(iter(of_item))!r}.")


def _one(row: Data, where: str) -> Any:
    for name in ("step_rewards", "step_scores", "reward", "score"):
        if name in row:
            return None if row.get("state") in ("failed", "abstained") else row[name]
    raise Refused(f"{where}: no `reward`, `score` or `step_scores`.")


def _whole(row: Data, item: Item, where: str) -> list[Any]:
    """The values of all answers of an item."""
    if isinstance(row.get("judgments"), list) or "decision" in row:
        games = row["judgments"] if isinstance(row.get("judgments"), list) else [{"decision": row["decision"]}]
        return _judged([None if game is None else game.get("decision") for game in games], where)
    if "prediction" in row and item.steps:
        at = row["prediction"]
        if at is None:
            return [None]
        if not isinstance(at, int) or not -1 <= at < len(item.steps[0]):
            raise Refused(f"{where}: `prediction` is {at!r}, but the item {item.id!r} has {len(item.steps[0])} steps, and -1 is none.")
        return [[float(k != at) for k in range(len(item.steps[0]))]]
    if "score_chosen" in row and "score_rejected" in row:
        found = [*_list(row["score_chosen"]), *_list(row["score_rejected"])]
    elif isinstance(row.get("score"), list) and isinstance(row.get("chosen_position"), list):
        won = [None if s is None else s == c for s, c in zip(row["score"], row["chosen_position"], strict=False)]
        if len(won) != len(item.answers) - 1 or item.right[:1] != [True]:
            raise Refused(f"{where}: {len(won)} comparisons for an item of {len(item.answers)} answers, the first of them chosen.")
        return list(pairwise_wins(won))
    elif isinstance(row.get("score"), list):
        theirs, ours = row.get("solution_reference"), item.meta.get("solution_reference")
        if theirs is not None and ours is not None and theirs != ours:
            raise Refused(f"{where}: `solution_reference` is not that of the item {item.id!r} in the bench; the files differ.")
        found = row["score"]
    elif isinstance(row.get("scores"), list):
        found = row["scores"]
        if len(item.answers) == 1 and item.steps and not (found and isinstance(found[0], list)):
            found = [found]  # the step scores themselves
    elif len(item.answers) == 1:
        return [_one(row, where)]
    else:
        raise Refused(f"{where}: no `scores`, and no `score_chosen` and `score_rejected`.")
    if len(found) != len(item.answers):
        raise Refused(f"{where}: {len(found)} scores, but the item {item.id!r} has {len(item.answers)} answers.")
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _judged(decisions: Sequence[Any], where: str) -> list[float | None]:
    """Decisions of one game, or of two whose second had the answers the other way round, as scores of A and B: wins, a tie half a win.

    None of both where no game was decided.
    """
    a = b = 0.0
    known = 0
    for turned, decision in enumerate(decisions[:2]):
        if decision is None:
            continue
        if decision not in ("A>B", "B>A", "A=B"):
            raise Refused(f"{where}: the decision {decision!r} is not 'A>B', 'B>A', 'A=B' or null.")
        known += 1
        first = {"A>B": 1.0, "B>A": 0.0, "A=B": 0.5}[decision]
        a, b = a + (1 - first if turned else first), b + (first if turned else 1 - first)
    return [a, b] if known else [None, None]


def _checked(value: Any, item: Item, j: int, where: str) -> Value:
    """A number, a list of numbers, or None. `[0.3]`, as some files have it, is 0.3 where the answer has no steps."""
    if isinstance(value, list) and not item.steps and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        if item.label is not None and len(value) != len(item.steps[j]):
            raise Refused(f"{where}: {len(value)} step scores for {len(item.steps[j])} steps of the item {item.id!r}.")
        return [_number(x, where) for x in value]
    return _number(value, where)


def _number(x: Any, where: str) -> float | None:
    if x is None or (isinstance(x, float) and np.isnan(x)):
        return None
    if isinstance(x, (bool, int, float)) and np.isfinite(x):
        return float(x)
    raise Refused(f"{where}: the score {x!r} is not a number; null is no verdict.")

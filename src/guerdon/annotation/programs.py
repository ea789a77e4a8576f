"""Labels for the lines of programs: a line is changed, and the tests say whether the program still does what it should."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np

from guerdon.annotation.core import Labels, annotator
from guerdon.annotation.judged import Jury, stepped
from guerdon.annotation.probe import graded
from guerdon.rewards.code import program_of
from guerdon.rewards.judge import conversation, read_json, request
from guerdon.samples import Context, Sample
from guerdon.scoring.cache import Cache
from guerdon.search.core import Budget, Cost
from guerdon.spans import mark

INTENTS = {"mutate": "so that the program does something else", "refactor": "so that the program still does the same, written another way"}

_SWAP: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn,
    ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
_FLIP: dict[type, type] = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE, ast.Eq: ast.Eq, ast.NotEq: ast.NotEq}


@annotator(adds=True)
def mutated(
    samples: Sequence[Sample], context: Context, *, each: int = 1, teacher: str | None = None, max_tokens: int = 256, seed: int = 0,
    budget: Budget = Budget(), journal: Cache | None = None, about: str = "",  # noqa: B008
    tell: Callable[[float, int], None] = lambda share, calls: None,
) -> Labels:  # fmt: skip
    """Line labels of programs that pass their tests, and of copies of them with one line changed, which stand behind the given ones.

    In each line up to `each` changes are made that are meant to break it (mutate) and as many that are not (refactor). A copy is that line
    in its program, the lines behind it kept; its label is what the context's scorer says of the whole copy, whatever was meant: 1 where it
    passes, else 0. The lines before it, and every line of a program that passes, have 1; the lines behind it have no label, nor has
    a program that does not pass. meta of a copy: `intent`, `line` (from 1). Steps are lines that are not blank.
    teacher: the name of a model that rewrites lines, asked once a line and intent (`each` is then 1; budget: calls, its answers and graded
    programs together); without one operators are swapped, numbers moved by one, operands and comparisons turned round, on lines that hold
    a whole expression. Source: arXiv:2502.01715 (PRLCoder), whose teacher is a language model; from its abstract.
    """
    samples = stepped(samples, "lines")
    jury = None if teacher is None else Jury(context, teacher, 1, max_tokens, budget, journal, about, seed, tell=tell)
    room = len(samples) if budget.calls is None else min(len(samples), budget.calls)
    said = [*(graded(context, samples[:room]) if room else []), *[None] * (len(samples) - room)]
    rng = np.random.default_rng(seed)
    passed = [sample for sample, right in zip(samples, said, strict=True) if right]
    cost = Cost(calls=room)
    copies = list(taught(passed, jury)) if jury else [copy for sample in passed for copy in changed(sample, each, rng)]
    cost = cost + jury.cost if jury else cost
    left = len(copies) if budget.calls is None else max(0, budget.calls - cost.calls)
    tried, spent = copies[:left], left < len(copies) or room < len(samples) or bool(jury and jury.spent)
    verdicts = graded(context, tried) if tried else []
    labels = Labels.none([*samples, *tried])
    for i, right in enumerate([*said, *verdicts]):
        copy = i >= len(samples)
        place = _step_at(labels.samples[i]) if copy else len(labels.text[i]) - 1
        for t in range(len(labels.text[i])):
            if t > place:
                labels.text[i][t] = "no label: behind the changed line"
            elif copy and t == place and right is not None:
                labels.set(i, t, float(right), 1, 1.0)
            elif (copy and t < place) or right:
                labels.set(i, t, 1.0, 0 if copy else 1, 1.0)
            else:
                labels.text[i][t] = "no label: no verdict" if right is None else "no label: the program does not pass its tests"
    labels.cost, labels.spent = cost + Cost(calls=len(tried)), spent
    return labels


def changed(sample: Sample, each: int, rng: np.random.Generator) -> Iterator[Sample]:
    """Copies with one line changed by rule, in the order of the lines; none of a program that does not parse."""
    program = program_of(sample.text)
    try:
        tree = ast.parse(program or "")
    except (SyntaxError, ValueError, RecursionError):
        return
    found: dict[tuple[int, str], list[str]] = {}
    lines = (program or "").split("\n")
    for node in ast.walk(tree):
        if getattr(node, "lineno", 0) and getattr(node, "lineno", 0) == getattr(node, "end_lineno", None):
            for intent, new in _changes(node):
                raw = lines[node.lineno - 1].encode()  # type: ignore[attr-defined]
                line = (raw[: node.col_offset] + new.encode() + raw[node.end_col_offset :]).decode()  # type: ignore[attr-defined]
                if line.strip() != lines[node.lineno - 1].strip():  # type: ignore[attr-defined]
                    found.setdefault((node.lineno, intent), []).append(line)  # type: ignore[attr-defined]
    for (number, intent), several in sorted(found.items()):
        unlike = list(dict.fromkeys(several))
        for at in sorted(rng.permutation(len(unlike))[:each].tolist()):
            yield spliced(sample, program or "", number, unlike[at], intent)


def _changes(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(intent, source) of what may stand in the place of a node."""
    new: Any = deepcopy(node)
    if isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in _SWAP:
        new.op = _SWAP[type(node.op)]()
        yield "mutate", ast.unparse(new) if isinstance(node, ast.AugAssign) else f"({ast.unparse(new)})"
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mult)):
        yield "refactor", f"({ast.unparse(ast.BinOp(node.right, node.op, node.left))})"
    if isinstance(node, ast.AugAssign):
        target = ast.unparse(node.target)
        yield "refactor", f"{target} = {ast.unparse(ast.BinOp(ast.parse(target, mode='eval').body, node.op, node.value))}"
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        op = type(node.ops[0])
        if op in _SWAP:
            new.ops = [_SWAP[op]()]
            yield "mutate", f"({ast.unparse(new)})"
        if op in _FLIP:
            yield "refactor", f"({ast.unparse(ast.Compare(node.comparators[0], [_FLIP[op]()], [node.left]))})"
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield "mutate", str(node.value + 1)


TEACH = "You are shown a request, a program that meets it, and one line of the program. Rewrite that line, and that line alone, {how}."


def taught(samples: Sequence[Sample], jury: Jury) -> Iterator[Sample]:
    """Copies with one line rewritten by a model; a reply that is no line, or the line itself, makes none."""
    schema = {"type": "object", "properties": {"line": {"type": "string"}}, "required": ["line"], "additionalProperties": False}

    def read(text: str) -> str | None:
        found = read_json(text, schema)
        return None if found is None or "\n" in found["line"].strip("\n") else str(found["line"]).strip("\n")

    asked = []
    for sample in samples:
        program = program_of(sample.text)
        for number, line in enumerate((program or "").split("\n"), 1):
            if line.strip():
                asked += [(sample, program or "", number, line, intent) for intent in INTENTS]
    form = 'Answer with the JSON object {"line": "..."}, the new line with its indentation, alone.'
    questions = [
        conversation(TEACH.format(how=INTENTS[intent]), form, request=request(s.task.prompt), program=program, line=line)
        for s, program, _, line, intent in asked
    ]
    for (sample, program, number, line, intent), said in zip(asked, jury.ask(questions, [read] * len(asked)), strict=True):
        if said is not None and said.values and said.values[0].strip() not in ("", line.strip()):
            yield spliced(sample, program, number, said.values[0], intent)


def spliced(sample: Sample, program: str, number: int, line: str, intent: str) -> Sample:
    """The sample with line `number` of its program replaced."""
    lines = program.split("\n")
    lines[number - 1] = line
    at = sample.text.rfind(program)
    text = sample.text[:at] + "\n".join(lines) + sample.text[at + len(program) :]
    before = sample.text[:at].count("\n")
    copy = replace(
        sample, text=text, ids=None, offsets=None, written=None, logprobs=None, prompt_ids=None, spans={}, marks={}, path=(),
        meta={**sample.meta, "intent": intent, "line": before + number},
    )  # fmt: skip
    mark(copy, "lines")
    return copy


def _step_at(copy: Sample) -> int:
    """The step that holds the changed line."""
    at = sum(len(line) + 1 for line in copy.text.split("\n")[: copy.meta["line"] - 1])
    return next(t for t, (_, end) in enumerate(copy.marks["step"]) if end > at)

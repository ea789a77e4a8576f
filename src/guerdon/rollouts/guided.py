"""Answers that begin with help: the first part of a demonstration, or a hint. What helped is marked and is in no loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.backends.base import Model, SamplingParams
from guerdon.registry import Refused, nearest
from guerdon.rollouts.core import completed, place, plain_ids, rollout, seed_of
from guerdon.samples import Context, Sample, Span, Task
from guerdon.spans import Split

TEACHER = "{prompt}\n\nSolution:\n{solution}\n\nWrite one short hint that helps to find this solution and does not tell the answer.\nHint:"


@rollout(fills=("guide_tokens",))
def guided(
    policy: Model, tasks: Sequence[Task], n: int, context: Context, *, column: str = "solution",
    share: Sequence[float] = (0.0, 0.25, 0.5, 0.75), hint: str | None = None, teacher: str | None = None, teacher_prompt: str = TEACHER,
    teacher_tokens: int = 128, max_tokens: int = 256, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0,
    stop: Sequence[str] = (), split: Split = "lines",
) -> list[Sample]:  # fmt: skip
    """n answers a task, each begun for the policy with a guide: its first tokens, not `written` and without log-probabilities.

    Without `hint` the guide is the first part of the demonstration in `meta[column]`: of its tokens (the end token is not among them) the
    share that the answer's subgroup has, rounded down; there are as many subgroups of equal size as shares (where n does not divide, sizes
    differ by one). With `hint`, a text with {hint} in it, the guide is that text with the column's, the same for all n. teacher: the name
    of a model of the run that writes the hint instead, once a task and greedily, to teacher_prompt, where {prompt} and {solution} stand.
    spans["guide"] and meta "guide_tokens" say what is guide; the answer is the policy's (`source`), and everything it wrote after the guide
    counts. max_tokens counts what the policy writes. Raises Refused for a task without the column where it is read, shares outside
    0 to 1, a hint without {hint} and a teacher that the run has not. Source of prefixes of falling length: arXiv:2402.05808 (R3).
    """
    if hint is None and (not share or not all(0 <= x <= 1 for x in share)):
        raise Refused(f"guided(share={list(share)}): give one or more shares of the demonstration, each from 0 to 1.")
    if hint is not None and "{hint}" not in hint:
        raise Refused(f"guided(hint={hint!r}): the hint must say {{hint}} where the text of the column or of the teacher goes.")
    if hint is None and teacher is not None:
        raise Refused(f"guided(teacher={teacher!r}): a teacher writes a hint; say where it goes, as in hint: 'Hint: {{hint}}\\n'.")
    if hint is None:
        whole = [plain_ids(policy, _text(task, column)) for task in tasks]
        shares = [share[j * len(share) // n] for j in range(n)]
        guides = [[ids[: int(x * len(ids))] for x in shares] for ids in whole]
    else:
        hints = (
            [_text(task, column) for task in tasks]
            if teacher is None
            else _taught(tasks, context, teacher, teacher_prompt, column, teacher_tokens)
        )
        guides = [[plain_ids(policy, hint.replace("{hint}", text))] * n for text in hints]
    params = SamplingParams(max_tokens, temperature, top_p, top_k, tuple(stop), seed_of(context))
    prompts = [policy.encode(task.prompt) for task in tasks]
    rows = [(i, guide) for i, several in enumerate(guides) for guide in several]
    completions, usage = policy.sample([np.concatenate([prompts[i], guide]) for i, guide in rows], 1, params)
    context.spend("rollouts", usage)
    samples = []
    for (i, guide), (c,) in zip(rows, completions, strict=True):
        sample = completed(policy, tasks[i], i, prompts[i], [(guide, None), (c.ids, c.logprobs)], c.stop, c.version, split)
        mark_guide(sample, (0, len(guide)))
        samples.append(sample)
    place(samples)
    return samples


def mark_guide(sample: Sample, span: Span) -> None:
    """Says which tokens are a guide: spans and marks "guide", meta "guide_tokens"."""
    start, end = span
    assert sample.offsets is not None
    places = (int(sample.offsets[start, 0]), int(sample.offsets[end - 1, 1])) if end > start else (0, 0)
    sample.spans["guide"], sample.marks["guide"] = ([span], [places]) if end > start else ([], [])
    sample.meta["guide_tokens"] = end - start


def _text(task: Task, column: str) -> str:
    text = task.meta.get(column)
    if text is None:
        raise Refused(f"The task {task.id!r} has no column {column!r}, which the rollout `guided` reads; name another with `column:`.")
    return text if isinstance(text, str) else "\n".join(text)


def _taught(tasks: Sequence[Task], context: Context, teacher: str, ask: str, column: str, most: int) -> list[str]:
    """The teacher's hints, one a task."""
    if teacher not in context.models:
        raise Refused(f"guided(teacher={teacher!r}): the run has no such model{nearest(teacher, context.models)}")
    model = context.models[teacher]
    told = []
    for task in tasks:
        prompt = task.prompt if isinstance(task.prompt, str) else "\n".join(str(m.get("content") or "") for m in task.prompt)
        told.append(ask.replace("{prompt}", prompt).replace("{solution}", _text(task, column) if "{solution}" in ask else ""))
    completions, usage = model.sample([model.encode(x) for x in told], 1, SamplingParams(most, temperature=0.0))
    context.spend("rollouts", usage)
    return [model.decode(several[0].ids)[0].strip() for several in completions]

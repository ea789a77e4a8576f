"""Where an answer first went wrong, and one step in the place of that one: corrected answers, and interventions to learn from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from guerdon.backends.base import Completion, Model, SamplingParams
from guerdon.registry import Refused, nearest
from guerdon.rollouts.core import completed, place, plain_ids, rollout, seed_of
from guerdon.rollouts.guided import mark_guide
from guerdon.rollouts.parallel import parallel
from guerdon.samples import Context, Rewards, Sample, Task
from guerdon.spans import Split

STEP = (
    "{prompt}\n\nReference solution:\n{solution}\n\nThe beginning of an attempt, all of it right:\n{before}\n\n"
    "Its next step, which is wrong:\n{wrong}\n\nWrite one step to stand in its place. Do not state the final answer.\nStep: "
)


def first_wrong(rewards: Rewards) -> list[int | None]:
    """For each sample the first step that was scored at 0 or below; None where there is none, or the sample failed.

    Raises Refused for rewards without steps.
    """
    if rewards.step is None:
        raise Refused("To find the first wrong step the reward must score steps; add one of step grain, such as arithmetic_steps.")
    wrong = rewards.step.scored & (rewards.step.value <= 0)
    return [int(row.argmax()) if row.any() and ok else None for row, ok in zip(wrong, ~rewards.failed, strict=True)]


_NUMBER = re.compile(r"(?<![\w.])[0-9]{1,30}(?:,[0-9]{3}){0,8}(?:\.[0-9]{1,30}|/[0-9]{1,30})?(?![\w])")
_WORD = re.compile(r"\w+")


def leaks(step: str, answer: str) -> bool:
    """Whether a step tells the final answer: its number in any writing (`1,000.0`, `\\boxed{\\frac{1}{2}}`), else its words in order.

    A number counts whatever its sign, since a minus may be an operator: rather one step too many left out than one that gives it away.
    """
    step, answer = _plain(step), _plain(answer)
    wanted = set(_numbers(answer))
    if wanted and not re.search(r"[^\W\d_]", answer):
        return bool(wanted & set(_numbers(step)))
    words = _WORD.findall(answer)
    return bool(words) and f" {' '.join(words)} " in f" {' '.join(_WORD.findall(step))} "


def _plain(text: str) -> str:
    """Lower case, `\\frac{a}{b}` as a/b, without LaTeX commands and braces."""
    text = re.sub(r"\\[dt]?frac\s?\{([^{}]{1,40})\}\s?\{([^{}]{1,40})\}", r"\1/\2", text[:20_000].lower())
    text = re.sub(r"\\[dt]?frac\s?(\d)\s?(\d)", r"\1/\2", text)
    return re.sub(r"\\[a-z]+|[{}$]", " ", text)


def _numbers(text: str) -> list[Fraction]:
    found = []
    for number in _NUMBER.findall(text):
        over, _, under = number.replace(",", "").partition("/")
        if not under or int(under):
            found.append(Fraction(over) / (int(under) if under else 1))
    return found


@dataclass
class _Place:
    """The first wrong step of a sample, and what is to stand there."""

    row: int
    sample: Sample
    prompt: np.ndarray
    before: np.ndarray
    """Ids up to the step."""
    ids: np.ndarray
    """Of the new step."""

    @property
    def prefix(self) -> np.ndarray:
        return np.concatenate([self.prompt, self.before, self.ids]).astype(np.int64)

    def followed(self, policy: Model, split: Split, by: Completion | None = None, written: bool = True) -> Sample:
        """A sample of what stood before, the new step, `written` or not, and a completion of the policy."""
        s = self.sample
        assert s.logprobs is not None
        pieces: list[tuple[np.ndarray, np.ndarray | None]] = [(self.before, s.logprobs[: len(self.before)])]
        pieces += [(self.ids, np.full(len(self.ids), np.nan) if written else None), *([(by.ids, by.logprobs)] if by else [])]
        return completed(policy, s.task, s.group, self.prompt, pieces, by.stop if by else "stop", s.version, split)


def _places(
    policy: Model, samples: Sequence[Sample], context: Context, teacher: str | None, column: str, ask: str, params: SamplingParams
) -> list[_Place | None]:
    """A new step for each sample that has a wrong one and that somebody has a step for."""
    if context.score is None:
        raise Refused("To find the first wrong step a rollout needs the run's reward; name one in the recipe.")
    if teacher is not None and teacher not in context.models:
        raise Refused(f"The teacher {teacher!r} is no model of the run{nearest(teacher, context.models)}")
    rewards = context.score(samples)
    where = first_wrong(rewards)
    if rewards.outcome is not None:
        where = [None if right else j for j, right in zip(where, passed(rewards), strict=True)]
    found = [(i, j) for i, j in enumerate(where) if j is not None]
    steps = _asked(samples, found, context, teacher, column, ask, params) if teacher else _told(samples, found, column)
    out: list[_Place | None] = [None] * len(samples)
    for (i, j), step in zip(found, steps, strict=True):
        sample = samples[i]
        assert sample.prompt_ids is not None
        assert sample.ids is not None
        assert sample.offsets is not None
        old = sample.steps[j]
        if step.strip() and step.strip() != old.strip():
            start, offsets = sample.marks["step"][j][0], sample.offsets
            keep = int(np.searchsorted(offsets[:, 1], start, side="right"))  # not the token that holds the wrong step's first character
            lead = sample.text[int(offsets[keep - 1, 1]) if keep else 0 : start]
            blank = len(old) - len(old.lstrip())
            new = lead + old[:blank] + step.strip() + old[len(old.rstrip()) :]
            out[i] = _Place(i, sample, sample.prompt_ids, sample.ids[:keep], plain_ids(policy, new))
    return out


def passed(rewards: Rewards) -> np.ndarray:
    """(n,) whose outcome is scored above 0.5."""
    assert rewards.outcome is not None
    return rewards.outcome.scored & (rewards.outcome.value > 0.5) & ~rewards.failed


def _told(samples: Sequence[Sample], found: Sequence[tuple[int, int]], column: str) -> list[str]:
    """The line of the demonstration with the number of the wrong step; "" where it has none."""
    steps = []
    for i, j in found:
        solution = samples[i].task.meta.get(column)
        lines = solution.splitlines() if isinstance(solution, str) else list(solution or ())
        steps.append(lines[j] if j < len(lines) else "")
    return steps


def _asked(
    samples: Sequence[Sample],
    found: Sequence[tuple[int, int]],
    context: Context,
    teacher: str,
    column: str,
    ask: str,
    params: SamplingParams,
) -> list[str]:
    """What the teacher writes, up to its first line break."""
    model = context.models[teacher]
    prompts = []
    for i, j in found:
        sample = samples[i]
        solution = sample.task.meta.get(column)
        fields = {
            "prompt": sample.task.prompt
            if isinstance(sample.task.prompt, str)
            else "\n".join(str(m.get("content") or "") for m in sample.task.prompt),
            "solution": solution if isinstance(solution, str) else "\n".join(solution or (str(sample.task.reference),)),
            "before": "".join(sample.steps[:j]),
            "wrong": sample.steps[j],
        }
        prompts.append(re.sub(r"\{(prompt|solution|before|wrong)\}", lambda m, f=fields: f[m[1]], ask))
    if not prompts:
        return []
    completions, usage = model.sample([model.encode(x) for x in prompts], 1, params)
    context.spend("rollouts", usage)
    return [model.decode(several[0].ids)[0].strip().split("\n", 1)[0] for several in completions]


@rollout(fills=("guide_tokens",))
def corrected(
    policy: Model, tasks: Sequence[Task], n: int, context: Context, *, column: str = "solution", teacher: str | None = None,
    prompt: str = STEP, step_tokens: int = 200, max_tokens: int = 256, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0,
    stop: Sequence[str] = (), split: Split = "lines",
) -> list[Sample]:  # fmt: skip
    """n answers a task; where one has a wrong step, the first is replaced, and the policy goes on from there.

    Wrong is what the run's reward, which must score steps, gives 0 or less; answers that are right in the end (outcome above 0.5) stay.
    The new step is the line of the demonstration `meta[column]` with the same number, or what the model named `teacher` (may be "policy")
    writes to `prompt`, in which {prompt}, {solution}, {before} and {wrong} stand, up to its first line break. It is the guide:
    spans["guide"], meta "guide_tokens", not `written`. The steps before it keep their log-probabilities and count. An answer for which
    there is no step, or the same one again, stays as it was drawn. Raises Refused where no reward scores steps, or the teacher is no model
    of the run.
    """
    samples = parallel(
        policy, tasks, n, context, max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, stop=stop, split=split
    )
    params = SamplingParams(step_tokens, temperature, top_p, top_k, (), seed_of(context))
    places = [p for p in _places(policy, samples, context, teacher, column, prompt, params) if p is not None]
    for sample in samples:
        mark_guide(sample, (0, 0))
    if places:
        going_on = SamplingParams(max_tokens, temperature, top_p, top_k, tuple(stop), seed_of(context))
        completions, usage = policy.sample([p.prefix for p in places], 1, going_on)
        context.spend("rollouts", usage)
        for p, (c,) in zip(places, completions, strict=True):
            samples[p.row] = p.followed(policy, split, c, written=False)
            mark_guide(samples[p.row], (len(p.before), len(p.before) + len(p.ids)))
    place(samples)
    return samples


@rollout(fills=("intervened",))
def interventions(
    policy: Model, tasks: Sequence[Task], n: int, context: Context, *, column: str = "solution", teacher: str | None = "policy",
    prompt: str = STEP, tries: int = 32, step_tokens: int = 200, max_tokens: int = 256, temperature: float = 1.0, top_p: float = 1.0,
    top_k: int = 0, stop: Sequence[str] = (), split: Split = "lines",
) -> list[Sample]:  # fmt: skip
    """n answers a task; one that failed becomes the right steps before its first wrong one, and one new step: what InT fine-tunes on.

    The new step comes as in `corrected`. It is dropped where it tells the reference (`leaks`), and where none of `tries` continuations of
    the policy from it is right (outcome above 0.5; tries 0 keeps all). What is kept is of source `teacher`, all of it `written`, with
    nothing after it, not even an end token: what follows an intervention is left to be learnt by reinforcement. meta "intervened" is 1
    there and 0 on the others, which stay as they were drawn, of source `policy`; a first stage with `loss: {use: sft, of: expert}` and
    `credit: null` learns from the interventions alone, and is followed by one of `parallel`. Where the first step is the wrong one, the
    intervention stands alone. Raises Refused where the run's reward does not score both steps and outcomes.
    Source: arXiv:2601.14209 (InT), where the same model finds the wrong step in words, with the reference before it; here that is the
    reward's task.
    """
    samples = parallel(
        policy, tasks, n, context, max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, stop=stop, split=split
    )
    params = SamplingParams(step_tokens, temperature, top_p, top_k, (), seed_of(context))
    places = [p for p in _places(policy, samples, context, teacher, column, prompt, params) if p is not None]
    for sample in samples:
        sample.meta["intervened"] = 0
    texts = [policy.decode(p.ids)[0] for p in places]
    places = [p for p, text in zip(places, texts, strict=True) if not leaks(text, str(p.sample.task.reference or ""))]
    continued = SamplingParams(max_tokens, temperature, top_p, top_k, tuple(stop), seed_of(context))
    for p, ok in zip(places, _works(policy, places, tries, continued, context, split), strict=True):
        if ok:
            samples[p.row] = p.followed(policy, split)
            samples[p.row].source, samples[p.row].meta["intervened"] = "teacher", 1
    return samples


def _works(policy: Model, places: Sequence[_Place], tries: int, params: SamplingParams, context: Context, split: Split) -> list[bool]:
    """Whether one of `tries` continuations from each new step is right."""
    if not places or not tries:
        return [True] * len(places)
    completions, usage = policy.sample([p.prefix for p in places], tries, params)
    context.spend("rollouts", usage)
    samples = [p.followed(policy, split, c) for p, several in zip(places, completions, strict=True) for c in several]
    for i, sample in enumerate(samples):
        sample.group = i // tries
    assert context.score is not None
    rewards = context.score(samples)
    if rewards.outcome is None:
        raise Refused(
            "interventions: the reward must score outcomes too, to tell which continuations are right; add one, such as arithmetic."
        )
    return [bool(ok.any()) for ok in passed(rewards).reshape(len(places), tries)]

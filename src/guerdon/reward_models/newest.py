"""A fitted model of whole answers that scores steps: the newest one is the answer, and what stands before it is shown in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from guerdon.backends.head import CARD
from guerdon.registry import Refused, register
from guerdon.reward_models import folder
from guerdon.reward_models.fitted import opened, score
from guerdon.rewards import core
from guerdon.rewards.likelihood import too_long
from guerdon.samples import HOSTILE, Prompt, Sample, Task, Verdict

BEFORE, NOW = "\n\nSteps so far:\n", "\n\nNewest step:\n"
MOST = 1000
"""Steps of one sample that are scored: each is read with all before it."""


def shown(prompt: Prompt, before: str) -> Prompt:
    """The prompt of a newest step: the task, the text of all steps before it, and a line that says where it begins. Of messages the last
    one says so."""
    end = (f"{BEFORE}{before.rstrip()}" if before.strip() else "") + NOW
    if isinstance(prompt, str):
        return prompt + end
    *others, last = prompt
    content = last["content"]
    return [*others, {**last, "content": content + end if isinstance(content, str) else [*content, {"type": "text", "text": end}]}]


def whole_steps(sample: Sample) -> list[str]:
    """The texts of its steps, each with what stands between it and the next, so that together they are the sample's text."""
    starts = [start for start, _ in sample.marks.get("step", [])]
    return [sample.text[a:b] for a, b in zip([0, *starts[1:]], [*starts[1:], len(sample.text)], strict=True)] if starts else []


class NewestReward(core.Reward):
    """The reward with the version of the folder that it is set to."""

    def checked(self) -> core.Reward:
        path = self.params.get("path")
        if path is None:
            return self
        card, file = folder.read(path), Path(path) / CARD
        if card.head is None or card.grain != "outcome":
            raise Refused(
                f"newest_step(path={path!r}): it was not fitted on answers with a head, so it cannot score a step as one; fit it with "
                "outcome_ce on rows of `guerdon.annotation.hierarchical`, or use reward_model."
            )
        return replace(self, version=f"{core.code_digest(self.fn)}/{card.tokenizer}/{file.stat().st_mtime_ns}")


def newest(
    sample: Sequence[Sample], path: str = "", joined: bool = False, probability: bool | None = None
) -> list[Verdict | list[float | None]]:
    """What the model of answers in the folder `path` says of each step, with the task and the steps before it as prompt (`shown`).

    joined: of each step and the one before it as one, from the second step on; the first alone.  probability: as of `reward_model`.
    A sample without steps abstains; one of more than `MOST`, or longer than any model reads, is hostile.
    Source: arXiv:2503.13551 (HRM), which scores the newest step; `joined` reads what it is also taught.
    """
    if not path:
        raise Refused("newest_step needs the folder of a fitted model: newest_step(path='FOLDER').")
    card, model = opened(path, (Path(path) / CARD).stat().st_mtime_ns)
    asked: list[Sample] = []
    refused = [too_many(s) for s in sample]
    for s in (s for s, why in zip(sample, refused, strict=True) if why is None):
        steps = whole_steps(s)
        for t in range(len(steps)):
            first = max(t - 1, 0) if joined else t
            prompt = shown(s.task.prompt, "".join(steps[:first]))
            asked.append(Sample(Task(f"{s.task.id}, step {t}", prompt), "".join(steps[first : t + 1]).rstrip()))
    said = iter(score(model, card, asked, None, probability))
    out: list[Verdict | list[float | None]] = []
    for s, why in zip(sample, refused, strict=True):
        values = [next(said) for _ in s.marks.get("step", [])] if why is None else []
        out.append(why or [v.value if isinstance(v, Verdict) else None for v in values])
    return out


def too_many(sample: Sample) -> Verdict | None:
    """The verdict on a sample whose steps are not scored: none, or more than any answer needs; else None."""
    steps = len(sample.marks.get("step", []))
    if not steps:
        return Verdict.abstain("the completion has no steps")
    return Verdict(0.0, f"{HOSTILE}: {steps} steps to be scored, more than {MOST}") if steps > MOST else too_long(sample)


_lifted = core.reward(name="newest_step", grain="step", batch=True)(newest)
newest_step = NewestReward(**{name: getattr(_lifted, name) for name in core.Reward.__dataclass_fields__})
"""See `newest`."""
register("reward", "newest_step", newest, reward=newest_step)

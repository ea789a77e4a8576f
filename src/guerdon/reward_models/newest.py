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
from guerdon.samples import Prompt, Sample, Task, Verdict

BEFORE, NOW = "\n\nSteps so far:\n", "\n\nNewest step:\n"


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
    A sample without steps abstains. Source: arXiv:2503.13551 (HRM), which scores the newest step; `joined` reads what it is also taught.
    """
    if not path:
        raise Refused("newest_step needs the folder of a fitted model: newest_step(path='FOLDER').")
    card, model = opened(path, (Path(path) / CARD).stat().st_mtime_ns)
    asked: list[Sample] = []
    for s in sample:
        steps = whole_steps(s)
        for t in range(len(steps)):
            first = max(t - 1, 0) if joined else t
            prompt = shown(s.task.prompt, "".join(steps[:first]))
            asked.append(Sample(Task(f"{s.task.id}, step {t}", prompt), "".join(steps[first : t + 1]).rstrip()))
    said = iter(score(model, card, asked, None, probability))
    out: list[Verdict | list[float | None]] = []
    for s in sample:
        values = [next(said) for _ in s.marks.get("step", [])]
        out.append([v.value if isinstance(v, Verdict) else None for v in values] or Verdict.abstain("the completion has no steps"))
    return out


_lifted = core.reward(name="newest_step", grain="step", batch=True)(newest)
newest_step = NewestReward(**{name: getattr(_lifted, name) for name in core.Reward.__dataclass_fields__})
"""See `newest`."""
register("reward", "newest_step", newest, reward=newest_step)

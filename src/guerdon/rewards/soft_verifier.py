"""A generative verifier that knows the reference: how sure it is, in one token, that an answer comes to the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.judge import Message, ask, attack, conversation, read_word, request
from guerdon.rewards.likelihood import NONE, Forced, encode, logprobs
from guerdon.samples import HOSTILE, Prompt, Sample, Task, Verdict

if TYPE_CHECKING:
    from guerdon.backends.base import Model

WORDS = ("1", "0")
SAME = (
    "A final answer to a question is shown beside the reference, which is right. Does it come to the same? Other words, another notation "
    "or another order for the same are as good; an answer that names several, or only says the question or the reference's topic again, is "
    "not."
)
FORM = "Answer with one character, 1 where it comes to the same and 0 where it does not:\n"


def question(prompt: Prompt, reference: Any, answer: str) -> list[Message]:
    """The conversation whose next character is 1 or 0."""
    return conversation(SAME, FORM, question=request(prompt), reference=str(reference), answer=answer)


@reward(batch=True)
def soft_verifier(sample: list[Sample], reference: list[Any], model: Any = "judge", soft: bool = True) -> list[Verdict]:
    """p(1) / (p(1) + p(0)) of a verifier that is shown the question, the reference and the final answer.

    soft False: whether that is above 1/2. Both characters are scored at the place of the verdict, never sampled. Only the final answer is
    shown, not the way there; without one the reward is 0. An answer that attacks the verifier's template is hostile. Evidence
    `soft_verifier`: {mass: p(1) + p(0)}; near 0 the model would rather say something else, and is no verifier. With credit `grpo` or
    `reinforce_pp` it is normalised in the group or batch as the paper does, groups of equal rewards giving nothing; with `rloo` it is not.
    Source: arXiv:2503.23829, whose soft reward is p(1) where the verdict is 1 and 1 - p(0) where it is 0: the same where the two add up to
    1.
    """
    keys = [(request(s.task.prompt), str(right), s.answer) for s, right in zip(sample, reference, strict=True)]
    once = dict(zip(keys, sample, strict=True))  # the same answer to the same question is asked once
    rows = [_row(model, s, key[1]) for key, s in once.items()]
    words = [encode(model, word) for word in WORDS]
    found = logprobs(model, [row if isinstance(row, Verdict) else Forced(row, NONE, word) for row in rows for word in words])
    verdicts = {key: _verdict(one, zero, soft) for key, one, zero in zip(once, found[::2], found[1::2], strict=True)}
    return [verdicts[key] for key in keys]


def _row(model: Model, sample: Sample, reference: Any) -> np.ndarray | Verdict:
    if sample.answer is None or not sample.answer.strip():
        return Verdict(0.0, "no answer found")
    if why := attack(model, sample.answer):
        return Verdict(0.0, why)
    try:
        return model.encode(question(sample.task.prompt, reference, sample.answer.strip()))  # type: ignore[arg-type]
    except Refused as error:
        return Verdict.fail(f"the verifier cannot be asked: {error}")


def _verdict(one: np.ndarray | Verdict, zero: np.ndarray | Verdict, soft: bool) -> Verdict:
    if isinstance(one, Verdict) or isinstance(zero, Verdict):
        why = one if isinstance(one, Verdict) else zero
        assert isinstance(why, Verdict)
        return Verdict(0.0, why.reason) if why.reason.startswith(HOSTILE) else why
    a, b = (float(np.sum(x)) for x in (one, zero))
    p = float(1 / (1 + np.exp(np.clip(b - a, -700, 700))))
    return Verdict(p if soft else float(p > 0.5), evidence={"soft_verifier": {"mass": float(np.exp(a) + np.exp(b))}})


def distilled(model: Any, samples: Sequence[Sample], max_tokens: int = 8) -> list[Task | Verdict]:
    """For each sample the row that teaches a small verifier what `model`, a large one, says of it; a verdict where it says nothing.

    The samples are those of a policy that explores, their tasks have references. `meta.solution` and the reference: 1 or 0; for the rollout
    `expert` with the loss `sft`. Samples without an answer, and answers that attack the template, teach nothing: their verdict is 0.
    """
    whys = [_refused(model, s) for s in samples]
    asked = [question(s.task.prompt, s.task.reference, str(s.answer).strip()) for s, why in zip(samples, whys, strict=True) if why is None]
    said = iter(zip(asked, ask(model, asked, lambda text: read_word(text, WORDS), max_tokens=max_tokens), strict=True) if asked else ())
    out: list[Task | Verdict] = []
    for sample, why in zip(samples, whys, strict=True):
        if why is not None:
            out.append(why)
            continue
        talk, one = next(said)
        if one.values:
            out.append(Task(sample.task.id, [dict(m) for m in talk], one.values[0], {"solution": one.values[0]}))
        else:
            out.append(one.verdict())
    return out


def _refused(model: Any, sample: Sample) -> Verdict | None:
    if sample.task.reference is None:
        return Verdict.fail("the task has no reference")
    if sample.answer is None or not sample.answer.strip():
        return Verdict(0.0, "no answer found")
    why = attack(model, sample.answer)
    return Verdict(0.0, why) if why else None

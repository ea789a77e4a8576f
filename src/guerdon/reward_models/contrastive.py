"""Token rewards that a model gives itself: how much likelier a token is under a request for a better text than under one for a worse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.registry import Refused
from guerdon.reward_models.heads import own_tokens
from guerdon.reward_models.implicit import moved
from guerdon.rewards.core import reward
from guerdon.rewards.likelihood import NONE, Forced, logprobs, own_ids, too_long
from guerdon.samples import Prompt, Sample, Verdict

REVISE = "{prompt}\n\nHere is an answer to that:\n\n{answer}\n\n"
BETTER = REVISE + "Write this answer again, more helpful, correct, coherent and concise than it is.\n"
WORSE = REVISE + "Write this answer again, less helpful, correct, coherent and concise than it is.\n"


def _check(better: str = BETTER, worse: str = WORSE) -> None:
    if better == worse or not all("{prompt}" in text for text in (better, worse)):
        raise Refused("contrastive: `better` and `worse` are two different texts, each with {prompt} in it.")


@reward(batch=True, grain="token", check=_check)
def contrastive(
    sample: Sequence[Sample], model: Any = "reference", better: str = BETTER, worse: str = WORSE
) -> list[Verdict | list[float | None]]:
    """sigmoid(log pi_model(y_t | better, y_<t) - log pi_model(y_t | worse, y_<t)) - 0.5 at every written token.

    The texts stand in the prompt's place, of messages in that of the user's last one; {prompt} and {answer} in them are the prompt and what
    the sample wrote. 0 for tokens without a character, such as the end; others than written abstain. A model with another tokenizer reads
    the text in its own tokens, whose log-ratios are moved onto the policy's. With loss `t_reg`. Source: arXiv:2412.02685; our wording.
    """
    rows = [_row(model, s, template) for s in sample for template in (better, worse)]
    found = logprobs(model, rows)
    return [_value(model, s, good, bad) for s, good, bad in zip(sample, found[::2], found[1::2], strict=True)]


def _row(model: Any, sample: Sample, template: str) -> Forced | Verdict:
    if why := too_long(sample):
        return why
    try:
        prompt = model.encode(asked(sample.task.prompt, sample.text.encode("utf-8", "replace").decode(), template))
        return Forced(prompt, NONE, own_tokens(model, sample)[1])
    except Refused as error:
        return Verdict.fail(str(error))


def asked(prompt: Prompt, answer: str, template: str) -> Prompt:
    """The prompt with the template in the place of the text, or of the last message of the user."""
    if isinstance(prompt, str):
        before, after = template.split("{prompt}", 1)
        return before.replace("{answer}", answer) + prompt + after.replace("{answer}", answer)
    last = max((i for i, m in enumerate(prompt) if m.get("role") == "user"), default=-1)
    if last < 0 or not isinstance(prompt[last].get("content"), str):
        raise Refused("contrastive: a prompt of messages needs a message of the user that is text.")
    return [*prompt[:last], {**prompt[last], "content": asked(prompt[last]["content"], answer, template)}]


def _value(model: Any, sample: Sample, good: np.ndarray | Verdict, bad: np.ndarray | Verdict) -> Verdict | list[float | None]:
    if isinstance(good, Verdict):
        return good
    if isinstance(bad, Verdict):
        return bad
    ratio, offsets = good - bad, own_tokens(model, sample)[2]
    if sample.ids is not None and sample.offsets is not None and not own_ids(model, sample):
        ratio, offsets = moved(ratio, offsets, sample.offsets), sample.offsets
    value = np.where(offsets[:, 1] > offsets[:, 0], np.tanh(ratio / 2) / 2, 0.0)  # = sigmoid(ratio) - 1/2
    written = np.ones(len(value), dtype=bool) if sample.written is None else sample.written
    return [float(x) if w else None for x, w in zip(value, written, strict=True)]

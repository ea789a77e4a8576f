"""How much of an answer speaks to its question, by what the question does to the answer's perplexity."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.likelihood import NONE, Forced, completion_ids, logprobs, prompt_ids, too_long
from guerdon.samples import Prompt, Sample, Verdict

if TYPE_CHECKING:
    from guerdon.backends.base import Model


@reward(batch=True)
def self_aligned(sample: list[Sample], model: Any = "policy", log: bool = False) -> list[Verdict]:
    """clip((ppl(a) - ppl(a | q)) / ppl(a), -1, 1): near 1 where the question makes the answer likely, near 0 where it tells nothing.

    ppl = exp(mean negative log-probability of the answer's tokens, the end token aside). log: of log ppl instead, for texts in which one
    odd token would decide. ppl(a) stands behind the prompt without its question: of messages the contents of the user are emptied, so that
    the system message and what the chat template puts around them stay; of a text nothing stays but the tokens with which the model opens
    every text. Where there are none (the tiny policy), the answer's first token opens it and is scored in neither perplexity.
    0 for an answer without a token to score. The paper adds 0.2 times this to format and correctness. Source: arXiv:2509.05489, its
    released code (where the end token counts as part of the answer).
    """
    both = [_rows(model, s) for s in sample]
    found = logprobs(model, [row for rows in both for row in rows])
    return [_value(with_question, alone, log) for with_question, alone in zip(found[::2], found[1::2], strict=True)]


def _rows(model: Model, sample: Sample) -> tuple[Forced | Verdict, Forced | Verdict]:
    """The answer behind its prompt, and behind the prompt without the question."""
    if why := too_long(sample):
        return why, why
    try:
        answer, prompt, empty = completion_ids(model, sample), prompt_ids(model, sample), model.encode(without_question(sample.task.prompt))
    except Refused as error:
        return Verdict.fail(str(error)), Verdict.fail(str(error))
    if not len(empty):
        return Forced(prompt, answer[:1], answer[1:]), Forced(answer[:1], NONE, answer[1:])
    return Forced(prompt, NONE, answer), Forced(empty, NONE, answer)


def without_question(prompt: Prompt) -> Prompt:
    """The prompt with the user's words taken out; a text is the user's whole."""
    return "" if isinstance(prompt, str) else [{**m, "content": ""} if m.get("role") == "user" else m for m in prompt]


def _value(with_question: np.ndarray | Verdict, alone: np.ndarray | Verdict, log: bool) -> Verdict:
    if isinstance(with_question, Verdict):
        return with_question
    if isinstance(alone, Verdict):
        return alone
    if not len(with_question):
        return Verdict(0.0, "no token of the answer to score")
    q, a = -float(np.mean(with_question)), -float(np.mean(alone))
    if log:
        return Verdict(min(1.0, max(-1.0, (a - q) / (a + 1e-9))))
    return Verdict(1.0 - math.exp(min(q - a, math.log(2.0))))  # = 1 - ppl(a | q) / ppl(a), clipped at -1 before it can overflow

"""Cooper: a verifier that knows the reference, as a scalar head, and learns beside the policy from pairs whose sides are sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.backends.base import SamplingParams
from guerdon.registry import Refused, nearest, registrar
from guerdon.reward_models.heads import values_after
from guerdon.rewards.core import reward
from guerdon.rewards.judge import attack, quoted, request
from guerdon.rewards.likelihood import encode, too_long
from guerdon.samples import Context, Grain, Rewards, Sample, Task, Verdict, collate
from guerdon.spans import mark, thinking

if TYPE_CHECKING:
    from guerdon.backends.base import Model
    from guerdon.samples import Batch

lesson = registrar("lesson")
"""`@lesson def NAME(samples, rewards, model, context, **params) -> Batch | None`: what a model beside the policy learns from at a step, in
its own tokens, out of all samples of the step; None: nothing, and it takes no step."""

WRONG = (
    "Below are a problem and a right solution, each between two lines with its name and a code. Write a wrong solution: it looks like an "
    "honest attempt, is about as long, goes wrong on its way, and ends with another final answer, stated in the same form. Write the "
    "solution alone, and do not say that it is wrong."
)


def asked(task: Task) -> str:
    """What stands before the completion that the verifier reads."""
    return f"Question:\n{request(task.prompt)}\n\nReference answer:\n{task.reference}\n\nCompletion:\n"


def read(model: Model, task: Task, text: str) -> tuple[np.ndarray, np.ndarray]:
    """(prompt ids, completion ids) in the verifier's tokens."""
    return model.encode(asked(task)), encode(model, text)


@reward(batch=True)
def verify_rm(sample: Sequence[Sample], reference: Sequence[Any], model: Any = "verify_rm", threshold: bool = False) -> list[Verdict]:
    """sigmoid(s), s the scalar head of `model` behind (question, reference, completion): the probability that the completion is right.

    threshold: 1 where that is above 1/2, else 0. An empty completion is 0, one that is too long for a row hostile. The model learns by
    `fit` with loss `outcome_ce` on such texts (kept where a rule and a judge agree), and beside the policy by the lesson `verified_pairs`.
    Source: arXiv:2508.05613, recipe/cooper/dp_reward.py; the template is ours.
    """
    refused = [too_long(s) or (None if s.text.strip() else Verdict(0.0, "the completion is empty")) for s in sample]
    rows = [read(model, s.task, s.text) for s, why in zip(sample, refused, strict=True) if why is None]
    found = iter(values_after(model, rows)) if rows else iter(())
    out = []
    for why in refused:
        p = 0.0 if why else float(1 / (1 + np.exp(-np.clip(next(found)[-1], -700, 700))))
        out.append(why or Verdict(float(p > 0.5) if threshold else p))
    return out


@lesson
def verified_pairs(
    samples: Sequence[Sample], rewards: Rewards, model: Model, context: Context, rule: str, assistant: str = "assistant", tries: int = 3,
    temperature: float = 0.7, max_tokens: int = 512,
) -> Batch | None:  # fmt: skip
    """One pair a group: chosen the first sample that the rule accepts, rejected a wrong rewriting of it by the model `assistant`.

    rule: the part of the recipe's reward that is sure where it accepts, such as `math` in `verify_rm + 0 * math`; what it rejects is not
    trusted, since it misses right answers. A rewriting counts only where the rule, given the chosen side's answer as reference, rejects it;
    else it is asked for again, `tries` times in all. Groups without a side give no pair; without any pair, None. The rows are what
    `verify_rm` reads. For `loss: bradley_terry, aggregate: pair_mean`: -log sigmoid(s_chosen - s_rejected), a mean over the pairs.
    Raises Refused for a rule that is no part of the reward and without the assistant. Source: arXiv:2508.05613, recipe/cooper/
    collaborate.py.
    """
    if assistant not in context.models:
        raise Refused(f"verified_pairs: {assistant!r} is no model of the run{nearest(assistant, context.models)}")
    right = _accepted(rewards, rule) & np.array([bool(s.answer) for s in samples])
    chosen: dict[int, Sample] = {}
    for i in np.flatnonzero(right).tolist():
        chosen.setdefault(samples[i].group, samples[i])
    rejected: dict[int, str] = {}
    for attempt in range(tries):
        todo = {g: s for g, s in chosen.items() if g not in rejected}
        texts = _rewritten(context.models[assistant], list(todo.values()), context, temperature, max_tokens, attempt)
        rejected |= _wrong(dict(zip(todo, texts, strict=True)), todo, rule, context)
    rows = [(s, text) for g, s in chosen.items() if g in rejected for text in (s.text, rejected[g])]
    if not rows:
        return None
    import torch

    told = []
    for k, (s, text) in enumerate(rows):
        prompt, ids = read(model, s.task, text)
        told.append(Sample(s.task, text, prompt, ids, group=k // 2))
    batch = collate(told, Rewards(Grain.of([1.0, 0.0] * (len(rows) // 2))), dtype=getattr(model, "dtype", None))
    return replace(batch, pairs=torch.arange(len(rows)).view(-1, 2))


def _accepted(rewards: Rewards, rule: str) -> np.ndarray:
    """(n,) whom the rule accepts. Raises Refused where it is no part of the reward."""
    if rule not in rewards.parts:
        raise Refused(f"verified_pairs: the rule {rule!r} is no part of the recipe's reward; write `... + 0 * {rule}`.")
    found = rewards.parts[rule].rewards
    return found.alive & (found.total() > 0.5)


def _rewritten(
    assistant: Model, samples: Sequence[Sample], context: Context, temperature: float, max_tokens: int, attempt: int
) -> list[str | None]:
    """A rewriting of each; None where the assistant cannot be asked, or was cut off."""
    out: list[str | None] = [None] * len(samples)
    talks = {}
    for i, sample in enumerate(samples):
        problem, solution = request(sample.task.prompt), sample.text[thinking(sample.text)[1] :].strip()
        if attack(assistant, f"{problem}\n{solution}") is None:
            talks[i] = [{"role": "system", "content": WRONG}, {"role": "user", "content": quoted(problem=problem, solution=solution)}]
    if talks:
        seed = int(context.rng.integers(2**31)) if context.rng is not None else attempt
        params = SamplingParams(max_tokens, temperature, seed=seed)
        found, _ = assistant.sample([assistant.encode(talk) for talk in talks.values()], 1, params)
        for i, [completion] in zip(talks, found, strict=True):
            if not completion.failed and completion.stop != "length":
                said = str(assistant.decode(completion.ids)[0])
                out[i] = said[thinking(said)[1] :].strip() or None
    return out


def _wrong(texts: dict[int, str | None], chosen: dict[int, Sample], rule: str, context: Context) -> dict[int, str]:
    """Of the rewritings those whose answer the rule does not take for that of the chosen side."""
    if context.score is None:
        raise Refused("verified_pairs grades what it pairs by the run's reward, and this context has none.")
    told = {}
    for g, text in texts.items():
        if text is not None:
            task = chosen[g].task
            told[g] = Sample(replace(task, id=f"{task.id}/rewritten", reference=chosen[g].answer), text, group=g, stop="end")
            mark(told[g])
    if not told:
        return {}
    rewards = context.score(list(told.values()))
    accepted, part = _accepted(rewards, rule), rewards.parts[rule].rewards
    return {g: s.text for (g, s), yes, sure in zip(told.items(), accepted, part.alive, strict=True) if sure and not yes and s.answer}

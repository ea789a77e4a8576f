"""Answers to each task under several budgets of tokens, each told to the policy in a sentence it did not write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from guerdon.backends.base import Model, SamplingParams
from guerdon.registry import Refused
from guerdon.rollouts.core import completed, plain_ids, rollout, seed_of
from guerdon.samples import Context, Sample, Task
from guerdon.spans import Split


@rollout(fills=("budget",))
def budgets(
    policy: Model, tasks: Sequence[Task], n: int, context: Context, *, budgets: Sequence[int] = (512, 1024, 2048, 2560),
    hint: str = "<think>I will answer the question within {budget} tokens. ", max_tokens: int = 4096, temperature: float = 1.0,
    top_p: float = 1.0, top_k: int = 0, split: Split = "lines",
) -> list[Sample]:  # fmt: skip
    """n answers a task, in as many subgroups of equal size as there are budgets (where n does not divide, sizes differ by one).

    The text of an answer begins with the hint, its tokens not `written` and without log-probabilities; `meta["budget"]` tells the subgroup.
    Leave `<think>` out of the hint where the chat template opens it. max_tokens counts what the policy writes. The budgets are a hint and
    no limit. Raises Refused for no budgets, one below 1, equal ones, and a hint without {budget}. Source: arXiv:2507.15844.
    """
    if not budgets or min(budgets) < 1 or len(set(budgets)) < len(budgets):
        raise Refused(f"budgets(budgets={list(budgets)}): give one or more different numbers of tokens, each 1 or more.")
    if "{budget}" not in hint:
        raise Refused(f"budgets(hint={hint!r}): the hint must say {{budget}} where the number of tokens goes.")
    seed = seed_of(context)
    prompts = [policy.encode(task.prompt) for task in tasks]
    hints = {b: plain_ids(policy, hint.replace("{budget}", str(b))) for b in budgets}
    shares = Counter(budgets[j * len(budgets) // n] for j in range(n))
    found: dict[tuple[int, int], list[Sample]] = {}
    for round, size in enumerate(sorted(set(shares.values()))):
        asked = [(i, b) for i in range(len(tasks)) for b in budgets if shares[b] == size]
        prefixes = [np.concatenate([prompts[i], hints[b]]) for i, b in asked]
        params = SamplingParams(max_tokens, temperature, top_p, top_k, (), seed + round)
        completions, usage = policy.sample(prefixes, size, params)
        context.spend("rollouts", usage)
        for (i, b), several in zip(asked, completions, strict=True):
            for c in several:
                sample = completed(policy, tasks[i], i, prompts[i], [(hints[b], None), (c.ids, c.logprobs)], c.stop, c.version, split)
                sample.meta["budget"] = b
                found.setdefault((i, b), []).append(sample)
    return [sample for i in range(len(tasks)) for b in budgets for sample in found.get((i, b), ())]

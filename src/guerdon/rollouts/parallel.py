"""Independent answers to each task."""

from __future__ import annotations

from collections.abc import Sequence

from guerdon.backends.base import Model, SamplingParams
from guerdon.rollouts.core import completed, rollout, seed_of
from guerdon.samples import Context, Sample, Task
from guerdon.spans import Split


@rollout
def parallel(
    policy: Model, tasks: Sequence[Task], n: int, context: Context, *, max_tokens: int = 256, temperature: float = 1.0, top_p: float = 1.0,
    top_k: int = 0, stop: Sequence[str] = (), split: Split = "lines",
) -> list[Sample]:  # fmt: skip
    """n answers a task in one call of the backend. The seed comes from `context.rng`; groups are numbered by task, from 0."""
    params = SamplingParams(max_tokens, temperature, top_p, top_k, tuple(stop), seed_of(context))
    prefixes = [policy.encode(task.prompt) for task in tasks]
    completions, usage = policy.sample(prefixes, n, params)
    context.spend("rollouts", usage)
    return [
        completed(policy, task, group, prompt, [(c.ids, c.logprobs)], c.stop, c.version, split)
        for group, (task, prompt, several) in enumerate(zip(tasks, prefixes, completions, strict=True))
        for c in several
    ]

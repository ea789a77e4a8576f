"""Thoughts of the policy, answers of the task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.backends.base import Model
from guerdon.rollouts.core import rollout
from guerdon.rollouts.parallel import parallel
from guerdon.samples import Context, Sample, Task
from guerdon.spans import Split, mark


@rollout
def with_reference(
    policy: Model, tasks: Sequence[Task], n: int, context: Context, *, max_tokens: int = 256, temperature: float = 1.0, top_p: float = 1.0,
    top_k: int = 0, stop: Sequence[str] = (), split: Split = "lines",
) -> list[Sample]:  # fmt: skip
    """`parallel`, then the reference in the place of each sample's last answer, so that a loss has its tokens too (credit `two_term`).

    The reference's tokens are meta direct_from to direct_to; what follows them was not written after them and is in no loss. Such a sample
    is of source `expert`: the reference's log-probabilities are NaN, and a loss with a ratio refuses it; take `policy_gradient`. A sample
    without an answer, or whose task has no reference, stays as it was drawn. Source: arXiv:2602.03979, arXiv:2503.19618.
    """
    samples = parallel(
        policy, tasks, n, context, max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, stop=stop, split=split
    )
    for sample in samples:
        sample.meta |= {"direct_from": 0, "direct_to": 0}
        if sample.marks.get("answer") and sample.task.reference is not None:
            _force(policy, sample, split)
    return samples


def _force(policy: Model, sample: Sample, split: Split) -> None:
    """Whole tokens are replaced: what else the first and the last of the answer held, a blank or a bracket, is encoded again."""
    assert sample.ids is not None
    assert sample.offsets is not None
    assert sample.logprobs is not None
    (start, end), (first, last) = sample.marks["answer"][-1], sample.spans["answer"][-1]
    text = sample.text[sample.offsets[first, 0] : start] + str(sample.task.reference) + sample.text[end : sample.offsets[last - 1, 1]]
    answer = policy.encode_answer(text)[: -len(policy.encode_answer("")) or None]
    stop, rest = first + len(answer), len(sample.ids) - last
    sample.ids = np.concatenate([sample.ids[:first], answer, sample.ids[last:]])
    sample.logprobs = np.concatenate([sample.logprobs[:first], np.full(len(answer) + rest, np.nan)])
    sample.written = np.arange(len(sample.ids)) < stop
    sample.text, sample.offsets = policy.decode(sample.ids)
    sample.source = "expert"
    sample.meta |= {"direct_from": first, "direct_to": stop}
    mark(sample, split)

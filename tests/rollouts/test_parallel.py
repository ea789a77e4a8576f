"""What the two plain rollouts ask of a policy, and what they write down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from guerdon.backends.base import Completion, SamplingParams, Usage
from guerdon.registry import Refused
from guerdon.rollouts import expert, parallel
from guerdon.samples import Context, Task


@dataclass
class Scripted:
    """Words are tokens; every answer is `think 1 . <end>`."""

    words: list[str] = field(default_factory=lambda: ["<end>", "p", "so\n", "1", "+1"])
    version: int = 7
    calls: list[Any] = field(default_factory=list)

    def encode(self, prompt):
        return np.array([1])

    def encode_answer(self, text):
        return np.array([2, 3, 0])

    def decode(self, ids):
        shown = [self.words[i] if i else "" for i in ids.tolist()]
        ends = np.cumsum([len(word) for word in shown])
        return "".join(shown), np.stack([ends - [len(word) for word in shown], ends], 1)

    def sample(self, prefixes, n, params, want=()):
        self.calls.append((len(prefixes), n, params))
        answer = Completion(np.array([2, 3, 4, 0]), np.array([-1.0, -2.0, -3.0, -0.5]), "end", self.version)
        return [[answer] * n for _ in prefixes], Usage(len(prefixes), 0, 4 * n * len(prefixes))


def test_parallel_asks_once_and_keeps_what_was_sampled():
    policy, context = Scripted(), Context(rng=np.random.default_rng(0))
    tasks = [Task("a", "p"), Task("b", "p")]
    samples = parallel(policy, tasks, 3, context, max_tokens=9, temperature=0.7, top_p=0.9, top_k=5, stop=["!"])
    seed = int(np.random.default_rng(0).integers(2**31))
    assert policy.calls == [(2, 3, SamplingParams(9, 0.7, 0.9, 5, ("!",), seed))]
    assert context.usage["rollouts"] == Usage(2, 0, 24)
    s = samples[-1]
    assert (s.task.id, s.group, s.text, s.stop, s.version, s.source) == ("b", 1, "so\n1+1", "end", 7, "policy")
    assert s.logprobs.tolist() == [-1.0, -2.0, -3.0, -0.5]
    assert s.written.all()
    assert s.steps == ["so\n", "1+1"]
    assert s.spans["step"] == [(0, 1), (1, 4)]


def test_expert_reads_answers_and_knows_no_log_probabilities():
    policy = Scripted()
    samples = expert(policy, [Task("a", "p", meta={"steps": ["so", "1"]})], 2, Context(), column="steps")
    assert [(s.text, s.source, s.stop, s.logprobs, s.version) for s in samples] == [("so\n1", "expert", "end", None, 7)] * 2
    assert not policy.calls
    with pytest.raises(Refused, match=r"'a'.*'solution'"):
        expert(policy, [Task("a", "p", meta={"steps": "1"})], 1, Context())

"""What every registered rollout holds to, plug-ins included, on a policy of letters that answers from the seed."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import guerdon.rollouts  # noqa: F401 - fills the registry
from guerdon import registry
from guerdon.backends.base import Completion, SamplingParams, Usage
from guerdon.samples import STOPS, Context, Grain, Prompt, Rewards, Sample, Task, collate

seeds = st.integers(0, 2**32 - 1)
PARAMETERS: dict[str, dict[str, object]] = {"multi_turn": {"tool": "guess"}}
"""Values of parameters without a default, by rollout."""
END = 0

every = pytest.mark.parametrize("piece", registry.pieces("rollout"), ids=lambda piece: piece.name)


class Letters:
    """A policy whose tokens are characters; its answers have 0 to `max_tokens` of them and hang on seed, prompt and number only."""

    capabilities: frozenset[str] = frozenset()
    version = 3

    def __init__(self) -> None:
        self.asked: list[SamplingParams] = []

    def encode(self, prompt: Prompt) -> np.ndarray:
        text = prompt if isinstance(prompt, str) else "".join(str(m["content"]) for m in prompt)
        return np.array([ord(c) for c in text], dtype=np.int64)

    def encode_answer(self, text: str) -> np.ndarray:
        return np.array([*(ord(c) for c in text), END], dtype=np.int64)

    def show(self, ids: np.ndarray) -> str:
        return "".join(chr(i) if i != END else "<end>" for i in ids.tolist())

    def decode(self, ids: np.ndarray) -> tuple[str, np.ndarray]:
        text, offsets = "", []
        for i in ids.tolist():
            start = len(text)
            text += "" if i == END else chr(i)
            offsets.append((start, len(text)))
        return text, np.array(offsets, dtype=np.int64).reshape(-1, 2)

    def sample(
        self, prefixes: Sequence[np.ndarray], n: int, params: SamplingParams, want: tuple[str, ...] = ()
    ) -> tuple[list[list[Completion]], Usage]:
        self.asked.append(params)
        found, new = [], 0
        for prefix in prefixes:
            several = []
            for k in range(n):
                rng = np.random.default_rng([params.seed, k, *prefix.tolist()])
                t = int(rng.integers(0, min(params.max_tokens, 12) + 1))
                ids = np.array([ord(c) for c in rng.choice(list("ab 1\n."), t)], dtype=np.int64)
                if t and rng.random() < 0.5:
                    ids[-1] = END
                stop = "end" if t and ids[-1] == END else "length"
                several.append(Completion(ids, -rng.exponential(1.0, t), stop, self.version))
                new += t
            found.append(several)
        return found, Usage(sum(map(len, prefixes)), 0, new)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"This rollout wants the verb {name!r} of the policy; teach it to `Letters` in this file.")


def tasks_of(rng: np.random.Generator) -> list[Task]:
    prompts: list[Prompt] = ["p" * int(rng.integers(1, 4)) for _ in range(int(rng.integers(1, 5)))]
    prompts[0] = [{"role": "user", "content": "hi"}] if rng.random() < 0.3 else prompts[0]
    return [Task(f"t{i}", prompt, "1", {"solution": ["one", "1"] if i % 2 else "1"}) for i, prompt in enumerate(prompts)]


def roll(piece: registry.Piece, tasks: list[Task], n: int, seed: int) -> tuple[list[Sample], Letters, Context]:
    params = PARAMETERS.get(piece.name, {})
    own = list(inspect.signature(piece.fn).parameters.values())[0 if inspect.isclass(piece.fn) else 4 :]
    missing = [p.name for p in own if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in params]
    assert not missing, f"rollout {piece.name!r} ({piece.where}) needs {missing}: give them values in PARAMETERS of this file."
    policy = Letters()
    context = Context(
        models={"policy": policy},
        score=lambda samples: Rewards(
            Grain.of([len(s.text) % 2 for s in samples]), Grain.ragged([[float("b" not in step) for step in s.steps] for s in samples])
        ),
        rng=np.random.default_rng(seed),
    )
    if inspect.isclass(piece.fn):
        return piece.fn(**params)(policy, tasks, n, context), policy, context
    return piece.fn(policy, tasks, n, context, **params), policy, context


@every
@given(seed=seeds, n=st.integers(1, 5))
def test_n_answers_a_task_that_stand_together_as_one_group(piece, seed, n):
    tasks = tasks_of(np.random.default_rng(seed))
    samples, _, _ = roll(piece, tasks, n, seed)
    assert [s.task.id for s in samples] == [task.id for task in tasks for _ in range(n)]
    assert [s.group for s in samples] == [g for g in range(len(tasks)) for _ in range(n)]


@every
@given(seed=seeds)
def test_every_sample_agrees_with_itself(piece, seed):
    samples, policy, _ = roll(piece, tasks_of(np.random.default_rng(seed)), 3, seed)
    for s in samples:
        assert s.ids is not None
        assert s.prompt_ids is not None
        assert s.offsets is not None
        assert s.written is not None
        t = len(s.ids)
        assert s.prompt_ids.tolist() == policy.encode(s.task.prompt).tolist()
        text, offsets = policy.decode(s.ids)
        assert s.text == text
        assert s.offsets.tolist() == offsets.tolist()
        assert s.written.shape == (t,)
        assert s.written.dtype == bool
        assert s.stop in STOPS
        assert s.version == policy.version
        logprobs = np.full(t, np.nan) if s.logprobs is None else s.logprobs
        assert logprobs.shape == (t,)
        assert s.source != "policy" or bool(np.isfinite(logprobs[s.written]).all())
        assert s.spans.keys() == s.marks.keys()
        for name, spans in s.spans.items():
            assert all(0 <= start <= end <= t for start, end in spans), name
            assert all(0 <= start <= end <= len(text) for start, end in s.marks[name]), name
        assert "".join(s.steps) == text or not s.steps
    batch = collate(samples, Rewards(Grain.of(np.zeros(len(samples)))))
    assert len(batch) == len(samples)


@every
@given(seed=seeds)
def test_the_generator_of_the_context_decides_everything(piece, seed):
    tasks = tasks_of(np.random.default_rng(seed))
    first, policy, context = roll(piece, tasks, 2, seed)
    again, _, _ = roll(piece, tasks, 2, seed)
    assert [s.text for s in first] == [s.text for s in again]
    assert tasks == tasks_of(np.random.default_rng(seed))
    assert ("rollouts" in context.usage) == bool(policy.asked)


@every
def test_other_generators_give_other_answers(piece):
    tasks = [Task("a", "p", meta={"solution": "1"})]
    answers = {tuple(s.text for s in roll(piece, tasks, 4, seed)[0]) for seed in range(5)}
    sampled = bool(roll(piece, tasks, 4, 0)[1].asked)
    assert len(answers) == (5 if sampled else 1)

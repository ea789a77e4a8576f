"""Conversations of several turns with a tool, as one plain text: what the tool says stands between the turns of the policy."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guerdon.backends.base import Model, SamplingParams
from guerdon.envs.tools import Asked, Turn, ask
from guerdon.registry import Refused, find
from guerdon.rollouts.core import completed, place, plain_ids, rollout, seed_of
from guerdon.samples import Context, Sample, Span, Task
from guerdon.spans import Split
from guerdon.workers import shared


@dataclass
class _Talk:
    """A sample that grows."""

    task: Task
    group: int
    prompt: np.ndarray
    pieces: list[tuple[np.ndarray, np.ndarray | None]] = field(default_factory=list)
    turns: list[Span] = field(default_factory=list)
    history: tuple[Turn, ...] = ()
    size: int = 0
    version: int = 0
    stop: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def add(self, ids: np.ndarray, logprobs: np.ndarray | None) -> None:
        """Tokens of the policy with their log-probabilities, or of the tool without."""
        if logprobs is not None:
            self.turns.append((self.size, self.size + len(ids)))
        self.pieces.append((ids, logprobs))
        self.size += len(ids)


@rollout(evaluates=True)
def multi_turn(
    policy: Model, tasks: Sequence[Task], n: int, context: Context, *, tool: str | dict[str, Any], max_turns: int = 8,
    max_tokens: int = 1024, turn_tokens: int = 256, stop: Sequence[str] = ("\n",), temperature: float = 1.0, top_p: float = 1.0,
    top_k: int = 0, split: Split = "turns",
) -> list[Sample]:  # fmt: skip
    """n conversations a task with the registered tool of that name, or `{use: NAME, ...its parameters}`.

    A turn ends at one of the `stop` texts (which it keeps) or after turn_tokens; then the tool is asked, and its reply is appended, its
    tokens not `written` and without log-probabilities. Everything is one plain continuation of the prompt: no chat template is laid around
    turns and replies, so write what a chat model needs between them into `stop` and into the tool's text. Ids are appended, never rebuilt.
    The sample ends: "tool" where the tool says it is done; "end" with the policy's end token, on which no tool is asked; "length" when
    max_tokens, replies included, or max_turns are used up (a reply that does not fit is left out); "error" where the tool raised or was
    killed, with the reason in meta "tool_error".
    spans["turn"]: the runs that the policy wrote, one a turn. With split "turns" a step is a turn and the reply to it, else it is a piece
    of the text as usual. meta "replies": the tool's texts. Raises Refused for a tool that is not registered and for budgets below 1.
    """
    given = {"use": tool} if isinstance(tool, str) else dict(tool)
    name = str(given.pop("use", ""))
    find("tool", name)
    if min(max_turns, max_tokens, turn_tokens) < 1:
        raise Refused(f"multi_turn(max_turns={max_turns}, max_tokens={max_tokens}, turn_tokens={turn_tokens}): each is 1 or more.")
    seed = seed_of(context)
    prompts = [policy.encode(task.prompt) for task in tasks]
    talks = [_Talk(task, group, prompts[group]) for group, task in enumerate(tasks) for _ in range(n)]
    live = talks
    for turn in range(max_turns):
        if not live:
            break
        params = SamplingParams(
            min(turn_tokens, max_tokens - min(talk.size for talk in live)), temperature, top_p, top_k, tuple(stop), seed + turn
        )
        prefixes = prompts if turn == 0 else [np.concatenate([talk.prompt, *(ids for ids, _ in talk.pieces)]) for talk in live]
        completions, usage = policy.sample(prefixes, n if turn == 0 else 1, params)
        context.spend("rollouts", usage)
        for talk, c in zip(live, (c for several in completions for c in several), strict=True):
            room = max_tokens - talk.size
            talk.add(c.ids[:room], c.logprobs[:room])
            talk.version = c.version
            cut = len(c.ids) > room or (c.stop == "length" and len(c.ids) == room < turn_tokens)
            talk.stop = "end" if c.stop == "end" and not cut else "length" if cut or not len(c.ids) else None
        asking = [talk for talk in live if talk.stop is None]
        asked = [Asked(policy.decode(talk.pieces[-1][0])[0], talk.task, talk.history) for talk in asking]
        for talk, one, reply in zip(asking, asked, ask(name, asked, lambda: context.workers or shared(), given), strict=True):
            if isinstance(reply, str):
                talk.stop, talk.meta["tool_error"] = "error", reply
                continue
            ids = plain_ids(policy, reply.text)
            fits = talk.size + len(ids) <= max_tokens
            if fits:
                talk.add(ids, None)
                talk.history += (Turn(one.text, reply.text),)
            full = not fits or talk.size == max_tokens or turn == max_turns - 1
            talk.stop = "tool" if reply.done else "length" if full else None
        live = [talk for talk in live if talk.stop is None]
    samples = [_sample(policy, talk, split) for talk in talks]
    place(samples)
    return samples


def _sample(policy: Model, talk: _Talk, split: Split) -> Sample:
    sample = completed(policy, talk.task, talk.group, talk.prompt, talk.pieces, talk.stop, talk.version, split)
    sample.meta |= {**talk.meta, "replies": [turn.reply for turn in talk.history]}
    assert sample.offsets is not None
    turns = [span for span in talk.turns if span[1] > span[0]]
    starts = [start for start, _ in turns]
    first = np.maximum.accumulate(sample.offsets[:, 0]).tolist()
    sample.spans["turn"] = turns
    sample.marks["turn"] = [(first[a], max(int(sample.offsets[b - 1, 1]), first[a])) for a, b in turns]
    if split == "turns" and turns:
        sample.spans["step"] = list(itertools.pairwise([*starts, talk.size]))
        sample.marks["step"] = list(itertools.pairwise([0, *(first[a] for a in starts[1:]), len(sample.text)]))
    return sample

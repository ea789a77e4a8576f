"""One thought, left early at several points: what would the policy have answered there?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from guerdon.backends.base import Completion, Model, SamplingParams
from guerdon.registry import Refused
from guerdon.rollouts.core import completed, place, plain_ids, rollout, seed_of
from guerdon.samples import Context, Sample, Task
from guerdon.spans import Split

INDUCER = "\nThere is no time left to think, so this is the answer.\n</think>\n\n"


@rollout(fills=("thought", "exit", "exit_tokens"))
def serial_exits(
    policy: Model, tasks: Sequence[Task], n: int, context: Context, *, exits: int = 8, at: Literal["random"] | Sequence[int] = "random",
    inducer: str = INDUCER, think_end: str = "</think>", answers: int = 1, max_tokens: int = 1024, answer_tokens: int = 128,
    temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0, stop: Sequence[str] = (), split: Split = "lines",
) -> list[Sample]:  # fmt: skip
    """n samples a task: whole rollouts (thought and answer), each behind the answers that the policy gives when its thought is cut short.

    A thought is the tokens before think_end (all of them where that is never written) and is cut at `exits` places: "random", uniform over
    1 to its length and different as long as it has so many tokens, or the budgets of tokens in `at`, in rising order. There the inducer is
    appended, not `written` and without log-probabilities, and the policy writes `answers` answers of up to answer_tokens. A budget past
    the end of a thought that ended by itself gives the whole rollout once more, `answers` times and without new tokens; where max_tokens
    cut the thought off, its answers are asked for at that cut. So exits * answers + 1 samples are one thought's, and n is shared out to as
    many thoughts as it holds, one at least: random exits are then more or fewer, and budgets refuse an n that is no multiple.
    Order within a group: by thought, then by exit, the whole rollout last. meta "thought": which one, from 0; "exit": which exit, from 0
    (the whole rollout: the number of exits); "exit_tokens": tokens of the thought that the sample has.
    Tokens of a thought stand in several samples and are in the loss of each. Raises Refused for budgets that do not rise from 1 on.
    Source: arXiv:2505.07686 (S-GRPO, random), arXiv:2505.13438 (AnytimeReasoner, budgets).
    """
    budgets = None if isinstance(at, str) else [int(b) for b in at]
    if (isinstance(at, str) and at != "random") or (budgets is not None and (not budgets or (np.diff([0, *budgets]) < 1).any())):
        raise Refused(f"serial_exits(at={at!r}): write `random`, or budgets of tokens that rise from 1 on.")
    if min(exits, answers, max_tokens, answer_tokens) < 1:
        raise Refused(f"serial_exits(exits={exits}, answers={answers}, {max_tokens=}, {answer_tokens=}): each is 1 or more.")
    size = (exits if budgets is None else len(budgets)) * answers + 1
    if budgets is not None and n % size:
        raise Refused(
            f"serial_exits: {len(budgets)} budgets, {answers} answers each, and the whole rollout are {size} samples a thought, of which "
            f"{n} samples a task are no multiple; ask for {max(1, n // size) * size}."
        )
    thoughts = max(1, n // size)
    seed = seed_of(context)
    rng = np.random.default_rng(seed)
    hint = plain_ids(policy, inducer)
    prompts = [policy.encode(task.prompt) for task in tasks]
    whole, usage = policy.sample(prompts, min(thoughts, n), SamplingParams(max_tokens, temperature, top_p, top_k, tuple(stop), seed))
    context.spend("rollouts", usage)

    rows: list[tuple[int, int, int, int, Completion, bool]] = []  # task, thought, exit, tokens of the thought, rollout, left early
    for i, several in enumerate(whole):
        for j, full in enumerate(several):
            room = (j + 1) * n // thoughts - j * n // thoughts - 1  # answers at exits
            long, ended = _thought(policy, full, think_end)
            places = budgets or _random(rng, -(-room // answers), long)
            for k, cut in enumerate(np.repeat(places, answers).astype(int).tolist()[:room]):
                rows.append((i, j, k // answers, min(cut, long), full, cut < long or not ended or budgets is None))
            rows.append((i, j, len(places), long, full, False))
    asked = [(i, full.ids[:cut]) for i, _, _, cut, full, early in rows if early]
    found: list[Completion] = []
    if asked:
        params = SamplingParams(answer_tokens, temperature, top_p, top_k, tuple(stop), seed + 1)
        completions, usage = policy.sample([np.concatenate([prompts[i], ids, hint]) for i, ids in asked], 1, params)
        context.spend("rollouts", usage)
        found = [c for (c,) in completions]

    samples, left = [], iter(found)
    for i, thought, exit, tokens, full, early in rows:
        last = next(left) if early else full
        pieces: list[tuple[np.ndarray, np.ndarray | None]] = [(last.ids, last.logprobs)]
        if early:
            pieces = [(full.ids[:tokens], full.logprobs[:tokens]), (hint, None), *pieces]
        sample = completed(policy, tasks[i], i, prompts[i], pieces, last.stop, last.version, split)
        sample.meta |= {"thought": thought, "exit": exit, "exit_tokens": tokens}
        samples.append(sample)
    place(samples)
    return samples


def _thought(policy: Model, full: Completion, think_end: str) -> tuple[int, bool]:
    """How many tokens are thought, and whether it ended by itself: not cut off for its length."""
    text, offsets = policy.decode(full.ids)
    end = text.find(think_end)
    if end >= 0:
        return int(np.searchsorted(offsets[:, 1], end, side="right")), True
    return len(full.ids) - (full.stop == "end"), full.stop != "length"


def _random(rng: np.random.Generator, k: int, long: int) -> np.ndarray:
    """(k,) places from 1 to `long`, rising; 0 where there is no thought."""
    if not long:
        return np.zeros(k, dtype=np.int64)
    return np.sort(rng.choice(long, k, replace=k > long)) + 1

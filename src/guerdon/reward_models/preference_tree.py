"""A tree of attempts at one task: at every node a right and a wrong answer to the same context, and it grows from the wrong one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from guerdon.backends.base import Model, SamplingParams
from guerdon.registry import Refused
from guerdon.reward_models.layouts import Answer, Example
from guerdon.rollouts.core import completed, seed_of
from guerdon.samples import Context, Prompt, Sample, Task

Critique = Callable[[Sample, str], str]


@dataclass
class Attempts:
    pairs: list[Example] = field(default_factory=list)
    """A pair a turn that had both, its prompt the context that both answer."""
    right: list[Sample] = field(default_factory=list)
    """All right answers, of every turn, for supervised fine-tuning."""
    turns: int = 0


def again(sample: Sample, why: str) -> str:
    """What stands behind a wrong answer when nobody criticises it: what the grader said, and the request to try once more."""
    return f"{why or 'That is not right.'}\nFind the mistake and answer again."


def preference_tree(
    task: Task, policy: Model, context: Context, turns: int = 5, tries: int = 4, critique: Critique = again, max_tokens: int = 512,
    temperature: float = 1.0,
) -> Attempts:  # fmt: skip
    """Up to `turns` turns; in each `tries` answers to the context so far are sampled and graded by `context.score` (right: above 0.5).

    The first right and the first wrong one are the turn's pair. The next context is this one, the wrong answer, and `critique(answer, the
    grader's reason)`: another turn of the user where the prompt is messages, else plain text. It ends with the turn in which no answer is
    wrong. A task with no wrong answer gives right answers only. Ungraded answers are neither.
    Raises Refused without a scorer and for turns or tries below 1. Source: arXiv:2404.02078 (UltraInteract: 5 turns).
    """
    if context.score is None:
        raise Refused("preference_tree needs a reward that says which answers are right, as `score` of its context.")
    if min(turns, tries) < 1:
        raise Refused(f"preference_tree(turns={turns}, tries={tries}): each is 1 or more.")
    out, prompt = Attempts(), task.prompt
    for _ in range(turns):
        out.turns += 1
        here = Task(task.id, prompt, task.reference, task.meta)
        prefix = policy.encode(prompt)
        found, usage = policy.sample([prefix], tries, SamplingParams(max_tokens, temperature, seed=seed_of(context)))
        context.spend("tree", usage)
        samples = [completed(policy, here, 0, prefix, [(c.ids, c.logprobs)], c.stop, c.version, "lines") for c in found[0]]
        rewards = context.score(samples)
        graded = [(i, s) for i, s in enumerate(samples) if rewards.alive[i]]
        right = [s for i, s in graded if rewards.total()[i] > 0.5]
        wrong = [(i, s) for i, s in graded if rewards.total()[i] <= 0.5]
        out.right += right
        if right and wrong:
            out.pairs.append(Example(prompt, [Answer(right[0].text, 1.0), Answer(wrong[0][1].text, 0.0)], [(0, 1)]))
        if not wrong:
            break
        row, worst = wrong[0]
        prompt = _longer(prompt, worst.text, critique(worst, rewards.why(row)))
    return out


def _longer(prompt: Prompt, answer: str, said: str) -> Prompt:
    if isinstance(prompt, str):
        return f"{prompt}{answer}\n{said}\n"
    return [*prompt, {"role": "assistant", "content": answer}, {"role": "user", "content": said}]

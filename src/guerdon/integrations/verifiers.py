"""verifiers: a reward expression as a `@vf.reward` of a Task. Written against verifiers 0.4.0."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import verifiers.v1 as vf  # pyright: ignore[reportMissingImports]

from guerdon.backends.tokens import plain
from guerdon.integrations.common import Scorer, Together, sample_of, unscored, wants
from guerdon.registry import Broke, Refused
from guerdon.rewards.expr import Expr
from guerdon.samples import Context, Sample, Task

if TYPE_CHECKING:
    from verifiers.v1 import MessageNode, TaskData, Trace  # pyright: ignore[reportMissingImports]

MEND = "judge several traces in an Env's `finalize()`, or train with `guerdon train`."


def reward(
    expression: Expr | str,
    *,
    name: str = "guerdon",
    reference: str = "answer",
    split: str = "lines",
    context: Context | None = None,
    weight: float = 1.0,
    priority: int = 0,
    **engine: Any,
) -> Callable[..., Any]:
    """A reward of verifiers, called `name` in its traces: an attribute of a `vf.Task`, or a function that a configuration plugs in by path.

    reference: the field of the task's data that is the reference; the other fields are the task's meta. The parts are metrics
    `NAME/PART`. Failed raises, which verifiers records on the trace as a TaskError and leaves the reward None; abstained records none.
    engine: options of `scoring.Engine`. Raises Refused for rewards of groups, of steps or of token ids, which one trace does not show.
    """
    scorer = Scorer(expression, context, **engine)
    scorer.refuse_groups("verifiers", MEND)
    scorer.refuse_fine("A reward of verifiers", MEND)
    for field in ("ids", "logprobs"):
        if wants(scorer.expression, field):
            raise Refused(f"`{scorer.expression}` reads {field!r}, which a trace of verifiers need not have; reward its text.")
    together = Together(scorer)

    @vf.reward(weight=weight, priority=priority)
    async def scored(self: Any = None, *, task: TaskData, trace: Trace) -> dict[str, float]:
        found = await asyncio.wrap_future(together.submit(sample(task, trace, reference, split)))
        for part, each in found.parts.items():
            if each.rewards.alive[0]:
                trace.record_metric(f"{name}/{part}", float(each.rewards.total()[0]))
        why = unscored(found)
        if why is not None and found.failed[0]:
            raise Broke(f"`{scorer.expression}` has no verdict on this trace: {why}")
        assert found.outcome is not None
        return {} if why is not None else {name: float(found.outcome.value[0])}

    scored.__name__ = scored.__qualname__ = name
    return scored


def sample(data: TaskData, trace: Trace, reference: str, split: str) -> Sample:
    """The final branch of a trace: what stands before the model's first word is the prompt, all that follows is the text."""
    nodes = trace.branches[-1].nodes if trace.branches else []
    first = next((i for i, node in enumerate(nodes) if node.sampled), len(nodes))
    messages = [node.message.model_dump(exclude_none=True) for node in nodes]
    fields = data.model_dump(mode="json", exclude={"prompt", "id", reference})
    task = Task(str(data.id or data.idx or ""), messages[:first], getattr(data, reference, None), fields)
    stop = "length" if trace.is_truncated else "end"
    return sample_of(task, "\n".join(map(text_of, nodes[first:])), split, messages=messages, stop=stop)


def text_of(node: MessageNode) -> str:
    """A message as one text; reasoning that the provider sent apart stands in think tags before it."""
    thought = getattr(node.message, "reasoning_content", None)
    content = node.message.content
    said = plain(content if isinstance(content, str) else [part.model_dump() for part in content or []])
    return f"<think>{thought}</think>{said}" if thought else said

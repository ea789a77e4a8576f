"""What every adapter does: read an expression and a credit, tell what they need, and turn a host's rows into Samples."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.registry import Refused, find
from guerdon.rewards.expr import Expr, Pipe, alike
from guerdon.samples import Context, Part, Progress, Rewards, Sample, Task
from guerdon.scoring.engine import Engine, leaves, needs_groups
from guerdon.spans import mark

if TYPE_CHECKING:
    from guerdon.backends.tokens import Tokens
    from guerdon.samples import Batch


class Scorer:
    """A reward expression with the engine that scores it and the hooks of its shapes, which the host's loop does not know of."""

    def __init__(self, expression: Expr | str, context: Context | None = None, **engine: Any) -> None:
        """engine: options of `scoring.Engine`, such as `workers` or `cache`. Raises Refused for what cannot be scored."""
        import guerdon.rewards
        import guerdon.shaping  # noqa: F401  their imports fill the registry

        self.engine = Engine(context, **engine)
        self.expression = self.engine.check(expression)
        self.prepared: set[str] = set()

    def score(self, samples: Sequence[Sample], progress: Progress = Progress(0, 0)) -> Rewards:  # noqa: B008  a tuple
        self.engine.context.progress = progress
        return self.engine.score(self.expression, samples)

    def train(self, samples: Sequence[Sample], progress: Progress, on: str = "train") -> Rewards:
        """`score` with the hooks of the shapes around it: `prepare` with tasks not seen yet before, `observe` with the rewards after."""
        new = list({s.task.key: s.task for s in samples if s.task.key not in self.prepared}.values())
        for pipe in self.shapes():
            if new and hasattr(pipe.shape.fn, "prepare"):
                pipe.shape.fn.prepare(new, partial(self.engine.score, pipe.source), self.engine.context)
        self.prepared.update(task.key for task in new)
        rewards = self.score(samples, progress)
        for pipe in self.shapes():
            if hasattr(pipe.shape.fn, "observe"):
                pipe.shape.fn.observe(samples, rewards.parts[str(pipe.source)].rewards, self.engine.context, on=on)
        return rewards

    def shapes(self) -> Iterator[Pipe]:
        """Every shape with what it stands on, inner ones first."""
        yield from reversed(list({str(node): node for node in self.expression.walk() if isinstance(node, Pipe)}.values()))

    def hooked(self) -> list[str]:
        """Shapes that learn from batches."""
        hooks = ("prepare", "observe", "update")
        return [pipe.shape.name for pipe in self.shapes() if any(hasattr(pipe.shape.fn, hook) for hook in hooks)]

    @property
    def whole(self) -> bool:
        """Whether a value may depend on more than its own sample."""
        return needs_groups(self.expression) or bool(self.hooked())

    def refuse_groups(self, host: str, mend: str) -> None:
        """Raises Refused, naming the piece, where the host shows it one sample at a time and it needs more."""
        for leaf in leaves(self.expression):
            if leaf.scope != "sample":
                raise Refused(f"{host} scores one answer a call, but the reward {leaf.name!r} compares a whole {leaf.scope}; {mend}")
        for pipe in self.shapes():
            if pipe.shape.scope != "sample":
                raise Refused(f"{host} scores one answer a call, but the shape {pipe.shape.name!r} sees a whole {pipe.shape.scope}; {mend}")
        for name in self.hooked():
            raise Refused(f"{host} scores one answer a call, but the shape {name!r} learns from whole batches; {mend}")

    def refuse_fine(self, host: str, mend: str) -> None:
        """Raises Refused where the expression gives step or token rewards and the host takes one number an answer."""
        grains = [leaf for leaf in leaves(self.expression) if leaf.grain != "outcome"]
        try:
            fine = [name for name, _ in self.engine.evaluation(()).of(self.expression).grains() if name != "outcome"]
        except Exception:  # a user's shape that takes no empty batch: what the rewards themselves say is all that is known
            fine = [leaf.grain for leaf in grains]
        if fine:
            names = ", ".join(str(leaf) for leaf in grains)
            raise Refused(f"{host} takes one number an answer, but `{self.expression}` gives {fine[0]} rewards ({names}); {mend}")

    def state_dict(self) -> dict[str, Any]:
        """What the shapes have learnt, as plain values."""
        held = {str(pipe): pipe.shape.fn.state_dict() for pipe in self.shapes() if hasattr(pipe.shape.fn, "state_dict")}
        return {"shapes": held, "prepared": sorted(self.prepared) if held else []}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for pipe in self.shapes():
            if str(pipe) in state["shapes"]:
                pipe.shape.fn.load_state_dict(state["shapes"][str(pipe)])
        self.prepared = set(state["prepared"])


def sample_of(
    task: Task, text: str, split: str, *, prompt_ids: Any = (), ids: Any = None, tokens: Tokens | None = None, **own: Any
) -> Sample:
    """A sample of a host's row, marked with its steps, thinking and answer: of its ids, whose text `tokens` reads, else of its text."""
    if tokens is not None:
        own |= {"prompt_ids": np.asarray(prompt_ids, dtype=np.int64), "ids": np.asarray(ids, dtype=np.int64)}
        text, own["offsets"] = tokens.decode(own["ids"])
    sample = Sample(task, text, **own)
    mark(sample, split)  # type: ignore[arg-type]  it refuses an unknown splitter by name
    return sample


def spoken(completion: Any) -> str:
    """The text of a completion that may be messages: their contents, one behind the other."""
    if isinstance(completion, str):
        return completion
    from guerdon.backends.tokens import plain

    return "\n".join(plain(message.get("content") or "") for message in completion)


def wants(expression: Expr, field: str) -> bool:
    """Whether some reward of the expression reads this field of a sample."""
    return any(field in leaf.fields for leaf in leaves(expression))


def part_means(rewards: Rewards) -> dict[str, float]:
    """The mean of each part over the samples where it was scored, and the shares that failed, abstained and were hostile."""
    means = {}
    for name, part in rewards.parts.items():
        scored = part.rewards.alive
        if scored.any():
            means[name] = float(part.rewards.total()[scored].mean())
    n = max(len(rewards), 1)
    alive, failed = rewards.alive, rewards.failed
    return means | {
        "share failed": float(failed.sum()) / n,
        "share abstained": float((~alive & ~failed).sum()) / n,
        "share hostile": float(rewards.hostile.sum()) / n,
    }


def join(several: Sequence[Rewards]) -> Rewards:
    """Rewards of one expression that were scored apart, as one: their grains and evidence may differ, their parts are the same."""
    whole = Rewards.stack(alike(several))
    names = list(dict.fromkeys(name for r in several for name in r.parts))
    parts = {n: Part(Rewards.stack(alike([r.parts[n].rewards for r in several])), several[0].parts[n].coefficient) for n in names}
    return Rewards(**dict(whole.grains()), parts=parts, evidence=whole.evidence)


class Credit:
    """A registered credit by its spelling in a recipe: `"min_form"` or `{"use": "min_form", "temperature": 0.05}`."""

    def __init__(self, spelling: str | Mapping[str, Any], host: str, fills: Sequence[str]) -> None:
        """fills: batch fields that the host can fill. Raises Refused for an unknown name or parameter and for a need beyond `fills`."""
        from guerdon.recipe import Use, bind, check_params

        use = Use(**{"use": spelling} if isinstance(spelling, str) else dict(spelling))
        if problems := check_params("credit", use, "credit"):
            raise Refused(" ".join(problems))
        self.piece = find("credit", use.use)
        for need in self.piece.needs:
            if need not in fills:
                raise Refused(
                    f"The credit {use.use!r} needs the batch field {need!r}, which {host} cannot fill; it fills "
                    f"{', '.join(sorted(fills)) or 'none'}. Train it with `guerdon train`."
                )
        self.fn: Callable[..., Any] = bind("credit", use)
        if inspect.isclass(self.piece.fn) and hasattr(self.fn, "update"):
            raise Refused(f"The credit {use.use!r} learns beside the policy, which {host} has no place for; train it with `guerdon train`.")

    def check_grains(self, rewards: Rewards) -> None:
        """Raises Refused where it would ignore rewards that there are."""
        reads = self.piece.about.get("grains", ("outcome",))
        ignored = [name for name, _ in rewards.grains() if name not in reads]
        if ignored:
            raise Refused(f"The credit {self.piece.name!r} reads {' and '.join(reads)} rewards and would ignore the {ignored[0]} rewards.")

    def __call__(self, batch: Batch) -> Any:
        """advantages (n, t), finite. Raises Refused, naming the sample, where they are not."""
        import torch

        self.check_grains(batch.rewards)
        advantages = self.fn(batch)
        bad = (~torch.isfinite(advantages)).any(1).nonzero()[:, 0]
        if len(bad):
            raise Refused(f"The credit {self.piece.name!r} gave sample {int(bad[0])} an advantage that is not a finite number.")
        return advantages * batch.mask


class Together:
    """Scores single samples of many callers in shared calls: those that arrive while one call runs are scored together in the next."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.lock = scorer, Lock()
        self.waiting: SimpleQueue[tuple[Sample, Future[Rewards]]] = SimpleQueue()
        self.process = 0

    def submit(self, sample: Sample) -> Future[Rewards]:
        """The Rewards of this one sample, when they are there; from a coroutine `await asyncio.wrap_future(...)`."""
        with self.lock:
            if self.process != os.getpid():  # the first call, or the first in a process that the host forked, which has no thread yet
                self.process, self.waiting = os.getpid(), SimpleQueue()
                Thread(target=self._run, daemon=True, name="guerdon-scorer").start()
        future: Future[Rewards] = Future()
        self.waiting.put((sample, future))
        return future

    def _run(self) -> None:
        while True:
            several = [self.waiting.get()]
            while not self.waiting.empty():
                several.append(self.waiting.get())
            try:
                rewards = self.scorer.score([sample for sample, _ in several])
            except Exception as error:  # handed to who asked
                for _, future in several:
                    future.set_exception(error)
                continue
            for i, (_, future) in enumerate(several):
                future.set_result(rewards.rows([i]))


def unscored(rewards: Rewards) -> str | None:
    """Why a single sample has no verdict, beginning with its state; None where it has one."""
    if rewards.alive[0]:
        return None
    state = "failed" if rewards.failed[0] else "abstained"
    return f"{state}: {rewards.why(0) or 'no reason given'}"

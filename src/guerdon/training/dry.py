"""`guerdon train --dry-run`: what a run would do, on two tasks, before it costs anything. Writes nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from guerdon.recipe import Recipe
from guerdon.rewards.expr import Const
from guerdon.samples import State

if TYPE_CHECKING:
    from guerdon.training.run import Run

SHOWN = 600
"""Characters of an answer that are shown."""


def dry_run(recipe: Recipe, run: Run, say: Any = print) -> None:
    """Prints the resolved recipe, two prompts exactly as the model sees them, the rewards of two samples, and an estimate of time.

    The estimate times the rollouts and one forward and backward pass of two tasks (no optimiser step) and scales them to the recipe; larger
    batches run better, so it is an upper estimate.
    """
    from guerdon.training.loop import assemble, join
    from guerdon.training.loop import gather as gather_step

    stage = run.stages[0]
    say(yaml.safe_dump(recipe.plain(), sort_keys=False, allow_unicode=True).rstrip())
    policy = run.models["policy"]
    tasks = stage.tasks[:2]
    for task in tasks:
        say(f"\n--- prompt of task {task.id}, as the model sees it")
        say(policy.show(policy.encode(task.prompt)))

    spec = stage.spec.train
    full = spec.prompts
    stage.select = lambda _tasks, n, rng: list(tasks)[:n]
    spec.prompts, spec.max_refills = len(tasks), 0
    run.context.rng = np.random.default_rng(run.recipe.seed)
    start = time.perf_counter()
    found = gather_step(run, stage, 1)
    for i in _first_of_each_group(found.samples)[:2]:
        sample, rewards = found.samples[i], found.rewards
        say(f"\n--- answer to task {sample.task.id} ({len(sample.ids if sample.ids is not None else ())} tokens, stop: {sample.stop})")
        say(sample.text[:SHOWN] + (" ..." if len(sample.text) > SHOWN else ""))
        if not isinstance(stage.reward, Const):
            state = State(int(rewards.state[i])).name.lower()
            say(f"reward {rewards.total()[i]:.4g} ({state}) {rewards.why(i)}".rstrip())
            for name, part in rewards.parts.items():
                say(f"  {name}: {part.rewards.total()[i]:.4g} {part.rewards.why(i)}".rstrip())
    batch = assemble(run, stage, join([found]))
    if stage.credit is not None:
        batch.advantages = stage.credit(batch)
    if bool(batch.weights.any()):
        batch.weights = stage.aggregate(batch)
        policy.forward_backward(batch, stage.losses, stage.temperature)
    seconds = (time.perf_counter() - start) * full / len(tasks)
    steps = sum(s.spec.train.steps for s in run.stages)
    took = f"{len(found.samples)} samples took {seconds * len(tasks) / full:.1f} s"
    say(f"\n{took}: at most about {duration(seconds)} a step, {duration(seconds * steps)} for {steps} steps.")


def _first_of_each_group(samples: Any) -> list[int]:
    return list({s.group: i for i, s in reversed(list(enumerate(samples)))}.values())[::-1]


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

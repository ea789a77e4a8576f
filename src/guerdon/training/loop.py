"""The arrow, one line a room: tasks -> rollouts -> rewards -> shaping -> curation -> credit -> losses -> backend.

(Shapes are part of the reward expression, so `run.score` covers rewards and shaping.) What a step measures is in `measure.py`, what
surrounds the steps - models, folder, checkpoints - in `run.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from guerdon.backends.base import LossCall, Model, Usage
from guerdon.credit import critic_view, kl_reward, lambda_returns
from guerdon.losses.core import shared, units
from guerdon.samples import Batch, Kept, Progress, Rewards, Sample, collate
from guerdon.training import measure
from guerdon.training import metrics as m
from guerdon.training.refuse import finite, refuse_unknown, refuse_unwritten

if TYPE_CHECKING:
    from guerdon.training.run import Run, Running


@dataclass
class Gathered:
    """The samples of one step, in all rounds: `rows` are those that curation kept, in order; `weights` theirs."""

    samples: list[Sample]
    rewards: Rewards
    rows: np.ndarray
    weights: np.ndarray
    pairs: np.ndarray
    refills: int


def train_step(run: Run, stage: Running, step: int) -> dict[str, Any]:
    """One round: a batch of fresh samples, and the optimiser steps on it. Returns the step's metrics."""
    run.context.progress = Progress(step - 1, run.total)
    found = gather(run, stage, step)
    values = measure.of_samples(run, stage, found, step)
    batch, learned = None, {}
    if len(found.rows):
        learned = learn_before(run, stage, found, step)
        with run.clock("fields"):
            batch = assemble(run, stage, found)
        with run.clock("credit"):
            if stage.credit is not None:
                batch.advantages = finite(stage.credit(batch), found, stage)
        with run.clock("update"):
            learned |= update(run, stage, batch, step) | stage.learn(batch, run.context)
            learned |= taught(run, stage, found, batch, "after")
    if m.LOSS not in learned:
        run.event(step, "nothing to train on", "no sample of this step was kept with a verdict and a weight; the policy stays as it is")
    follow(run, step)
    with run.clock("io"):
        if step % stage.spec.train.samples_every == 0 or step in (1, run.total):
            run.folder.samples(step, found.samples, found.rewards, {int(i): at for at, i in enumerate(found.rows)}, batch)
    return values | learned


def learn_before(run: Run, stage: Running, found: Gathered, step: int) -> dict[str, float]:
    """Models that learn before credit do so, and the samples are scored again. Returns their metrics."""
    if not any(run.learners(stage, "before")):
        return {}
    with run.clock("update"):
        learned = taught(run, stage, found, assemble(run, stage, found), "before")
    with run.clock("rewards"):
        found.rewards = run.score(stage.reward, found.samples, f"{stage.index}/{step}/again")
    return learned


def taught(run: Run, stage: Running, found: Gathered, batch: Batch, when: str) -> dict[str, float]:
    """The models that learn at this place do, from the batch or from their own lesson of the step. Returns their metrics."""
    learned: dict[str, float] = {}
    for learner, lesson in run.learners(stage, when):
        part = batch if lesson is None else lesson(found.samples, found.rewards, learner.model, run.context)
        if part is not None:
            learned |= learner.update(part, run.context)
    return learned


def gather(run: Run, stage: Running, step: int) -> Gathered:
    """select, rollout, score, keep; again for the groups that curation left out, until the batch is full or max_refills is spent."""
    spec = stage.spec.train
    several: list[Gathered] = []
    missing, groups = spec.prompts, 0
    for round in range(1 + spec.max_refills):
        run.context.rng = np.random.default_rng([run.recipe.seed, stage.index, step, round])
        with run.clock("rollouts"):
            tasks = stage.select(stage.tasks, missing, run.context.rng)
            stage.prepare(tasks, run)
            samples = stage.rollout(run.models["policy"], tasks, spec.samples, run.context)
        for sample in samples:
            sample.group += groups
        groups += len(tasks)
        with run.clock("rewards"):
            rewards = run.score(stage.reward, samples, f"{stage.index}/{step}/{round}")
            stage.observe(samples, rewards, run.context, "train")
        with run.clock("curation"):
            kept = curate(stage, samples, rewards, run.context)
        several.append(Gathered(samples, rewards, kept.rows, kept.weights[kept.rows], kept.pairs, round))
        missing -= len({samples[i].group for i in kept.rows.tolist()})
        if missing <= 0:
            break
    return join(several)


def curate(stage: Running, samples: list[Sample], rewards: Rewards, context: Any) -> Kept:
    """All `keep` pieces in turn, each on the rows that the one before left."""
    rows, weights = np.arange(len(samples)), np.ones(len(samples))
    pairs = np.zeros((0, 2), dtype=np.int64)
    for keep in stage.keep:
        kept = keep([samples[i] for i in rows.tolist()], rewards.rows(rows), context)
        pairs = rows[kept.pairs] if len(kept.pairs) else pairs
        weights[rows] *= kept.weights
        rows = rows[kept.rows]
    return Kept(rows, weights, pairs)


def join(several: list[Gathered]) -> Gathered:
    starts = np.cumsum([0] + [len(g.samples) for g in several])
    return Gathered(
        [s for g in several for s in g.samples],
        Rewards.stack([g.rewards for g in several]),
        np.concatenate([g.rows + at for g, at in zip(several, starts, strict=False)]).astype(np.int64),
        np.concatenate([g.weights for g in several]),
        np.concatenate([g.pairs + at for g, at in zip(several, starts, strict=False)]),
        several[-1].refills,
    )


def assemble(run: Run, stage: Running, found: Gathered) -> Batch:
    """The kept rows as a batch, with the fields that credit and loss need filled by forward passes."""
    kept = [found.samples[i] for i in found.rows.tolist()]
    refuse_unwritten(kept, found.rewards.rows(found.rows))
    batch = collate(kept, found.rewards.rows(found.rows), dtype=run.dtype)
    batch.weights = batch.weights * torch.from_numpy(found.weights).to(batch.weights)[:, None]
    if len(found.pairs):
        position = np.full(len(found.samples), -1)
        position[found.rows] = np.arange(len(found.rows))
        pairs = position[found.pairs]
        batch.pairs = torch.from_numpy(pairs[(pairs >= 0).all(1)])  # a later `keep` may have left out a side
    if stage.paired:  # a row in no pair has nothing to be compared with
        batch.weights = batch.weights * torch.isin(torch.arange(len(batch)), batch.pairs)[:, None]
    refuse_unknown(batch, stage, kept)
    batch.unit = units(batch, [call.name for call in stage.losses])
    for name, (model, want) in stage.fields.items():
        batch.fields[name] = run.forward(model, batch, want, stage.temperature)
    if stage.spec.kl is not None:
        batch = kl_reward(batch, stage.spec.kl.coefficient, stage.spec.kl.estimator)
    if stage.spec.critic is not None:
        for name in stage.critics.values():
            returns = lambda_returns(critic_view(batch, name), stage.spec.critic.gamma, stage.spec.critic.lam)
            batch.fields[name.replace("values", "returns")] = returns
    return batch


def update(run: Run, stage: Running, batch: Batch, step: int) -> dict[str, float]:
    """`passes` times through the batch, each in `minibatches` optimiser steps. Metrics are means over them."""
    spec = stage.spec.train
    lr = learning_rate(spec, step - stage.first)
    policy = run.models["policy"]
    seen: list[dict[str, float]] = []
    rng = np.random.default_rng([run.recipe.seed, stage.index, step, 2**20])
    for part in optimiser_batches(batch, spec.passes, spec.minibatches, rng):
        if not bool(part.weights.any()):
            continue
        part.weights = stage.aggregate(part)
        if stage.skips_zero:
            part = without_zeros(part)
        share = float(part.weights.sum())
        calls = shared(stage.terms(run.context) + ([] if seen else stage.monitors), part)
        apart = hasattr(stage.mix, "apart") and stage.mix.apart(run.context.progress)
        values, usage = (
            backward_apart(policy, part, calls, stage.temperature) if apart else policy.forward_backward(part, calls, stage.temperature)
        )
        run.context.spend("update", usage)
        seen.append(values | policy.optim_step(lr, spec.clip, spec.weight_decay))
        for name, field in stage.critics.items():
            assert stage.spec.critic is not None
            own = replace(part, fields={**part.fields, "returns": part.fields[field.replace("values", "returns")]})
            values, usage = run.models[name].forward_backward(own, [LossCall("value_mse")], stage.temperature)
            run.context.spend("update", usage)
            run.models[name].optim_step(stage.spec.critic.lr, stage.spec.critic.clip)
            seen[-1][m.VALUE_LOSS + name.removeprefix("critic")] = values["value_error"] / share / 2
    names = dict.fromkeys(name for values in seen for name in values)
    return {m.LR: lr} | measure.of_batch(batch) | {name: float(np.mean([v[name] for v in seen if name in v])) for name in names}


def backward_apart(policy: Model, part: Batch, calls: Sequence[LossCall], temperature: float) -> tuple[dict[str, float], Usage]:
    """`forward_backward`, a pass for each source; the gradients of the policy's terms and the expert's stay in buffers of these names."""
    values, used = {}, Usage()
    for of in ("policy", "expert", "all"):
        if terms := [call for call in calls if call.of == of]:
            found, usage = policy.forward_backward(part, terms, temperature)
            used += usage
            values = {name: values.get(name, 0.0) + found.get(name, 0.0) for name in values | found}
        if of != "all":
            policy.grad_keep(of)
    policy.grad_add("policy")
    policy.grad_add("expert")
    return values, used


def without_zeros(batch: Batch) -> Batch:
    """Rows with an advantage. Where the loss is a sum of terms that vanish with it, the others have no gradient to compute."""
    rows = ((batch.weights * batch.advantages) != 0).any(1).nonzero()[:, 0]
    if not len(rows):  # one that counts, for a gradient of 0 and metrics with a denominator
        rows = batch.weights.any(1).nonzero()[:1, 0]
    return batch if len(rows) == len(batch) else batch.rows(rows)


def optimiser_batches(batch: Batch, passes: int, minibatches: int, rng: np.random.Generator) -> Iterator[Batch]:
    """The batch itself, or shuffled parts of it that never split a unit."""
    if passes == minibatches == 1:
        yield replace(batch)
        return
    units = torch.unique(batch.unit)
    for _ in range(passes):
        order = units[torch.from_numpy(rng.permutation(len(units)))]
        for part in torch.tensor_split(order, minibatches):
            rows = torch.isin(batch.unit, part).nonzero()[:, 0]
            if len(rows):
                yield batch.rows(rows)


def learning_rate(spec: Any, done: int) -> float:
    """Linear warm-up over `warmup` steps, then constant, or linearly or by a half cosine to 0 at the last step."""
    if done < spec.warmup:
        return spec.lr * (done + 1) / spec.warmup
    share = (done - spec.warmup) / max(1, spec.steps - spec.warmup)
    factor = {"constant": 1.0, "linear": 1 - share, "cosine": 0.5 * (1 + float(np.cos(np.pi * share)))}[spec.schedule]
    return spec.lr * factor


def follow(run: Run, step: int) -> None:
    """Models that follow another one."""
    for name, spec in run.recipe.models.items():
        if spec.of is not None and spec.every is not None and step % spec.every == 0:
            run.models[name].copy(run.models[spec.of], spec.tau)

"""What surrounds the loop: models are opened, the folder written, the policy evaluated, checkpoints kept, a killed run resumed."""

from __future__ import annotations

import functools
import hashlib
import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guerdon.backends.base import LossCall, Model, require
from guerdon.credit import factor_of
from guerdon.recipe import Recipe, Stage, Term, Use, bind, by_model, critics, read_fields
from guerdon.registry import Interrupted, Refused, find
from guerdon.reward_models import Learner
from guerdon.rewards import parse
from guerdon.rewards.expr import Const, Expr, Pipe
from guerdon.samples import Batch, Context, Grain, Progress, Rewards, Sample, Task
from guerdon.scoring.cache import Journal
from guerdon.scoring.engine import Engine
from guerdon.training import checkpoint, measure
from guerdon.training import metrics as m
from guerdon.training.folder import Folder
from guerdon.training.loop import train_step
from guerdon.training.prepare import dress, key_of, load_tasks, prepare
from guerdon.training.record import read_metrics
from guerdon.training.trackers import Tracker


@dataclass
class Result:
    """A finished run: its folder, one dict of metrics a step, the report."""

    folder: Path
    metrics: list[dict[str, Any]]
    report: Path

    def last(self, name: str) -> Any:
        """The latest value of a metric."""
        return next(values[name] for values in reversed(self.metrics) if name in values)


class Running:
    """A stage of a recipe with its pieces bound: what the loop calls."""

    def __init__(self, recipe: Recipe, spec: Stage, index: int, first: int, tasks: Sequence[Task]) -> None:
        self.recipe, self.spec, self.index, self.first, self.tasks = recipe, spec, index, first, tasks
        self.last = first + spec.train.steps - 1
        self.reward: Expr = parse(spec.reward) if spec.reward else Const(0.0)
        self.correct: Expr = parse(spec.correct) if spec.correct else self.reward
        self.rollout, self.select = bind("rollout", spec.rollout), bind("select", spec.select)
        self.keep = [bind("keep", use) for use in spec.keep]
        self.credit = bind("credit", spec.credit) if spec.credit else None
        self.aggregate = bind("aggregate", spec.aggregate)
        self.losses = calls(spec.loss)
        self.paired = any(find("loss", call.name).about.get("unit") == "pair" for call in self.losses)
        self.mix: Any = bind("mix", spec.mix) if spec.mix else None
        if held := getattr(self.mix, "tasks", None):
            self.mix.tasks = held_out([dress(task, recipe) for task in held], tasks)
        reads = read_fields(recipe, spec) | ({"ref_logprobs"} if spec.kl or "reference" in recipe.models else set())
        self.critics = critics(recipe) if spec.critic else {}
        reads |= set(self.critics.values())
        filled = {name: by_model(name, recipe) for name in sorted(reads)}
        self.fields = {name: by for name, by in filled.items() if by is not None}
        monitors = ["logprob_gap"] * (spec.credit is not None) + ["kl_to_reference"] * ("ref_logprobs" in reads)
        self.monitors = [LossCall(name) for name in monitors]
        self.skips_zero = spec.critic is None and all(find("loss", use.use).about.get("vanishes") for use in spec.loss)
        temperature = spec.rollout.params.get("temperature", default(find("rollout", spec.rollout.use).fn, "temperature", 1.0))
        self.temperature = float(temperature) or 1.0
        self.prepared: set[str] = set()

    def terms(self, context: Context) -> list[LossCall]:
        """The terms of the loss, weighed as the mix says where the run stands."""
        if self.mix is None:
            return self.losses
        mu = self.mix(context.progress)
        factor = {"policy": 1 - mu, "expert": mu, "all": 1.0}
        return [replace(call, times=call.times * factor[call.of]) for call in self.losses]

    def stateful(self) -> Iterator[tuple[str, Any]]:
        """Pieces that may have hooks, with a name that is the same in every run of the recipe."""
        yield "select", self.select
        yield "mix", self.mix
        yield from ((f"keep/{i}", keep) for i, keep in enumerate(self.keep))
        yield from ((name, pipe.shape.fn) for name, pipe in self.shapes())

    def shapes(self) -> Iterator[tuple[str, Pipe]]:
        """Every shape with what it stands on, inner ones first: what `prepare` scores through one is prepared by then."""
        pipes = list({str(node): node for node in self.reward.walk() if isinstance(node, Pipe)}.values())
        yield from ((f"shape/{i}/{pipe.shape.name}", pipe) for i, pipe in reversed(list(enumerate(pipes))))

    def prepare(self, tasks: Sequence[Task], run: Run) -> None:
        """Every hook `prepare`, with the tasks that were not seen yet; a shape is handed the score of the expression it stands on."""
        new = [task for task in tasks if task.key not in self.prepared]
        hooks = [(piece, self.reward) for name, piece in self.stateful() if not name.startswith("shape/")]
        hooks += [(pipe.shape.fn, pipe.source) for _, pipe in self.shapes()]
        for piece, expression in hooks:
            if new and hasattr(piece, "prepare"):
                piece.prepare(new, functools.partial(run.score, expression, key=f"{self.index}/prepare"), run.context)
        self.prepared.update(task.key for task in new)

    def observe(self, samples: Sequence[Sample], rewards: Rewards, context: Context, on: str) -> None:
        """Every hook `observe`, with the rewards; a shape is handed those of the expression it stands on."""
        for name, piece in self.stateful():
            if hasattr(piece, "observe") and not name.startswith("shape/"):
                piece.observe(samples, rewards, context, on=on)
        for _, pipe in self.shapes():
            if hasattr(pipe.shape.fn, "observe"):
                pipe.shape.fn.observe(samples, rewards.parts[str(pipe.source)].rewards, context, on=on)

    def learn(self, batch: Batch, context: Context) -> dict[str, float]:
        """The `update` hook of what learns beside the policy, once a step; the metrics of a shape end with the reward it stands on."""
        end = {name: f"/{pipe.source}" for name, pipe in self.shapes()}
        hooks = [(end.get(name, ""), piece) for name, piece in self.stateful() if hasattr(piece, "update")]
        return {k + ending: v for ending, piece in hooks for k, v in piece.update(batch, context).items()}

    def state_dict(self) -> dict[str, Any]:
        state = {name: piece.state_dict() for name, piece in self.stateful() if hasattr(piece, "state_dict")}
        return {"pieces": state, "prepared": sorted(self.prepared) if any(hasattr(p, "prepare") for _, p in self.stateful()) else []}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, piece in self.stateful():
            if name in state["pieces"]:
                piece.load_state_dict(state["pieces"][name])
        self.prepared = set(state["prepared"])


class Run:
    """A recipe with its models opened and its folder at hand."""

    def __init__(self, recipe: Recipe, path: Path, tasks: Mapping[str, Sequence[Task]], trackers: Sequence[Tracker] = ()) -> None:
        """tasks: by the text of each `tasks:` field, loaded. Opens the models; refuses what their backends cannot do; writes nothing."""
        self.recipe, self.path = recipe, path
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        self.stages: list[Running] = []
        for index, spec in enumerate(recipe.staged()):
            first = self.stages[-1].last + 1 if self.stages else 1
            self.stages.append(Running(recipe, spec, index, first, tasks[key_of(spec.tasks)]))
        self.eval_tasks = tasks[key_of(recipe.eval.tasks)] if recipe.eval.tasks else []
        self.total = self.stages[-1].last
        self.models = open_models(recipe)
        self.check_capabilities()
        self.context = Context(models=self.models, progress=Progress(0, self.total), rng=np.random.default_rng(recipe.seed))
        self.engine = Engine(self.context, workers=recipe.workers, on_hostile=recipe.on_hostile)
        self.at(self.stages[0])
        for stage in self.stages:
            for expression in (stage.reward, stage.correct):
                if not isinstance(expression, Const):
                    self.engine.check(expression)
            if stage.spec.credit is not None and "values/*" in find("credit", stage.spec.credit.use).needs:
                parts = self.engine.score(stage.reward, []).parts
                for part in (field.removeprefix("values/") for field in stage.critics.values() if field not in ("values", "values/kl")):
                    factor_of(parts, part)
        self.gold = self.engine.check(recipe.eval.gold) if recipe.eval.gold else None
        self.dtype = getattr(self.models["policy"], "dtype", torch.float32)
        self.trackers = list(trackers)
        self.seconds: dict[str, float] = {}

    def learners(self, stage: Running, when: str) -> Iterator[tuple[Learner, Any]]:
        """The models that learn beside the policy, at this place of a step, each with the lesson that it learns from, if it has one."""
        for name, spec in self.recipe.models.items():
            if spec.learn is not None and spec.learn.when == when:
                how = spec.learn
                aggregate = bind("aggregate", how.aggregate)
                learner = Learner(name, self.models[name], calls(how.loss), aggregate, how.lr, how.clip, stage.temperature)
                yield learner, bind("lesson", how.on) if how.on else None

    def at(self, stage: Running) -> None:
        """From now on, `score` among the services is the reward of this stage, journalled as all scores of the run."""

        def score(samples: Sequence[Sample], key: str = "service") -> Rewards:
            return self.score(stage.reward, samples, f"{stage.index}/{self.context.progress.step}/{key}")

        self.context.score = score

    def check_capabilities(self) -> None:
        for name, spec in self.recipe.models.items():
            if (name == "policy" or spec.learn) and "only" in find("backend", spec.backend).about:
                raise Refused(f"The model {name!r} is trained, which the backend {spec.backend!r} cannot; open it with the backend local.")
        for stage in self.stages:
            for use in stage.spec.loss:
                require("policy", self.models["policy"], f"The loss {use.use!r}", find("loss", use.use).needs)
            if mix := stage.spec.mix:
                require("policy", self.models["policy"], f"The mix {mix.use!r}", find("mix", mix.use).needs)
            for model, want in stage.fields.values():
                require(model, self.models[model], f"The credit {stage.spec.credit and stage.spec.credit.use!r}", (want,))
        for name, spec in self.recipe.models.items():
            for term in spec.learn.loss if spec.learn else ():
                require(name, self.models[name], f"The loss {term.use!r}", find("loss", term.use).needs)
            if spec.of is not None and spec.tau < 1:
                require(name, self.models[name], f"tau {spec.tau} of the model {name!r}", ("average",))

    # ---------------------------------------------------------------- services of the loop

    @contextmanager
    def clock(self, room: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[room] = self.seconds.get(room, 0.0) + time.perf_counter() - start

    def score(self, expression: Expr, samples: Sequence[Sample], key: str) -> Rewards:
        """Rewards, journalled under the key and what was written: on replay the verdicts of the first time are read back."""
        if isinstance(expression, Const):
            return Rewards(outcome=Grain.of(np.full(len(samples), expression.value)))
        digest = hashlib.blake2b(digest_size=12)
        for s in samples:
            digest.update(s.text.encode("utf-8", "surrogatepass") + b"\0" + s.task.key.encode("utf-8", "surrogatepass") + b"\0")
        return self.engine.score(expression, samples, key=f"{key}/{expression}/{digest.hexdigest()}")

    def passes(self, stage: Running, samples: Sequence[Sample], rewards: Rewards, key: str) -> np.ndarray:
        """(n,) bool: which samples pass, from the rewards at hand where `correct` is one of their parts."""
        name = str(stage.correct)
        if name == str(stage.reward):
            found = rewards
        elif name in rewards.parts and rewards.parts[name].rewards.alive.all():
            found = rewards.parts[name].rewards
        else:
            found = self.score(stage.correct, samples, key)
        return measure.passed(found.total(), found.alive)

    def forward(self, model: str, batch: Batch, want: str, temperature: float) -> torch.Tensor:
        out, usage = self.models[model].forward(batch, (want,), temperature)
        self.context.spend("update", usage)
        return out[want].to(batch.weights.dtype)

    def event(self, step: int, kind: str, text: str) -> None:
        self.folder.event(step, kind, text)
        for tracker in self.trackers:
            tracker.on_event(step, kind, text)

    # ---------------------------------------------------------------- a run from start to end

    def begin(self) -> int:
        """Make or reopen the folder. Returns the step that is done."""
        start = checkpoint.latest(self.path / "checkpoints")
        self.folder = Folder(self.path)
        self.folder.recipe(self.recipe.plain())
        self.engine.journal = self.journal = Journal(self.path / "journal.sqlite")
        if start is None:
            self.folder.rewind(-1)
            self.history: list[dict[str, Any]] = []
            self.best: float | None = None
            return -1
        state = checkpoint.read(start, self.changing())
        if state["tasks"] != self.digest():
            raise Refused(
                f"The tasks of {self.path} have changed since its checkpoint was written; resume with the tasks it was started with."
            )
        for stage, saved in zip(self.stages, state["stages"], strict=True):
            stage.load_state_dict(saved)
        self.folder.rewind(state["step"])
        self.history = [values for values in read_metrics(self.path) if m.EVAL_ACCURACY in values]
        self.best = state["best"]
        return state["step"]

    def go(self) -> None:
        """Every step that is not done. Killed at any moment, a new `go` on the same folder ends with the same numbers."""
        done = self.begin()
        for tracker in self.trackers:
            tracker.on_start(self.recipe.plain(), self.path, max(done, 0), self.total)
        try:
            for step in range(done + 1, self.total + 1):
                self.step(step)
        except KeyboardInterrupt:
            raise Interrupted(
                f"Interrupted; `guerdon train --resume {self.path}` goes on from the last checkpoint to the same numbers."
            ) from None
        finally:
            for tracker in self.trackers:
                tracker.on_end()
            self.engine.close()

    def step(self, step: int) -> None:
        """Step 0 is the evaluation before training."""
        self.seconds = {}
        start, before = time.perf_counter(), self.context.usage.get("rollouts")
        stage = next(s for s in self.stages if step <= s.last)
        self.at(stage)
        values: dict[str, Any] = {m.STEP: step, m.STAGE: stage.index}
        if step > 0:
            values |= train_step(self, stage, step)
            if values.get(m.LOGPROB_GAP, 0.0) > m.LOGPROB_GAP_WARNING:
                self.event(
                    step, "warning", f"sampled and recomputed log-probabilities differ by {values[m.LOGPROB_GAP]:.3f} a token on average"
                )
            if usage := self.context.usage.get("rollouts"):
                values[m.TOKENS_PER_SECOND] = (usage.new - (before.new if before else 0)) / (time.perf_counter() - start)
        if self.eval_tasks and (step % self.recipe.eval.every == 0 or step == self.total):
            with self.clock("eval"):
                values |= self.evaluate(step, stage)
        values[m.SECONDS] = time.perf_counter() - start
        values |= {m.SECONDS_BY_ROOM + room: seconds for room, seconds in self.seconds.items()}
        self.folder.metrics(values)
        for tracker in self.trackers:
            tracker.on_step(values)
        if step > 0 and (step % stage.spec.train.checkpoint_every == 0 or step == self.total):
            state = {"step": step, "best": self.best, "tasks": self.digest(), "stages": [s.state_dict() for s in self.stages]}
            checkpoint.write(self.path / "checkpoints", step, self.changing(), state)

    def evaluate(self, step: int, stage: Running) -> dict[str, Any]:
        """Held-out tasks: passes, reward, gold; the hack monitor; keep-best."""
        spec = self.recipe.eval
        use = stage.spec.rollout
        own = bool(find("rollout", use.use).about.get("evaluates"))  # a conversation is judged with its tool
        params = {k: v for k, v in use.params.items() if own or k in ("max_tokens", "stop", "split")}
        params |= {"temperature": spec.temperature} | ({"max_tokens": spec.max_tokens} if spec.max_tokens else {})
        self.context.rng = np.random.default_rng([self.recipe.seed, 2**21])
        self.context.progress = Progress(step, self.total)
        stage.prepare(self.eval_tasks, self)
        apart = replace(self.context, usage={})  # the tokens of an evaluation are not those of training
        roll = bind("rollout", Use(use=use.use if own else "parallel", **params))
        samples = roll(self.models["policy"], self.eval_tasks, spec.samples, apart)
        rewards = self.score(stage.reward, samples, f"{stage.index}/{step}/eval")
        gold = self.score(self.gold, samples, f"{stage.index}/{step}/gold") if self.gold is not None else None
        ok = self.passes(stage, samples, rewards, f"{stage.index}/{step}/eval-correct")
        values = measure.evaluation(samples, rewards, ok, gold)
        stage.observe(samples, rewards, self.context, "eval")
        self.folder.evaluation(step, samples, rewards, ok.tolist(), gold)
        if measure.hacked(self.history, values, len(samples)):
            values[m.HACK] = 1
            best = max(self.history, key=lambda v: v[m.EVAL_GOLD])
            rose = f"the reward rose from {best[m.EVAL_REWARD]:.3f} to {values[m.EVAL_REWARD]:.3f}"
            fell = f"the gold fell from {best[m.EVAL_GOLD]:.3f} to {values[m.EVAL_GOLD]:.3f}"
            self.event(step, "hack", f"since step {best[m.STEP]} {rose} and {fell}: the policy may be cheating its reward")
        self.history.append({m.STEP: step} | values)
        score = values[m.EVAL_GOLD] if m.EVAL_GOLD in values else values[m.EVAL_ACCURACY]
        if spec.keep_best and (self.best is None or score > self.best) and step > 0:
            self.best = score
            checkpoint.save(self.path / "checkpoints" / "best", {"policy": self.models["policy"]}, {"step": step, "score": score})
        return values

    def changing(self) -> dict[str, Model]:
        """Models that a checkpoint holds: those that learn or follow; the frozen ones are opened anew."""
        out = {"policy": self.models["policy"]}
        for name, spec in self.recipe.models.items():
            if name in critics(self.recipe) or spec.learn or (spec.of is not None and spec.every is not None):
                out[name] = self.models[name]
        return out

    def digest(self) -> str:
        """Of the ids, prompts and references of all tasks that are trained on."""
        found = hashlib.blake2b(digest_size=8)
        for stage in self.stages:
            for task in stage.tasks:
                found.update(repr((task.id, task.prompt, task.reference)).encode("utf-8", "surrogatepass"))
        return found.hexdigest()


def held_out(held: list[Task], trained: Sequence[Task]) -> list[Task]:
    """The held-out tasks. Raises Refused for one that is trained on."""
    seen = {task.key for task in trained}
    for task in held:
        if task.key in seen:
            raise Refused(f"mix: its held-out task {task.id!r} is also among `tasks`; give it tasks that are not trained on.")
    return held


def calls(terms: Sequence[Term]) -> list[LossCall]:
    return [LossCall(term.use, term.params, term.of, term.times) for term in terms]


def default(fn: Any, name: str, otherwise: Any) -> Any:
    parameter = inspect.signature(fn).parameters.get(name)
    return otherwise if parameter is None or parameter.default is parameter.empty else parameter.default


def open_models(recipe: Recipe) -> dict[str, Model]:
    """Every model of the recipe by name; one that follows another opens as a frozen twin of it, without head or adapter."""
    out: dict[str, Model] = {}
    for name, spec in recipe.models.items():
        source = recipe.models[spec.of] if spec.of else spec
        params = {k: v for k, v in source.params.items() if not spec.of or k not in ("head", "adapter", "trainable")}
        if not spec.learn and (spec.of or (name != "policy" and name not in critics(recipe))):
            params.setdefault("trainable", False)
        out[name] = find("backend", source.backend).fn(source.path, **params)
    return out


def train(
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    *overrides: str,
    folder: str | Path | None = None,
    resume: str | Path | None = None,
    trackers: Sequence[Tracker] = (),
    **fields: Any,
) -> Result:
    """Train, and write `folder` (RUNS/NAME-N unless given) with metrics, samples, checkpoints and report.html.

    The recipe is a YAML file, a mapping, or its fields as keywords (`tasks` may be a list of Task, `reward` an expression). resume: a run
    folder to go on with; a recipe given beside it may differ in steps, evaluation and trackers only. Raises Refused before anything is
    begun, Broke when a run cannot go on.
    """
    from guerdon.training.report import write_report

    spec, path = prepare(recipe, overrides, folder, resume, fields)
    run = Run(spec, path, load_tasks(spec), [*(bind("tracker", use) for use in spec.trackers), *trackers])
    run.go()
    return Result(path, read_metrics(path), write_report(path))

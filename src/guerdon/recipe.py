"""The recipe: a run as data, read from YAML or given in Python, refused as a whole before anything expensive starts.

Every piece is named by `use:` and checked against its function's own parameters; a bare name is short for `{use: name}`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

import guerdon.annotation
import guerdon.backends
import guerdon.credit
import guerdon.curation
import guerdon.envs
import guerdon.losses
import guerdon.reward_models
import guerdon.rollouts
import guerdon.search
import guerdon.shaping  # noqa: F401  (importing the rooms fills the registry)
from guerdon import registry
from guerdon.registry import Refused, find, nearest
from guerdon.rewards import parse
from guerdon.rewards.core import type_problem
from guerdon.rewards.expr import Expr, call_text
from guerdon.samples import Task
from guerdon.scoring.engine import asking
from guerdon.scoring.job import load_plugin


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Use(BaseModel):
    """A registered piece and its parameters: `{use: ppo_clip, clip: 0.2}`."""

    model_config = ConfigDict(extra="allow")
    use: str

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class Term(Use):
    """A term of the loss: `{use: sft, of: expert, times: 0.1}`. Its rows are all, those that the policy wrote, or the others."""

    of: Literal["all", "policy", "expert"] = "all"
    times: float = 1.0


@registry.registrar("env")
def file(path: str, limit: int | None = None) -> list[Task]:
    """The tasks of a JSONL or Parquet file: columns `prompt` or `messages`, `reference`, `id`; the rest is their meta."""
    from guerdon.scoring.files import load_tasks

    return load_tasks(Path(path))[:limit]


def _use(x: Any) -> Any:
    return {"use": x} if isinstance(x, str) else x


def _tasks(x: Any) -> Any:
    return {"use": "file", "path": x} if isinstance(x, str) and ("." in x or "/" in x) else _use(x)


def _uses(x: Any) -> Any:
    return [_use(item) for item in (x if isinstance(x, list) else [x])]


Piece = Annotated[Use, BeforeValidator(_use)]
Pieces = Annotated[list[Use], BeforeValidator(_uses)]
Terms = Annotated[list[Term], BeforeValidator(_uses)]
Tasks = Annotated[Use, BeforeValidator(_tasks)]


def _expression(x: Any) -> Any:
    if isinstance(x, Mapping) and "use" in x:  # {use: reward_model, path: FOLDER}
        return call_text(x["use"], {name: value for name, value in x.items() if name != "use"})
    return str(x) if isinstance(x, Expr) else x


Expression = Annotated[str, BeforeValidator(_expression)]


class Learn(Strict):
    """How a model beside the policy is trained, on each step's batch: `prm: {path: ..., learn: {loss: implicit_ce, lr: 1e-6}}`."""

    loss: Terms
    lr: float = Field(default=1e-6, ge=0)
    clip: float | None = 10.0
    aggregate: Piece = Use(use="token_mean")
    when: Literal["before", "after"] = Field(
        default="after", description="after the policy's update, or before credit: then the batch is scored again"
    )
    on: Piece | None = Field(default=None, description="a piece that makes what it learns from out of the step's samples, not their batch")


class ModelSpec(BaseModel):
    """A model by role. Further keys are parameters of the backend. `of`: it starts as that model and follows it every so many steps."""

    model_config = ConfigDict(extra="allow")
    backend: str = "local"
    path: str | None = None
    of: str | None = None
    every: int | None = Field(default=None, ge=1, description="copy each so many steps; frozen where absent")
    tau: float = Field(default=1.0, gt=0, le=1, description="1 copies, below 1 averages")
    learn: Learn | None = None

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class Kl(Strict):
    """The KL penalty as a reward of every token; as a loss it is a term `{use: kl, coefficient: 0.01}`."""

    coefficient: float = 0.01
    estimator: Literal["k1", "k2", "k3"] = "k1"


class Critic(Strict):
    """How the model `critic` learns the return, and each model `critic/NAME` that of the reward's part NAME, after each policy update."""

    lr: float = 1e-4
    gamma: float = 1.0
    lam: float = 1.0
    clip: float | None = 1.0


class Train(Strict):
    steps: int = Field(default=100, ge=0, description="optimisation rounds: one batch of fresh samples each")
    prompts: int = Field(default=16, ge=1, description="tasks a step")
    samples: int = Field(default=8, ge=1, description="samples a task: the group")
    lr: float = Field(default=1e-5, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = Field(default=0, ge=0, description="steps of linear warm-up")
    clip: float | None = Field(default=1.0, description="largest global gradient norm")
    weight_decay: float = 0.0
    minibatches: int = Field(default=1, ge=1, description="optimiser steps that share one batch of samples")
    passes: int = Field(default=1, ge=1, description="times each batch is gone through")
    max_refills: int = Field(default=4, ge=0, description="further rounds of rollouts when curation leaves the batch short")
    checkpoint_every: int = Field(default=10, ge=1)
    samples_every: int = Field(default=1, ge=1, description="steps between two files of samples")


class Eval(Strict):
    tasks: Tasks | None = None
    every: int = Field(default=20, ge=1)
    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int | None = None
    gold: Expression | None = Field(default=None, description="a held-out truth that is never trained on: the hack monitor")
    keep_best: bool = True


class Stage(Strict):
    """What may differ between stages of one run."""

    tasks: Tasks | None = None
    reward: Expression | None = None
    correct: Expression | None = Field(default=None, description="what counts as a pass (an outcome above 0.5); the reward unless stated")
    rollout: Piece = Use(use="parallel")
    select: Piece = Use(use="epochs")
    keep: Pieces = []
    kl: Kl | None = None
    credit: Piece | None = Use(use="grpo")
    aggregate: Piece = Use(use="token_mean")
    loss: Terms = [Term(use="ppo_clip")]
    mix: Piece | None = Field(default=None, description="the share of the terms `of: expert`; the others get the rest")
    critic: Critic | None = None
    train: Train = Train()


class Recipe(Stage):
    name: str = "run"
    seed: int = 0
    models: dict[str, ModelSpec] = {}
    system: str | None = Field(default=None, description="a system message before every text prompt")
    template: str | None = Field(default=None, description="text around every text prompt, with {prompt}")
    chat: bool = Field(False, description="send text prompts as a user message through the model's chat template")
    eval: Eval = Eval()
    on_hostile: Literal["wrong", "failed"] = "wrong"
    workers: int = Field(default=2, ge=1, description="processes for Python graders")
    threads: int | None = Field(default=None, ge=1, description="torch threads; the library's choice where absent")
    trackers: Pieces = []
    plugins: list[str] = []
    stages: list[dict[str, Any]] = []

    @field_validator("models")
    @classmethod
    def _has_policy(cls, models: dict[str, ModelSpec]) -> dict[str, ModelSpec]:
        for name, spec in models.items():
            if spec.of is not None and spec.of not in models:
                raise ValueError(f"model {name!r} follows {spec.of!r}, which is not among the models{nearest(spec.of, models)}")
        return models

    def staged(self) -> list[Stage]:
        """The stages, each the recipe's own fields with the stage's laid over them."""
        base = {name: getattr(self, name) for name in Stage.model_fields}
        plain = Stage(**base).model_dump()
        out = []
        for changes in self.stages or [{}]:
            merged = dict(plain)
            for key, value in changes.items():
                both = isinstance(value, Mapping) and isinstance(plain.get(key), Mapping) and "use" not in value
                merged[key] = {**plain[key], **value} if both else value
            out.append(_validate(Stage, merged, "a stage of the recipe"))
        return out

    def plain(self) -> dict[str, Any]:
        """The resolved recipe as plain data: what `recipe.yaml` of a run holds."""
        return self.model_dump(mode="json")


MAY_CHANGE = ("eval", "trackers", "name")
"""Fields that a resumed run may change, beside `train.steps` and how often samples and checkpoints are written."""
MAY_CHANGE_IN_TRAIN = ("steps", "checkpoint_every", "samples_every")


def read(source: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from a file or a mapping, with `key=value` overrides (`train.steps=2`), checked as a whole.

    Raises Refused with every problem found: unknown fields and pieces with the nearest name, wrong types, needs that nobody fills.
    """
    if isinstance(source, Recipe):
        data, where = source.plain(), "the recipe"
    elif isinstance(source, Mapping):
        data, where = dict(source), "the recipe"
    else:
        path, where = Path(source), str(source)
        if not path.is_file():
            raise Refused(f"There is no recipe file {where}; `guerdon train RECIPE` takes a YAML file.")
        try:
            data = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise Refused(f"{where} is not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(data, dict):
            raise Refused(f"{where} must hold a mapping of fields, not {type(data).__name__}.")
    for text in overrides:
        _override(data, text)
    for plugin in data.get("plugins") or []:
        load_plugin(plugin)
    recipe = _validate(Recipe, data, where)
    problems = [p for stage in recipe.staged() for p in _problems(recipe, stage)]
    if problems:
        raise Refused(f"{where} cannot run: " + " ".join(dict.fromkeys(problems)))
    return recipe


def bind(kind: str, use: Use) -> Any:
    """The piece with its parameters: an instance of a class, else the function and its parameters as a partial."""
    import functools

    piece = find(kind, use.use)
    return piece.fn(**use.params) if inspect.isclass(piece.fn) else functools.partial(piece.fn, **use.params) if use.params else piece.fn


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Fields in which two resolved recipes differ, those that a resumed run may change left out."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if key == "train" and isinstance(a, Mapping) and isinstance(b, Mapping):
            found += [f"train.{k}" for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k) and k not in MAY_CHANGE_IN_TRAIN]
        elif a != b and key not in MAY_CHANGE:
            found.append(key)
    return found


def _override(data: dict[str, Any], text: str) -> None:
    key, eq, value = text.partition("=")
    if not eq or not key:
        raise Refused(f"{text!r} is no override; write key=value, for example train.steps=2.")
    at = data
    *path, last = key.split(".")
    for name in path:
        inner = at.get(name)
        if isinstance(inner, str):  # a bare name grows parameters
            inner = {"use": inner}
        at[name] = dict(inner or {})
        at = at[name]
    try:
        at[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        at[last] = value


def _validate(model: type[Any], data: Mapping[str, Any], where: str) -> Any:
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        raise Refused(f"{where} cannot be read: " + " ".join(_sentence(model, e) for e in error.errors())) from None


def _sentence(model: type[BaseModel], error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"] if not str(part).startswith("function-"))
    if error["type"] == "extra_forbidden":
        owner: Any = model
        for part in error["loc"][:-1]:
            annotation = owner.model_fields[part].annotation if part in getattr(owner, "model_fields", {}) else None
            owner = next((a for a in (annotation, *getattr(annotation, "__args__", ())) if hasattr(a, "model_fields")), owner)
        return f"There is no field {place!r}{nearest(str(error['loc'][-1]), owner.model_fields)}"
    return f"{place}: {error['msg'].removeprefix('Value error, ')} (got {str(error['input'])[:80]!r})."


SKIP = {
    "rollout": 4, "tool": 3, "keep": 3, "select": 3, "credit": 1, "aggregate": 1,
    "loss": 2, "lesson": 4, "mix": 1, "env": 0, "backend": 1, "tracker": 0,
}  # fmt: skip
"""Leading parameters of each contract that the engine fills; the rest are the recipe's."""


def check_params(kind: str, use: Use, where: str) -> list[str]:
    """Problems of one piece: an unknown name, unknown or missing parameters, values of the wrong type."""
    try:
        piece = find(kind, use.use)
    except Refused as error:
        return [f"{where}: {error}"]
    is_class = inspect.isclass(piece.fn)
    called = piece.fn.__call__ if is_class and kind == "loss" else piece.fn.__init__ if is_class else piece.fn
    skip = SKIP[kind] + 1 if is_class and kind == "loss" else 1 if is_class else SKIP[kind]  # a class of a loss is made without arguments
    own = list(inspect.signature(called).parameters.values())[skip:]
    if any(p.kind is p.VAR_KEYWORD for p in own):
        return []
    known = {p.name: p for p in own}
    problems = []
    for name, value in use.params.items():
        if name not in known:
            problems.append(f"{where}: {kind} {use.use!r} has no parameter {name!r}{nearest(name, known)}")
            continue
        if why := type_problem(called, name, value):
            problems.append(f"{where}: {use.use}.{name} = {value!r}: {why}.")
    missing = [p.name for p in own if p.default is p.empty and p.name not in use.params]
    return problems + [f"{where}: {kind} {use.use!r} needs the parameter {name!r}." for name in missing]


FILLED = ("logprobs", "ref_logprobs", "values", "values/*", "returns", "entropy", "expert")
"""Batch fields that collation can fill by forward passes; so can it `logprobs/NAME`, `entropy/NAME`, `values/NAME` of any model NAME."""


def by_model(field: str, recipe: Recipe) -> tuple[str, str] | None:
    """(model, what is wanted of it) for a batch field that a forward pass of one model fills; None for another."""
    want, _, name = field.partition("/")
    if field in critics(recipe).values():
        return field.replace("values", "critic"), "values"
    if field == "ref_logprobs":
        return "reference", "logprobs"
    if field == "entropy":
        return "policy", "entropy"
    return (name, want) if want in ("logprobs", "entropy", "values") and name in recipe.models else None


def read_fields(recipe: Recipe, stage: Stage) -> set[str]:
    """The batch fields that the losses, the credit and the models that learn read in a stage."""
    terms = [*stage.loss, *(term for spec in recipe.models.values() if spec.learn for term in spec.learn.loss)]
    reads = {name for use in terms for name in find("loss", use.use).about.get("fields", ())}
    return reads | (set(find("credit", stage.credit.use).needs) if stage.credit else set())


def _problems(recipe: Recipe, stage: Stage) -> list[str]:
    found = []
    pieces = [("rollout", stage.rollout), ("select", stage.select), ("aggregate", stage.aggregate)]
    pieces += [("keep", k) for k in stage.keep] + [("loss", term) for term in stage.loss]
    pieces += [(kind, use) for kind, use in (("credit", stage.credit), ("mix", stage.mix)) if use is not None]
    for learn in filter(None, (spec.learn for spec in recipe.models.values())):
        pieces += [("aggregate", learn.aggregate), *(("loss", term) for term in learn.loss)]
        pieces += [("lesson", learn.on)] if learn.on else []
    pieces += [("env", t) for t in (stage.tasks, recipe.eval.tasks) if t is not None]
    tool = _use(stage.rollout.params.get("tool"))
    pieces += [("tool", Use(**tool))] if isinstance(tool, Mapping) and "use" in tool else []
    held = _use(stage.mix.params.get("tasks")) if stage.mix else None
    pieces += [("env", Use(**held))] if isinstance(held, Mapping) and "use" in held else []
    for kind, use in pieces:
        found += check_params(kind, use, kind)
    if "policy" not in recipe.models:
        found.append("models: there is no `policy`; write models: {policy: {path: FOLDER_OR_NAME}}.")
    for name, spec in recipe.models.items():
        if spec.of is None:
            found += check_params("backend", Use(use=spec.backend, **spec.params), f"models.{name}")
    if stage.tasks is None:
        found.append("tasks: missing; give a file (tasks: problems.jsonl) or a world (tasks: {use: arithmetic, n: 1000}).")
    for field in ("reward", "correct"):
        text = getattr(stage, field)
        if text is not None:
            found += expression_problems(field, text, recipe)
    if recipe.eval.gold is not None:
        found += expression_problems("eval.gold", recipe.eval.gold, recipe)
    if found:
        return found
    found += _loss_problems(stage)
    credit = find("credit", stage.credit.use) if stage.credit else None
    reads = read_fields(recipe, stage)
    if "values/*" in reads and not (stage.critic and any(field != "values" for field in critics(recipe).values())):
        found.append(
            f"credit: {credit.name if credit else ''!r} reads a critic for each part of the reward; add models: {{critic/PART: {{path: ...,"
            " head: scalar}} and critic: {}."
        )
    if "values" in reads and "critic" not in recipe.models:
        found.append(
            "credit: it needs the field 'values', which a critic fills; add models: {critic: {path: ..., head: scalar}} and critic: {}."
        )
    if ("ref_logprobs" in reads or stage.kl) and "reference" not in recipe.models:
        found.append("The KL term needs the field 'ref_logprobs'; add models: {reference: {of: policy}}.")
    filled = {*FILLED, *critics(recipe).values(), *find("rollout", stage.rollout.use).about.get("fills", ())}
    for need in sorted(need for need in reads - filled if by_model(need, recipe) is None):
        want, _, model = need.partition("/")
        head = ", with head: scalar" if want == "values" else ""
        mend = f"declare models: {{{model}: ...}}{head}" if model else "it would have to be a numeric column of the tasks"
        found.append(f"Nothing fills the batch field {need!r}; {mend}.")
    if stage.kl and credit and "token" not in credit.about.get("grains", ("outcome",)):
        found.append(
            f"kl: credit {credit.name!r} reads outcome rewards only and would ignore a token reward; use the loss term {{use: kl}}."
        )
    if credit and credit.about.get("group") and stage.train.samples == 1:
        found.append(f"train.samples: credit {credit.name!r} compares the samples of a task, and there is 1; take 2 or more.")
    return found


def _loss_problems(stage: Stage) -> list[str]:
    """Terms that do not go with what stands beside them: sources, and losses of pairs."""
    found = []
    of = {term.of for term in stage.loss}
    if stage.mix is not None and not {"policy", "expert"} <= of:
        found.append("mix: it weighs loss terms `of: policy` against terms `of: expert`; mark at least one term with each.")
    for term in stage.loss:
        wanted = find("loss", term.use).about.get("credit")
        if wanted and (stage.credit is None or stage.credit.use != wanted):
            found.append(f"loss {term.use!r} reads what the credit {wanted!r} gives; write `credit: {wanted}`.")
    pairs = [term.use for term in stage.loss if find("loss", term.use).about.get("unit") == "pair"]
    if pairs and stage.aggregate.use != "pair_mean":
        found.append(f"loss {pairs[0]!r} is a mean over pairs; write `aggregate: pair_mean`, not {stage.aggregate.use!r}.")
    if pairs and not any(find("keep", keep.use).about.get("pairs") for keep in stage.keep):
        found.append(f"loss {pairs[0]!r} needs pairs, which curation makes; write `keep: best_worst`.")
    return found


def critics(recipe: Recipe) -> dict[str, str]:
    """The batch field that each critic among the models fills: `critic` values, `critic/NAME` values/NAME."""
    return {name: "values" + name.removeprefix("critic") for name in recipe.models if name == "critic" or name.startswith("critic/")}


def expression_problems(field: str, text: str, recipe: Recipe) -> list[str]:
    """Problems of a reward expression: names, parameters, services that no model of the recipe provides."""
    try:
        expression = parse(text)
    except Refused as error:
        return [f"{field}: {error}"]
    found = []
    for what, asks in asking(expression):
        for service in asks.values():
            if service not in recipe.models and service not in ("progress", "rng", "sandbox", "score", "workers"):
                found.append(f"{field}: the {what} needs the service {service!r}, which this recipe has not; declare it under models.")
    return found


__all__ = ["Eval", "Recipe", "Stage", "Train", "Use", "bind", "check_params", "differing", "read", "registry"]

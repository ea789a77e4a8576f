"""The recipe of a fit: what `guerdon fit` reads, refused as a whole before anything expensive starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from guerdon.backends.base import LossCall
from guerdon.recipe import Piece, Strict, Use, _override, _validate, bind, check_params
from guerdon.registry import Refused, find, nearest, pieces
from guerdon.reward_models import data as files
from guerdon.reward_models.layouts import LAYOUTS


class FitModel(BaseModel):
    """The model that the fit starts from. Further keys are parameters of the `local` backend: dtype, adapter, device, micro_tokens."""

    model_config = ConfigDict(extra="allow")
    path: str
    tokenizer: str | None = Field(default=None, description="a folder or name, where the model's own is not to be used")

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class FitData(Strict):
    path: str
    layout: str | None = Field(default=None, description="where its columns fit several")
    labels: str | None = Field(default=None, description="a second file, with one row of labels for each row of the first")
    label: str = Field(default="label", description="the column of an answer's label")
    values: dict[float, float | None] | None = Field(default=None, description="what a label counts as: {-1: 0, 0: 1, 1: 1}")
    limit: int | None = Field(default=None, ge=1)


class FitTrain(Strict):
    epochs: int = Field(default=1, ge=1)
    batch: int = Field(default=16, ge=1, description="examples of one optimiser step")
    lr: float = Field(default=1e-5, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = Field(default=0, ge=0, description="steps of linear warm-up")
    clip: float | None = Field(default=1.0, description="largest global gradient norm")
    weight_decay: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=2048, ge=2, description="of a prompt and its answer; longer ones are cut, each with a warning")
    checkpoint_every: int = Field(default=100, ge=1, description="optimiser steps")
    trackers: list[str] = Field(default=[], description="as transformers names them: tensorboard, wandb ...")


def _data(x: Any) -> Any:
    return [{"path": item} if isinstance(item, str) else item for item in (x if isinstance(x, list) else [x])]


def _held(x: Any) -> Any:
    return x if isinstance(x, (int, float)) else _data(x)


Files = Annotated[list[FitData], BeforeValidator(_data)]


class FitRecipe(Strict):
    name: str = "reward-model"
    seed: int = 0
    model: Annotated[FitModel, BeforeValidator(lambda x: {"path": x} if isinstance(x, str) else x)]
    data: Files
    held_out: Annotated[float | list[FitData], BeforeValidator(_held)] = Field(default=0.1, description="a share of the prompts, or files")
    loss: Piece = Use(use="bradley_terry")
    head: Literal["scalar", "classes", "two_layer"] | None = Field(default=None, description="as the loss reads it, unless stated")
    body: Literal["trained", "frozen"] = "trained"
    aggregate: Piece | None = Field(default=None, description="where the denominators go; a mean over pairs, answers, steps or tokens")
    train: FitTrain = FitTrain()
    bench: dict[str, str] = Field(default={}, description="benches and their files, for the model card: measured when the fit is done")
    audit: str | None = Field(default=None, description="a file of tasks for an audit, for the model card: made when the fit is done")

    @property
    def about(self) -> Mapping[str, Any]:
        return find("loss", self.loss.use).about

    @property
    def learns(self) -> str:
        return self.about["learns"]

    @property
    def kind(self) -> files.Kind:
        """The kind of data that the files hold: labels of tokens are made from those of whole answers."""
        return "outcomes" if self.learns == "tokens" else self.learns  # type: ignore[return-value]

    @property
    def heads(self) -> str | None:
        """The head that the model is opened with."""
        if "values" not in find("loss", self.loss.use).needs:
            return None
        return self.head or self.about.get("head", "scalar")

    @property
    def call(self) -> LossCall:
        return LossCall(self.loss.use, self.loss.params)

    @property
    def weights(self) -> Callable[..., Any]:
        own = {"pairs": "pair_mean", "outcomes": "row_mean", "steps": "step_mean", "tokens": "token_mean"}[self.learns]
        lists = self.learns == "pairs" and self.about.get("unit") == "group"
        return bind("aggregate", self.aggregate or Use(use="row_mean" if lists else own))

    @property
    def settings(self) -> dict[str, Any]:
        """The loss's parameters, those that are not stated among them."""
        fn = find("loss", self.loss.use).fn
        own = list(inspect.signature(fn.__call__ if inspect.isclass(fn) else fn).parameters.values())
        return {p.name: p.default for p in own if p.default is not p.empty} | self.loss.params

    @property
    def classes(self) -> list[float] | None:
        return list(self.settings["classes"]) if self.heads == "classes" else None

    def labels(self) -> tuple[Callable[[float], bool], str]:
        """(whether a label can be learnt, which can in words)."""
        takes = self.about.get("takes")
        if takes == "0 to 1":
            return (lambda x: 0 <= x <= 1), "0 to 1"
        if takes == "classes":
            classes = self.settings["classes"]
            return (lambda x: x in classes), f"one of {', '.join(f'{c:g}' for c in classes)}"
        if takes == "levels":
            low, high = self.settings["lowest"], self.settings["lowest"] + self.settings["levels"] - 1
            return (lambda x: x == round(x) and low <= x <= high), f"a whole number, {low} to {high}"
        return (lambda x: True), "any number"


def read(source: str | Path | Mapping[str, Any] | FitRecipe, overrides: Sequence[str] = (), layout: str | None = None) -> FitRecipe:
    """The recipe from a file or a mapping, with `key=value` overrides; layout: of every data file that states none.

    Raises Refused with every problem found.
    """
    if isinstance(source, FitRecipe):
        data, where = source.model_dump(mode="json"), "the recipe"
    elif isinstance(source, Mapping):
        data, where = dict(source), "the recipe"
    else:
        where = str(source)
        if not Path(source).is_file():
            raise Refused(f"There is no recipe file {where}; `guerdon fit RECIPE` takes a YAML file.")
        try:
            data = yaml.safe_load(Path(source).read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise Refused(f"{where} is not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(data, dict):
            raise Refused(f"{where} must hold a mapping of fields, not {type(data).__name__}.")
    for text in overrides:
        for name in ("model", "data", "held_out"):  # a bare path grows fields
            if text.startswith(f"{name}.") and isinstance(data.get(name), str):
                data[name] = {"path": data[name]}
        _override(data, text)
    recipe: FitRecipe = _validate(FitRecipe, data, where)
    every = [*recipe.data, *(recipe.held_out if isinstance(recipe.held_out, list) else [])]
    for one in every:
        one.layout = one.layout or layout
    problems = check_params("loss", recipe.loss, "loss")
    problems += [p for p in check_params("backend", Use(use="local", **recipe.model.params), "model")]
    problems += check_params("aggregate", recipe.aggregate, "aggregate") if recipe.aggregate else []
    problems += [
        f"data: there is no layout {d.layout!r}{nearest(d.layout, LAYOUTS)}" for d in every if d.layout and d.layout not in LAYOUTS
    ]
    problems += [f"data: there is no file {p}." for d in every for p in (d.path, d.labels) if p and not Path(p).is_file()]
    problems += _misfits(recipe) if not problems else []
    if problems:
        raise Refused(f"{where} cannot be fitted: " + " ".join(dict.fromkeys(problems)))
    return recipe


def _misfits(recipe: FitRecipe) -> list[str]:
    found = []
    learning = {p.name for p in pieces("loss") if "learns" in p.about}
    if recipe.loss.use not in learning:
        return [f"loss: {recipe.loss.use!r} is no loss of a reward model{nearest(recipe.loss.use, learning)}"]
    if recipe.head and recipe.heads is None:
        found.append(f"head: {recipe.loss.use!r} reads no head; leave it out.")
    if recipe.head and (recipe.head == "classes") != (recipe.about.get("head") == "classes") and recipe.heads:
        found.append(f"head: {recipe.loss.use!r} reads a head {recipe.about.get('head', 'scalar')!r}, not {recipe.head!r}.")
    if recipe.body == "frozen" and (recipe.heads is None or recipe.model.params.get("adapter")):
        found.append("body: frozen leaves nothing to learn where there is no head, and an adapter is a body that learns.")
    if isinstance(recipe.held_out, float) and not 0 <= recipe.held_out < 1:
        found.append(f"held_out: a share is at least 0 and below 1, not {recipe.held_out:g}.")
    if "path" in recipe.model.params or "head" in recipe.model.params:
        found.append("model: its head is that of the recipe; write it as `head:`.")
    return found


def plain(recipe: FitRecipe) -> dict[str, Any]:
    """The resolved recipe as plain data."""
    return recipe.model_dump(mode="json")

"""From what a user gives - a file, a mapping, keywords, a run to resume - to a checked recipe, its tasks and a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import yaml

from guerdon import recipe as recipes
from guerdon.recipe import Recipe, Use, bind
from guerdon.registry import Refused
from guerdon.samples import Task
from guerdon.training import checkpoint
from guerdon.training.record import read_recipe


def key_of(use: Use | None) -> str:
    return "" if use is None else yaml.safe_dump(use.model_dump(), sort_keys=True)


def load_tasks(recipe: Recipe) -> dict[str, list[Task]]:
    """The tasks of every `tasks:` field, with the recipe's system message and template laid around text prompts."""
    out: dict[str, list[Task]] = {}
    for use in [*(stage.tasks for stage in recipe.staged()), recipe.eval.tasks]:
        if use is None or key_of(use) in out:
            continue
        tasks = [dress(task, recipe) for task in bind("env", use)()]
        if not tasks:
            raise Refused(f"The tasks {use.model_dump()} are empty; give at least one.")
        out[key_of(use)] = tasks
    return out


def dress(task: Task, recipe: Recipe) -> Task:
    """A text prompt inside the recipe's template, as messages where there is a system message or `chat`."""
    if not isinstance(task.prompt, str) or not (recipe.template or recipe.system or recipe.chat):
        return task
    text = recipe.template.replace("{prompt}", task.prompt) if recipe.template else task.prompt
    prompt: Any = text
    if recipe.system or recipe.chat:
        prompt = [{"role": "system", "content": recipe.system}] * bool(recipe.system) + [{"role": "user", "content": text}]
    return Task(task.id, prompt, task.reference, task.meta)


def prepare(
    recipe: Any,
    overrides: Sequence[str] = (),
    folder: str | Path | None = None,
    resume: str | Path | None = None,
    fields: Mapping[str, Any] | None = None,
) -> tuple[Recipe, Path]:
    """The checked recipe and the run's folder (not made yet, but for tasks given as a list)."""
    path = Path(resume or folder or "")
    if resume is not None:
        saved, _ = read_recipe(path)
        if not saved:
            raise Refused(f"{path} is no run folder: it has no recipe.yaml; name a folder that `guerdon train` wrote.")
        spec = recipes.read(recipe if recipe is not None else saved, overrides)
        if changed := recipes.differing(saved, spec.plain()):
            raise Refused(
                f"{path} was started with another recipe; these fields differ: {', '.join(changed)}. Put them back, or start a new run."
            )
        return checked(spec), path
    data = dict(recipe) if isinstance(recipe, Mapping) else recipe
    if fields:
        data = {**(data or {}), **fields}
    if data is None:
        raise Refused("Nothing to train: give a recipe file, or its fields as keywords.")
    if folder is None:
        name = data.get("name", "run") if isinstance(data, Mapping) else Path(str(data)).stem
        path = new_folder(Path("runs"), name)
    elif checkpoint.latest(path / "checkpoints") or (path / "metrics.jsonl").exists():
        raise Refused(f"{path} already holds a run; go on with `--resume {path}`, or name another folder.")
    if isinstance(data, dict):
        data = {**data, **store_tasks(data, path)}
    return checked(recipes.read(data, overrides)), path


def checked(recipe: Recipe) -> Recipe:
    """The recipe, if its trackers are known: they stand right of recipes, so that these cannot see them."""
    problems = [p for use in recipe.trackers for p in recipes.check_params("tracker", use, "trackers")]
    if problems:
        raise Refused(" ".join(problems))
    return recipe


def store_tasks(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Tasks given as a list are written into the run folder, so that the run can be resumed."""

    def store(tasks: Any, name: str) -> Any:
        if not (isinstance(tasks, Sequence) and not isinstance(tasks, str)):
            return tasks
        path.mkdir(parents=True, exist_ok=True)
        rows = [orjson.dumps({"id": t.id, "prompt": t.prompt, "reference": t.reference, **t.meta}) for t in tasks]
        (path / name).write_bytes(b"\n".join(rows) + b"\n")
        return {"use": "file", "path": str(path / name)}

    out = {"tasks": store(data["tasks"], "tasks.jsonl")} if "tasks" in data else {}
    evaluation = data.get("eval")
    if isinstance(evaluation, Mapping) and "tasks" in evaluation:
        out["eval"] = {**evaluation, "tasks": store(evaluation["tasks"], "eval-tasks.jsonl")}
    return out


def new_folder(runs: Path, name: str) -> Path:
    """runs/NAME-1, -2, ...: the first that is not there."""
    number = 1
    while (runs / f"{name}-{number}").exists():
        number += 1
    return runs / f"{name}-{number}"

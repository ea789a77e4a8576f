"""`guerdon train` and `guerdon compare`: the run, its progress, what to look at next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console as Rich

from guerdon.registry import Refused
from guerdon.training import metrics as m
from guerdon.training.trackers import Console

EMBEDDED = "arithmetic"


def embedded() -> str:
    """The path of the packaged default recipe."""
    return str(resources.files("guerdon.training").joinpath(f"{EMBEDDED}.yaml"))


def train(recipe: str | None, overrides: Sequence[str], out: Path | None, resume: Path | None, dry: bool) -> int:
    from guerdon.training.dry import dry_run
    from guerdon.training.prepare import load_tasks, prepare
    from guerdon.training.run import Run
    from guerdon.training.run import train as start

    if recipe is not None and "=" in recipe and not Path(recipe).exists():
        recipe, overrides = None, [recipe, *overrides]
    source = recipe if recipe or resume else embedded()
    if dry:
        spec, path = prepare(source, overrides, out, resume)
        dry_run(spec, Run(spec, path, load_tasks(spec)), print)
        return 0
    result = start(source, *overrides, folder=out, resume=resume, trackers=[Console()])
    say = Rich(stderr=True)
    accuracy = [row[m.EVAL_ACCURACY] for row in result.metrics if m.EVAL_ACCURACY in row]
    if accuracy:
        say.print(f"held-out accuracy {accuracy[0]:.3f} -> {accuracy[-1]:.3f} (best {max(accuracy):.3f})", highlight=False)
    seconds = sum(row[m.SECONDS] for row in result.metrics)
    say.print(f"{len(result.metrics) - 1} steps, {seconds:.0f} s of training and evaluation", highlight=False)
    say.print(f"run     {result.folder}\nreport  {result.report}", highlight=False, soft_wrap=True)
    say.print(
        "next    open the report; "
        f"`guerdon train --resume {result.folder} train.steps={2 * max(1, len(result.metrics) - 1)}` goes on; "
        "`guerdon train 'reward=arithmetic + 0.2 * length(target=16).when(arithmetic > 0)'` tries another reward; "
        "`guerdon train recipes/gsm8k-smollm2.yaml tasks=FILE --dry-run` shows a real model on your problems",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def compare(recipes: Sequence[str], seeds: int, out: Path) -> int:
    from guerdon.training.compare import compare as run_all
    from guerdon.training.run import train as start

    files = [text for text in recipes if "=" not in text]
    overrides = [text for text in recipes if "=" in text]
    if len(files) < 1:
        raise Refused("Nothing to compare: name two recipes or more.")

    def one(recipe: Path, seed: int, folder: Path) -> None:
        resume = folder if (folder / "recipe.yaml").exists() else None
        start(str(recipe), *overrides, f"seed={seed}", folder=None if resume else folder, resume=resume, trackers=[Console()])

    comparison = run_all([Path(file) for file in files], seeds, out, one, say=Rich(stderr=True).print, overrides=overrides)
    Rich().print(comparison.table())
    Rich(stderr=True).print(f"picture {out / 'comparison.png'}\nnumbers {out / 'comparison.json'}", highlight=False, soft_wrap=True)
    return 0


def fit(
    recipe: str | None, overrides: Sequence[str], out: Path | None, resume: Path | None, layout: str | None, start: Callable[..., Any]
) -> int:
    """Exit code 1 where rows were left out: they stand in rejected.jsonl. start: `evals.fitted.fit`."""
    import warnings

    from guerdon.training.fit_card import shown

    say = Rich(stderr=True)
    if resume and recipe is not None and "=" in recipe and not Path(recipe).exists():
        recipe, overrides = None, [recipe, *overrides]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rows that were cut are told below, by number
        found = start(recipe, *overrides, folder=out, resume=resume, layout=layout, say=lambda text: say.print(text, highlight=False))
    if found.curve:
        first, last = found.curve[0]["loss"], found.curve[-1]["loss"]
        say.print(f"loss {first:.4f} -> {last:.4f} in {len(found.curve)} steps", highlight=False)
    for name, value in found.held_out.items():
        say.print(f"held out: {name.replace('_', ' ')} {shown(value)}", highlight=False)
    if found.warnings:
        say.print(f"{len(found.warnings)} rows were cut, the first: {found.warnings[0]}", highlight=False, soft_wrap=True)
    if found.rejected:
        aside = found.folder / "rejected.jsonl"
        say.print(f"{len(found.rejected)} rows were left out ({aside}), the first: {found.rejected[0]}", highlight=False, soft_wrap=True)
    say.print(f"model   {found.folder}\ncard    {found.folder / 'README.md'}", highlight=False, soft_wrap=True)
    say.print(f"next    guerdon score FILE --reward \"reward_model(path='{found.folder}')\" --out SCORED", highlight=False, soft_wrap=True)
    return int(bool(found.rejected))

"""The command line: one function a verb, no logic."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from guerdon.registry import Broke, Interrupted, Refused

app = typer.Typer(
    name="guerdon",
    help="The reward layer of reinforcement learning for language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.callback()
def verbs() -> None:
    """The reward layer of reinforcement learning for language models: compose, learn, attack and optimise rewards."""


class OnHostile(StrEnum):
    wrong = "wrong"
    failed = "failed"


@app.command()
def score(
    file: Annotated[
        Path,
        typer.Argument(
            help="JSONL (also gzipped) or Parquet, a sample a row: `completion`, and as the reward needs them `prompt`, `reference`."
        ),
    ],
    reward: Annotated[str, typer.Option(help="The reward, or an expression of several.")],
    out: Annotated[Path | None, typer.Option(help="Where to write the rows with their new columns: .jsonl, .jsonl.gz or .parquet.")] = None,
    explain: Annotated[int | None, typer.Option(help="Show how the value of this row comes about, and write nothing.", min=1)] = None,
    by: Annotated[str | None, typer.Option(help="A column to break the summary down by.")] = None,
    prefix: Annotated[str, typer.Option(help="Set before the names of the new columns.")] = "",
    cache: Annotated[Path | None, typer.Option(help="Keep verdicts in this file, and take from it what is known.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes for Python graders; one a core if not given.", min=1)] = None,
    on_hostile: Annotated[OnHostile, typer.Option(help="What a row becomes that attacks its grader.")] = OnHostile.wrong,
    plugin: Annotated[list[str] | None, typer.Option(help="A file.py or module that defines rewards; may be given again.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH or NAME=URL#MODEL (a server): a model that the reward may ask by this name; may be given again."),
    ] = None,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Run programs of models also where no isolation is to be had: they can do what you can.")
    ] = False,
) -> None:
    """Score a file of completions: each row gains reward, state, reason, parts.

    Example: `guerdon score solutions.jsonl --reward "gate(format, math) + 0.2 * length" --out scored.jsonl --by model`

    Example: `guerdon score solutions.jsonl --reward "gate(format, math) + 0.2 * length" --explain 17`

    Example: `guerdon score solutions.jsonl --reward "rlpr(model='scorer')" --model scorer=smollm2 --out scored.jsonl`

    Example: `guerdon score solutions.jsonl --reward "reward_model(path='fits/rm-1')" --out scored.jsonl`

    Example: `guerdon score essays.jsonl --reward judge --model judge=http://127.0.0.1:8000/v1#MODEL --out scored.jsonl`
    """
    from rich import print as show

    import guerdon.shaping
    from guerdon.scoring.job import load_plugin, score_file, with_models
    from guerdon.scoring.show import meter

    if model or "reward_model" in reward:
        import guerdon.reward_models  # noqa: F401  learned rewards: they bring torch, which takes seconds to import

    _allow(unsafe)
    for name in plugin or ():
        load_plugin(name)
    context = with_models(model or ())
    if explain is not None:
        from guerdon.scoring.explain import explain_row

        print(*explain_row(file, reward, explain, workers=workers, context=context), sep="\n")
        raise typer.Exit(0)
    if out is None:
        raise Refused("Name the file to write with --out, or a row to look at with --explain.")
    with meter() as progress:
        summary = score_file(
            file,
            reward,
            out,
            by=by,
            prefix=prefix,
            cache=cache,
            workers=workers,
            on_hostile=on_hostile.value,
            context=context,
            progress=progress,
        )
    show(*summary.show(), sep="\n")
    if summary.complaint():
        print(summary.complaint(), file=sys.stderr)
    raise typer.Exit(summary.code)


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="A recipe (YAML); the embedded one, chain arithmetic, if not given.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Fields to override: train.steps=2.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME-1, -2, ... if not given.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show recipe, two prompts, two rewards and an estimate; train nothing.")
    ] = False,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Run programs of models also where no isolation is to be had: they can do what you can.")
    ] = False,
) -> None:
    """Train a policy against a reward; writes a folder with metrics, samples, checkpoints and report.html.

    Example: `guerdon train recipes/gsm8k-smollm2.yaml tasks=problems.jsonl train.steps=20 --out runs/first`
    """
    from guerdon.training.verbs import train as run

    _allow(unsafe)
    raise typer.Exit(run(recipe, overrides or [], out, resume, dry_run))


@app.command()
def compare(
    recipes: Annotated[list[str], typer.Argument(help="Recipes (YAML), and KEY=VALUE overrides of all of them.")],
    seeds: Annotated[int, typer.Option(help="Runs a recipe, with seeds 0, 1, 2 ...", min=1)] = 3,
    out: Annotated[
        Path, typer.Option(help="Folder of the runs, the table and the picture; what is complete there is not run again.")
    ] = Path("runs/compare"),
) -> None:
    """Train several recipes with several seeds: one table and one picture, differences with paired bootstrap intervals.

    Example: `guerdon compare recipes/arithmetic-grpo.yaml recipes/arithmetic-dr-grpo.yaml --seeds 3 --out runs/baselines`
    """
    from guerdon.training.verbs import compare as run

    raise typer.Exit(run(recipes, seeds, out))


@app.command()
def fit(
    recipe: Annotated[str | None, typer.Argument(help="A recipe of a fit (YAML); with --resume the folder's own if not given.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Fields to override: train.epochs=2.")] = None,
    out: Annotated[Path | None, typer.Option(help="The model's folder; fits/NAME-1, -2, ... if not given.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the fit in this folder.")] = None,
    layout: Annotated[str | None, typer.Option(help="How the data files are laid out, where their columns leave that open.")] = None,
) -> None:
    """Fit a reward model on pairs, lists, labelled steps or labelled answers; exit code 1 when rows were left out.

    The folder is a reward, `reward_model(path='FOLDER')`, and opens in transformers. Its model card says what the recipe's benches found.

    Example: `guerdon fit recipes/fit-outcome-smollm2.yaml data=solutions.jsonl --out fits/outcome`

    Example: `guerdon fit recipes/fit-pairs-smollm2.yaml data=preferences.parquet --layout pairs train.epochs=2`

    Example: `guerdon fit --resume fits/outcome`
    """
    from guerdon.evals.fitted import fit as start
    from guerdon.training.verbs import fit as run

    raise typer.Exit(run(recipe, overrides or [], out, resume, layout, start))


@app.command()
def annotate(
    file: Annotated[
        Path,
        typer.Argument(
            help="JSONL (also gzipped) or Parquet, an answer a row: `prompt`, `completion`, and as the reward needs it `reference`."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where to write the rows with their new columns: .jsonl, .jsonl.gz or .parquet.")],
    method: Annotated[str, typer.Option(help="The annotator, with parameters: omegaprm, monte_carlo(k=16, soft=False) ...")] = "omegaprm",
    policy: Annotated[str | None, typer.Option(help="The model that rolls answers out: PATH or name; `tiny` is the embedded one.")] = None,
    budget: Annotated[str | None, typer.Option(help="What may be spent on the file: rollouts=N, tokens=N, calls=N, or several.")] = None,
    reward: Annotated[str, typer.Option(help="What grades whole answers: a reward, or an expression of several.")] = "math",
    prefix: Annotated[str, typer.Option(help="Set before the names of the new columns.")] = "",
    workers: Annotated[int | None, typer.Option(help="Worker processes for Python graders; one a core if not given.", min=1)] = None,
    plugin: Annotated[list[str] | None, typer.Option(help="A file.py or module that defines rewards; may be given again.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH or NAME=URL#MODEL (a server): a model that the method asks, such as judge.")
    ] = None,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Run programs of models also where no isolation is to be had: they can do what you can.")
    ] = False,
) -> None:
    """Label the steps of a file of answers: each row gains steps, labels, counts, confidence, notes.

    Killed at any moment, the same command goes on where it was.

    Example: `guerdon annotate answers.jsonl --method omegaprm --policy smollm2 --budget rollouts=5000 --out labels.jsonl`
    """
    import guerdon.annotation
    import guerdon.shaping  # noqa: F401  fills the registry
    from guerdon.annotation.verb import annotate_file
    from guerdon.scoring.job import load_plugin
    from guerdon.scoring.show import meter

    _allow(unsafe)
    for name in plugin or ():
        load_plugin(name)
    options = {"policy": policy, "reward": reward, "budget": budget, "prefix": prefix, "models": model or (), "workers": workers}
    with meter("rollouts") as progress:
        _, told, complaint = annotate_file(file, out, method, progress=progress, **options)
    print(*told, sep="\n")
    if complaint:
        print(complaint, file=sys.stderr)
    raise typer.Exit(int(bool(complaint)))


@app.command()
def audit(
    reward: Annotated[
        str,
        typer.Argument(help="A reward, an expression, a recipe, or file.py:function: ours, or for TRL, verl, verifiers, OpenRLHF."),
    ],
    tasks: Annotated[
        Path | None,
        typer.Option(help="JSONL or Parquet, a task a row: `prompt`, `reference`; also `completion`, `is_correct`, `right`, `tests`."),
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Train this model against the reward for a while; `tiny` is the embedded one.")] = None,
    gold: Annotated[str | None, typer.Option(help="A reward expression that says what the policy wrote is true.")] = None,
    tolerance: Annotated[float, typer.Option(help="Share of a right answer that other text may earn.", min=0, max=1)] = 0.1,
    out: Annotated[Path | None, typer.Option(help="A folder for audit.html and audit.json.")] = None,
    card: Annotated[Path | None, typer.Option(help="Write the audit card, in Markdown, to this file.")] = None,
    model_card: Annotated[
        bool, typer.Option("--model-card", help="Also into the model card of the fitted folder that is audited.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Tasks of the file that are used, spread over it.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    gold_column: Annotated[str | None, typer.Option(help="The column that says which completions are right.")] = None,
    search: Annotated[bool, typer.Option(help="Look for exploits by evolution over edits.")] = True,
    pace: Annotated[
        float | None, typer.Option(help="Seconds that a call is taken to cost, by which a slow reward is asked less; else measured.", min=0)
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; one a core if not given.", min=1)] = None,
    plugin: Annotated[list[str] | None, typer.Option(help="A file.py or module that defines rewards; may be given again.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH: a model that the reward may ask by this name; may be given again.")
    ] = None,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Run programs of models also where no isolation is to be had: they can do what you can.")
    ] = False,
) -> None:
    """Try to cheat a reward before a policy does; exit code 1 when text that does not answer pays above the tolerance.

    Example: `guerdon audit math --tasks problems.jsonl --out audits/math`

    Example: `guerdon audit grader.py:correct --tasks problems.jsonl --tolerance 0.05`

    Example: `guerdon audit recipes/arithmetic-grpo.yaml --policy tiny`
    """
    from guerdon.evals.audit.verb import run

    options = {
        "policy": policy,
        "gold": gold,
        "tolerance": tolerance,
        "limit": limit,
        "seed": seed,
        "searching": search,
        "pace": pace,
        "workers": workers,
    }
    _allow(unsafe)
    raise typer.Exit(run(reward, tasks, gold_column, out, card, plugin or (), model or (), options, model_card))


@app.command()
def bench(
    name: Annotated[
        str,
        typer.Argument(
            help="rewardbench, rewardbench2, rm-bench, judgebench, rewardmath, processbench; best-of-n, overoptimization, calibration,"
            " length-bias."
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(help="The bench's file in its published layout (JSONL, JSON, Parquet), or a hub's name; its own if not given."),
    ] = None,
    reward: Annotated[str | None, typer.Option(help="The reward to bench, or an expression of several.")] = None,
    scores: Annotated[Path | None, typer.Option(help="A file of scores that someone else made, in the place of a reward.")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for bench.json, bench.png and scores.jsonl.")] = None,
    model_card: Annotated[
        bool, typer.Option("--model-card", help="Also into the model card of the fitted folder that is measured.")
    ] = False,
    how: Annotated[str, typer.Option(help="Puts step scores together: last, min, product, mean ...")] = "last",
    threshold: Annotated[
        str, typer.Option(help="ProcessBench: a step with a score below it is wrong; a category's name: that of its best F1.")
    ] = "0.5",
    limit: Annotated[int | None, typer.Option(help="Only the first so many items of each category.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of subsets and halves that are drawn.")] = 0,
    cache: Annotated[Path | None, typer.Option(help="Keep verdicts in this file, and take from it what is known.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes for Python graders; one a core if not given.", min=1)] = None,
    plugin: Annotated[list[str] | None, typer.Option(help="A file.py or module that defines rewards; may be given again.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH or NAME=URL#MODEL (a server): a model that the reward may ask by this name; may be given again."),
    ] = None,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Run programs of models also where no isolation is to be had: they can do what you can.")
    ] = False,
) -> None:
    """Measure a reward as the field does: a table by category with intervals, JSON and a picture.

    Example: `guerdon bench rewardbench2 --data rewardbench2.parquet --reward judge --model judge=http://127.0.0.1:8000/v1#MODEL`

    Example: `guerdon bench rm-bench --data total_dataset.json --scores theirs.jsonl --out benches/theirs`

    Example: `guerdon bench best-of-n --data solutions.jsonl --reward math`
    """
    from guerdon.evals.bench.verb import run

    options = {"how": how, "limit": limit, "seed": seed, "cache": cache, "workers": workers}
    _allow(unsafe)
    raise typer.Exit(run(name, data, reward, scores, out, plugin or (), model or (), threshold, options, model_card))


@app.command()
def methods(name: Annotated[str | None, typer.Argument(help="One method, in full.")] = None) -> None:
    """List the published methods that are built: where they stand, how far they were confirmed, what their checks measured.

    Example: `guerdon methods random-calculation`
    """
    from guerdon.evals.verbs import methods as show

    raise typer.Exit(show(name))


@app.command()
def check(
    name: Annotated[str | None, typer.Argument(help="A method's id, or a check's name.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every check, but for comparisons over many methods.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what an earlier run has measured.")] = False,
) -> None:
    """Run a method's claim against its baseline, and without the method's key term; exit code 1 when it does not hold.

    Example: `guerdon check random-calculation`
    """
    from guerdon.evals.verbs import check as run

    raise typer.Exit(run(name, every, fresh))


def _allow(unsafe: bool) -> None:
    if unsafe:
        from guerdon.workers.sandbox import allow_unsafe

        allow_unsafe()


def main() -> NoReturn:
    """Runs a verb. Exit codes: 0; 1 a run that broke off or rows kept aside; 2 misuse, nothing was begun; 130 interrupted."""
    try:
        app()
    except Refused as error:
        _stop(str(error), 2)
    except Broke as error:
        _stop(str(error), 130 if isinstance(error, Interrupted) else 1)
    sys.exit(0)


def _stop(sentence: str, code: int) -> NoReturn:
    print(sentence, file=sys.stderr)
    sys.exit(code)

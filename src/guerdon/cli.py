"""The command line: one function a verb, no logic."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from guerdon.registry import Broke, Refused

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
    out: Annotated[Path, typer.Option(help="Where to write the rows with their new columns: .jsonl, .jsonl.gz or .parquet.")],
    by: Annotated[str | None, typer.Option(help="A column to break the summary down by.")] = None,
    prefix: Annotated[str, typer.Option(help="Set before the names of the new columns.")] = "",
    cache: Annotated[Path | None, typer.Option(help="Keep verdicts in this file, and take from it what is known.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes for Python graders; one a core if not given.", min=1)] = None,
    on_hostile: Annotated[OnHostile, typer.Option(help="What a row becomes that attacks its grader.")] = OnHostile.wrong,
    plugin: Annotated[list[str] | None, typer.Option(help="A file.py or module that defines rewards; may be given again.")] = None,
) -> None:
    """Score a file of completions: each row gains reward, state, reason, parts.

    Example: `guerdon score solutions.jsonl --reward "gate(format, math) + 0.2 * length" --out scored.jsonl --by model`
    """
    from rich import print as show

    import guerdon.shaping  # noqa: F401  fills the registry
    from guerdon.scoring.job import load_plugin, score_file
    from guerdon.scoring.show import meter

    for name in plugin or ():
        load_plugin(name)
    with meter() as progress:
        summary = score_file(
            file, reward, out, by=by, prefix=prefix, cache=cache, workers=workers, on_hostile=on_hostile.value, progress=progress
        )
    show(*summary.show(), sep="\n")
    if summary.complaint():
        print(summary.complaint(), file=sys.stderr)
    raise typer.Exit(summary.code)


def main() -> NoReturn:
    """Runs a verb. Exit codes: 0; 1 a run that broke off or rows kept aside; 2 misuse, nothing was begun; 130 interrupted."""
    try:
        app()
    except Refused as error:
        _stop(str(error), 2)
    except Broke as error:
        _stop(str(error), 1)
    except KeyboardInterrupt as error:
        _stop(str(error) or "Interrupted.", 130)
    sys.exit(0)


def _stop(sentence: str, code: int) -> NoReturn:
    print(sentence, file=sys.stderr)
    sys.exit(code)

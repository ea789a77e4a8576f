"""`guerdon annotate`: a file of answers in, the same file with a label a step out."""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from guerdon.annotation.core import Labels, policy_of, tokenised
from guerdon.annotation.files import COLUMNS, columns, steps_of
from guerdon.annotation.probe import Prober
from guerdon.registry import Broke, Interrupted, Piece, Refused, find, nearest
from guerdon.rewards.core import type_problem
from guerdon.samples import Sample
from guerdon.scoring.cache import Cache
from guerdon.scoring.engine import Engine
from guerdon.scoring.files import Aside, Row, Source, to_sample, writer
from guerdon.scoring.job import with_models
from guerdon.search.core import Budget

OURS = ("budget", "journal", "about", "tell")
"""Parameters that the verb fills."""


def annotate_file(
    path: str | Path,
    out: str | Path,
    method: str = "omegaprm",
    *,
    policy: str | None = None,
    reward: str = "math",
    budget: str | None = None,
    prefix: str = "",
    models: Sequence[str] = (),
    workers: int | None = None,
    progress: Callable[[float, int], None] = lambda share, rollouts: None,
) -> tuple[Labels, list[str], str]:
    """Labels each row of `path`, writes it with its new columns (see `files.columns`) to `out`; returns the labels, what is worth telling,
    and a complaint about rows that were kept aside, "" without any.

    method: the name of an annotator, with parameters (`omegaprm(k=16, soft=True)`).  budget: `rollouts=N` and the like, of all rows
    together.  What was rolled out is kept in OUT.journal: the same call goes on from there, and with a larger budget too. Raises Refused
    before anything is begun; after that Broke or Interrupted.
    """
    out, source = Path(out), Source(path)
    piece, params = read_method(method)
    limits = Budget() if budget is None else Budget.of(budget)
    if clash := next((prefix + name for name in COLUMNS if any(prefix + name in row.data for row in _head(source))), None):
        raise Refused(f"{path} has a column {clash!r} already, which the output would overwrite; give --prefix, such as --prefix new_.")
    if (piece.about.get("adds") or params.get("searches")) and source.parquet and out.suffix == ".parquet":
        raise Refused(f"{method} writes rows of its own beside those of a Parquet file; name the output .jsonl.")
    context = with_models([*([f"policy={policy}"] if policy else []), *models])
    takes = inspect.signature(piece.fn).parameters
    rolls = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    if rolls:
        policy_of(context)
    with Engine(context, workers=workers) as engine:
        context.score = partial(engine.score, engine.check(reward))
        file, aside = writer(out, source), Aside(out)
        journal_path = Path(f"{out}.journal")
        with closing(Cache(journal_path)) as journal:
            engine.cache = None if rolls else journal  # rollouts are journalled with their verdicts
            rows, samples = _rows(source, context.models.get("policy") if rolls else None, params.get("split", "lines"), aside)
            if not rows:
                file.stop()
                file.part.unlink(missing_ok=True)
                raise Broke(f"{path} has no row that can be labelled ({aside.first}); its {aside.rows} rows are kept in {aside.path}.")
            more = {"budget": limits, "journal": journal, "about": about(policy, reward, models), "tell": progress}
            more = {name: value for name, value in more.items() if rolls or name in takes}
            try:
                labels = piece.fn(samples, context, **params, **more)
                rows += [_row(sample, len(rows) + i) for i, sample in enumerate(labels.samples[len(rows) :], 1)]
                file.write(rows, *columns(labels, prefix))
                file.finish()
            except (KeyboardInterrupt, OSError, Refused, Broke) as error:
                file.stop()
                file.part.unlink(missing_ok=True)
                if isinstance(error, (Refused, Broke)):
                    raise
                kept = f"What was rolled out is kept in {journal_path}: the same command goes on from there."
                if isinstance(error, KeyboardInterrupt):
                    raise Interrupted(f"Interrupted. {kept}") from None
                raise Broke(f"{out} cannot be written: {error.strerror or error}. {kept}") from None
    told = [*labels.summary(), f"{len(rows):,} rows -> {out}; rollouts are kept in {journal_path}"]
    complaint = f"{aside.rows:,} rows were kept aside in {aside.path}, the first: {aside.first}." if aside.rows else ""
    return labels, told, complaint


def _head(source: Source) -> list[Row]:
    return [row for row, _ in zip(source, range(100), strict=False)]


def _rows(source: Source, policy: Any, split: Any, aside: Aside) -> tuple[list[Row], list[Sample]]:
    """The rows that can be labelled, and their samples: rows of equal `group`, else of equal `prompt`, are one group."""
    rows, samples, numbers = [], [], {}
    for row in source:
        try:
            if row.why:
                raise ValueError(row.why)
            sample = to_sample(row)
            if not sample.task.prompt:
                raise ValueError("no `prompt`")
            if isinstance(row.data.get("steps"), list):
                sample.marks["step"] = steps_of(row.data, sample.text)
            if not sample.text.strip():
                raise ValueError("`completion` has no text, so no steps")
            if policy is not None:
                sample = tokenised(policy, sample, split)
        except ValueError as error:
            row.why = str(error)
            aside.write(source.path, row)
            continue
        unit = repr(row.data.get("group") if row.data.get("group") is not None else sample.task.prompt)
        sample.group = numbers.setdefault(unit, len(numbers))
        rows.append(row)
        samples.append(sample)
    return rows, samples


def _row(sample: Sample, number: int) -> Row:
    """Of a sample that was not in the file."""
    task = sample.task
    data = {"id": task.id, "prompt": task.prompt, "completion": sample.text, "reference": task.reference, **task.meta, **sample.meta}
    return Row(number, data)


def read_method(text: str) -> tuple[Piece, dict[str, Any]]:
    """An annotator and its parameters, from `name` or `name(k=16, soft=True)`. Raises Refused for what cannot be read or is not its own."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        if not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        params = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg is not None}
        if len(params) != len(call.keywords):
            raise ValueError
    except (SyntaxError, ValueError):
        raise Refused(f"--method {text!r} is not such as omegaprm, or omegaprm(k=16, soft=True).") from None
    piece = find("annotator", call.func.id)
    own = dict(list(inspect.signature(piece.fn).parameters.items())[2:])
    where = dict.fromkeys(own, piece.fn)
    if any(p.kind is p.VAR_KEYWORD for p in own.values()):
        where = {name: fn for name, fn in where.items() if own[name].kind is not inspect.Parameter.VAR_KEYWORD}
        where |= dict.fromkeys(list(inspect.signature(Prober.__init__).parameters)[2:], Prober.__init__)
    where = {name: fn for name, fn in where.items() if name not in OURS}
    for name, value in params.items():
        if name not in where:
            raise Refused(f"The annotator {piece.name!r} has no parameter {name!r}{nearest(name, where)}")
        if why := type_problem(where[name], name, value):
            raise Refused(f"{piece.name}({name}={value!r}): {why}.")
    return piece, params


def about(policy: str | None, reward: str, models: Sequence[str] = ()) -> str:
    """What rollouts hang on: the policy, for a folder with the sizes and times of its files, the reward, and other models."""
    folder = Path(policy or "").expanduser()
    files = sorted(folder.iterdir()) if policy and folder.is_dir() else [folder] if policy and folder.is_file() else []
    stamps = [(file.name, (stat := os.stat(file)).st_size, stat.st_mtime_ns) for file in files if file.is_file()]
    return repr((policy, reward, list(models), stamps))

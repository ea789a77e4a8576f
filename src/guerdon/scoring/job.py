"""`guerdon score`: a file of samples in, the same file with their rewards out."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson

from guerdon.registry import Broke, Interrupted, Refused, find, nearest
from guerdon.rewards.expr import Expr, Pipe
from guerdon.samples import Context, Sample
from guerdon.scoring.cache import Cache
from guerdon.scoring.columns import columns, names
from guerdon.scoring.engine import Engine, leaves, needs_groups
from guerdon.scoring.files import BYTES, ROWS, Aside, JsonlWriter, Row, Source, to_sample, writer
from guerdon.scoring.summary import Summary
from guerdon.spans import mark

MARKED = {"answer", "thinking", "steps", "sample"}  # the fields that stand in a sample's marks


def score_file(
    path: str | Path,
    reward: str | Expr,
    out: str | Path,
    *,
    by: str | None = None,
    prefix: str = "",
    cache: str | Path | None = None,
    workers: int | None = None,
    on_hostile: Literal["wrong", "failed"] = "wrong",
    context: Context | None = None,
    progress: Callable[[float, int], None] = lambda share, rows: None,
) -> Summary:
    """Scores each row of `path`, writes it with its new columns to `out`, and returns what is worth telling.

    New columns: see `columns`. Rows that are no samples are kept aside. by: a column to break the summary down by. progress is told
    the share of the file and the number of rows that are done. Raises Refused before anything is begun; after that Broke or
    Interrupted, with a sentence on what is kept where.
    """
    out, source, started = Path(out), Source(path), time.perf_counter()
    context = context or with_models(())
    with (
        closing(Cache(cache)) if cache else nullcontext() as store,
        Engine(context, cache=store, workers=workers, on_hostile=on_hostile) as engine,
    ):
        root = engine.check(reward)
        new = names(root, prefix)
        _check_columns(source, new, by)
        if needs_groups(root):
            _check_groups(source, root)
        file, aside = writer(out, source), Aside(out)
        summary = Summary(out, by)
        try:
            for rows, samples in chunks(source, root, new, lambda row: aside.write(source.path, row)):
                rewards = engine.score(root, samples)
                file.write(rows, *columns(rewards, prefix))
                summary.add(rows, rewards)
                progress(source.share, summary.rows)
            if not summary.rows:
                raise Broke(f"{path} has no row that can be scored ({aside.first}); its {aside.rows} rows are kept in {aside.path}.")
            file.finish()
        except (OSError, Broke, Refused, KeyboardInterrupt) as error:
            raise _broken(error, file) from None
    summary.aside, summary.rejected, summary.first = aside.path, aside.rows, aside.first
    summary.seconds = time.perf_counter() - started
    summary.accounts = {name: str(model.account) for name, model in context.models.items() if hasattr(model, "account")}
    return summary


def _broken(error: BaseException, file: JsonlWriter) -> BaseException:
    """The same error with a sentence on what is kept, once the output so far is safe."""
    file.stop()
    kept = f" The first {file.rows:,} scored rows are kept in {file.part}; with --cache they need not be scored again." if file.rows else ""
    if not file.rows:
        file.part.unlink(missing_ok=True)
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(f"Interrupted.{kept}")
    if isinstance(error, OSError):
        return Broke(f"{file.path} cannot be written: {error.strerror or error}.{kept}")
    return Broke(f"{error}{kept}") if kept else error


def chunks(source: Source, root: Expr, new: list[str], reject: Callable[[Row], None]) -> Iterator[tuple[list[Row], list[Sample]]]:
    """Rows and their samples, some thousands at a time; groups are whole where the expression needs them. `reject` gets each row that is no
    sample, or has a column called as one of the `new` ones, with the reason in it."""
    together, linked = needs_groups(root), _linked(root)
    shaped = any(isinstance(node, Pipe) for node in root.walk())  # a shape sees whole samples, like a reward of groups
    marked = shaped or any(leaf.scope != "sample" or MARKED & {*leaf.fields} for leaf in leaves(root))
    rows: list[Row] = []
    samples: list[Sample] = []
    numbers: dict[Any, int] = {}
    size, last = 0, None
    for row in source:
        try:
            if row.why:
                raise ValueError(row.why)
            if clash := [name for name in new if name in row.data]:
                raise ValueError(f"has a column {clash[0]!r} already")
            sample = to_sample(row)
        except ValueError as error:
            row.why = str(error)
            reject(row)
            continue
        unit = _unit(row, linked)
        if (len(rows) >= ROWS or size >= BYTES) and not (together and unit == last):
            yield rows, samples
            rows, samples, numbers, size = [], [], {}, 0
        last = unit
        sample.group = numbers.setdefault(_unit(row, False), len(numbers))
        if marked:
            mark(sample)
        rows.append(row)
        samples.append(sample)
        size += len(row.raw) if row.raw is not None else len(sample.text)
    if rows:
        yield rows, samples


def _unit(row: Row, linked: bool) -> Any:
    """What must stay together with this row: equal `link` for scope `samples`, else equal `group`, else equal `prompt`."""
    for name in ("link", "group", "prompt") if linked else ("group", "prompt"):
        value = row.data.get(name)
        if value is not None:
            return name, value if isinstance(value, (str, int)) else orjson.dumps(value, default=str)
    return row.number


def _linked(root: Expr) -> bool:
    return any(leaf.scope == "samples" for leaf in leaves(root))


def _check_columns(source: Source, new: list[str], by: str | None) -> None:
    """Raises Refused where an output would overwrite a column, or `by` is none: by the schema, or the first rows."""
    head = list(islice(source, 100))
    there = dict.fromkeys(name for row in head for name in row.data)
    clash = [name for name in new if name in there]
    if clash:
        raise Refused(
            f"{source.path} has a column {clash[0]!r} already, which the output would overwrite; give --prefix, such as --prefix new_."
        )
    if by is not None and there and by not in there:
        raise Refused(f"{source.path} has no column {by!r}{nearest(by, there)}")


def _check_groups(source: Source, root: Expr) -> None:
    """Raises Refused where the rows of one group do not stand together."""
    linked, seen, last = _linked(root), set[Any](), None
    for row in source:
        unit = _unit(row, linked)
        if row.why or unit == last:
            continue
        if hash(unit) in seen:
            what = f"{unit[0]} {str(unit[1])[:60]!r}" if isinstance(unit, tuple) else "group"
            raise Refused(
                f"{source.path}, row {row.number}: the {what} stands further up already, but `{root}` needs the rows of a group side by"
                " side; sort the file by group."
            )
        seen.add(hash(unit))
        last = unit


def with_models(named: Sequence[str]) -> Context:
    """The services of a scoring job: a generator of random numbers, and models opened for scoring only, each from a text NAME=PATH, or
    NAME=URL#MODEL for a model of an OpenAI-compatible server."""
    models = {}
    for text in named:
        name, eq, path = text.partition("=")
        if not (name and eq and path):
            raise Refused(
                f"--model {text!r}: write NAME=PATH, for example scorer=smollm2, or scorer=FOLDER in transformers' layout, or"
                " judge=http://127.0.0.1:8000/v1#MODEL for a server."
            )
        import guerdon.backends  # noqa: F401  fills the registry

        if path.startswith(("http://", "https://")):
            url, _, served = path.partition("#")
            models[name] = find("backend", "openai").fn(served, url=url)
        else:
            models[name] = find("backend", "local").fn(path, trainable=False)
    return Context(models=models, rng=np.random.default_rng(0))


def load_plugin(name: str) -> None:
    """Import a file or a module that defines rewards. Raises Refused where that fails."""
    try:
        if name.endswith(".py"):
            spec = importlib.util.spec_from_file_location(f"guerdon_plugin_{Path(name).stem}", name)
            assert spec is not None
            assert spec.loader is not None
            module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            importlib.import_module(name)
    except Refused:
        raise
    except (Exception, SystemExit) as error:
        raise Refused(f"The plug-in {name} cannot be imported: {type(error).__name__}: {error}.") from error

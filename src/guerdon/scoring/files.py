"""JSONL and Parquet in and out, a chunk at a time: constant memory, rows in their order, unknown columns as they were.

Column `completion` is a sample's text, `prompt` and `reference` are its task's, `id` its task's name, the rest is meta. An input is known
by its first bytes (Parquet, gzip, else JSON lines), an output by its name.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from guerdon.registry import Broke, Refused
from guerdon.samples import Sample, Task
from guerdon.scoring.wire import dumps

if TYPE_CHECKING:
    import pyarrow as pa

Kinds = dict[str, Any]
"""Of new columns: name -> "number", "numbers" (a list), "text", "texts" (a list), or kinds again for an object."""
ROWS, BYTES = 4096, 32 << 20
"""A chunk ends after so many rows, or so many bytes of JSON."""


@dataclass
class Row:
    """One row as it was read. `why`: what is wrong with it."""

    number: int
    data: dict[str, Any]
    raw: bytes | None = None
    """Its text, where it comes from JSON lines."""
    arrow: tuple[pa.RecordBatch, int] | None = None
    """Where it stands, where it comes from Parquet."""
    why: str = ""

    def text(self) -> bytes:
        return orjson.dumps(self.data, default=_as_text) if self.raw is None else self.raw


class Source:
    """The rows of a file, from the start each time. Raises Refused for a file that is not there, empty or not readable."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                self.magic = file.read(4)
                self.size = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise Refused(f"{self.path} cannot be read: {error.strerror}.") from None
        if not self.magic:
            raise Refused(f"{self.path} is empty; give a JSONL or Parquet file with one sample a row.")
        self.parquet = self.magic == b"PAR1"
        self.share = 0.0
        """Of the file that was read."""

    def __iter__(self) -> Iterator[Row]:
        return self._batches() if self.parquet else self._lines()

    def _batches(self) -> Iterator[Row]:
        file, number = self._open(), 0
        for batch in file.iter_batches(batch_size=ROWS):
            for i, data in enumerate(batch.to_pylist()):
                yield Row(number + i + 1, data, arrow=(batch, i))
            number += len(batch)
            self.share = number / file.metadata.num_rows

    def _open(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self.path)
        except (pa.ArrowException, OSError) as error:
            raise Refused(f"{self.path} begins like a Parquet file but cannot be read: {error}.") from None

    def _lines(self) -> Iterator[Row]:
        number = 0
        with open(self.path, "rb") as file:
            try:
                for number, line in enumerate(gzip.GzipFile(fileobj=file) if self.magic[:2] == b"\x1f\x8b" else file, 1):
                    raw = line.strip().removeprefix(b"\xef\xbb\xbf")
                    if raw:
                        yield _read(number, raw)
                    if number % 256 == 0:
                        self.share = file.tell() / self.size
            except (OSError, EOFError, zlib.error) as error:
                raise Broke(f"{self.path} cannot be read behind row {number}: {error}.") from None


def _read(number: int, raw: bytes) -> Row:
    if b"\0" in raw:
        raw = raw.replace(b"\0", b"\\u0000")  # a bare NUL inside a text, as some writers leave it
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        kind = "not valid UTF-8" if "UTF-8" in str(error) else f"not JSON ({error})"
        return Row(number, {}, raw, why=kind)
    return Row(number, data, raw) if isinstance(data, dict) else Row(number, {}, raw, why=f"a JSON {type(data).__name__}, not an object")


def to_sample(row: Row) -> Sample:
    """The sample of a row; its group is set by whoever sees its neighbours. Raises ValueError with what is wrong."""
    data = dict(row.data)
    text, prompt = data.pop("completion", None), data.pop("prompt", "")
    if not isinstance(text, str):
        raise ValueError("no `completion`" if text is None else f"`completion` is of type {type(text).__name__}, not a text")
    return Sample(Task(str(data.pop("id", row.number)), _prompt(prompt), data.pop("reference", None)), text, source="file", meta=data)


def _prompt(prompt: Any) -> Any:
    if prompt is None:
        return ""
    if not isinstance(prompt, str) and not (isinstance(prompt, list) and all(isinstance(m, dict) and "role" in m for m in prompt)):
        raise ValueError(f"`prompt` is of type {type(prompt).__name__}, not a text or a list of messages with `role` and `content`")
    return prompt


def load_tasks(path: str | Path) -> list[Task]:
    """Tasks of a JSONL or Parquet file, from the columns `prompt` or `messages`, `reference`, `id`; the rest is meta.

    Raises Refused naming file and row: a training set with a bad row is refused as a whole.
    """
    tasks = []
    for row in Source(path):
        data = dict(row.data)
        prompt = data.pop("prompt", None) or data.pop("messages", None)
        try:
            if row.why or not prompt:
                raise ValueError(row.why or "no `prompt` and no `messages`")
            tasks.append(Task(str(data.pop("id", row.number)), _prompt(prompt), data.pop("reference", None), data))
        except ValueError as error:
            raise Refused(f"{path}, row {row.number}: {error}; mend or remove it.") from None
    if not tasks:
        raise Refused(f"{path} has no rows; give one task a row, with a column `prompt`.")
    return tasks


class JsonlWriter:
    """JSON lines. They stand in `path`.part, flushed after each chunk, and take their name when all is written."""

    def __init__(self, path: Path) -> None:
        self.path, self.part, self.rows = path, Path(f"{path}.part"), 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.open()
        self.safe = 0
        """Bytes of the part up to the last whole chunk."""

    def open(self) -> Any:
        return (gzip.open if self.path.suffix == ".gz" else open)(self.part, "wb")

    def write(self, rows: Sequence[Row], new: Sequence[dict[str, Any]], kinds: Kinds) -> None:
        """The rows as they were, with their new columns behind."""
        lines = [row.text()[:-1].rstrip() + b"," + dumps(columns).lstrip(b"{") for row, columns in zip(rows, new, strict=True)]
        self.file.write(b"\n".join([*lines, b""]))
        self.file.flush()
        self.rows += len(lines)
        self.safe = self.part.stat().st_size

    def finish(self) -> None:
        self.file.close()
        self.part.replace(self.path)

    def stop(self) -> None:
        """Leave the chunks that are written where they are, without the rest of one that is not."""
        with suppress(OSError):  # the disk is full
            self.file.close()
        if self.safe:
            os.truncate(self.part, self.safe)


class ParquetWriter(JsonlWriter):
    """Parquet from Parquet: the columns as they were, types and all, and the new ones behind."""

    def open(self) -> Any:
        return None  # until the schema is known

    def write(self, rows: Sequence[Row], new: Sequence[dict[str, Any]], kinds: Kinds) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        runs: list[tuple[pa.RecordBatch, list[int]]] = []
        for row in rows:
            assert row.arrow is not None
            if not runs or runs[-1][0] is not row.arrow[0]:
                runs.append((row.arrow[0], []))
            runs[-1][1].append(row.arrow[1])
        table = pa.Table.from_batches([batch.take(pa.array(index)) for batch, index in runs])
        for name, kind in kinds.items():
            of = _arrow_type(kind)
            table = table.append_column(pa.field(name, of), pa.array([columns[name] for columns in new], of))
        if self.file is None:
            self.file = pq.ParquetWriter(self.part, table.schema)
        self.file.write_table(table)
        self.rows += len(rows)

    def stop(self) -> None:
        try:
            if self.file is not None:
                self.file.close()
        except OSError:  # without its end a Parquet file cannot be read
            self.rows = 0


class ConvertingWriter(JsonlWriter):
    """Parquet from JSON lines: written as JSON lines, and turned into Parquet when every row is known."""

    def finish(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.file.close()
        done = Path(f"{self.path}.tmp")
        try:
            schema = pa.unify_schemas([table.schema for table in self._tables()], promote_options="permissive")
            with pq.ParquetWriter(done, schema) as file:
                for table in self._tables(schema):
                    file.write_table(table)
        except (pa.ArrowException, ValueError) as error:
            done.unlink(missing_ok=True)
            raise Broke(
                f"{self.path}: a column has values of several types, which Parquet cannot hold ({error}); "
                f"all {self.rows} rows are kept as JSON lines in {self.part}."
            ) from None
        done.replace(self.path)
        self.part.unlink()

    def _tables(self, schema: pa.Schema | None = None) -> Iterator[pa.Table]:
        import pyarrow as pa

        with open(self.part, "rb") as file:
            while lines := list(islice(file, ROWS)):
                rows = [orjson.loads(line) for line in lines]
                names = schema.names if schema else dict.fromkeys(name for row in rows for name in row)
                columns = {name: pa.array([row.get(name) for row in rows], schema and schema.field(name).type) for name in names}
                yield pa.table(columns, schema=schema)


def writer(out: Path, source: Source) -> JsonlWriter:
    """What writes `out`, by its name. Raises Refused for a name of no known format, or one that cannot be written."""
    name = out.name.removesuffix(".gz")
    if not name.endswith((".jsonl", ".json", ".parquet")) or out.name.endswith(".parquet.gz"):
        raise Refused(f"{out}: the output is JSON lines or Parquet; name it .jsonl, .jsonl.gz or .parquet.")
    if out.exists() and out.samefile(source.path):
        raise Refused(f"{out} is the input itself; give the output another name.")
    try:
        return (JsonlWriter if not name.endswith(".parquet") else ParquetWriter if source.parquet else ConvertingWriter)(out)
    except OSError as error:
        raise Refused(f"{out} cannot be written: {error.strerror}.") from None


class Aside:
    """Rows kept aside in a file beside the output; there is no such file where there is no such row."""

    def __init__(self, out: Path) -> None:
        stem = out.name.removesuffix(".gz").rpartition(".")[0]
        self.path, self.rows, self.first = out.with_name(f"{stem}.rejected.jsonl"), 0, ""
        self.path.unlink(missing_ok=True)

    def write(self, source: Path, row: Row) -> None:
        self.rows += 1
        self.first = self.first or f"{source}, row {row.number}: {row.why}"
        text = row.text().decode("utf-8", "backslashreplace")
        with open(self.path, "ab") as file:
            file.write(orjson.dumps({"file": str(source), "row": row.number, "reason": row.why, "text": text}) + b"\n")


def _arrow_type(kind: Any) -> pa.DataType:
    import pyarrow as pa

    if isinstance(kind, dict):
        return pa.struct([(name, _arrow_type(inner)) for name, inner in kind.items()])
    return {"number": pa.float64(), "numbers": pa.list_(pa.float64()), "text": pa.string(), "texts": pa.list_(pa.string())}[kind]


def _as_text(x: Any) -> Any:
    """What JSON has no word for, in a row that comes from Parquet."""
    return x.decode("utf-8", "backslashreplace") if isinstance(x, bytes) else str(x)

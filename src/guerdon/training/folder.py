"""Writing a run folder: recipe, metrics, events, samples and evaluations. `record.py` reads it back.

A kill at any moment leaves every file readable: lines are appended, tables are written beside and renamed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import yaml

from guerdon.registry import Broke
from guerdon.samples import Rewards, Sample, State
from guerdon.training.metrics import STEP
from guerdon.training.record import read_jsonl, tables

if TYPE_CHECKING:
    from guerdon.samples import Batch

LONGEST_TEXT = 100_000
"""Characters of a sample's text that a table keeps."""


class Folder:
    """The folder of one run, open for writing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("samples", "evals", "checkpoints"):
            (path / name).mkdir(parents=True, exist_ok=True)

    def recipe(self, plain: Mapping[str, Any]) -> None:
        replace_file(self.path / "recipe.yaml", yaml.safe_dump(dict(plain), sort_keys=False, allow_unicode=True).encode())

    def metrics(self, values: Mapping[str, Any]) -> None:
        self._append("metrics.jsonl", values)

    def event(self, step: int, kind: str, text: str) -> None:
        self._append("events.jsonl", {STEP: step, "kind": kind, "text": text})

    def rewind(self, step: int) -> None:
        """Forget everything after `step`: what is about to be done again."""
        for name in ("metrics.jsonl", "events.jsonl"):
            kept = [entry for entry in read_jsonl(self.path / name) if entry[STEP] <= step]
            replace_file(self.path / name, b"".join(orjson.dumps(entry) + b"\n" for entry in kept))
        for name in ("samples", "evals"):
            for at, file in tables(self.path, name).items():
                if at > step:
                    file.unlink()

    def samples(self, step: int, samples: Sequence[Sample], rewards: Rewards, kept: Mapping[int, int], batch: Batch | None) -> None:
        """One row a sample. kept: row of the sample -> row of the batch; rows left out have no advantages."""
        advantages = np.zeros((0, 0)) if batch is None else batch.advantages.cpu().numpy()
        weights = np.zeros(0) if batch is None else batch.weights.amax(1).cpu().numpy()
        rows = []
        for i, s in enumerate(samples):
            at = kept.get(i)
            tokens = len(s.ids) if s.ids is not None else 0
            rows.append(
                {
                    STEP: step,
                    **sample_row(s, rewards, i),
                    "ids": [] if s.ids is None else s.ids.tolist(),
                    "pieces": [] if s.offsets is None else [s.text[a:b] for a, b in s.offsets.tolist()],
                    "advantage": [] if at is None else advantages[at, :tokens].tolist(),
                    "logprobs": [] if s.logprobs is None else s.logprobs.tolist(),
                    "step_rewards": cells(rewards.step, i),
                    "token_rewards": cells(rewards.token, i),
                    "kept": at is not None,
                    "weight": 0.0 if at is None else float(weights[at]),
                    "version": s.version,
                    "source": s.source,
                }
            )
        self._table("samples", step, rows)

    def evaluation(self, step: int, samples: Sequence[Sample], rewards: Rewards, passed: Sequence[bool], gold: Rewards | None) -> None:
        rows = []
        for i, s in enumerate(samples):
            truth = None if gold is None else value(gold, i)
            rows.append(
                {
                    STEP: step,
                    **sample_row(s, rewards, i),
                    "passed": bool(passed[i]),
                    "gold": truth,
                    "length": 0 if s.ids is None else len(s.ids),
                }
            )
        self._table("evals", step, rows)

    def _table(self, folder: str, step: int, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.path / folder / f"step-{step:06d}.parquet"
        beside = path.with_suffix(".tmp")
        try:
            pq.write_table(pa.Table.from_pylist(rows), beside, compression="zstd")
            beside.replace(path)
        except OSError as error:
            raise Broke(
                f"{path} could not be written ({error.strerror or error}); make room, then `guerdon train --resume {self.path}`."
            ) from error

    def _append(self, name: str, values: Mapping[str, Any]) -> None:
        path = self.path / name
        try:
            with path.open("ab") as file:
                file.write(orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
        except OSError as error:
            raise Broke(
                f"{path} could not be written ({error.strerror or error}); make room, then `guerdon train --resume {self.path}`."
            ) from error


def sample_row(s: Sample, rewards: Rewards, i: int) -> dict[str, Any]:
    """What every table says of a sample."""
    prompt = s.task.prompt if isinstance(s.task.prompt, str) else orjson.dumps(s.task.prompt).decode()
    return {
        "task_id": s.task.id,
        "group": s.group,
        "prompt": safe(prompt),
        "text": safe(s.text[:LONGEST_TEXT]),
        "reference": None if s.task.reference is None else safe(str(s.task.reference)),
        "reward": value(rewards, i),
        "state": State(int(rewards.state[i])).name.lower(),
        "reason": safe(rewards.why(i)),
        "parts": orjson.dumps({name: value(part.rewards, i) for name, part in rewards.parts.items()}).decode(),
        "hostile": bool(rewards.hostile[i]),
        "stop": s.stop,
    }


def value(rewards: Rewards, i: int) -> float | None:
    """One number of a sample, None where it has no verdict."""
    return float(rewards.total()[i]) if rewards.alive[i] else None


def cells(grain: Any, i: int) -> list[float | None] | None:
    if grain is None:
        return None
    return [float(v) if s == State.SCORED else None for v, s in zip(grain.value[i], grain.state[i], strict=True)]


def safe(text: str) -> str:
    """Text that a UTF-8 file can hold: lone surrogates replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def replace_file(path: Path, content: bytes) -> None:
    """Write beside, flush to disk, rename. Raises Broke when the disk is full; the old file stays."""
    beside = path.with_name(path.name + ".tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise Broke(f"{path} could not be written ({error.strerror or error}); what was there before is kept.") from error

"""Checkpoints: a folder a step, written beside and renamed, so that a kill leaves either the old ones or the new one whole."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from guerdon.backends.base import Model
from guerdon.backends.checkpoint import replacing

KEEP = 2
"""Checkpoints that stay; the older ones are removed when a new one is whole."""


def write(folder: Path, step: int, models: Mapping[str, Model], state: Mapping[str, Any]) -> Path:
    """`folder/step-NNNNNN` with every model that changes and the run's state. Raises Broke on a full disk; older checkpoints stay."""
    path = folder / f"step-{step:06d}"
    save(path, models, state)
    for old in sorted(folder.glob("step-*"))[:-KEEP]:
        if old != path:
            shutil.rmtree(old)
    return path


def save(path: Path, models: Mapping[str, Model], state: Mapping[str, Any]) -> None:
    with replacing(path) as folder:
        for name, model in models.items():
            model.save(folder / name)
        (folder / "state.json").write_bytes(orjson.dumps(dict(state)))


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    found = [p for p in sorted(folder.glob("step-*")) if (p / "state.json").is_file()]
    return found[-1] if found else None


def read(path: Path, models: Mapping[str, Model]) -> dict[str, Any]:
    """Load the models in place; returns the state."""
    for name, model in models.items():
        model.load(path / name)
    return orjson.loads((path / "state.json").read_bytes())

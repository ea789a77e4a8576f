"""Folders written beside and renamed, so that a broken write leaves the old one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guerdon.registry import Broke, Refused


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new empty folder to write into; when the block ends it takes the place of `path`, when it raises `path` stays as it was.

    Raises Broke where the disk refuses (full, read-only).
    """
    new, old = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
    try:
        recover(path)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        yield new
        if path.exists():
            path.rename(old)
        new.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except Exception as error:
        shutil.rmtree(new, ignore_errors=True)
        if isinstance(error, OSError) or any(word in str(error) for word in ("os error", "PytorchStreamWriter", "No space left")):
            what = str(error).strip().split("\n")[0]
            raise Broke(
                f"The checkpoint {str(path)!r} could not be written ({what}); the one before is kept; free some space, then resume."
            ) from error
        raise


def recover(path: Path) -> Path:
    """The folder, put back where a process died between the two renames. Raises Refused where there is none."""
    old = path.with_name(f".{path.name}.old")
    if old.exists():
        if path.exists():
            shutil.rmtree(old)
        else:
            old.rename(path)
    return path


def existing(path: Path) -> Path:
    if not recover(path).is_dir():
        raise Refused(f"There is no checkpoint folder {str(path)!r}.")
    return path

"""Trackers see what the run folder gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guerdon.registry import Refused
from guerdon.training import metrics as m
from guerdon.training.run import train


class Seen:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def on_start(self, recipe: Any, folder: Path, step: int, total: int) -> None:
        self.calls.append(("start", folder.name, step, total))

    def on_step(self, values: Any) -> None:
        self.calls.append(("step", values[m.STEP]))

    def on_event(self, step: int, kind: str, text: str) -> None:
        self.calls.append(("event", kind))

    def on_end(self) -> None:
        self.calls.append(("end",))


def test_a_tracker_gets_every_step_once(small_recipe: dict[str, Any], tmp_path: Path) -> None:
    seen = Seen()
    run = train(small_recipe, "train.steps=2", folder=tmp_path / "run", trackers=[seen])
    assert [call for call in seen.calls if call[0] != "event"] == [("start", "run", 0, 2), ("step", 0), ("step", 1), ("step", 2), ("end",)]
    again = Seen()
    train(None, "train.steps=3", resume=run.folder, trackers=[again])
    assert [call for call in again.calls if call[0] != "event"] == [("start", "run", 2, 3), ("step", 3), ("end",)]


def test_tensorboard_writes_its_files(small_recipe: dict[str, Any], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train({**small_recipe, "trackers": ["tensorboard"]}, "train.steps=2", folder=tmp_path / "run")
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars(m.REWARD)] == [1, 2]
    assert [e.value for e in events.Scalars(m.REWARD)] == [pytest.approx(row[m.REWARD], rel=1e-5) for row in run.metrics[1:]]


def test_an_unknown_tracker_is_refused_with_the_nearest_name(small_recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Refused, match="did you mean 'tensorboard'"):
        train({**small_recipe, "trackers": ["tensorbord"]}, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()

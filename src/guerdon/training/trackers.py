"""Who watches a run: one small protocol. The run folder is always written; a tracker gets the same values beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from guerdon.registry import Refused, registrar
from guerdon.training import metrics as m

tracker = registrar("tracker")
"""`@tracker` registers a class; a recipe names it under `trackers:`."""


class Tracker(Protocol):
    def on_start(self, recipe: Mapping[str, Any], folder: Path, step: int, total: int) -> None: ...
    def on_step(self, values: Mapping[str, Any]) -> None:
        """After each step and each evaluation; names in `training.metrics`."""
        ...

    def on_event(self, step: int, kind: str, text: str) -> None:
        """A warning, a new best checkpoint, the end of a stage."""
        ...

    def on_end(self) -> None: ...


@tracker
class tensorboard:
    """Event files in `RUN/tensorboard`; needs the extra `guerdon[tensorboard]`."""

    def on_start(self, recipe: Mapping[str, Any], folder: Path, step: int, total: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise Refused("The tracker 'tensorboard' needs TensorBoard: pip install 'guerdon[tensorboard]'.") from None
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def on_step(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, (int, float)) and name != m.STEP:
                self.writer.add_scalar(name, value, values[m.STEP])

    def on_event(self, step: int, kind: str, text: str) -> None:
        self.writer.add_text(kind, text, step)

    def on_end(self) -> None:
        self.writer.close()


class Console:
    """Live progress: a bar with the latest reward, held-out accuracy and speed; warnings above it."""

    def on_start(self, recipe: Mapping[str, Any], folder: Path, step: int, total: int) -> None:
        from rich.console import Console as Rich
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.out = Rich(stderr=True)
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[say]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=self.out)
        self.task = self.bar.add_task(str(recipe.get("name", "train")), total=total, completed=step, say="")
        self.held_out = ""
        self.quiet = not self.out.is_terminal
        if not self.quiet:
            self.bar.start()

    def on_step(self, values: Mapping[str, Any]) -> None:
        if m.EVAL_ACCURACY in values:
            gold = f" gold {values[m.EVAL_GOLD]:.3f}" if m.EVAL_GOLD in values else ""
            self.held_out = f"held-out {values[m.EVAL_ACCURACY]:.3f}{gold}"
        parts = [f"reward {values[m.REWARD]:.3f}" if m.REWARD in values else "", self.held_out]
        if m.TOKENS_PER_SECOND in values:
            parts.append(f"{values[m.TOKENS_PER_SECOND]:,.0f} tok/s")
        say = "  ".join(filter(None, parts))
        self.bar.update(self.task, completed=values[m.STEP], say=say)
        if self.quiet and m.EVAL_ACCURACY in values:
            self.out.print(f"step {values[m.STEP]}  {say}", highlight=False)

    def on_event(self, step: int, kind: str, text: str) -> None:
        self.bar.console.print(f"[yellow]step {step}: {kind}: {text}[/yellow]", highlight=False)

    def on_end(self) -> None:
        if not self.quiet:
            self.bar.stop()

"""The decorator of the room."""

from __future__ import annotations

from guerdon.registry import registrar

env = registrar("env")
"""`@env def arithmetic(n, ..., seed=0) -> list[Task]` registers a world: a function from a size and a seed to tasks."""

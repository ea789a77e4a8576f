"""The rollout contract: (policy, tasks, n, context, **params) -> samples, n a task, rows of one task standing together as one group."""

from __future__ import annotations

from guerdon.registry import registrar

rollout = registrar("rollout")

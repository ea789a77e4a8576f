"""Curation: which tasks are drawn (`select`), which rows are trained on (`keep`)."""

from __future__ import annotations

from guerdon.registry import registrar

select = registrar("select")
"""(tasks, n, rng) -> tasks."""

keep = registrar("keep")
"""(samples, rewards, context, **params) -> Kept(rows, weights (n,), pairs)."""

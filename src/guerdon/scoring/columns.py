"""Rewards as the columns of a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from guerdon.rewards.expr import Expr
from guerdon.samples import Grain, Rewards, State
from guerdon.scoring.engine import leaves
from guerdon.scoring.files import Kinds

STATES = {State.SCORED: "scored", State.ABSTAINED: "abstained", State.FAILED: "failed"}
FINER = {"step": "step_rewards", "token": "token_rewards"}


def names(root: Expr, prefix: str = "") -> list[str]:
    """The columns that scoring by this expression adds."""
    finer = [FINER[grain] for grain in FINER if any(leaf.grain == grain for leaf in leaves(root))]
    return [prefix + name for name in ("reward", "state", "reason", "parts", *finer)]


def columns(rewards: Rewards, prefix: str = "") -> tuple[list[dict[str, Any]], Kinds]:
    """For each sample its new columns, and their kinds.

    reward: a number, null where nothing was scored; without an outcome the sum of the steps or tokens.  state: scored, abstained, failed.
    reason: why, "" where there is nothing to say.  parts: part of the expression -> its raw value (a list of them for steps or
    tokens), null where it was not scored.  step_rewards, token_rewards: lists, null for a step that abstained or failed; they end with the
    last step that did not abstain.
    """
    alive = rewards.alive.tolist()
    table: dict[str, list[Any]] = {
        "reward": [value if ok else None for value, ok in zip(rewards.total().tolist(), alive, strict=True)],
        "state": [STATES[State(s)] for s in rewards.state.tolist()],
        "reason": reasons(rewards),
    }
    kinds: Kinds = {"reward": "number", "state": "text", "reason": "text", "parts": {}}
    parts: dict[str, list[Any]] = {}
    for name, part in rewards.parts.items():
        grain = part.rewards.outcome or part.rewards.step or part.rewards.token
        assert grain is not None
        parts[name], kinds["parts"][name] = _cells(grain)
    table["parts"] = [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]
    for grain, name in FINER.items():
        if (g := getattr(rewards, grain)) is not None:
            table[name], kinds[name] = _cells(g)
    keys = [prefix + name for name in table]
    rows = [dict(zip(keys, values, strict=True)) for values in zip(*table.values(), strict=True)]
    return rows, {prefix + name: kind for name, kind in kinds.items()}


def reasons(rewards: Rewards) -> list[str]:
    """`Rewards.why` of every sample, in one pass."""
    out: list[list[str]] = [[] for _ in range(len(rewards))]
    for _, grain in rewards.grains():
        for cell in sorted(grain.reason):
            if (why := grain.reason[cell]) not in out[cell[0]]:
                out[cell[0]].append(why)
    return ["; ".join(filter(None, said)) for said in out]


def _cells(g: Grain) -> tuple[list[Any], str]:
    if g.value.ndim == 1:
        return [value if ok else None for value, ok in zip(g.value.tolist(), g.scored.tolist(), strict=True)], "number"
    there = g.state != State.ABSTAINED
    width = np.where(there.any(1), there.shape[1] - there[:, ::-1].argmax(1), 0)
    return [
        [v if ok else None for v, ok in zip(values[:w], scored[:w], strict=True)]
        for values, scored, w in zip(g.value.tolist(), g.scored.tolist(), width.tolist(), strict=True)
    ], "numbers"

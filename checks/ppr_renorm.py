"""ReNorm: a pleasing step on a failed answer gains nothing.

See `_exploit_world.py`: paths of four turns in answers of four lines, so that every "indeed" costs the success; the judge of lines pays it
more than a right turn.
"""

from __future__ import annotations

from typing import Any

from _exploit_world import ending, paths, walk

CLAIM = (
    "with judge_lines | renorm(solved) `indeed` ends on less than 15% of the lines, and the share solved is no more than 0.02 below that "
    "of the outcome alone at the end, and not below it in the mean over all updates"
)
BASELINE = "outcome alone"
METHOD = "judge_lines | renorm(solved); without its key term: solved + judge_lines"
SEEDS = (0, 1, 2)
REWARDS = {"baseline": "solved", "method": "judge_lines | renorm(solved)", "ablated": "solved + judge_lines"}


def measure(variant: str, seed: int) -> dict[str, Any]:
    found = walk(
        REWARDS[variant], paths(4), seed, steps=60, lines=4, watch="exploit_share", end=-20.0, critics=["critic"],
        credit={"use": "gae", "lam": 0.95}, critic={"lr": 0.1},
    )  # fmt: skip
    return ending(found)


def holds(baseline: list[Any], method: list[Any]) -> bool:
    pairs = list(zip(baseline, method, strict=True))
    return all(m["exploit"] < 0.15 and m["value"] >= b["value"] - 0.02 and m["mean"] >= b["mean"] for b, m in pairs)

"""Process rewards that are added up pay for every further line; clipped, or as differences, they do not.

See `_exploit_world.py`: paths of three turns in at most six lines, and a judge of lines to whom "indeed" is as good as a right turn: a
step that is fine and unnecessary.
"""

from __future__ import annotations

from typing import Any

from _exploit_world import ending, paths, walk

CLAIM = (
    "with Clip, Delta and both the share of `indeed` among the lines ends at most 0.05 above that of the outcome alone, and the share that "
    "is solved at most 0.02 below it"
)
BASELINE = "outcome alone"
METHOD = "0.2 * (judge_lines(right=0.9) | step_clip(0.7) | step_delta) beside it, and each alone; without its key term: the plain sum"
SEEDS = (0, 1, 2)
JUDGE = "judge_lines(right=0.9)"
PROCESS = {
    "baseline": {"": "solved"},
    "method": {
        "": f"solved + 0.2 * ({JUDGE} | step_clip(0.7) | step_delta)",
        " with clip": f"solved + 0.2 * ({JUDGE} | step_clip(0.7))",
        " with delta": f"solved + 0.2 * ({JUDGE} | step_delta)",
    },
    "ablated": {"": f"solved + 0.2 * {JUDGE}"},
}


def measure(variant: str, seed: int) -> dict[str, Any]:
    found = {}
    for name, expression in PROCESS[variant].items():
        end = ending(walk(expression, paths(3), seed, steps=150, lines=6, watch="exploit_share"))
        found |= {key + name: value for key, value in end.items()}
    return found


def holds(baseline: list[Any], method: list[Any]) -> bool:
    pairs = [
        (b, m, name) for b, m in zip(baseline, method, strict=True) for name in ("", " with clip", " with delta") if "value" + name in m
    ]
    return all(m["exploit" + name] <= b["exploit"] + 0.05 and m["value" + name] >= b["value"] - 0.02 for b, m, name in pairs)

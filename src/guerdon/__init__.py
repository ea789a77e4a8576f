"""The reward layer of reinforcement learning for language models.

    import guerdon as g

    @g.reward
    def brief(text: str) -> float:
        return max(0.0, 1.0 - len(text) / 200)

    run = g.train(
        models={"policy": {"path": "tiny"}},
        tasks={"use": "arithmetic", "n": 2000},
        reward=g.math + 0.1 * brief.when(g.math > 0),
    )

Names are loaded when they are first used, so that `import guerdon` and `guerdon --help` stay quick.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerdon.annotation.core import annotator as annotator
    from guerdon.annotation.verb import annotate_file as annotate  # noqa: F401
    from guerdon.envs.tools import Reply as Reply
    from guerdon.envs.tools import Turn as Turn
    from guerdon.envs.tools import tool as tool
    from guerdon.evals.audit import audit as audit
    from guerdon.evals.bench import bench as bench
    from guerdon.evals.fitted import fit as fit
    from guerdon.recipe import Recipe as Recipe
    from guerdon.recipe import read as read_recipe  # noqa: F401
    from guerdon.registry import Broke as Broke
    from guerdon.registry import Refused as Refused
    from guerdon.rewards import exact as exact
    from guerdon.rewards import format as format
    from guerdon.rewards import gate as gate
    from guerdon.rewards import greatest as greatest
    from guerdon.rewards import least as least
    from guerdon.rewards import length as length
    from guerdon.rewards import math as math
    from guerdon.rewards import mean as mean
    from guerdon.rewards import overlong as overlong
    from guerdon.rewards import parse as parse
    from guerdon.rewards import reward as reward
    from guerdon.samples import Batch as Batch
    from guerdon.samples import Context as Context
    from guerdon.samples import Rewards as Rewards
    from guerdon.samples import Sample as Sample
    from guerdon.samples import Task as Task
    from guerdon.samples import Verdict as Verdict
    from guerdon.samples import collate as collate
    from guerdon.scoring.engine import Engine as Engine
    from guerdon.scoring.files import load_tasks as load_tasks
    from guerdon.shaping import clip as clip
    from guerdon.shaping import shape as shape
    from guerdon.training.run import Result as Result
    from guerdon.training.run import train as train

_WHERE = {
    "guerdon.annotation.core": ("annotator",),
    "guerdon.annotation.verb": (("annotate", "annotate_file"),),
    "guerdon.envs.tools": ("Reply", "Turn", "tool"),
    "guerdon.evals.audit": ("audit",),
    "guerdon.evals.bench": ("bench",),
    "guerdon.evals.fitted": ("fit",),
    "guerdon.recipe": ("Recipe", ("read_recipe", "read")),
    "guerdon.registry": ("Broke", "Refused"),
    "guerdon.samples": ("Batch", "Context", "Rewards", "Sample", "Task", "Verdict", "collate"),
    "guerdon.scoring.engine": ("Engine",),
    "guerdon.scoring.files": ("load_tasks",),
    "guerdon.training.run": ("Result", "train"),
}  # fmt: skip
_NAMES = {
    (n if isinstance(n, str) else n[0]): (where, n if isinstance(n, str) else n[1]) for where, several in _WHERE.items() for n in several
}
_ROOMS = ("guerdon.rewards", "guerdon.shaping")
"""Every reward and every shape is a name here too."""


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        where, inside = _NAMES[name]
        return getattr(importlib.import_module(where), inside)
    for room in _ROOMS if not name.startswith("_") else ():
        module = importlib.import_module(room)
        if name in vars(module) and not isinstance(vars(module)[name], ModuleType):
            return vars(module)[name]
    raise AttributeError(f"module 'guerdon' has no attribute {name!r}")


def __dir__() -> list[str]:
    rooms = (vars(importlib.import_module(room)) for room in _ROOMS)
    return sorted({*_NAMES, *(n for names in rooms for n, x in names.items() if not (n.startswith("_") or isinstance(x, ModuleType)))})

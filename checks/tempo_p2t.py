"""TEMPO: answers that share their beginnings tell at which token the outcome was decided.

Six letters; at the second and the fifth four letters are chosen from, and an answer is right where both are the task's; at the other
places one letter is written nine times in ten, so that answers share their beginnings. Exact advantages by enumeration.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _tree_world import learn, truth, writer

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES, Tabular
from guerdon.credit import grpo, tempo
from guerdon.rewards import parse
from guerdon.rewards.core import reward
from guerdon.rollouts import parallel
from guerdon.samples import Context, Task, collate
from guerdon.scoring import Engine

CLAIM = (
    "over the starting policy's groups of 16, more than half of |A - A of GRPO| lies on the 2 planted places of 6, and the correlation of "
    "A with the exact advantage is at least 0.1 above GRPO's (every seed); 90% are solved after at most 0.9 of the updates (mean of seeds)"
)
BASELINE = "grpo"
METHOD = "tempo; without its key term, the difference of two prefixes' values, it is grpo again"
SEEDS = (0, 1, 2)
CREDIT = {"baseline": grpo, "method": tempo, "ablated": grpo}
LETTERS, SIZE, PLANTED = "abcd", 6, (1, 4)


@reward(inline=True)
def both_right(text: str, meta: dict) -> float:
    return float(len(text) == SIZE and all(text[at] == meta["right"][k] for k, at in enumerate(PLANTED)))


def chances(_: str, written: str) -> dict[str, float]:
    if len(written) in PLANTED:
        return dict.fromkeys(LETTERS, 0.25)
    return {"a": 0.9, "b": 0.04, "c": 0.03, "d": 0.03} if len(written) < SIZE else {"<end>": 1.0}


@backend(capabilities=CAPABILITIES)
def planted(path: str | None = None, trainable: bool = True) -> Tabular:
    return writer(LETTERS, chances, path, trainable)


def measure(variant: str, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    tasks = [Task(str(i), str(i), meta={"right": "".join(rng.choice(list(LETTERS), 2))}) for i in range(4)]
    model = planted()
    context = Context(models={"policy": model}, rng=rng)
    samples = parallel(model, [tasks[0]] * 64, 16, context, max_tokens=SIZE)
    with Engine(context, workers=1) as engine:
        batch = collate(samples, engine.score(parse("both_right"), samples))
    a, flat = CREDIT[variant](batch), grpo(batch)
    exact = np.stack(truth(model, tasks[0], lambda text: float(text[1:2] + text[4:5] == tasks[0].meta["right"]), samples, SIZE))
    off = (a - flat).abs().sum(0)
    rows = learn(
        "planted", tasks, "both_right", seed, train={"steps": 60, "samples": 16}, credit=CREDIT[variant].__name__,
        rollout={"use": "parallel", "max_tokens": SIZE},
    )  # fmt: skip
    solved = np.convolve([row["pass@1"] for row in rows if "pass@1" in row], np.ones(5) / 5, "valid")
    return {
        "value": int(np.argmax(solved >= 0.9)) + 5 if (solved >= 0.9).any() else 65,
        "mass": float(off[list(PLANTED)].sum() / off.sum().clamp(min=1e-9)),
        "correlation": float(np.corrcoef(a.numpy().ravel(), exact.ravel())[0, 1]),
    }


def holds(baseline: list[Any], method: list[Any]) -> bool:
    pairs = list(zip(baseline, method, strict=True))
    sharp = all(m["mass"] > 0.5 and m["correlation"] >= b["correlation"] + 0.1 for b, m in pairs)
    return sharp and sum(m["value"] for m in method) <= 0.9 * sum(b["value"] for b in baseline)

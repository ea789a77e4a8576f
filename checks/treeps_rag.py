"""TreePS-RAG: what a step is worth, from the leaves below it, where luck decides much of what comes after.

Two hops: the first looks up the right page (`g`) or a decoy, the second asks it well (`y`) or not; then luck decides: 0.9 and 0.2 of the
answers are right after a good question to the right page and to a decoy, 0.05 after a bad one. Exact advantages by enumeration.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _tree_world import at_steps, by_step, learn, truth, writer

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES, Tabular
from guerdon.credit import dr_grpo, treeps
from guerdon.rewards import parse
from guerdon.rewards.core import reward
from guerdon.rollouts import parallel, tree
from guerdon.samples import Context, Task, collate
from guerdon.scoring import Engine

CLAIM = (
    "over the starting policy's groups the correlation of a step's credit with its exact advantage is at least 0.1 above that of chains "
    "with dr_grpo (every seed), at 15 sampled steps a group against 16; after 20 updates the chance to be right is at least 0.03 higher "
    "(mean of seeds)"
)
BASELINE = "8 chains with dr_grpo"
METHOD = "a tree of 10 leaves below 5 first steps, with treeps; without its key term, values from the leaves: dr_grpo on that tree"
SEEDS = (0, 1, 2, 3, 4)
CREDIT = {"baseline": dr_grpo, "method": treeps, "ablated": dr_grpo}
LETTERS, SIZE = "gdeyn\n", 5
FIRST = {"g": 0.2, "d": 0.4, "e": 0.4}


def chance(text: str) -> float:
    """Of being right."""
    first, second = (text.split("\n") + ["", ""])[:2]
    return (0.9 if first == "g" else 0.2) if second == "y" else 0.05


LUCK = np.random.default_rng(0)


@reward(inline=True, pure=False)
def lucky_end(text: str) -> float:
    return float(LUCK.random() < chance(text))


@reward(inline=True)
def odds(text: str) -> float:
    return chance(text)


def chances(_: str, written: str) -> dict[str, float]:
    if written.endswith("\n") or not written:
        return FIRST if not written else {"y": 0.6, "n": 0.4} if written.count("\n") == 1 else {"<end>": 1.0}
    return {"\n": 1.0}


@backend(capabilities=CAPABILITIES)
def hops(path: str | None = None, trainable: bool = True) -> Tabular:
    return writer(LETTERS, chances, path, trainable)


def measure(variant: str, seed: int) -> dict[str, Any]:
    global LUCK
    rng, model, LUCK = np.random.default_rng(seed), hops(), np.random.default_rng([seed, 1])
    context = Context(models={"policy": model}, rng=rng)
    tasks = [Task(str(i), str(i)) for i in range(4)]
    if variant == "baseline":
        samples = parallel(model, [tasks[0]] * 64, 8, context, max_tokens=SIZE)
    else:
        samples = tree(model, [tasks[0]] * 64, 10, context, width=5, max_tokens=SIZE)
    with Engine(context, workers=1) as engine:
        batch = collate(samples, engine.score(parse("lucky_end"), samples))
    mine = np.concatenate(at_steps(CREDIT[variant](batch), batch, samples))
    exact = np.concatenate([by_step(x, s) for x, s in zip(truth(model, tasks[0], chance, samples, SIZE), samples, strict=True)])
    chains = variant == "baseline"
    rows = learn(
        "hops", tasks, "lucky_end", seed, train={"steps": 20, "samples": 8 if chains else 10}, credit=CREDIT[variant].__name__,
        rollout={"use": "parallel", "max_tokens": SIZE} if chains else {"use": "tree", "width": 5, "max_tokens": SIZE},
        aggregate="token_mean" if chains else "per_node", eval={"gold": "odds"},
    )  # fmt: skip
    gold = [row["eval/gold"] for row in rows if "eval/gold" in row]
    return {"value": gold[-1], "before": gold[0], "correlation": float(np.corrcoef(mine, exact)[0, 1])}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    truer = all(m["correlation"] >= b["correlation"] + 0.1 for b, m in zip(baseline, method, strict=True))
    return truer and float(np.mean([m["value"] for m in method])) >= float(np.mean([b["value"] for b in baseline])) + 0.03

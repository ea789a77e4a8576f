"""R3: the few tokens of a reference that the reasoning decides are heard above the many that it only makes a little more or less certain.

A table (`_thought_table`) picks a value and a style, then answers. The reference has 30 words: 3 hang on the value (0.9 after the right
one, 0.34 after another), 27 are predictable, but all of them less so in some styles than in others (0.98 to 0.67).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _thought_table import frame, learn, table, write

from guerdon.rewards import parse
from guerdon.rewards.core import reward
from guerdon.rollouts import parallel
from guerdon.samples import Context, Task
from guerdon.scoring import Engine

CLAIM = (
    "over the starting policy's groups of 16, the correlation of R3 with the right value is 0.8 or more and that of the mean "
    "log-probability 0.4 or less; after 15 steps the right value is thought at least 0.15 more often with R3 (every seed)"
)
BASELINE = "mean log-probability of the reference's tokens"
METHOD = "r3(quantile=0.9): weights sigma on the tenth of tokens with the largest; without its key term: all tokens weigh the same"
SEEDS = (0, 1, 2)
REWARDS = {"baseline": "log_prob(form='mean')", "method": "r3(quantile=0.9)", "ablated": "r3(weighted=False)"}
VALUES, STYLES = ["v0", "v1", "v2", "v3"], {"s0": 0.98, "s1": 0.88, "s2": 0.77, "s3": 0.67}
WORDS = ["a", "b", "c", "d", "e", "f"]
TOKENS, DECIDED = 30, (7, 15, 23)


@reward(inline=True)
def right_value(thinking: str, meta: dict) -> float:
    return float(thinking.split()[:1] == [meta["right"]])


def world(seed: int) -> tuple[Any, list[Task]]:
    rng = np.random.default_rng(seed)
    model = table([*VALUES, *STYLES, *WORDS])
    tasks = [Task(str(i), f"task {i}", " ".join(rng.choice(WORDS, TOKENS)), {"right": VALUES[(i + seed) % 4]}) for i in range(4)]
    for task in tasks:
        words = str(task.reference).split()
        for opening in frame(model, task, VALUES, list(STYLES)):
            decided = 0.9 if opening[1] == task.meta["right"] else 0.34
            for j, word in enumerate(words):
                share = decided if j in DECIDED else STYLES[opening[2]]
                write(model, task, [*opening, *words[:j]], {word: share}, ["</answer>"])
        for j in range(TOKENS):  # the masked thought
            write(model, task, ["<answer>", *words[:j]], {words[j]: 0.45 if j in DECIDED else 0.8}, ["</answer>"])
    return model, tasks


def correlation(model: Any, tasks: list[Task], expression: str, seed: int) -> float:
    """With the right value, of what is above the group's mean, over 16 groups of 16 a task."""
    context = Context(models={"policy": model}, rng=np.random.default_rng(seed))
    samples = parallel(model, tasks * 16, 16, context, max_tokens=40)
    with Engine(context, workers=1) as engine:
        x, y = (engine.score(parse(text), samples).total().reshape(-1, 16) for text in (expression, "right_value"))
    return float(np.corrcoef((x - x.mean(1, keepdims=True)).ravel(), (y - y.mean(1, keepdims=True)).ravel())[0, 1])


def measure(variant: str, seed: int) -> dict[str, Any]:
    model, tasks = world(seed)
    related = correlation(model, tasks, REWARDS[variant], seed)
    rows = learn(model, tasks, seed, reward=REWARDS[variant], train={"steps": 15}, eval={"gold": "right_value"})
    gold = [row["eval/gold"] for row in rows if "eval/gold" in row]
    return {"value": gold[-1], "before": gold[0], "correlation": related}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    pairs = list(zip(baseline, method, strict=True))
    heard = all(m["correlation"] >= 0.8 and b["correlation"] <= 0.4 for b, m in pairs)
    return heard and all(m["value"] >= b["value"] + 0.15 for b, m in pairs)

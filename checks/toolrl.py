"""ToolRL: credit for single parameters of a call teaches what the reward of exact calls alone hardly ever shows.

A small world of six tools with one to three parameters of four values each. The starting policy writes well-formed calls, otherwise at
random; a query asks for one call. Trained on the tabular backend through the real loop; every query has rows of its own in the table.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.samples import Task

CLAIM = (
    "after 60 updates the share of exact calls with fine matching is above that of exact-or-nothing by 0.15 or more in every seed, and at "
    "the first step fewer than 20 % of its groups have equal rewards, against more than 70 %"
)
BASELINE = "exact-or-nothing (coarse) matching"
METHOD = "fine matching; without its key term: credit for the tool's name and for the exact call, none for single parameters (intermediate)"
SEEDS = (0, 1, 2)
MATCHING = {"baseline": "coarse", "method": "fine", "ablated": "intermediate"}

TOOLS = {"ping": ["host"], "search": ["query", "site"], "weather": ["city", "day", "unit"], "mail": ["to", "subject", "body"],
         "book": ["hotel", "night", "guests"], "convert": ["amount", "into"]}  # fmt: skip
VALUES = ("a", "b", "c", "d")
CLOSE, COMMA = "}}\n</tool_call>", ","
OPEN = {tool: '<think></think>\n<tool_call>\n{"name": "' + tool + '", "parameters": {' for tool in TOOLS}
KEYS = sorted({key for keys in TOOLS.values() for key in keys})
VOCAB = [*OPEN.values(), *(f'"{key}": "{value}"' for key in KEYS for value in VALUES), COMMA, CLOSE]


def grammar() -> Iterator[tuple[list[str], list[str]]]:
    """Every beginning of a well-formed call, and the tokens that may follow: parameters in their order, as many as one likes."""
    yield [], list(OPEN.values())
    for tool, keys in TOOLS.items():
        for n in range(len(keys) + 1):
            for values in itertools.product(VALUES, repeat=n):
                written = [f'"{key}": "{value}"' for key, value in zip(keys, values, strict=False)]
                head = [OPEN[tool], *itertools.chain(*((word, COMMA) for word in written))]
                if n < len(keys):
                    yield head, [f'"{keys[n]}": "{value}"' for value in VALUES]
                if n:
                    yield head[:-1], [CLOSE] + [COMMA] * (n < len(keys))
                if n == 0:
                    continue
                yield [*head[:-1], CLOSE], ["<end>"]


def start(folder: Path, prompts: list[str]) -> None:
    """The starting policy, saved: 1/k on each of the k tokens that may follow, e^-8 of that on the others."""
    from guerdon.backends.tabular import tabular

    model = tabular(vocab=VOCAB)
    after = [(np.array([model.ids[word] for word in head], dtype=np.int64), follow) for head, follow in grammar()]
    for prompt in prompts:
        for head, follow in after:
            logits = np.full(len(model.names), -8.0)
            logits[[model.names.index(word) for word in follow]] = 0.0
            model.set_logits(np.concatenate([model.encode(prompt), head]), logits)
    model.save(folder)


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.training.run import train

    rng = np.random.default_rng(seed)
    tasks = []
    for i in range(12):
        tool = list(TOOLS)[i % len(TOOLS)]
        call = {"name": tool, "parameters": {key: str(rng.choice(VALUES)) for key in TOOLS[tool]}}
        tasks.append(Task(str(i), f"query {i}", [call]))
    with tempfile.TemporaryDirectory() as folder:
        start(Path(folder) / "start", [str(task.prompt) for task in tasks])
        run = train(
            models={"policy": {"backend": "tabular", "path": str(Path(folder) / "start"), "vocab": VOCAB}}, tasks=tasks, seed=seed,
            reward=f"tool_correct(matching='{MATCHING[variant]}')", correct="tool_correct(matching='coarse')",
            rollout={"use": "parallel", "max_tokens": 8}, folder=Path(folder) / "run",
            train={"steps": 60, "prompts": 12, "samples": 16, "lr": 0.2, "clip": None, "checkpoint_every": 1000, "samples_every": 1000},
        )  # fmt: skip
    exact = [row["pass@1"] for row in run.metrics if "pass@1" in row]
    spread = next(row["zero_spread"] for row in run.metrics if "zero_spread" in row)
    return {"value": float(np.mean(exact[-5:])), "first": exact[0], "equal groups at first": spread}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    better = all(m["value"] >= b["value"] + 0.15 for b, m in zip(baseline, method, strict=True))
    spread = max(m["equal groups at first"] for m in method) < 0.20 and min(b["equal groups at first"] for b in baseline) > 0.70
    return better and spread

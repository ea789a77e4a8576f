"""SATQuest: the verifier teaches to solve formulas; the small terms for tags alone teach tags.

A softmax table (backend `tabular`) answers 8 formulas of 3 variables and 6 clauses. At first it writes think and answer tags around three
bits about one time in six, and the bits at random. A table has a row a prompt and learns nothing that carries over, so what is measured is
the accuracy on the formulas it is trained on, and transfer to another wording is not.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _controls import shuffled  # noqa: F401  a shape of the expressions below

from guerdon.backends.tabular import tabular
from guerdon.samples import Task

CLAIM = (
    "the share of satisfying assignments rises from below 0.30 to above 0.60 with the verifier and the terms for tags, "
    "and stays below 0.60 when the verdicts are shuffled between samples"
)
BASELINE = "verdicts shuffled between the samples of a batch, with the terms for tags"
METHOD = "satquest + 0.05 * tag_count + 0.05 * tag_share; without its key term: the terms for tags alone"
SEEDS = (0, 1, 2)

VOCAB = ["<think>.</think>", "<answer>", "</answer>", "0", "1"]
TAGS = "0.05 * tag_count + 0.05 * tag_share"
REWARDS = {"baseline": f"(satquest | shuffled) + {TAGS}", "method": f"satquest + {TAGS}", "ablated": TAGS}


def write_policy(tasks: Sequence[Task], path: Path) -> None:
    """The table at the start: what the form asks for next has 2.5 more logits than the rest."""
    policy = tabular(vocab=VOCAB)
    think, answer, close, zero, one, end = range(6)
    for task in tasks:
        prompt = policy.encode(task.prompt)
        for written, right in [([], [think]), ([think], [answer])]:
            policy.set_logits(np.array([*prompt, *written]), [2.5 * (token in right) for token in range(6)])
        for bits in itertools.chain(*(itertools.product((zero, one), repeat=k) for k in range(4))):
            right = [close] if len(bits) == 3 else [zero, one]
            policy.set_logits(np.array([*prompt, think, answer, *bits]), [2.5 * (token in right) for token in range(6)])
            if len(bits) == 3:
                policy.set_logits(np.array([*prompt, think, answer, *bits, close]), [2.5 * (token == end) for token in range(6)])
    policy.save(path)


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.envs import satquest
    from guerdon.training.run import train

    tasks = satquest(8, ["SATSP"], ["math"], variables=(3, 3), clauses=(6, 6), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        write_policy(tasks, Path(folder) / "start")
        run = train(
            name="satquest", seed=seed, threads=1, tasks=tasks, reward=REWARDS[variant], correct="satquest",
            models={"policy": {"backend": "tabular", "path": str(Path(folder) / "start"), "vocab": VOCAB}},
            rollout={"use": "parallel", "max_tokens": 7},
            train={"steps": 60, "prompts": 8, "samples": 32, "lr": 0.3, "samples_every": 1000, "checkpoint_every": 1000},
            eval={"tasks": tasks, "every": 60, "samples": 32, "temperature": 1.0},
            folder=Path(folder) / "run",
        )  # fmt: skip
    accuracy = [row["eval/pass@1"] for row in run.metrics if "eval/pass@1" in row]
    return {"value": accuracy[-1], "before": accuracy[0]}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    before = max(found["before"] for found in method)
    return before < 0.30 and min(found["value"] for found in method) > 0.60 > max(found["value"] for found in baseline)

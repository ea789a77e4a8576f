"""RM-R1: a small judge that solves before it compares is right on pairs it never saw; reinforcement mends its solutions.

Twelve questions with five possible answers each, and three chats, whose right text has the style that was wished for. The judge is a table
(`tabular`) that sees, when it solves or writes a rubric, the request alone, and when it gives its verdict what it wrote and whether either
answer is that; where it writes nothing, the request and both answers. Its teacher's judgments have the right verdict, but their solutions
are wrong in half of the questions: there the verdict is the label's all the same. First it learns from these judgments of one pair a
request, then through the loop from `rm_r1_verdict` alone, on the same pairs, each in both orders. Tested on the other pairs.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _seeing import Seeing

from guerdon.backends.base import SamplingParams, backend
from guerdon.backends.tabular import END
from guerdon.rewards import rm_r1_verdict
from guerdon.rewards.verdicts import lessons
from guerdon.samples import Context, Sample, Task

CLAIM = (
    "right verdicts on pairs that were not trained on, means over the seeds: reasoning and reinforcement at least 5 points above reasoning"
    " taught alone, and that at least 5 points above verdicts alone with reinforcement; in every seed 95% of the type tags are right, and"
    " 90% of the pairs are judged alike in both orders"
)
BASELINE = "verdicts alone: the same pairs and the same reinforcement"
METHOD = "solve or state the criterion, then judge, then learn by rm_r1_verdict; without its key term, the reward: one that is always -1"
SEEDS = (0, 1, 2)
QUESTIONS, CHATS, VALUES, TAUGHT, RL = 12, 3, 5, 25, 80
ANSWERS, STYLES = [f"n{i}" for i in range(VALUES)], [f"style{i}" for i in range(CHATS)]
KINDS = {"q": "<type>Reasoning</type>", "c": "<type>Chat</type>"}
SAID = {a: f"<solution>{a}</solution>" for a in ANSWERS} | {s: f"<rubric>{s}</rubric>" for s in STYLES}
VERDICTS = {name: f"<answer>[[{name}]]</answer>" for name in "AB"}
OPENED: list[Seeing] = []
NAMES = [*KINDS.values(), *SAID.values(), *VERDICTS.values()]


def see(text: str) -> str:
    """The judge's view: `text` is the request, both answers, and what it has written."""
    request, _, a, _, b, *said = text.split()
    if not said:
        return f"{request} first {a} {b}" if request.endswith("direct") else f"{request} first"
    if said[-1].startswith("<answer>"):
        return "over"
    if said[-1].startswith("<type>"):
        return f"{request} second {said[-1]}"
    wrote = re.sub("<.*?>", "", said[-1])
    return f"verdict {wrote == a} {wrote == b}"


@backend
def small_judge_of_pairs(path: str | None = None, trainable: bool = True) -> Seeing:
    def bias(row: str) -> dict[str, float]:
        """A judge of verdicts alone says nothing else."""
        direct = {name: -30.0 for name in NAMES if "direct" in row and name not in VERDICTS.values()}
        return {END: 30.0 if row.strip() == "over" else -30.0, **direct}

    model = Seeing(NAMES, see, None, trainable, bias)
    if path is not None:
        model.load(Path(path))
    OPENED.append(model)
    return model


def world(seed: int, direct: bool) -> tuple[list[Task], list[Task]]:
    """Lessons of the pairs that are taught, with `meta.solution`, and of those that are held out."""
    rng = np.random.default_rng((seed, 3))
    truth = {f"q{i}": str(rng.choice(ANSWERS)) for i in range(QUESTIONS)} | {f"c{i}": STYLES[i] for i in range(CHATS)}
    thought = {
        q: str(rng.choice([x for x in ANSWERS if x != truth[q]])) if i < QUESTIONS // 2 else truth[q] for i, q in enumerate(truth)
    }  # the teacher's own solution
    taught, held = [], []
    for request, right in truth.items():
        wrong = [x for x in (ANSWERS if request[0] == "q" else STYLES) if x != right]
        first = int(rng.integers(len(wrong)))
        for k, other in enumerate(wrong):
            to = taught if k == first else held
            for task in lessons(f"{request}/{k}", request, right, other):
                shown = dict(re.findall(r"<<<(\w+) \w+\n(.*)\n", task.prompt[-1]["content"]))  # type: ignore[index]
                name = f"{request}direct" if direct else request
                prompt = f"{name} A {shown['answer_A']} B {shown['answer_B']}"
                end = VERDICTS[str(task.reference)]
                solution = end if direct else f"{KINDS[request[0]]} {SAID[thought[request]]} {end}"
                to.append(Task(task.id, prompt, task.reference, {"solution": solution}))
    return taught, held


def judged(model: Any, tasks: list[Task]) -> dict[str, float]:
    """The share of right verdicts, of pairs judged alike in both orders, of right type tags; greedy."""
    from guerdon.scoring import Engine

    found, _ = model.sample([model.encode(task.prompt) for task in tasks], 1, SamplingParams(6, 0.0))
    texts = [model.decode(c.ids)[0] for [c] in found]
    with Engine(Context(), workers=1) as engine:
        right = engine.score(rm_r1_verdict, [Sample(task, text) for task, text in zip(tasks, texts, strict=True)]).total() > 0
    kind = [KINDS[str(task.prompt)[0]] in text for task, text in zip(tasks, texts, strict=True)]
    return {
        "value": round(float(right.mean()), 4), "alike": round(float((right[::2] == right[1::2]).mean()), 4),
        "type": round(float(np.mean(kind)), 4),
    }  # fmt: skip


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.training.run import train

    direct = variant == "baseline"
    taught, held = world(seed, direct)
    size = {"prompts": 15, "checkpoint_every": 10_000, "samples_every": 10_000}
    stages: list[dict[str, Any]] = [
        {"rollout": "expert", "loss": "sft", "credit": None, "train": {**size, "steps": TAUGHT, "samples": 1, "lr": 0.1}},
        {
            "rollout": {"use": "parallel", "max_tokens": 6}, "loss": "ppo_clip", "credit": "grpo",
            "train": {**size, "steps": RL, "samples": 8, "lr": 0.2},
        },
    ]  # fmt: skip
    out = {}
    for part in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            train(
                name="judge", threads=1, seed=seed, tasks=taught, models={"policy": {"backend": "small_judge_of_pairs"}},
                reward="0 * rm_r1_verdict - 1" if variant == "ablated" else "rm_r1_verdict", stages=stages[:part],
                folder=Path(folder) / "run",
            )  # fmt: skip
        out = {**judged(OPENED[-1], held), **({"before": out["value"]} if out else {})}
    return out


def holds(baseline: list[Any], method: list[Any]) -> bool:
    sides = ([x["value"] for x in baseline], [x["before"] for x in method], [x["value"] for x in method])
    b, before, m = (float(np.mean(side)) for side in sides)
    return m >= before + 0.05 and before >= b + 0.05 and all(x["type"] >= 0.95 and x["alike"] >= 0.9 for x in method)

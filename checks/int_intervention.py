"""InT: one right step in the place of the first wrong one is imitated, and tasks that were never solved become tasks to learn from.

Sixteen tasks of four steps, a letter each, on a table. A step is right nine times in ten, but on twelve tasks one of the first three has a
fixed wrong letter in its place but for one time in ten thousand. Answers are right where every step is. The first wrong step is told right
85% of the time, else a step beside it; the policy itself is asked for the new one, and gives the right one 85% of the time.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES, END, Tabular
from guerdon.rewards import reward
from guerdon.rollouts import interventions, parallel
from guerdon.samples import Context, Grain, Rewards, Sample, Task

CLAIM = (
    "answers that go on from an intervention are right at least 10 times as often as those that go on from the wrong step; after "
    "interventions are imitated, the groups without an advantage in GRPO's first 5 steps are at most half as many; with 40 steps of GRPO "
    "behind it 80% of answers are right, which GRPO alone does not reach (every seed)"
)
BASELINE = "GRPO alone"
METHOD = "interventions imitated for 10 steps, then GRPO; without its key term, the new step: failed answers are imitated as they are"
SEEDS = (0, 1, 2)
LETTERS, STEPS, HARD, EVERY = "abcdefgh", 4, 12, 5
ROLL = {"max_tokens": 2 * STEPS + 1}
ASK = "?{prompt}{before}"


def tasks_of(seed: int) -> list[Task]:
    """`meta` has solution, hard (the step that fails, -1 for none) and slip (what is written in its place)."""
    rng, tasks = np.random.default_rng(seed), []
    for i in range(16):
        solution = [str(c) for c in rng.choice(list(LETTERS), STEPS, replace=False)]
        hard, slip = int(rng.integers(STEPS - 1)), str(rng.choice([c for c in LETTERS if c not in solution]))
        tasks.append(Task(str(i), f"{seed} {i}=", solution[-1], {"solution": solution, "hard": hard if i < HARD else -1, "slip": slip}))
    return tasks


@backend(capabilities=CAPABILITIES)
def solver(path: str | None = None, seed: int = 0, trainable: bool = True) -> Tabular:
    """The policy; to a prompt that begins with `?` it gives the step that belongs there."""
    tasks = {task.prompt: task.meta for task in tasks_of(seed)}
    names = [*LETTERS, "\n", END]

    def start(key: bytes) -> np.ndarray:
        ids = np.frombuffer(key, dtype="<u4").tolist()
        asked, _, written = "".join(names[i] if i < len(names) else chr(i - len(names)) for i in ids).partition("=")
        meta, at = tasks[asked.removeprefix("?") + "="], written.count("\n")
        p = np.full(len(names), 1e-9)
        if written and not written.endswith("\n"):
            p[names.index(END if at == STEPS - 1 else "\n")] = 1.0
        elif at < STEPS:
            slips = at == meta["hard"] and not asked.startswith("?")
            share = 1e-4 if slips else 0.85 if asked.startswith("?") else 0.9
            p[: len(LETTERS)] = 1e-3 if slips else (1 - share) / (len(LETTERS) - 1)
            p[names.index(meta["solution"][at])] = share
            p[names.index(meta["slip"])] = 0.99 if slips else p[names.index(meta["slip"])]
        return np.log(p)

    model = Tabular(names, "", False, trainable, 200_000, start)
    if path is not None:
        model.load(Path(path))
    return model


@reward(inline=True)
def chain_solved(text: str, meta: dict) -> float:
    return float(text == "\n".join(meta["solution"]))


@reward(inline=True, grain="step")
def chain_steps(steps: list[str], text: str, meta: dict) -> list[float]:
    """0 at the first wrong step, 1 at the others; of 15% of texts a step beside it is called the first."""
    wrong = [j for j, (step, right) in enumerate(zip(steps, meta["solution"], strict=False)) if step.strip() != right]
    first, slip = wrong[0] if wrong else -1, hashlib.blake2b(text.encode(), digest_size=1).digest()[0]
    if wrong and slip < 0.15 * 256:
        first = first + 1 if first + 1 < len(steps) and (slip % 2 or not first) else first - 1
    return [float(j != first) for j in range(len(steps))]


def going_on(seed: int) -> dict[str, float]:
    """How often 32 answers are right that go on from each intervention, and from the wrong step that it stands for."""
    model, tasks = solver(seed=seed), tasks_of(seed)[:HARD]
    context = Context(models={"policy": model}, rng=np.random.default_rng(seed), score=judge)
    found = [s for s in interventions(model, tasks, 4, context, prompt=ASK, step_tokens=1, **ROLL) if s.meta["intervened"]]
    right = {}
    for name, ends in (
        ("intervention", [s.text for s in found]),
        ("wrong step", [s.text[:-2] + s.task.meta["slip"] + "\n" for s in found]),
    ):
        begun = [Task(s.task.id, s.task.prompt + text, None, {**s.task.meta, "begun": text}) for s, text in zip(found, ends, strict=True)]
        answers = parallel(model, begun, 32, context, **ROLL)
        right[name] = float(np.mean([s.task.meta["begun"] + s.text == "\n".join(s.task.meta["solution"]) for s in answers]))
    kept = float(np.mean([s.text == "".join(f"{x}\n" for x in s.task.meta["solution"][: s.text.count("\n")]) for s in found]))
    return {
        "from the intervention": right["intervention"],
        "from the wrong step": right["wrong step"],
        "kept": len(found),
        "kept and right": kept,
    }


def judge(samples: Sequence[Sample]) -> Rewards:
    metas = [s.task.meta for s in samples]
    steps = [chain_steps.fn(s.steps, s.text, meta) for s, meta in zip(samples, metas, strict=True)]
    return Rewards(Grain.of([chain_solved.fn(s.text, meta) for s, meta in zip(samples, metas, strict=True)]), Grain.ragged(steps))


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.training.run import train

    tasks = tasks_of(seed)
    common = {"prompts": 16, "lr": 0.1, "samples_every": 1000, "checkpoint_every": 1000}
    learn = {"reward": "chain_solved", "rollout": {"use": "parallel", **ROLL}, "train": {**common, "steps": 40, "samples": 8}}
    imitate = {
        "reward": "chain_solved + chain_steps", "credit": None, "loss": {"use": "sft", "of": "expert"},
        "rollout": {"use": "interventions", "prompt": ASK, "step_tokens": 1, **ROLL},
        "train": {**common, "steps": 10, "samples": 4, "lr": 1.0},
    }  # fmt: skip
    if variant == "ablated":
        imitate |= {"rollout": {"use": "parallel", **ROLL}, "loss": {"use": "sft"}}
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            seed=seed, threads=1, models={"policy": {"backend": "solver", "seed": seed}}, tasks=tasks, correct="chain_solved",
            stages=[learn] if variant == "baseline" else [imitate, learn], folder=Path(folder) / "run",
            eval={"tasks": tasks, "every": EVERY, "samples": 16, "temperature": 1.0, "keep_best": False},
        )  # fmt: skip
    silent = np.mean([row["zero_spread"] for row in run.metrics if row["step"] and row["stage"] == (variant != "baseline")][:5])
    found = [row["eval/pass@1"] for row in run.metrics if "eval/pass@1" in row]
    more = going_on(seed) if variant == "method" else {}
    return {"value": found[-1], "before": found[0], "best": max(found), "silent groups": float(silent)} | more


def holds(baseline: list[Any], method: list[Any]) -> bool:
    pairs = list(zip(baseline, method, strict=True))
    silent = all(m["silent groups"] <= 0.5 * b["silent groups"] for b, m in pairs)
    helps = all(m["from the intervention"] >= 10 * m["from the wrong step"] for m in method if "kept" in m)
    return silent and helps and all(m["value"] >= 0.8 > b["best"] for b, m in pairs)

"""Noisy rewards: a verifier that is wrong about two tasks in five still teaches; patterns of reasoning repair a judge's false negatives.

Flips: a softmax table (backend `tabular`) that answers with one digit, right one time in four at first, is trained on 24 sums by a verifier
with whole groups flipped. Calibration: 2000 planted answers; those that are right use more patterns (10 on average, against 4), and a judge
misses a quarter of the right ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.backends.tabular import tabular
from guerdon.rewards import reward
from guerdon.rewards.patterns import PHRASES
from guerdon.samples import Context, Grain, Progress, Rewards, Sample, Task
from guerdon.scoring import Engine
from guerdon.shaping import flip, shape
from guerdon.spans import mark

CLAIM = (
    "with groups flipped at p = 0.4 and three times the steps the accuracy comes within 0.08 of that of clean rewards, the mean "
    "group-centred reward projects on the clean one by 0.2 within 0.1, and the calibrated judge correlates better with the truth in every "
    "seed with no score of 0.5 or more changed"
)
BASELINE = "clean rewards; the judge as it is"
METHOD = "flip(p=0.4), judge | calibrated(reasoning_patterns); without its key term: p = 0.5, and the patterns of other answers"
SEEDS = (0, 1, 2)

P = {"baseline": 0.0, "method": 0.4, "ablated": 0.5}
STEPS = {"baseline": 60, "method": 180, "ablated": 180}
JUDGES = {
    "baseline": "noted", "method": "noted | calibrated(reasoning_patterns)", "ablated": "noted | calibrated(reasoning_patterns | swapped)",
}  # fmt: skip


@reward(inline=True)
def noted(meta: dict) -> float:
    """The planted score."""
    return meta["score"]


@shape
def swapped(rewards: Rewards, samples: Sequence[Sample], context: Context) -> Rewards:
    """Every sample gets the value of another one."""
    order = np.random.default_rng(len(samples)).permutation(len(samples))
    return rewards.map(lambda g: g.value[order])


def train_on_flips(p: float, steps: int, seed: int) -> dict[str, float]:
    from guerdon.training.run import train

    tasks = [Task(f"{a}+{b}", f"{a}+{b} mod 4 =", str((a + b) % 4)) for a in range(6) for b in range(4)]
    policy = tabular(vocab="0123")
    for task in tasks:
        prompt = policy.encode(task.prompt)
        policy.set_logits(prompt, [0, 0, 0, 0, -6])
        for digit in range(4):
            policy.set_logits(np.array([*prompt, digit]), [0, 0, 0, 0, 6])
    with tempfile.TemporaryDirectory() as folder:
        policy.save(Path(folder) / "start")
        run = train(
            name="flips", seed=seed, threads=1, tasks=tasks, reward=f"exact | flip(p={p}, seed={seed})", correct="exact",
            models={"policy": {"backend": "tabular", "path": str(Path(folder) / "start"), "vocab": "0123"}},
            rollout={"use": "parallel", "max_tokens": 2},
            train={"steps": steps, "prompts": 24, "samples": 8, "lr": 0.05, "samples_every": 1000, "checkpoint_every": 1000},
            eval={"tasks": tasks, "every": steps, "samples": 16, "temperature": 1.0, "gold": "exact"},
            folder=Path(folder) / "run",
        )  # fmt: skip
    return {"value": run.metrics[-1]["eval/gold"], "before": run.metrics[0]["eval/gold"]}


def projection(p: float, seed: int) -> float:
    """Of the group-centred rewards, flipped, on the clean ones: 2000 groups of 4."""
    samples = [Sample(Task(f"t{i // 4}", "q"), "4", group=i // 4, marks={"answer": [(0, 1)]}) for i in range(8000)]
    clean = Rewards(Grain.of(np.random.default_rng(seed).integers(0, 2, len(samples))))
    noisy = flip(p, seed=seed).fn(clean, samples, Context(progress=Progress(1, 1)))
    a, b = (r.total().reshape(-1, 4) - r.total().reshape(-1, 4).mean(1, keepdims=True) for r in (clean, noisy))
    return float((a * b).sum() / (a * a).sum())


def planted(seed: int) -> tuple[list[Sample], np.ndarray]:
    """Answers and whether they are right."""
    rng = np.random.default_rng(seed)
    right = rng.random(2000) < 0.5
    missed = right & (rng.random(2000) < 0.25)
    scores = np.clip(rng.normal(np.where(right & ~missed, 0.75, 0.3), 0.1), 0, 1)
    samples = []
    for i in range(2000):
        said = rng.permutation(PHRASES)[: np.clip(round(rng.normal(10 if right[i] else 4, 3)), 0, len(PHRASES))]
        sample = Sample(Task(f"t{i}", "q", meta={"score": float(scores[i])}), " x ".join(said) + " x\nAnswer: 4", group=i, stop="end")
        mark(sample)
        samples.append(sample)
    return samples, right


def measure(variant: str, seed: int) -> dict[str, Any]:
    samples, right = planted(seed)
    with Engine(Context(), workers=1) as engine:
        before, after = (engine.score(JUDGES[name], samples).total() for name in ("baseline", variant))
    correlation = [float(np.corrcoef(x, right)[0, 1]) for x in (before, after)]
    return {
        **train_on_flips(P[variant], STEPS[variant], seed), "projection": projection(P[variant], seed), "correlation": correlation[1],
        "raised by": correlation[1] - correlation[0], "changed above": float(np.abs(after - before)[before >= 0.5].max()),
    }  # fmt: skip


def holds(baseline: list[Any], method: list[Any]) -> bool:
    clean, noisy = (np.mean([found["value"] for found in side]) for side in (baseline, method))
    project = all(abs(found["projection"] - 0.2) <= 0.1 for found in method)
    repaired = all(found["raised by"] > 0 and found["changed above"] == 0 for found in method)
    return bool(noisy >= clean - 0.08 and project and repaired)

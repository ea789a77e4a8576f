"""Accuracy against tokens, one policy a length reward.

The tiny policy, taught to waste tokens (`_wordy_policy`), works chains of two and three operations: lines are written up to five times, and
one line in eight is left out, which makes the next one hard. Every variant trains the same policy with the same credit on the same
tasks; what differs is what is paid for length. A chain worked once, without repetitions, takes some 14 tokens.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

LONG = True
SEEDS = (0, 1)
STEPS, LIMIT = 40, 64
REWARDS = {
    "none": "arithmetic",
    "overlong": f"arithmetic + overlong(limit={LIMIT // 2}, buffer={LIMIT // 4})",
    "z_length": "arithmetic | z_length",
    "kimi": "arithmetic | kimi_length",
    "laser": "arithmetic | laser(target=16)",
    "laser_d": "arithmetic | laser_d(target=16, lower=8, step=2, upper=40)",
    "top_lambda": "arithmetic | top_lambda",
    "always": "arithmetic | top_lambda(share=1)",
    "cosine": f"arithmetic | cosine_length(limit={LIMIT}, wrong_short=-1, exceeded=-1)",
    "hbpo": f"arithmetic | hbpo(limit={LIMIT})",
}
VARIANTS = tuple(REWARDS)
SHORTER = ("overlong", "z_length", "kimi", "laser", "laser_d", "always", "hbpo")
KEEP = ("laser_d", "top_lambda", "hbpo")
CLAIM = (
    f"{', '.join(SHORTER)} each write at most 0.75 of the tokens that no length reward ends with; {', '.join(KEEP)} keep its accuracy "
    "within 3 points; and none of laser, kimi and z_length is more accurate with as few tokens as laser_d"
)


def measure(variant: str, seed: int) -> dict[str, Any]:
    """value: accuracy on held-out chains, sampled at temperature 1; tokens: their mean number, the end token counted."""
    from _wordy_policy import BUDGETS, HINT, wordy_policy

    from guerdon.training.run import train

    chains = {"use": "arithmetic", "steps": [2, 3], "low": 1, "high": 9, "ops": "+-", "within": [0, 20]}
    rollout: dict[str, Any] = {"use": "parallel", "max_tokens": LIMIT}
    credit: Any = "grpo"
    if variant == "hbpo":
        rollout |= {"use": "budgets", "budgets": list(BUDGETS), "hint": HINT}
        credit = {"use": "hbpo", "limit": LIMIT}
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            name="length", seed=seed, threads=1, models={"policy": {"path": str(wordy_policy())}},
            tasks={**chains, "n": 4000}, reward=REWARDS[variant], correct="arithmetic", rollout=rollout, credit=credit,
            loss={"use": "ppo_clip", "clip": 0.2, "clip_high": 0.28},
            train={"steps": STEPS, "prompts": 16, "samples": 8, "lr": 2e-4, "schedule": "linear", "warmup": 5,
                   "samples_every": 1000, "checkpoint_every": 1000},
            eval={"tasks": {**chains, "n": 200, "split": "test"}, "every": STEPS, "samples": 2, "temperature": 1.0, "max_tokens": LIMIT,
                  "keep_best": False},
            folder=Path(folder) / "run",
        )  # fmt: skip
    points = [(row["step"], row["eval/pass@1"], row["eval/length"]) for row in run.metrics if "eval/pass@1" in row]
    return {"value": points[-1][1], "tokens": points[-1][2], "over": points}


def mean(found: dict[str, list[Any]], variant: str) -> tuple[float, float]:
    """(tokens, accuracy), each the mean over seeds."""
    seeds = found[variant]
    return sum(s["tokens"] for s in seeds) / len(seeds), sum(s["value"] for s in seeds) / len(seeds)


def front(points: dict[str, tuple[float, float]]) -> list[str]:
    """Those that no other beats in one of tokens and accuracy without losing in the other, by tokens."""
    best = [
        a for a, (t, acc) in points.items()
        if not any(u <= t and other >= acc and (u, other) != (t, acc) for u, other in points.values())
    ]  # fmt: skip
    return sorted(best, key=lambda name: points[name])


def holds(found: dict[str, list[Any]]) -> bool:
    points = {variant: mean(found, variant) for variant in VARIANTS}
    tokens, accuracy = points["none"]
    shorter = all(points[name][0] <= 0.75 * tokens for name in SHORTER)
    keeps = all(points[name][1] >= accuracy - 0.03 for name in KEEP)
    t, acc = points["laser_d"]
    return shorter and keeps and not any(points[n][0] <= t and points[n][1] > acc for n in ("laser", "kimi", "z_length"))


def report(found: dict[str, list[Any]], folder: Path) -> str:
    points = {variant: mean(found, variant) for variant in VARIANTS if found.get(variant)}
    best = front(points)
    picture(found, points, best, folder / "length_rewards.png")
    lines = [f"{'':12} {'accuracy':>8} {'tokens':>7}   each seed: accuracy at tokens"]
    for name, (tokens, accuracy) in sorted(points.items(), key=lambda item: item[1]):
        seeds = ", ".join(f"{s['value']:.3f} at {s['tokens']:.1f}" for s in found[name])
        lines.append(f"{name:12} {accuracy:8.3f} {tokens:7.1f}   {seeds}{'   on the front' if name in best else ''}")
    start = found["none"][0]["over"][0]
    return "\n".join([*lines, f"before training: {start[1]:.3f} at {start[2]:.1f}"])


def picture(found: dict[str, list[Any]], points: dict[str, tuple[float, float]], best: list[str], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5.5))
    axes.plot(*zip(*(points[name] for name in best), strict=True), color="0.75", zorder=0, label="Pareto front of the means")
    for i, (name, (tokens, accuracy)) in enumerate(sorted(points.items(), key=lambda item: item[1][1])):
        colour, right = plt.get_cmap("tab20")(i), i % 2 == 0  # neighbours have their names on different sides
        axes.scatter([s["tokens"] for s in found[name]], [s["value"] for s in found[name]], s=14, color=colour, alpha=0.6)
        axes.scatter([tokens], [accuracy], s=60, color=colour, edgecolor="black" if name in best else "none", label=name)
        side = {"xytext": (7, 0), "ha": "left"} if right else {"xytext": (-7, 0), "ha": "right"}
        axes.annotate(name, (tokens, accuracy), **side, textcoords="offset points", fontsize=8, va="center")
    axes.set(xlabel="tokens an answer (held-out chains, temperature 1)", ylabel="accuracy")
    axes.set_title(f"Length rewards after {STEPS} steps: large points are means of {len(found['none'])} seeds")
    axes.legend(fontsize=7, ncol=2)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)

"""PAR: a reward squashed against what the reference gets stops paying before the proxy's tail is worth looking for.

A bandit on the tabular backend, through the real loop: four prompts, each with 24 ordinary answers (quality normal, deviation 2, which the
proxy sees) and four exploits that the starting policy seldom writes (e^-3 of the others), worth -2, to which the proxy adds 3 and four
times a tail of two degrees of freedom. Each prompt has an offset of its own (deviation 6), as learned rewards have.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.rewards import reward
from guerdon.samples import Task

CLAIM = (
    "of the gain in worth that is attainable PAR makes at least half, 0.2 or more above the raw proxy, and ends at most 0.05 below its "
    "best; the raw proxy ends 0.10 or more below its best; one reference answer does as well as ten within 0.05; means over the seeds"
)
BASELINE = "the raw proxy"
METHOD = "par; without its key term, the reference: squash (an uncentred sigmoid)"
SEEDS = (0, 1, 2)
PROMPTS, ORDINARY, EXPLOITS = 4, 24, 4
REWARDS = {"baseline": "bandit_proxy", "method": "bandit_proxy | par(samples=10, max_tokens=1)", "ablated": "bandit_proxy | squash"}
WORDS = [f"answer{i}" for i in range(ORDINARY)] + [f"exploit{i}" for i in range(EXPLOITS)]
TABLES: dict[str, np.ndarray] = {}


@reward(inline=True)
def bandit_proxy(text: str, prompt: str) -> float:
    return float(TABLES["proxy"][int(prompt), WORDS.index(text)])


@reward(inline=True)
def bandit_worth(text: str, prompt: str) -> float:
    return float(TABLES["worth"][int(prompt), WORDS.index(text)])


def plant(seed: int) -> None:
    rng = np.random.default_rng(seed)
    quality = 2 * rng.normal(size=(PROMPTS, ORDINARY + EXPLOITS))
    TABLES["worth"] = quality.copy()
    TABLES["worth"][:, ORDINARY:] = -2.0
    TABLES["proxy"] = quality + 6 * rng.normal(size=(PROMPTS, 1))
    TABLES["proxy"][:, ORDINARY:] += 3 + 4 * np.abs(rng.standard_t(2, (PROMPTS, EXPLOITS)))


def gain(expression: str, seed: int) -> np.ndarray:
    """The worth of every step's answers, 0 at the start and 1 where each prompt gets its best answer."""
    from guerdon.training.run import train

    plant(seed)
    bias: dict[str, float] = {word: -3.0 for word in WORDS[ORDINARY:]} | {"<end>": -20.0}
    table = {"backend": "tabular", "vocab": WORDS, "bias": bias}
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            name="par", threads=1, seed=seed, tasks=[Task(str(i), str(i)) for i in range(PROMPTS)],
            models={"policy": table, "reference": {"of": "policy"}, "critic": {**table, "head": "scalar"}},
            reward=f"({expression}) + 0 * bandit_worth", correct="bandit_worth", rollout={"use": "parallel", "max_tokens": 1},
            credit="gae", critic={"lr": 0.1}, kl={"coefficient": 0.05}, folder=Path(folder) / "run",
            train={"steps": 300, "prompts": PROMPTS, "samples": 32, "lr": 0.03, "checkpoint_every": 10_000, "samples_every": 10_000},
        )  # fmt: skip
    worth = np.array([row["reward/bandit_worth"] for row in run.metrics if "reward/bandit_worth" in row])
    start = np.average(TABLES["worth"], axis=1, weights=np.exp([bias.get(word, 0.0) for word in WORDS])).mean()
    return (worth - start) / (TABLES["worth"].max(1).mean() - start)


def measure(variant: str, seed: int) -> dict[str, Any]:
    curve = np.convolve(gain(REWARDS[variant], seed), np.full(10, 0.1), "valid")
    found = {"value": round(float(curve[-1]), 4), "best": round(float(curve.max()), 4)}
    if variant == "method":
        found["one reference answer"] = round(float(gain("bandit_proxy | par(samples=1, max_tokens=1)", seed)[-10:].mean()), 4)
    return found


def holds(baseline: list[Any], method: list[Any]) -> bool:
    raw, par = ({key: float(np.mean([found[key] for found in side])) for key in side[0]} for side in (baseline, method))
    one = par.get("one reference answer", par["value"])
    return (
        par["value"] >= max(0.5, raw["value"] + 0.2) and par["value"] >= par["best"] - 0.05 and raw["value"] <= raw["best"] - 0.1
        and abs(one - par["value"]) <= 0.05
    )  # fmt: skip

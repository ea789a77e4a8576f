"""A policy that only decides how long to think, on the tabular backend, and tasks that need so much thinking.

Its vocabulary is one word of thought, the sentences that name a budget, and the end. It sees the difficulty of a task, not how long the
task itself needs: easy, medium and hard tasks need about 4, 9 and 20 words, each a different number. What it writes next is the sum of a
row that all difficulties share and one of its own, so what it learns on one difficulty spreads to the others, as in a network.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES, END, Tabular
from guerdon.rewards import reward
from guerdon.samples import Batch, Task

MOST = 40
"""Tokens of an answer at most; one that has no end by then is wrong."""
NEED = {"easy": 4, "medium": 9, "hard": 20}
BUDGETS = (5, 10, 20, 25)
WORDS = ["so", *(f"[{b}]" for b in BUDGETS)]


@reward(inline=True)
def enough(text: str, meta: dict[str, Any]) -> float:
    """1 where the thinking was as long as the task needs (and the answer has an end)."""
    thought = text.split().count("so")
    return float(meta["need"] <= thought < MOST)


def tasks_of(each: int, seed: int, shares: dict[str, int] | None = None) -> list[Task]:
    """`each` tasks a difficulty (times its share), whose needs are lognormal around the difficulty's, spread 0.25."""
    rng = np.random.default_rng((seed, 5))
    found = []
    for level, middle in NEED.items():
        for i in range(each * (shares or {}).get(level, 1)):
            need = int(np.clip(round(middle * np.exp(0.25 * rng.standard_normal())), 1, 30))
            found.append(Task(f"{level}/{i}", level, meta={"need": need, "level": level}))
    return found


class Thinker(Tabular):
    """logits(prefix) = row of the number of words + row of (difficulty, number of words) + row of (budget, number of words)."""

    def _features(self, key: bytes) -> list[bytes]:
        ids = np.frombuffer(key, dtype="<u4")
        prompt, budget = ids[ids > self.end], ids[(ids > 0) & (ids < self.end)][:1]
        words = np.count_nonzero(ids == 0)
        rows = [np.array([words]), np.append(prompt, words)] + [np.append(budget, words)] * len(budget)
        return [row.astype("<u4").tobytes() for row in rows]

    def _summed(self, look: Callable[[Sequence[bytes]], dict[str, torch.Tensor]], keys: Sequence[bytes]) -> dict[str, torch.Tensor]:
        features = [self._features(key) for key in keys]
        flat = [row for rows in features for row in rows]
        owner = torch.repeat_interleave(torch.arange(len(keys)), torch.tensor([len(rows) for rows in features], dtype=torch.long))
        logits = look(flat)["logits"]
        return {"logits": logits.new_zeros(len(keys), logits.shape[1]).index_add(0, owner, logits)}

    def _look(self, keys: Sequence[bytes]) -> dict[str, torch.Tensor]:
        return self._summed(super()._look, keys)

    def _outputs(self, batch: Batch, want: Sequence[str], temperature: float, look: Any) -> dict[str, torch.Tensor]:
        return super()._outputs(batch, want, temperature, look if look == self._look else lambda keys: self._summed(look, keys))


@backend(capabilities=CAPABILITIES)
def thinker(path: str | None = None, length: float = 16.0, spread: float = 0.4, trainable: bool = True) -> Thinker:
    """Lengths are lognormal around `length` words at first, whatever the difficulty; a budget of b words pulls the end towards b."""
    names = [*WORDS, END]
    grid = np.arange(MOST + 1)
    mass = np.exp(-0.5 * (np.log((grid + 0.5) / length) / spread) ** 2) / (grid + 0.5) + 1e-4
    hazard = mass / np.cumsum(mass[::-1])[::-1]

    def start(key: bytes) -> np.ndarray:
        row = np.frombuffer(key, dtype="<u4")
        words = min(int(row[-1]), MOST)
        logits = np.zeros(len(names))
        if len(row) == 1:
            logits[1:-1] = -30.0
            logits[-1] = np.log(hazard[words] / max(1 - hazard[words], 1e-3))
        elif row[0] < len(names):
            logits[-1] = np.clip(0.6 * (words - BUDGETS[int(row[0]) - 1]), -3.0, 3.0)
        return logits

    model = Thinker(names, " ", False, trainable, 200_000, start)
    if path is not None:
        model.load(Path(path))
    return model


def learn(
    reward: str, seed: int, steps: int, *, each: int = 4, shares: dict[str, int] | None = None, train: Any = None, **fields: Any
) -> tuple[dict[str, float], Any]:
    """Train, then judge 64 answers a task without a budget: accuracy and mean words, of all tasks and of each difficulty.

    peak: the best accuracy of ten training steps in a row. Returned beside them: the run.
    """
    from guerdon.backends.base import SamplingParams
    from guerdon.training import run as running
    from guerdon.training.prepare import load_tasks, prepare

    tasks = tasks_of(each, seed, shares)
    spec = {"steps": steps, "prompts": 12, "samples": 8, "lr": 0.05, "samples_every": 10_000, "checkpoint_every": 10_000, **(train or {})}
    recipe = {
        "name": "length", "seed": seed, "threads": 1, "models": {"policy": {"backend": "thinker"}}, "tasks": tasks, "reward": reward,
        "correct": "enough", "rollout": {"use": "parallel", "max_tokens": MOST}, "credit": "grpo", "train": spec, **fields,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        checked, path = prepare(None, (), Path(folder) / "run", None, recipe)
        run = running.Run(checked, path, load_tasks(checked))
        run.go()
        metrics = running.read_metrics(path)
    policy = run.models["policy"]
    written, _ = policy.sample([policy.encode(t.prompt) for t in tasks], 64, SamplingParams(MOST, seed=seed))
    words = np.array([[int((c.ids == 0).sum()) for c in several] for several in written])
    right = (words >= np.array([t.meta["need"] for t in tasks])[:, None]) & (words < MOST)
    level = np.array([t.meta["level"] for t in tasks])
    found = {"accuracy": right.mean(), "words": words.mean()}
    for name in NEED:
        found |= {f"accuracy/{name}": right[level == name].mean(), f"words/{name}": words[level == name].mean()}
    passed = [row["pass@1"] for row in metrics if "pass@1" in row]
    found["peak"] = max(np.convolve(passed, np.ones(10) / 10, "valid")) if len(passed) >= 10 else 0.0
    return {name: round(float(x), 4) for name, x in found.items()}, run

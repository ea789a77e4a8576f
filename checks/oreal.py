"""OREAL on answers of eight letters of which the third alone decides: the token reward model finds where it went wrong.

A table over states (how many letters, whether the third was right), the token reward model's too; three letters in four are wrong.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES, END, Tabular
from guerdon.rewards import reward
from guerdon.samples import Task

LETTERS, LENGTH, PLANTED = "abcd", 8, 2
WARM, STEPS = 15, 45
CLAIM = (
    "from the planted letter of wrong answers on the mean weight is over 3 times that before it (every seed), 90% are right after less "
    "than 0.75 of the updates of REINFORCE on +-1 (means over seeds), and no later ten updates are 3 points below the best ten (every seed)"
)
BASELINE = "REINFORCE on rewards of +-1"
METHOD = "oreal with its token reward model; without its key term: all tokens weigh the same (credit rloo)"
SEEDS = (0, 1, 2)


@reward(inline=True)
def planted(text: str) -> float:
    return float(text[PLANTED : PLANTED + 1] == "c")


class Letters(Tabular):
    """Its rows are states: (letters written, whether the planted one was right)."""

    def _look(self, keys: Any) -> dict[str, torch.Tensor]:
        return super()._look([_state(key, self.end) for key in keys])

    def _rows(self, keys: Any) -> torch.Tensor:
        return super()._rows([_state(key, self.end) for key in keys])


@functools.lru_cache(2**16)
def _state(key: bytes, end: int) -> bytes:
    if len(key) % 4:  # one already
        return key
    ids = np.frombuffer(key, dtype="<u4")
    letters = ids[ids < end]
    return bytes([len(letters), len(letters) > PLANTED and int(letters[PLANTED]) == 2, 0])


@backend(capabilities=CAPABILITIES)
def letters(path: str | None = None, head: str | None = None, trainable: bool = True) -> Letters:
    """All letters are equally likely, and it ends after eight."""

    def start(key: bytes) -> np.ndarray:
        return np.array([0.0] * len(LETTERS) + [30.0 if key[0] >= LENGTH else -30.0])

    model = Letters([*LETTERS, END], "", head == "scalar", trainable, 1000, start)
    if path is not None:
        model.load(Path(path))
    return model


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.training.record import tables
    from guerdon.training.run import train

    size = {"prompts": 8, "samples": 8, "lr": 0.05, "checkpoint_every": 1000, "samples_every": 5}
    fields: dict[str, Any] = {
        "reward": "2 * planted - 1", "credit": {"use": "two_term", "baseline": False}, "loss": "policy_gradient",
        "train": {**size, "steps": STEPS},
    }  # fmt: skip
    models: dict[str, Any] = {"policy": {"backend": "letters"}}
    if variant != "baseline":
        how = {"loss": "mean_ce", "lr": 0.2, "aggregate": "row_mean"}
        models |= {"reference": {"of": "policy"}, "token_rm": {"backend": "letters", "head": "scalar", "learn": how}}
        fields = {
            "reward": "planted", "keep": "one_each", "credit": "rloo" if variant == "ablated" else "oreal", "aggregate": "per_outcome",
            "loss": ["oreal", {"use": "kl", "coefficient": 0.005}], "train": size,
            "stages": [{"train": {"steps": WARM, "lr": 0.0}}, {"train": {"steps": STEPS}}],
        }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            name="letters", threads=1, seed=seed, tasks=[Task(str(i), "go") for i in range(8)], models=models, correct="planted",
            rollout={"use": "parallel", "max_tokens": LENGTH + 1}, folder=Path(folder) / "run", **fields,
        )  # fmt: skip
        rows = [row for path in tables(run.folder, "samples").values() for row in pq.read_table(path).to_pylist()]
    right = [row["pass@1"] for row in run.metrics if "pass@1" in row][-STEPS:]  # the policy stands still before
    means = np.convolve(right, np.ones(10) / 10, "valid")
    fell = float(max(np.maximum.accumulate(means) - means))
    updates = int(np.argmax(np.array(right) >= 0.9)) + 1 if max(right) >= 0.9 else STEPS + 1
    return {"value": updates, "fell": round(fell, 4)} | weights(rows)


def weights(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean |advantage| before the planted letter of wrong answers, and from it on, towards the end of the warm-up."""
    found = [np.abs(r["advantage"]) for r in rows if r["kept"] and 5 < r["step"] <= WARM and r["text"][PLANTED] != "c"]
    if not found:
        return {"before": 0.0, "from it on": 0.0}
    before, behind = (float(np.mean([a[part].mean() for a in found])) for part in (slice(0, PLANTED), slice(PLANTED, LENGTH)))
    return {"before": round(before, 4), "from it on": round(behind, 4)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    updates = [float(np.mean([s["value"] for s in side])) for side in (baseline, method)]
    found = all(m["from it on"] > 3 * m["before"] and m["fell"] <= 0.03 for m in method)
    return found and updates[1] < 0.75 * updates[0]

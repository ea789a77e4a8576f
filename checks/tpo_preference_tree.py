"""TPO: all branches of a tree teach more than its best and its worst.

Paths of five turns on `tabular` (four tasks, two turns to choose from at each line), graded by the share of lines that turn as the path
does. Groups of 5, 40 updates against a frozen reference. The table is given hidden states, a fixed vector for each place and last word.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _exploit_world import paths
from scipy.stats import kendalltau

from guerdon.backends.base import SamplingParams, backend
from guerdon.backends.tabular import CAPABILITIES, END, Start, Tabular
from guerdon.rewards import reward
from guerdon.samples import Batch, Sample

CLAIM = (
    "after 40 updates Kendall's tau between h (mean log-ratio) and the grade, over fresh answers of the policy before training, is above "
    "0.8 with TPO and below 0.6 with DPO on best and worst, and the mean share of right lines 5 points higher (means of the seeds)"
)
BASELINE = "dpo on the best and the worst of each group"
METHOD = "tpo on whole groups; without its key term, the list: tpo on the best and the worst alone"
SEEDS = (0, 1, 2)
LINES, WORDS = 5, ["left\n", "right\n"]
POLICY: list[Any] = []


class Sighted(Tabular):
    """A table whose states have a vector: of the place, and of the word before it."""

    def _outputs(self, batch: Batch, want: Any, temperature: float, look: Any) -> dict[str, torch.Tensor]:
        out = super()._outputs(batch, [name for name in want if name != "hidden"], temperature, look)
        if "hidden" in want:
            table = torch.from_numpy(np.random.default_rng(0).normal(size=(64, len(self.names) + 1, 8)))
            before = torch.nn.functional.pad(batch.ids[:, :-1], (1, 0), value=len(self.names)).clamp(max=len(self.names))
            out["hidden"] = table[torch.arange(batch.ids.shape[1])[None], before]
        return out

    def _check(self, piece: str, want: Any, offered: Any = ("logprobs", "entropy", "logits", "values", "hidden")) -> None:
        super()._check(piece, want, offered)


@backend(capabilities=CAPABILITIES | {"hidden"})
def sighted(path: str | None = None, trainable: bool = True) -> Sighted:
    model = Sighted([*WORDS, END], " ", False, trainable, 200_000, Start((0.0, 0.0, -30.0)))
    model.capabilities = model.capabilities | {"hidden"}
    return model


@reward(inline=True)
def right_lines(sample: Sample, policy: Any) -> float:
    POLICY[:] = [policy]
    said, path = sample.text.split(), str(sample.task.reference).split()
    return sum(a == b for a, b in zip(said, path, strict=False)) / LINES


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.training.run import train

    tasks = paths(LINES, 4, seed)
    terms: dict[str, Any] = {"keep": "best_worst"} if variant != "method" else {}
    terms |= {"loss": "dpo", "aggregate": "pair_mean"} if variant == "baseline" else {"loss": "tpo", "aggregate": "row_mean"}
    with tempfile.TemporaryDirectory() as folder:
        train(
            seed=seed, threads=1, tasks=tasks, models={"policy": {"backend": "sighted"}, "reference": {"of": "policy"}}, credit=None,
            reward="right_lines", rollout={"use": "parallel", "max_tokens": LINES, "split": "lines"}, folder=Path(folder) / "run",
            train={
                "steps": 40, "prompts": 4, "samples": 5, "lr": 0.05, "max_refills": 0, "samples_every": 10_000, "checkpoint_every": 10_000,
            },
            **terms,
        )  # fmt: skip
    policy, before = POLICY[0], sighted()
    taus, right = [], []
    for task in tasks:
        prompt, params = policy.encode(task.prompt), SamplingParams(LINES, seed=seed + 1)
        path = [WORDS.index(word + "\n") for word in str(task.reference).split()]

        def spoken(model: Any, ids: np.ndarray, prompt: np.ndarray = prompt) -> float:
            logits = model.logits_at([np.concatenate([prompt, ids[:t]]) for t in range(len(ids))])
            return float(logits.log_softmax(-1)[range(len(ids)), ids].mean())

        fresh = [c.ids for c in before.sample([prompt], 64, params)[0][0]]
        grade = [sum(a == b for a, b in zip(ids.tolist(), path, strict=False)) / LINES for ids in fresh]
        taus.append(float(np.asarray(kendalltau([spoken(policy, ids) - spoken(before, ids) for ids in fresh], grade))[0]))
        written = [c.ids.tolist() for c in policy.sample([prompt], 64, params)[0][0]]
        right.append(np.mean([sum(a == b for a, b in zip(ids, path, strict=False)) / LINES for ids in written]))
    return {"value": round(float(np.mean(right)), 4), "tau": round(float(np.mean(taus)), 4)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    (b, b_tau), (m, m_tau) = ([float(np.mean([x[key] for x in side])) for key in ("value", "tau")] for side in (baseline, method))
    return m_tau > 0.8 and b_tau < 0.6 and m >= b + 0.05

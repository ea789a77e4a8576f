"""T-REG: token rewards that a model gives itself tell a preference loss which tokens the preference was about.

Answers of 32 words out of three on `tabular` (a row for each place, shared by all prefixes). At 8 places `a` is right and `b` wrong; the
other 24 do not matter. The reward is the share of these 8 that are right, less that of those wrong. The model that is asked for a better
and for a worse text likes `a` or `b` there, with noise everywhere. 5 answers a prompt, the best and the worst a pair; 6 updates of 2 pairs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES, END, Tabular
from guerdon.rewards import reward
from guerdon.samples import Sample, Task

CLAIM = (
    "after 6 updates beta log(pi / pi_ref) tells the right and the wrong tokens of the places that matter from all others with an AUC 0.1 "
    "higher than DPO's, and answers win against the reference's 0.05 more often (means of the seeds)"
)
BASELINE = "dpo"
METHOD = "t_reg with contrastive token rewards, alpha 0.5; without its key term, rewards of the right places: those of others"
SEEDS = (0, 1, 2)
LENGTH, MATTER, WORDS, BETTER, WORSE = 32, 8, ["a ", "b ", "c "], "+{prompt}", "-{prompt}"
POLICY: list[Any] = []


def places(seed: int, shifted: bool = False) -> np.ndarray:
    """Which places matter; shifted: as many others."""
    order = np.random.default_rng((seed, 6)).permutation(LENGTH)
    return order[MATTER : 2 * MATTER] if shifted else order[:MATTER]


class Places(Tabular):
    """One row for each number of tokens before the next."""

    def _look(self, keys: Sequence[bytes]) -> dict[str, torch.Tensor]:
        return super()._look([np.array([len(key)], dtype="<u4").tobytes() for key in keys])

    def _rows(self, keys: Sequence[bytes]) -> torch.Tensor:
        return super()._rows([np.array([len(key)], dtype="<u4").tobytes() for key in keys])


@backend(capabilities=CAPABILITIES)
def places_policy(path: str | None = None, trainable: bool = True) -> Places:
    return Places([*WORDS, END], "", False, trainable, 10_000, lambda key: np.array([0.0, 0.0, 0.0, -30.0]))


@backend(capabilities=CAPABILITIES)
def evaluator(path: str | None = None, trainable: bool = False, seed: int = 0, shifted: bool = False) -> Tabular:
    """Reads + or - in front of the prompt."""
    matter, noise = places(seed, shifted), np.random.default_rng((seed, 8)).normal(0, 0.3, (LENGTH, 2, 3))

    def start(key: bytes) -> np.ndarray:
        ids = np.frombuffer(key, dtype="<u4")
        better, at = int(ids[0]) == len(WORDS) + 1 + ord("+"), min(len(ids) - 2, LENGTH - 1)
        liking = np.array([2.0, -2.0, 0.0]) * (1 if better else -1) * (at in matter)
        return np.append(liking + noise[at, int(better)], -30.0)

    return Tabular([*WORDS, END], "", False, trainable, 10_000, start)


def share(text: str, seed: int) -> float:
    said = text.split()
    return sum((said[i] == "a") - (said[i] == "b") for i in places(seed) if i < len(said)) / MATTER


@reward(inline=True)
def matters(sample: Sample, policy: Any, seed: int = 0) -> float:
    POLICY[:] = [policy]
    return share(sample.text, seed)


def auc(score: np.ndarray, right: np.ndarray) -> float:
    ranks = rankdata(score)
    return float((ranks[right].sum() - right.sum() * (right.sum() + 1) / 2) / (right.sum() * (~right).sum()))


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.training.run import train

    models: dict[str, Any] = {"policy": {"backend": "places_policy"}, "reference": {"of": "policy"}}
    models["judge"] = {"backend": "evaluator", "seed": seed, "shifted": variant == "ablated"}
    text = f"matters(seed={seed})" + ("" if variant == "baseline" else f" + contrastive(model='judge', better='{BETTER}', worse='{WORSE}')")
    with tempfile.TemporaryDirectory() as folder:
        train(
            seed=seed, threads=1, tasks=[Task(str(i), str(i)) for i in range(2)], models=models, reward=text,
            correct=f"matters(seed={seed})",
            credit=None, keep="best_worst", aggregate="pair_mean", loss="dpo" if variant == "baseline" else {"use": "t_reg", "alpha": 0.5},
            rollout={"use": "parallel", "max_tokens": LENGTH}, folder=Path(folder) / "run",
            train={
                "steps": 6, "prompts": 2, "samples": 5, "lr": 0.1, "max_refills": 0, "samples_every": 10_000, "checkpoint_every": 10_000,
            },
        )  # fmt: skip
    policy, prompt, rng = POLICY[0], np.array([9]), np.random.default_rng(seed)
    logp = policy.logits_at([np.concatenate([prompt, np.zeros(i, int)]) for i in range(LENGTH)]).log_softmax(-1).numpy()[:, :3]
    implied, matter = logp + np.log(3), np.isin(np.arange(LENGTH), places(seed))
    right, wrong = (np.outer(matter, np.eye(3)[k]).astype(bool).ravel() for k in (0, 1))
    found = (auc(implied.ravel(), right) + auc(-implied.ravel(), wrong)) / 2
    drawn = np.stack([rng.choice(3, 2000, p=np.exp(row) / np.exp(row).sum()) for row in logp], 1)
    mine, theirs = ((x == 0).astype(int) - (x == 1) for x in (drawn[:, matter], rng.integers(0, 3, (2000, MATTER))))
    won = np.sign(mine.sum(1) - theirs.sum(1)) / 2 + 0.5
    return {"value": round(found, 4), "wins": round(float(won.mean()), 4)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    (b, b_wins), (m, m_wins) = ([float(np.mean([x[key] for x in side])) for key in ("value", "wins")] for side in (baseline, method))
    return m >= b + 0.1 and m_wins >= b_wins + 0.05

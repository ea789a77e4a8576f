"""Cooper: a word that a verifier overrates, whatever the question; a rule that is sure, of six questions in ten.

An answer is one of 16 words: four are right, eleven wrong, and one, the same for all questions, is the exploit. The verifier is a table
over (question, word), about right at first (log-odds of 1.5 with noise of 0.5), save that it shares one row for the exploit, at 4. The rule
knows the right words of six of ten questions. The assistant's wrong solutions are wrong words, the exploit in three of ten. The policy is a
table on `tabular`, trained through the real loop by GRPO; the verifier learns at ten times its rate, as in the release.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _judged import shown
from _seeing import Seeing

from guerdon.backends.base import backend
from guerdon.backends.scripted import Scripted
from guerdon.backends.tabular import END
from guerdon.rewards import reward
from guerdon.samples import Task

CLAIM = (
    "in every seed fewer than 10% of the last answers are the exploit, and on average the share of right answers is at least 3 points above"
    " that of the rule alone"
)
BASELINE = "the rule alone as reward"
METHOD = "verify_rm that learns from verified_pairs; without its key term, that learning: the verifier stays as it began"
SEEDS = (0, 1, 2)
QUESTIONS, N, RIGHT, RULED, STEPS = 10, 16, 4, 6, 120
EXPLOIT = "w0"
WORDS = [f"w{i}" for i in range(N)]


def world(seed: int) -> tuple[list[list[str]], dict[str, float]]:
    """The right words of each question, and what the verifier makes of each (question, word)."""
    rng = np.random.default_rng((seed, 5))
    right = [[WORDS[i] for i in rng.choice(np.arange(1, N), RIGHT, replace=False)] for _ in range(QUESTIONS)]
    odds = {f"q{q} {w}": (1.5 if w in right[q] else -1.5) + 0.5 * rng.standard_normal() for q in range(QUESTIONS) for w in WORDS[1:]}
    return right, odds | {EXPLOIT: 4.0}


@backend
def verifier_of_words(path: str | None = None, head: str = "scalar", seed: int = 0, trainable: bool = True) -> Seeing:
    """Sees the question and the last word of what it is shown."""

    def see(text: str) -> str:
        words = [w for w in text.split() if w[0] in "qw" and w[1:].isdigit()]
        return EXPLOIT if words[-1] == EXPLOIT else f"{next(w for w in words if w[0] == 'q')} {words[-1]}"

    model = Seeing(WORDS, see, world(seed)[1], trainable)
    if path is not None:
        model.load(Path(path))
    return model


@backend
def one_word(path: str | None = None, trainable: bool = True) -> Seeing:
    """A policy that says one word and ends."""

    def bias(row: str) -> dict[str, float]:
        return {END: -30.0} if len(row.split()) == 1 else {END: 30.0}

    model = Seeing(WORDS, lambda text: text, None, trainable, bias)
    if path is not None:
        model.load(Path(path))
    return model


@backend
def assistant_of_words(path: str | None = None, seed: int = 0, trainable: bool = False) -> Scripted:
    """Writes a wrong word in the place of the one that it is shown."""
    right, _ = world(seed)

    def says(messages: list[dict[str, Any]], rng: np.random.Generator) -> str:
        question = int(shown(messages)["problem"][1:])
        wrong = [w for w in WORDS[1:] if w not in right[question]]
        return EXPLOIT if rng.random() < 0.3 else str(rng.choice(wrong))

    return Scripted(says)


@reward(inline=True)
def ruled(text: str, reference: str) -> float:
    """1 where the rule knows that the word is right."""
    return float(text.strip() in reference.split())


@reward(inline=True)
def truly(text: str, meta: dict[str, Any]) -> float:
    return float(text.strip() in meta["right"])


@reward(inline=True)
def is_exploit(text: str) -> float:
    return float(text.strip() == EXPLOIT)


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.training.run import train

    right, _ = world(seed)
    tasks = [Task(str(q), f"q{q}", " ".join(right[q]) if q < RULED else "unknown", {"right": right[q]}) for q in range(QUESTIONS)]
    learn = {"loss": "bradley_terry", "lr": 0.5, "aggregate": "pair_mean", "on": {"use": "verified_pairs", "rule": "ruled"}}
    models: dict[str, Any] = {"policy": {"backend": "one_word"}}
    if variant != "baseline":
        models["assistant"] = {"backend": "assistant_of_words", "seed": seed}
        models["verify_rm"] = {"backend": "verifier_of_words", "seed": seed} | ({"learn": learn} if variant == "method" else {})
    text = "ruled" if variant == "baseline" else "verify_rm + 0 * ruled"
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            name="cooper", threads=1, seed=seed, tasks=tasks, models=models, reward=f"{text} + 0 * truly + 0 * is_exploit", credit="grpo",
            loss="ppo_clip", rollout={"use": "parallel", "max_tokens": 2}, correct="truly", folder=Path(folder) / "run",
            train={"steps": STEPS, "prompts": QUESTIONS, "samples": 16, "lr": 0.05, "samples_every": 10_000, "checkpoint_every": 10_000},
        )  # fmt: skip
    rows = [row for row in run.metrics if "pass@1" in row]
    found = np.array([row["pass@1"] for row in rows])
    best = float(np.convolve(found, np.ones(10) / 10, "valid").max())
    last = float(found[-10:].mean())
    exploit = float(np.mean([row["reward/is_exploit"] for row in rows[-10:]]))
    return {"value": round(last, 4), "exploit": round(exploit, 4), "below its best": round(best - last, 4)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    b, m = (float(np.mean([x["value"] for x in side])) for side in (baseline, method))
    return m >= b + 0.03 and all(x["exploit"] < 0.1 for x in method)

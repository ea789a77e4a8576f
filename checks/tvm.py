"""A value at every token from the shares of right answers that begin so, against the answer's own outcome at every token.

20 tasks of four places, each with a digit of 0 to 3. At each place one digit, hidden and its own by task, is a trap that dooms the answer;
a policy draws digits evenly, so that the value of every beginning is known: (3/4)^(places left), 0 behind a trap. Of each task 100 answers
are seen. A small new transformer learns them. Then a step beam of 2 by 4 is guided by what it says of beginnings.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from _tiny_words import tiny

from guerdon import fit
from guerdon.backends.base import Completion, SamplingParams, Usage
from guerdon.samples import Context, Sample, Task
from guerdon.scoring import Engine
from guerdon.search import beam

CLAIM = (
    "mean squared error of the values of all beginnings, behind each token, is below 0.02 and below half of that of outcomes (every seed); "
    "answers of a beam that it guides are right 5 points more often (mean of the seeds)"
)
BASELINE = "token_values on the own outcome of each answer, at each token"
METHOD = "token_values on the shares of prefix_values; without its key term, the beginnings in common: each answer is a group of its own"
SEEDS = (0, 1, 2)
TASKS, PLACES, DIGITS, EACH = 20, 4, 4, 100
DIGIT = [f"d{i}" for i in range(DIGITS)]


class Even:
    """Draws every digit evenly; one is a step. Tokens: digits and the end."""

    capabilities: frozenset[str] = frozenset()
    version = 0

    def encode(self, prompt: Any) -> np.ndarray:
        return np.array([DIGITS + 1 + int(prompt[1:])], dtype=np.int64)

    def decode(self, ids: np.ndarray) -> tuple[str, np.ndarray]:
        text = " ".join(DIGIT[i] for i in ids if i < DIGITS)
        ends = np.minimum(3 * np.cumsum(ids < DIGITS) - 1, len(text))
        return text, np.stack([np.append(0, ends[:-1])[: len(ids)], ends], 1)

    def sample(
        self, prefixes: Sequence[np.ndarray], n: int, params: SamplingParams, want: tuple[str, ...] = ()
    ) -> tuple[list[list[Completion]], Usage]:
        rng, out = np.random.default_rng(params.seed), []
        for prefix in prefixes:
            left = PLACES - (len(prefix) - 1)
            many = 1 if "\n" in params.stop and left > 1 else left
            drawn = rng.integers(0, DIGITS, (n, many))
            ids = [row if many < left else np.append(row, DIGITS) for row in drawn]
            out.append([Completion(row, np.zeros(len(row)), "stop" if many < left else "end", 0) for row in ids])
        return out, Usage(0, 0, 0)


def measure(variant: str, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    trap = rng.integers(0, DIGITS, (TASKS, PLACES))
    drawn = rng.integers(0, DIGITS, (TASKS, EACH, PLACES))
    right = (drawn != trap[:, None]).all(2)
    rows = [
        {"prompt": f"t{q}", "completion": " ".join(DIGIT[d] for d in drawn[q, i]), "label": float(right[q, i])}
        for q in range(TASKS)
        for i in range(EACH)
    ]
    module = vars(sys.modules["guerdon.reward_models.fit"])
    shares = module["prefix_values"]
    if variant == "baseline":
        module["prefix_values"] = lambda ids, outcomes, group: [np.full(len(row), y) for row, y in zip(ids, outcomes, strict=True)]
    elif variant == "ablated":
        module["prefix_values"] = lambda ids, outcomes, group: shares(ids, outcomes, range(len(ids)))
    with tempfile.TemporaryDirectory() as folder:
        model, tokens = tiny([f"t{q}" for q in range(TASKS)] + DIGIT, seed)
        model.save_pretrained(folder)
        tokens.save_pretrained(folder)
        file = Path(folder) / "rows.jsonl"
        file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        done = fit(
            name="tvm", seed=seed, model={"path": folder}, data=str(file), loss="token_values", held_out=0.0, folder=Path(folder) / "fit",
            train={"epochs": 25, "batch": 64, "lr": 5e-3, "schedule": "linear", "warmup": 10, "checkpoint_every": 10_000},
        )  # fmt: skip
        expression = f"reward_model(path='{done.folder}')"
        engine = Engine(Context(rng=rng), workers=1)
        root = engine.check(expression)

        def scorer(samples: list[Sample]) -> Any:
            return engine.score(root, samples)

        policy, seen = Even(), rng.integers(0, DIGITS, (TASKS, 8, PLACES))
        answers = [answer(policy, q, digits) for q in range(TASKS) for digits in seen[q]]
        said = scorer(answers).token.value[:, :PLACES].reshape(TASKS, 8, PLACES)
        alive = np.logical_and.accumulate(seen != trap[:, None], 2)
        value = alive * (1 - 1 / DIGITS) ** (PLACES - 1 - np.arange(PLACES))
        guided = [beam(Task(str(q), f"t{q}"), policy, scorer, width=2, expand=4, seed=seed, max_tokens=PLACES + 1) for q in range(TASKS)]
    worth = []
    for q, found in enumerate(guided):
        assert found.answer is not None
        assert found.answer.ids is not None
        worth.append((found.answer.ids[:PLACES] != trap[q]).all())
    return {"value": round(float(((said - value) ** 2).mean()), 5), "guided": round(float(np.mean(worth)), 4)}


def answer(policy: Even, task: int, digits: np.ndarray) -> Sample:
    """A whole answer, as the policy writes it."""
    text, offsets = policy.decode(digits)
    sample = Sample(Task(str(task), f"t{task}"), text, policy.encode(f"t{task}"), digits, offsets, np.ones(len(digits), dtype=bool))
    sample.stop = "end"
    return sample


def holds(baseline: list[Any], method: list[Any]) -> bool:
    guided = [float(np.mean([x["guided"] for x in side])) for side in (baseline, method)]
    closer = all(m["value"] < min(0.02, b["value"] / 2) for b, m in zip(baseline, method, strict=True))
    return closer and guided[1] >= guided[0] + 0.05

"""A reward head on a real, frozen language model: does what it learns from two models' answers tell right from wrong in two others'?

SmolLM2-135M reads GSM8K answers of four real models; its states behind each answer are computed once and cached. A head is fitted on the
answers of the two fine-tuned models to 600 problems, and tested on those of the two with a verifier to 300 other problems. AUC with a
bootstrap interval over problems, beside what length and the body's own likelihood know. Whatever comes out is what is written.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from bars import Bars

from guerdon.backends.local import local
from guerdon.reward_models.fit import Unit, batch_of, tokenise
from guerdon.reward_models.heads import one_behind
from guerdon.reward_models.layouts import Answer, Example
from guerdon.samples import Sample, Task
from guerdon.training.fit import open_model
from guerdon.training.fit import train as learn
from guerdon.training.fit_recipe import read

HERE = Path(__file__).parents[1]
TRAIN, TEST = ("6b_finetuning", "175b_finetuning"), ("6b_verification", "175b_verification")
PROBLEMS = (600, 300)
RECIPE = HERE / "recipes" / "fit-outcome-smollm2.yaml"


def rows(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(training rows, test rows): of other problems and other models."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    ids = sorted({row["id"] for row in found})
    chosen = [ids[i] for i in np.random.default_rng(0).permutation(len(ids))[: sum(PROBLEMS)]]
    learn, test = set(chosen[: PROBLEMS[0]]), set(chosen[PROBLEMS[0] :])
    return (
        [row for row in found if row["id"] in learn and row["model"] in TRAIN],
        [row for row in found if row["id"] in test and row["model"] in TEST],
    )


def states(every: list[dict[str, Any]], cache: Path, likely: bool) -> dict[str, dict[str, Any]]:
    """For each row, by id and model: the state behind its last token, its number of tokens and, where `likely`, its summed log-probability.
    Goes on where a run before was stopped; a prompt's answers stand in one batch, so that it is computed once."""
    known = torch.load(cache, weights_only=True) if cache.exists() else {}
    todo = [row for row in every if key(row) not in known]
    if not todo:
        return known
    model = local("smollm2", trainable=False)
    examples = [Example(row["prompt"] + "\n", [Answer(row["completion"], float(row["is_correct"]))]) for row in todo]
    units, _ = tokenise(model, examples, 1024)
    longest: dict[str, int] = {}
    for row, unit in zip(todo, units, strict=True):
        longest[row["id"]] = max(longest.get(row["id"], 0), unit.size)
    pairs = sorted(zip(todo, units, strict=True), key=lambda pair: (longest[pair[0]["id"]], pair[0]["id"]))
    started = time.time()
    for at in range(0, len(pairs), 32):
        some = pairs[at : at + 32]
        batch = one_behind(batch_of([u for _, u in some]))
        out = model.forward(batch, ("hidden", "logprobs") if likely else ("hidden",))[0]
        for i, (row, u) in enumerate(some):
            tokens = len(u.samples[0].ids)  # pyright: ignore[reportArgumentType]
            total = float(out["logprobs"][i].sum()) if likely else 0.0
            known[key(row)] = {"state": out["hidden"][i, tokens].clone(), "logprob": total, "tokens": tokens}
        torch.save(known, cache.with_suffix(".tmp"))
        cache.with_suffix(".tmp").replace(cache)
        print(f"    {at + len(some)} of {len(todo)} answers, {time.time() - started:.0f} s", flush=True)
    return known


def key(row: dict[str, Any]) -> str:
    return f"{row['id']}/{row['model']}"


def auc(scores: np.ndarray, right: np.ndarray) -> float:
    """The chance that a right answer scores above a wrong one, ties half."""
    ranks = np.unique(scores, return_inverse=True)[1]
    below = np.concatenate([[0], np.cumsum(np.bincount(ranks, ~right))])
    wrong = below[ranks] + (below[ranks + 1] - below[ranks]) / 2
    return float(wrong[right].mean() / (~right).sum())


def interval(scores: np.ndarray, right: np.ndarray, problem: np.ndarray, rounds: int = 1000) -> tuple[float, float]:
    """95 % of the AUC over bootstrap samples of the problems."""
    rng, members = np.random.default_rng(0), [np.flatnonzero(problem == p) for p in np.unique(problem)]
    found = []
    for _ in range(rounds):
        rows = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        found.append(auc(scores[rows], right[rows]))
    return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))


def fitted(train: list[dict[str, Any]], test: list[dict[str, Any]], known: dict[str, dict[str, Any]], head: str) -> tuple[Any, list[Any]]:
    """(scores of the test rows, the curve) of a head fitted on cached states by `guerdon fit`'s own driver."""
    spec = read({**yaml.safe_load(RECIPE.read_text()), "data": str(RECIPE), "head": head})
    model = open_model(spec)
    units = [
        Unit(
            [Sample(Task(row["id"], ""), "", np.zeros(1), np.zeros(1))],
            [float(row["is_correct"])],
            [[]],
            [],
            states=[known[key(row)]["state"][None]],
        )
        for row in train
    ]
    with tempfile.TemporaryDirectory() as folder:
        curve = learn(model, spec, units, Path(folder))
    with torch.no_grad():
        return model.head(torch.stack([known[key(row)]["state"] for row in test]))[:, 0].double().numpy(), curve


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE.parent / "shared" / "data" / "gsm8k_model_solutions.jsonl")
    parser.add_argument("--cache", type=Path, default=HERE / ".bench" / "reward_head.pt")
    given = parser.parse_args()
    given.cache.parent.mkdir(exist_ok=True)
    train, test = rows(given.data)
    states(train, given.cache, likely=False)
    known = states(test, given.cache, likely=True)
    bars = Bars("reward_head", ("torch", "transformers"))
    right = np.array([row["is_correct"] for row in test])
    problem = np.array([row["id"] for row in test])
    bars.note("answers_learnt", len(train))
    bars.note("answers_tested", len(test))
    bars.note("share_right_learnt", float(np.mean([row["is_correct"] for row in train])))
    bars.note("share_right_tested", float(right.mean()))
    tokens = np.array([known[key(row)]["tokens"] for row in test], dtype=float)
    logprob = np.array([known[key(row)]["logprob"] for row in test])
    linear, curve = fitted(train, test, known, "scalar")
    bars.note("loss_first_and_last", [curve[0]["loss"], curve[-1]["loss"]])
    scores = {
        "head": linear,
        "head_two_layers": fitted(train, test, known, "two_layer")[0],
        "short": -tokens,
        "likely_sum": logprob,
        "likely_mean": logprob / tokens,
    }
    for name, values in scores.items():
        low, high = interval(values, right, problem)
        bars.note(f"auc_{name}", auc(values, right))
        bars.note(f"auc_{name}_95", [round(low, 4), round(high, 4)])
    return bars.close()


if __name__ == "__main__":
    raise SystemExit(main())

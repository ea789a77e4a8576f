"""Think-RM: the pairwise advantage, where a judge sees only pairs, with noise that no single number explains; and a judge that thinks.

A policy over 20 answers. The judge says -3 to 3: four times the true difference, rounded, with its sign wrong once in five, and moved for
each pair by a lasting error of its own (so that preferences run in circles) and by a leaning to what it is shown first. Both orders are
asked. Groups of 4, 100 updates on `tabular`.

The judges of the second part are small new transformers, taught by `sft` on the same 1200 comparisons for 200 steps of 64: of two chains of
six additions modulo 3, the one that ends higher is better. One writes the sums on the way before its verdict, the other the verdict alone;
without the key term as many words are written, and they are always the same. Read by `think_rm(binary=True)`, 60 new pairs in both orders.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _bandit import learn, place

from guerdon.rewards import reward
from guerdon.rewards.pairwise import tournament
from guerdon.rewards.verdicts import lessons
from guerdon.samples import Context, Grain, Rewards, Sample, Task, Verdict, collate

CLAIM = (
    "after 100 updates the pairwise advantage reaches at least 95% of the best quality (mean of the seeds), and the win rate against one "
    "fixed answer with GRPO stays at 88% or less; the judge that writes its working is right on 10 points more of new pairs than the one "
    "that gives its verdict alone"
)
BASELINE = "the chance to be preferred to one fixed answer, credit grpo; a judge that gives the verdict alone"
METHOD = (
    "verdicts on all pairs of the group, credit pairwise; a judge that thinks; without its key terms: pairs with one of the group alone; a "
    "judge that writes words without content"
)
SEEDS = (0, 1, 2)
N, LEAN = 20, 1.0
LENGTH, MODULO, PAIRS, TESTS, STEPS, ROWS = 6, 3, 600, 60, 200, 64
OPERATIONS, SUMS = [[f"{word}{d}" for d in range(MODULO)] for word in ("plus", "is")]


def says(quality: np.ndarray, error: np.ndarray, i: int, j: int, rng: np.random.Generator) -> float:
    d = 4 * (quality[i] - quality[j]) + error[i, j] + LEAN
    d = -d if rng.random() < 0.2 else d
    return float(np.clip(np.sign(d) * max(1, round(abs(d))), -3, 3))


def world(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Quality (N,) in [0, 1], and the lasting error of each pair (N, N), antisymmetric."""
    rng = np.random.default_rng((seed, 7))
    error = np.triu(rng.normal(0, 0.7, (N, N)), 1)
    return rng.permutation(np.linspace(0, 1, N)), error - error.T


@reward(inline=True)
def judge_of_groups(group: list[Sample], rng: np.random.Generator, seed: int = 0, every: bool = True) -> list[Verdict]:
    quality, error = world(seed)
    return tournament(group, lambda a, b: says(quality, error, place(a), place(b), rng), references=None if every else 1, rng=rng)


@reward(inline=True)
def against_one(group: list[Sample], rng: np.random.Generator, seed: int = 0) -> list[float]:
    """1 where preferred to the middling answer, in a random order."""
    quality, error = world(seed)
    anchor, out = int(np.argsort(quality)[N // 2]), []
    for i in map(place, group):
        first = rng.random() < 0.5
        d = says(quality, error, i, anchor, rng) if first else -says(quality, error, anchor, i, rng)
        out.append(float(d > 0))
    return out


def measure(variant: str, seed: int) -> dict[str, Any]:
    text = f"against_one(seed={seed})" if variant == "baseline" else f"judge_of_groups(seed={seed}, every={variant == 'method'})"
    seen = learn(
        [Task("t", "q")], N, seed, reward=text, credit="grpo" if variant == "baseline" else "pairwise", loss="ppo_clip",
        train={"steps": 100, "samples": 4, "lr": 0.2},
    )  # fmt: skip
    quality = world(seed)[0]
    return {
        "value": round(float(seen[-1, 0] @ quality), 4), "entropy": round(float(-(seen[-1, 0] * np.log(seen[-1, 0])).sum()), 3),
        "judge": judge_of_chains(variant, seed),
    }  # fmt: skip


def chains(n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """n pairs (2, LENGTH), the better chain first."""
    found = rng.integers(MODULO, size=(10 * n, 2, LENGTH))
    ends = found.sum(-1) % MODULO
    return list(found[ends[:, 0] > ends[:, 1]][:n])


def spelled(chain: np.ndarray) -> str:
    return " ".join(OPERATIONS[d] for d in chain)


def judgments(pairs: list[np.ndarray], working: str) -> list[Task]:
    out = []
    for i, pair in enumerate(pairs):
        for task, order in zip(lessons(f"{i}", "Add.", *map(spelled, pair), judge="think_rm binary"), (pair, pair[::-1]), strict=True):
            sums = [SUMS[0 if working == "empty" else v] for v in (order.cumsum(1) % MODULO).ravel()]
            thought = " ".join([] if working == "none" else sums)
            text = f"<think>{thought}</think><rationale></rationale><answer>{task.reference}</answer>"
            out.append(Task(task.id, task.prompt, task.reference, {"solution": text}))
    return out


def judge_of_chains(variant: str, seed: int) -> float:
    """The share of new pairs, each in both orders, on which a judge taught so is right; a verdict that cannot be read is wrong."""
    import torch
    from _tiny_words import tiny

    import guerdon.losses  # noqa: F401  fills the registry
    from guerdon.backends.base import LossCall
    from guerdon.backends.local import local
    from guerdon.rewards import think_rm
    from guerdon.rollouts.expert import expert
    from guerdon.scoring import Engine

    rng = np.random.default_rng((seed, 11))
    causal, tokens = tiny([*OPERATIONS, *SUMS, "A", "B"], seed)
    tokens.add_tokens(["<think>", "</think>", "<rationale>", "</rationale>", "<answer>", "</answer>"])
    causal.resize_token_embeddings(len(tokens), mean_resizing=False)
    model = local((causal, tokens), device="cpu")
    working = {"baseline": "none", "method": "sums", "ablated": "empty"}[variant]
    samples = expert(model, judgments(chains(PAIRS, rng), working), 1, Context())
    batch = collate(samples, Rewards(Grain.of(np.zeros(len(samples)))))
    for step in range(STEPS):
        rows = torch.from_numpy(rng.choice(len(samples), ROWS, replace=False))
        model.forward_backward(batch.rows(rows), LossCall("sft", times=1 / ROWS))
        model.optim_step(3e-3 * min(1, (step + 1) / 20) * (1 - step / STEPS))
    tests = [Sample(Task(f"{i}", "Add."), spelled(c), group=i, stop="end") for i, pair in enumerate(chains(TESTS, rng)) for c in pair]
    with Engine(Context(models={"judge": model}), workers=1) as engine:
        found = engine.score(think_rm(binary=True, max_tokens=32), tests).outcome
    assert found is not None
    return round(float((found.value * found.scored)[::2].mean()), 4)


def holds(baseline: list[Any], method: list[Any]) -> bool:
    """The best quality is 1."""
    b, m = (float(np.mean([x["value"] for x in side])) for side in (baseline, method))
    alone, thinks = (float(np.mean([x["judge"] for x in side])) for side in (baseline, method))
    return m >= 0.95 and b <= 0.88 and thinks >= alone + 0.1

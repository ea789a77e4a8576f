"""Self-aligned reward: a sentence said again and a phrase that fits anywhere both lower it, since neither gains from the question.

SmolLM2-135M scores answers to templated word problems: concise and correct, with its last sentence said twice or six times, with a sentence
of filler. Text that repeats itself is likely behind any question, so that its likelihood alone rewards it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from guerdon.rewards.core import reward
from guerdon.samples import Context, Sample, Task

CLAIM = (
    "concise scores above said twice, above said six times, and said twice above filler (paired t-tests over 10 problems, p < 0.01 each, "
    "in every seed); with the questions shuffled the concise answers score at most half"
)
BASELINE = "every answer behind the question of another problem"
METHOD = "self_aligned; without its key term: -ppl(a | q), the perplexity without the question left out"
SEEDS = (0, 1, 2)
PROBLEMS = 10
FILLER = "It is always good to think about this step by step."
NAMES = ["Mia", "Tom", "Ana", "Ben", "Zoe", "Max", "Ivy", "Sam", "Lea", "Jon"]
THINGS = ["apples", "books", "marbles", "stamps", "coins", "shells", "pencils", "cards", "buttons", "stickers"]
STORIES = [
    ("{name} has {a} {things} and buys {b} more. How many {things} does {name} have now?", "+"),
    ("{name} had {a} {things} and gave {b} to a friend. How many {things} are left?", "-"),
    ("{name} fills {a} bags with {b} {things} each. How many {things} are in the bags?", "*"),
]


@reward(batch=True)
def unlikely(sample: list[Sample], model: Any = "policy") -> list[float]:
    """-ppl(a | q)."""
    from guerdon.rewards.likelihood import NONE, Forced, completion_ids, logprobs, prompt_ids

    found = logprobs(model, [Forced(prompt_ids(model, s), NONE, completion_ids(model, s)) for s in sample])
    return [-float(np.exp(-np.mean(values))) for values in found if isinstance(values, np.ndarray)]


def problems(seed: int) -> list[tuple[str, list[str]]]:
    """Questions, each with its concise answer, the same said twice, with filler, and said six times."""
    rng, found = np.random.default_rng(seed), []
    for i in range(PROBLEMS):
        story, sign = STORIES[i % len(STORIES)]
        name, things, a, b = rng.choice(NAMES), rng.choice(THINGS), int(rng.integers(12, 30)), int(rng.integers(3, 12))
        result = {"+": a + b, "-": a - b, "*": a * b}[sign]
        concise = f"{a} {sign} {b} = {result}. "
        end = f"There are {result} {things}."
        answers = [concise + end, f"{concise}{end} {end}", f"{concise}{end} {FILLER}", concise + " ".join([end] * 6)]
        found.append((story.format(name=name, things=things, a=a, b=b), answers))
    return found


def measure(variant: str, seed: int) -> dict[str, Any]:
    from scipy.stats import ttest_rel

    from guerdon.backends.local import local
    from guerdon.rewards import self_aligned
    from guerdon.scoring import Engine

    rows = problems(seed)
    questions = [question for question, _ in rows]
    if variant == "baseline":
        questions = questions[1:] + questions[:1]
    tasks = [Task(str(i), [{"role": "user", "content": question}]) for i, question in enumerate(questions)]
    samples = [Sample(task, text) for task, (_, answers) in zip(tasks, rows, strict=True) for text in answers]
    with Engine(Context(models={"policy": local("smollm2", trainable=False)}), workers=1) as engine:
        rewards = engine.score(unlikely if variant == "ablated" else self_aligned, samples)
    assert rewards.alive.all()
    concise, twice, filler, six = rewards.total().reshape(-1, 4).T
    found = {"value": concise.mean(), "said twice": twice.mean(), "filler": filler.mean(), "said six times": six.mean()}
    for name, x, y in (("p twice", concise, twice), ("p six", concise, six), ("p filler", twice, filler)):
        found[name] = ttest_rel(x, y, alternative="greater").pvalue  # pyright: ignore
    return {name: float(value) for name, value in found.items()}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    ordered = all(found[name] < 0.01 for found in method for name in ("p twice", "p six", "p filler"))
    return ordered and all(b["value"] <= 0.5 * m["value"] for b, m in zip(baseline, method, strict=True))

"""RLPR: what a thought adds to the mean probability of the reference's tokens is a reward without a verifier.

Training: a table (`_thought_table`) picks a thought, then answers in two words. Four prompts are informative: each word has 0.98 after the
right one of four thoughts, 0.25 after another or none. Four are guessable: 0.97 whatever is thought, or nothing.
Scoring: SmolLM2-135M, 100 questions about people, each with a context that helps, that is about something else, or that misleads; half of
the references are a word, half a sentence in other words than the context's (once, with the first seed of the method).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _thought_table import DONE, frame, learn, table, write

from guerdon.rewards import parse
from guerdon.rewards.reference import reference_logprobs
from guerdon.rollouts import parallel
from guerdon.samples import Context, Sample, Task
from guerdon.scoring import Engine
from guerdon.spans import mark

CLAIM = (
    "accuracy after 30 steps is at least 90% of that of exact match, and informative prompts get more than twice the mean reward of "
    "guessable ones at first (every seed); SmolLM2: AUROC of B - A, helpful against unrelated context, above 0.85, and on long references "
    "that of the mean probability above that of the product by more than 0.05"
)
BASELINE = "exact match"
METHOD = "rlpr, keep: std_filter; without its key term: debias=False"
SEEDS = (0, 1, 2)
REWARDS = {"baseline": "exact", "method": "rlpr", "ablated": "rlpr(debias=False)"}
THOUGHTS, WORDS = ["t0", "t1", "t2", "t3"], ["a", "b", "c", "d"]


def world(seed: int) -> tuple[Any, list[Task]]:
    rng = np.random.default_rng(seed)
    model, tasks = table([*THOUGHTS, *WORDS]), []
    for i in range(8):
        task = Task(str(i), f"task {i}", " ".join(rng.choice(WORDS, 2)), {"guessable": i >= 4})
        for opening in [*frame(model, task, THOUGHTS), ["<answer>"]]:
            share = 0.97 if task.meta["guessable"] else 0.98 if opening[1:2] == [THOUGHTS[i % 4]] else 0.25
            for prefix in ([], *([word] for word in WORDS)):
                write(model, task, [*opening, *prefix], {str(task.reference).split()[len(prefix)]: share}, WORDS)
            for first in WORDS:
                for second in WORDS:
                    write(model, task, [*opening, first, second], {DONE: 1.0})
                    write(model, task, [*opening, first, second, DONE], {"<end>": 1.0})
        tasks.append(task)
    return model, tasks


def measure(variant: str, seed: int) -> dict[str, Any]:
    model, tasks = world(seed)
    context = Context(models={"policy": model}, rng=np.random.default_rng(seed))
    samples = parallel(model, tasks, 64, context, max_tokens=10)
    with Engine(context, workers=1) as engine:
        rewards = engine.score(parse(REWARDS[variant]), samples).total()
    guessable = np.array([s.task.meta["guessable"] for s in samples])
    keep = [] if variant == "baseline" else [{"use": "std_filter", "start": 5}]
    rows = learn(model, tasks, seed, reward=REWARDS[variant], correct="exact", keep=keep, train={"steps": 30, "max_refills": 0}, eval={})
    accuracy = [row["eval/pass@1"] for row in rows if "eval/pass@1" in row]
    return {
        "value": accuracy[-1], "before": accuracy[0], "informative": float(rewards[~guessable].mean()),
        "guessable": float(rewards[guessable].mean()), "groups dropped at last": rows[-1]["dropped"] // 16,
    } | (auroc_of_contexts() if (variant, seed) == ("method", SEEDS[0]) else {})  # fmt: skip


CHOICES = [
    ["Lisbon", "Oslo", "Cairo", "Lima", "Kyoto", "Perth"], ["old clock", "silver ring", "wooden chair", "small drum"],
    ["Farid", "Greta", "Hugo", "Ines"], ["train", "bus", "boat", "bicycle"], ["Monday", "Tuesday", "Friday", "Sunday"],
]  # fmt: skip
CLAUSES = [
    ("In {1} {0} purchased a {2}.", "{0} bought a {2} in {1}"),
    ("{3} received it as a present.", "gave it to {3}"),
    ("The way back was by {4}.", "went home by {4}"),
    ("The family heard the story on {5}.", "told everyone about it on {5}"),
]
"""What the context tells, and the same in the words of the reference."""


def questions() -> list[tuple[Task, dict[str, str]]]:
    """A task with a context that helps, one that is about something else, and one that misleads."""
    rng = np.random.default_rng(0)

    def one_of(*words: str) -> str:
        return str(rng.choice(words))

    def draw(values: list[str], n: int) -> list[str]:
        return [str(x) for x in rng.choice(values, n, replace=False)]

    found = []
    for i in range(100):
        name = one_of("Anna", "Boris", "Clara", "Deniz", "Emeka")
        unrelated = f"The {one_of('river', 'bridge', 'market')} was {one_of('quiet', 'crowded', 'closed')} in the morning."
        if i % 2 == 0:
            thing = one_of("door", "bicycle", "scarf", "kitchen", "boat")
            right, wrong = draw(["green", "yellow", "purple", "white", "orange"], 2)
            texts = [f"{name} painted the {thing} {colour} last week." for colour in (right, wrong)]
            task = Task(str(i), f"Question: What colour is the {thing} of {name}?\n", right)
        else:
            facts = [draw(values, 2) for values in CHOICES]
            n = int(rng.integers(1, len(CLAUSES) + 1))  # one clause to four, so that the references differ in length
            texts = [" ".join(told for told, _ in CLAUSES[:n]).format(name, *(fact[k] for fact in facts)) for k in range(2)]
            reference = ", ".join(asked for _, asked in CLAUSES[:n]).format(name, *(fact[0] for fact in facts))
            task = Task(str(i), f"Question: What did {name} do on the journey?\n", reference)
        found.append((task, {"helpful": texts[0], "unrelated": unrelated, "misleading": texts[1]}))
    return found


def auroc_of_contexts() -> dict[str, Any]:
    from guerdon.backends.local import local

    model = local("smollm2", trainable=False)
    samples = [Sample(task, f"{text}\nThe answer is so.", stop="end") for task, texts in questions() for text in texts.values()]
    for sample in samples:
        mark(sample)
    with_thought = [np.exp(x) for x in reference_logprobs(model, samples) if isinstance(x, np.ndarray)]
    bare = [np.exp(x) for x in reference_logprobs(model, samples[::3], thought=False) if isinstance(x, np.ndarray)]
    long = np.array([len(x) >= 8 for x in bare])
    mean, product = (np.array([f(b) - f(bare[i // 3]) for i, b in enumerate(with_thought)]).reshape(-1, 3) for f in (np.mean, np.prod))
    return {
        "auroc": auroc(mean[:, 0], mean[:, 1]), "auroc against misleading": auroc(mean[:, 0], mean[:, 2]), "long": int(long.sum()),
        "auroc long": auroc(mean[long, 0], mean[long, 1]), "auroc long, product": auroc(product[long, 0], product[long, 1]),
    }  # fmt: skip


def auroc(good: np.ndarray, bad: np.ndarray) -> float:
    """The share of pairs in which the good one is above, ties counted half."""
    return float(((good[:, None] > bad).mean() + (good[:, None] >= bad).mean()) / 2)


def holds(baseline: list[Any], method: list[Any]) -> bool:
    learns = all(m["value"] >= 0.9 * b["value"] and m["informative"] > 2 * m["guessable"] for b, m in zip(baseline, method, strict=True))
    scored = method[0]
    return learns and scored.get("auroc", 1.0) > 0.85 and scored.get("auroc long", 1.0) > scored.get("auroc long, product", 0.0) + 0.05

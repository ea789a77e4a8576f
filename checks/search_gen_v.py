"""Search-Gen-V: nuggets see how much of the truth an answer states, and the verifier that labels them can be trained on R.

Answers: each of 200 has a reference of four to six facts of its own subject, each restated in other words, stated in part, contradicted or
left out; one in ten copies the reference. True coverage: the mean over facts of 1, 1/2, 0, 0. A rule of words stands for the verifier, and
errs on one label in twenty. Labels: a softmax table (`_states`) sees of each of three nuggets how far it is stated, wrongly in one case of
ten, and writes `<reasoning> seen </reasoning> LABEL | LABEL | LABEL`; at first it calls parts supported, and at times skips the reasoning.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from _judged import shown
from _states import States, learn

from guerdon.backends.base import backend
from guerdon.backends.scripted import Scripted
from guerdon.backends.tabular import CAPABILITIES
from guerdon.rewards import parse, reward
from guerdon.rewards.nuggets import FORMS, LABELS, f1, labels_of, listed, reasoned
from guerdon.rollouts import parallel
from guerdon.samples import Context, Sample, Task
from guerdon.scoring import Engine
from guerdon.spans import mark

CLAIM = (
    "the rank correlation of the nugget reward with true coverage is 0.9 or more and that of exact match below 0.4, and a verifier trained "
    "on R gains 0.10 or more of macro-F1 over its start (every seed)"
)
BASELINE = "exact match with the reference; the verifier trained on whether all labels are right"
METHOD = "nuggets; nugget_labels. Without their key terms: the reference as one nugget; R without F1 and EM"
SEEDS = (0, 1, 2)
NAMES = list(LABELS)
VALUES = {"colour": ["red", "blue", "green"], "size": ["big", "small", "tiny"], "age": ["old", "new", "ancient"],
          "taste": ["sweet", "sour", "salty"], "shape": ["round", "flat", "long"], "sound": ["loud", "low", "dull"]}  # fmt: skip
STEPS = 60


def fact(subject: str, name: str, value: str) -> str:
    return f"the {name} of {subject} is {value}"


def answers(seed: int, n: int = 200) -> tuple[list[Sample], np.ndarray]:
    """Answers and their true coverage."""
    rng, samples, coverage = np.random.default_rng((seed, 11)), [], []
    for i in range(n):
        names = rng.choice(list(VALUES), rng.integers(4, 7), replace=False)
        facts = {str(name): str(rng.choice(VALUES[name])) for name in names}
        reference, said, worth = [fact(f"s{i}", *pair) for pair in facts.items()], [], []
        for name, value in facts.items():
            kind = rng.choice(["full", "part", "against", "out"])
            other = str(rng.choice([v for v in VALUES[name] if v != value]))
            words = {"full": [name, value], "part": ["some", name], "against": [name, other], "out": []}[str(kind)]
            said += [f"s{i} has {' '.join(words)}"] if words else []
            worth.append({"full": 1.0, "part": 0.5}.get(str(kind), 0.0))
        copied = rng.random() < 0.1
        text = "; ".join(reference) if copied else "; ".join(rng.permutation(said)) or "unknown"
        task = Task(str(i), f"what is s{i} like?", "; ".join(reference), {"nuggets": reference})
        samples.append(Sample(task, text, group=i, stop="end"))
        mark(samples[-1])
        coverage.append(1.0 if copied else float(np.mean(worth)))
    return samples, np.array(coverage)


def label(statement: str, answer: str) -> str:
    """By words: a fact is supported where its attribute and value stand together, in part where the attribute stands without a value."""
    parts = []
    for piece in statement.split("; "):
        _, name, _, _, _, value = piece.split()
        pairs = [words[words.index(name) : words.index(name) + 2] for words in map(str.split, answer.split("; ")) if name in words]
        parts.append(1.0 if [name, value] in pairs or piece in answer else 0.5 if [name] in pairs else 0.0)
    some = 0.5 in parts or 0 < sum(parts) < len(parts)
    return NAMES[0] if min(parts) == 1 else NAMES[1] if some else NAMES[2]


def says(messages: Any, rng: np.random.Generator) -> str:
    texts = shown(messages)
    found = [label(line.split(". ", 1)[1], texts["answer"]) for line in texts["facts"].splitlines()]
    return json.dumps([str(rng.choice(NAMES)) if rng.random() < 0.05 else x for x in found])


def correlation(expression: str, seed: int, whole: bool) -> float:
    """Spearman's, of the reward with true coverage. whole: the reference is the only nugget."""
    from scipy.stats import spearmanr

    samples, truth = answers(seed)
    if whole:
        samples = [Sample(Task(s.task.id, s.task.prompt, s.task.reference), s.text, group=s.group, stop="end") for s in samples]
    with Engine(Context(models={"judge": Scripted(says)}), workers=1) as engine:
        value = engine.score(parse(expression), samples).total()
    return float(np.asarray(spearmanr(value, truth))[0])


@reward(inline=True)
def labels_f1(text: str, reference: list[str]) -> float:
    """Macro-F1 over the labels that occur; 0 for a list that does not fit."""
    found = labels_of(listed(text))
    each = [f1(name, found, reference) for name in NAMES] if len(found) == len(reference) else [0.0]
    return float(np.mean([x for x in each if x is not None]))


@reward(inline=True)
def labels_all(text: str, reference: list[str]) -> float:
    return float(labels_of(listed(text)) == reference)


@reward(inline=True)
def labels_form(text: str) -> float:
    return 0.2 * reasoned(text) + 0.1 * FORMS["pipe_separated"](listed(text))


def tasks(seed: int, n: int) -> list[Task]:
    rng, found = np.random.default_rng(seed), []
    for i in range(n):
        gold = rng.integers(0, 3, 3)
        seen = np.where(rng.random(3) < 0.1, rng.integers(0, 3, 3), gold)
        prompt, labels = " ".join(f"c{c}" for c in seen) + " ?", [NAMES[g] for g in gold]
        found.append(Task(f"{seed}/{i}", prompt, labels, {"label_format": "pipe_separated"}))
    return found


VOCAB = ["<reasoning>", "seen", "</reasoning>", "|", *NAMES, "c0", "c1", "c2"]
START = np.log([[0.8, 0.15, 0.05], [0.6, 0.3, 0.1], [0.1, 0.3, 0.6]])
"""The start's labels by how far a nugget is seen stated: fully, in part, not."""


@backend(capabilities=CAPABILITIES)
def labeller(path: str | None = None, trainable: bool = True) -> States:
    end = len(VOCAB)

    def rows(prompt: tuple[int, ...], written: tuple[int, ...]) -> list[tuple[int, ...]]:
        """By what was written last, and where a label is due by what is seen of its nugget."""
        done = sum(4 <= token < 7 for token in written)
        last = written[-1] + 1 if written else 0
        if 4 <= last - 1 < 7:
            return [(1, min(done, 3))]
        return [(2, min(done, 2), prompt[min(done, 2)])] if last in (3, 4) else [(0, last)]

    def start(row: tuple[int, ...]) -> np.ndarray:
        logits = np.full(end + 1, -15.0)
        if row[0] == 1:  # behind a label
            logits[3 if row[1] < 3 else end], logits[end if row[1] < 3 else 3] = 0.0, -2.5
        elif row[0] == 2:
            logits[4:7] = START[row[2] - 7]
        elif row[1] == 0:  # one in four skips the reasoning
            logits[0], logits[4:7] = 0.0, -2.2
        else:
            logits[row[1]] = 0.0
        return logits

    return States(VOCAB, rows, start, path)


def trained(expression: str, seed: int) -> tuple[float, float]:
    """Macro-F1 on questions that were not trained on, before and after."""
    held = tasks(seed + 1000, 64)
    samples = parallel(labeller(), held, 8, Context(rng=np.random.default_rng(seed)), max_tokens=12)
    before = np.mean([labels_f1.fn(s.text, s.task.reference) for s in samples])
    found = learn(
        "labeller", tasks(seed, 64), seed, reward=expression, rollout={"use": "parallel", "max_tokens": 12}, correct="labels_all",
        train={"steps": STEPS, "prompts": 8},
        eval={"tasks": held, "every": STEPS, "samples": 8, "temperature": 1.0, "gold": "labels_f1", "keep_best": False},
    )  # fmt: skip
    return float(before), found[-1]["eval/gold"]


def measure(variant: str, seed: int) -> dict[str, Any]:
    scored = {"baseline": "exact", "method": "nuggets", "ablated": "nuggets"}[variant]
    taught = {"baseline": "labels_all", "method": "nugget_labels", "ablated": "labels_form"}[variant]
    rank = correlation(scored, seed, variant == "ablated")
    before, after = trained(taught, seed)
    return {"value": round(rank, 4), "F1 before": round(before, 4), "F1 after": round(after, 4)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    ranks = all(m["value"] >= 0.9 and b["value"] < 0.4 for b, m in zip(baseline, method, strict=True))
    return ranks and all(m["F1 after"] >= m["F1 before"] + 0.10 for m in method)

"""Mixed rewards: similarity in both directions ranks captions as one direction cannot, and one run learns three kinds of task.

Captions: 100 sets of a caption of two clauses and four answers to it, over the embedding table of SmolLM2-135M. Training: a softmax table
(backend `tabular`) learns choices, boxes and captions in one run, each kind by its own reward; it starts out with the words of the right
kind, about one answer in three well formed.
"""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.backends.local import local
from guerdon.backends.tabular import tabular
from guerdon.envs.tiny import cache_folder
from guerdon.rewards.similarity import bmas
from guerdon.samples import Task

CLAIM = (
    "in at least 90 of 100 sets the reward ranks a paraphrase above the caption's first half, and above the caption with an invented "
    "clause, which ranks above another caption; in one run on three kinds of task each kind's own metric rises by 0.10 or more"
)
BASELINE = "Q alone: what the caption's words find in the answer"
METHOD = "bmas = (P + Q) / 2; without its key term, Q: P alone"
SEEDS = (0, 1, 2)

SAME = {
    "dog": "puppy", "car": "automobile", "boat": "ship", "house": "home", "child": "kid", "woman": "lady", "bike": "bicycle",
    "sofa": "couch", "road": "street", "stone": "rock", "shop": "store", "forest": "woods", "cup": "mug", "bag": "sack",
    "big": "large", "little": "small", "fast": "quick", "old": "ancient", "happy": "glad", "quiet": "silent",
}  # fmt: skip
NOUNS, ADJECTIVES = list(SAME)[:14], list(SAME)[14:]
VERBS = ["stands beside", "looks at", "moves past", "waits behind", "rests near"]

LETTERS, EDGES, NAMES = list("ABCD"), ["0", "4", "8", "12", "16"], ["dog", "car", "boat", "red", "blue", "sleeps", "moves"]
WORDS = {"choice": (LETTERS, 1), "box": (EDGES, 4), "caption": (NAMES, 3)}
VOCAB = [*LETTERS, *EDGES, *NAMES]
REWARD = '(choice | only("kind", "choice")) + (iou | only("kind", "box")) + (bmas(model="words") | only("kind", "caption"))'


def words_folder() -> Path:
    """SmolLM2-135M with its first layer alone, since only its embedding table is read; unpacked once, which takes half a minute."""
    path = cache_folder() / "smollm2-words"
    if not (path / "config.json").is_file():
        whole = local("smollm2", trainable=False)
        whole.causal.model.layers = whole.causal.model.layers[:1]
        whole.causal.config.num_hidden_layers = 1
        whole.save(path)
    return path


def clause(rng: random.Random) -> list[str]:
    one, two = rng.sample(NOUNS, 2)
    return [rng.choice(ADJECTIVES), one, rng.choice(VERBS), rng.choice(ADJECTIVES), two]


def say(clauses: Sequence[Sequence[str]]) -> str:
    return " ".join(f"The {a} {b} {verb} the {c} {d}." for a, b, verb, c, d in clauses)


def sets(seed: int) -> list[tuple[str, list[str]]]:
    """100 captions, each with its paraphrase (clauses in the other order, a synonym in each), first half, invention, another one."""
    rng = random.Random(seed)
    found = []
    for _ in range(100):
        caption, other, more = [clause(rng), clause(rng)], [clause(rng), clause(rng)], clause(rng)
        paraphrase = []
        for words in reversed(caption):
            at = rng.choice([0, 1, 3, 4])
            paraphrase.append([*words[:at], SAME[words[at]], *words[at + 1 :]])
        found.append((say(caption), [say(paraphrase), say(caption[:1]), say([*caption, more]), say(other)]))
    return found


def ranked(variant: str, seed: int) -> dict[str, float]:
    """Shares of sets in which each order holds."""
    model = local(words_folder(), trainable=False)
    rows = sets(seed)
    verdicts = bmas.fn([a for _, answers in rows for a in answers], [c for c, answers in rows for _ in answers], model)
    directions = [[float(part.split()[1]) for part in v.reason.split(", ")] for v in verdicts]  # "P 0.93, Q 0.91"
    column = {"baseline": [q for _, q in directions], "ablated": [p for p, _ in directions], "method": [v.value or 0.0 for v in verdicts]}
    paraphrase, half, invented, other = np.array(column[variant]).reshape(-1, 4).T
    orders = {"over half": paraphrase > half, "over invented": paraphrase > invented, "over other": invented > other}
    return {"value": float(np.all(list(orders.values()), axis=0).mean()), **{name: float(x.mean()) for name, x in orders.items()}}


def tasks_of(seed: int) -> list[Task]:
    rng = random.Random(seed)
    out = [Task(f"choice/{i}", f"question {i}", rng.choice(LETTERS), {"kind": "choice"}) for i in range(6)]
    for i in range(6):
        (x1, x2), (y1, y2) = (sorted(rng.sample(EDGES, 2), key=int) for _ in range(2))
        out.append(Task(f"box/{i}", f"where {i}", [int(x1), int(y1), int(x2), int(y2)], {"kind": "box"}))
    return out + [Task(f"caption/{i}", f"picture {i}", " ".join(rng.sample(NAMES, 3)), {"kind": "caption"}) for i in range(6)]


def write_policy(tasks: list[Task], path: Path) -> None:
    policy = tabular(vocab=VOCAB)
    for task in tasks:
        prompt = policy.encode(task.prompt)
        words, size = WORDS[task.meta["kind"]]
        own = [VOCAB.index(word) for word in words]
        for k in range(size + 1):
            right = [len(VOCAB)] if k == size else own
            logits = [3.0 * (token in right) for token in range(len(VOCAB) + 1)]
            for before in itertools.product(own, repeat=k):
                policy.set_logits(np.array([*prompt, *before]), logits)
    policy.save(path)


def gains(seed: int) -> dict[str, float]:
    import pyarrow.parquet as pq

    from guerdon.training.run import train

    tasks = tasks_of(seed)
    with tempfile.TemporaryDirectory() as folder:
        write_policy(tasks, Path(folder) / "start")
        run = train(
            name="mixed", seed=seed, threads=1, tasks=tasks, reward=REWARD,
            models={
                "policy": {"backend": "tabular", "path": str(Path(folder) / "start"), "vocab": VOCAB},
                "words": {"backend": "local", "path": str(words_folder())},
            },
            rollout={"use": "parallel", "max_tokens": 5},
            train={"steps": 40, "prompts": 18, "samples": 16, "lr": 0.2, "samples_every": 1000, "checkpoint_every": 1000},
            eval={"tasks": tasks, "every": 40, "samples": 16, "temperature": 1.0},
            folder=Path(folder) / "run",
        )  # fmt: skip
        first, last = (pq.read_table(path).to_pylist() for path in sorted((run.folder / "evals").glob("*.parquet")))
    return {f"{kind} {name}": mean(rows, kind) for kind in WORDS for name, rows in (("before", first), ("after", last))}


def mean(rows: list[dict[str, Any]], kind: str) -> float:
    return float(np.mean([row["reward"] for row in rows if row["task_id"].startswith(kind)]))


def measure(variant: str, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = ranked(variant, seed)
    return {**found, **gains(seed)} if variant == "method" else found


def holds(baseline: list[Any], method: list[Any]) -> bool:
    ranks = all(min(found[name] for name in ("over half", "over invented", "over other")) >= 0.9 for found in method)
    rise = all(found[f"{kind} after"] - found[f"{kind} before"] >= 0.10 for found in method for kind in WORDS if f"{kind} after" in found)
    return ranks and rise and all(found["over invented"] < 0.6 for found in baseline)

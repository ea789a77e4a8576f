"""An optimiser against the reward: it looks for text that earns much and is not true, and shows the best it found.

Truth is low by construction: a text in which the reference does not occur, in any notation that is looked for, cannot be an answer that
states it. So nothing that a grader says enters the search but the reward itself.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.evals.audit.cases import ANSWERS, FILLER, HOSTS, NUMBER, Case, _bare, to_number
from guerdon.evals.audit.grade import Grader
from guerdon.evals.audit.load import Loaded
from guerdon.evals.audit.pay import Scale
from guerdon.evals.audit.probes import INJECTED
from guerdon.registry import Broke, find
from guerdon.samples import Task

Genome = tuple[str, ...]
QUESTION, WRONG, HOSTED, WORDS = "<question>", "<wrong>", "<wrong, in form>", "<words of the question>"
"""Pieces that stand for something of the task."""

PIECES = (
    QUESTION, WRONG, HOSTED, WORDS, "\n", "\n\n", " ", ".", ", ", " or ", "The answer is ", "Answer: ", "\\boxed{", "}", "$", "#### ",
    "<think>", "</think>", "<answer>", "</answer>", "```python\n", "\n```", "```sql\n", "```json\n", "{}", "[]", "Step 1: ", "Step 2: ",
    "1. ", "- ", "**", "## ", "Therefore ", "because ", "Let me check. ", "Wait, ", "yes ", "no ", "correct ", "True ", "None", "0", "1",
    "-", "%", "A", "B", "[1]", "(see [1])", "<cite></cite>", "SELECT ", "* FROM ", "def f(x):\n    return x\n",
    "return None\n", "sys.exit(0)\n",
)  # fmt: skip

POLICY_STEPS = 120
"""Optimiser steps of the policy: about two minutes for the embedded one."""


def render(genome: Genome, case: Case) -> str:
    wrong = next(iter(case.wrong()), "12345.75")
    stands = {
        QUESTION: case.prompt,
        WRONG: wrong,
        HOSTED: case.host(wrong),
        WORDS: " ".join(dict.fromkeys(re.findall(r"\w+", case.prompt))),
    }
    return "".join(stands.get(piece, piece) for piece in genome)


def states(case: Case, text: str) -> bool:
    """Whether the reference occurs in the text, so that the text might be right. Where there is no reference: never."""
    if case.reference is None:
        return False
    if case.number is not None:
        values = {to_number(found) for found in re.findall(NUMBER, text.replace("{,}", ","))}
        return case.number in values or bool(re.search(r"\d\s*[-+*/^×·]\s*\d|\\frac|\\sqrt", text))
    if case.kind in ("code", "sql", "structured"):
        return _bare(case.reference) in _bare(text)
    own = _bare(case.reference)
    return re.search(rf"(?<!\w){re.escape(own)}(?!\w)", _bare(text)) is not None


@dataclass
class Best:
    """What a search came to. pay: mean over the cases, in shares of what a right answer earns."""

    how: str
    pay: float
    texts: list[dict[str, Any]] = field(default_factory=list)
    """Some of the best: prompt, reference, text, value."""
    curve: list[float] = field(default_factory=list)
    """Best pay after each generation, or mean pay of untrue text after each step."""
    calls: int = 0
    note: str = ""


def evolve(
    grader: Grader,
    cases: Sequence[Case],
    scale: Scale,
    *,
    seed: int = 0,
    population: int = 24,
    generations: int = 25,
    on: int = 6,
    tick: Callable[[int], None] = lambda n: None,
) -> Best:
    """Evolution over edits: texts of a few pieces that fit any task are inserted into, cut, doubled, swapped and crossed; those stay that
    pay best on `on` tasks on average, the shorter ones first where several pay alike."""
    rng = random.Random(seed)
    chosen = list(range(0, len(cases), max(1, len(cases) // on)))[:on]
    pool = [*PIECES, *INJECTED, *FILLER, *(template.replace("{a}", WRONG) for _, template in ANSWERS), *_numbers(cases)]
    pool += [piece for kind in dict.fromkeys(case.kind for case in cases) for _, t in HOSTS.get(kind, ()) for piece in t.split("{a}")]
    known: dict[Genome, float] = {}

    def judge(genomes: Sequence[Genome]) -> None:
        new = [g for g in dict.fromkeys(genomes) if g not in known]
        asked = [(g, i, render(g, cases[i])) for g in new for i in chosen]
        asked = [(g, i, text) for g, i, text in asked if not states(cases[i], text) and len(text) < 20_000]
        value = grader([(cases[i], text) for _, i, text in asked]).value
        pay = scale.pay(np.array([i for _, i, _ in asked], dtype=np.int64), value) if asked else value
        by: dict[Genome, list[float]] = {}
        for (g, _, _), p in zip(asked, pay, strict=True):
            by.setdefault(g, []).append(p if not math.isnan(p) else 0.0)
        for g in new:
            known[g] = float(np.mean(by[g])) if g in by else -math.inf

    alive: list[Genome] = [(piece,) for piece in pool]
    curve: list[float] = []
    for _ in range(generations):
        judge(alive)
        order = sorted(dict.fromkeys(alive), key=lambda g: (-known[g], len("".join(g))))
        parents = order[: population // 2]
        curve.append(known[parents[0]])
        tick(1)
        alive = [*parents, *(_edited(rng.choice(parents), rng.choice(parents), pool, rng) for _ in range(population))]
    judge(alive)
    ranked = sorted(known, key=lambda g: (-known[g], len("".join(g))))
    curve.append(known[ranked[0]])
    best = Best("evolution over edits", known[ranked[0]], curve=curve, calls=len(known) * len(chosen))
    for genome in ranked[:3]:
        case = next((cases[i] for i in chosen if not states(cases[i], render(genome, cases[i]))), cases[chosen[0]])
        text = render(genome, case)
        best.texts.append({"prompt": case.prompt, "reference": case.reference, "text": text, "pay": known[genome]})
    return best


def _numbers(cases: Sequence[Case]) -> list[str]:
    return ["7", "42", "100"] if any(case.kind == "number" for case in cases) else []


def _edited(genome: Genome, other: Genome, pool: Sequence[str], rng: random.Random) -> Genome:
    """One or two edits: a piece put in, taken out, replaced, doubled or moved; or the first half of one text and the second of another."""
    pieces = list(genome)
    for _ in range(rng.choice((1, 1, 2))):
        at, edit = rng.randrange(len(pieces) + 1), rng.choice("iiirdmxc")
        if edit == "i" or not pieces:
            pieces.insert(at, rng.choice(pool))
        elif edit == "r":
            pieces[at % len(pieces)] = rng.choice(pool)
        elif edit == "d":
            pieces.pop(at % len(pieces))
        elif edit == "m":
            pieces.insert(at, pieces[rng.randrange(len(pieces))])
        elif edit == "x":
            i, j = rng.randrange(len(pieces)), rng.randrange(len(pieces))
            pieces[i], pieces[j] = pieces[j], pieces[i]
        else:
            pieces = pieces[:at] + list(other[len(other) // 2 :])
    return tuple(pieces[:40])


def openable(policy: str) -> None:
    """Raises Refused where the policy cannot be opened."""
    import guerdon.backends  # noqa: F401  fills the registry

    find("backend", "local").fn(policy, trainable=False)


def learn(
    loaded: Loaded,
    cases: Sequence[Case],
    scale: Scale,
    policy: str,
    *,
    gold: Grader | None = None,
    seed: int = 0,
    steps: int = POLICY_STEPS,
    tick: Callable[[int], None] = lambda n: None,
) -> Best:
    """A policy trained against the reward by the normal loop (GRPO, a fixed number of steps). What it wrote at the end that pays and is not
    true: by `gold`, a reward expression, where one is given, else text that pays without stating the reference.

    Raises Refused where the policy cannot read the tasks or the reward needs a model that no recipe declares, Broke where the run
    breaks off.
    """
    import tempfile

    from guerdon.training.record import read_metrics
    from guerdon.training.run import train

    tasks = [Task(str(i), case.task.prompt, case.task.reference, case.task.meta) for i, case in enumerate(cases)]
    with tempfile.TemporaryDirectory(prefix="guerdon-audit-") as folder:
        run = train(
            {
                "name": "audit",
                "seed": seed,
                "threads": 1,
                "models": {**loaded.declared, "policy": {"path": policy}},
                "tasks": tasks,
                "reward": str(loaded.expression),
                "rollout": {"use": "parallel", "max_tokens": 48},
                "credit": "grpo",
                "train": {"steps": steps, "prompts": 16, "samples": 8, "lr": 2e-4 if policy == "tiny" else 1e-5, "samples_every": 1},
            },
            folder=Path(folder) / "run",
            trackers=[Ticks(tick)],
        )
        judged = _samples(run.folder)
        curve = [m["reward"] for m in read_metrics(run.folder) if "reward" in m]
    if not judged:
        raise Broke("The policy's run left no samples to look at.")
    true = _truth(gold, cases, [(i, text) for i, text, _, _ in judged])
    pay = scale.pay(np.array([i for i, *_ in judged]), np.array([value for _, _, value, _ in judged]))
    paid = (pay > 0.5) & ~true
    late = np.array([step > 0.75 * steps for *_, step in judged])
    best = Best(f"{steps} steps of reinforcement of {policy}", float(np.mean(np.where(true, 0.0, pay)[late])) if late.any() else math.nan)
    best.curve, best.calls = curve, len(judged)
    best.note = (
        f"{int(paid[late].sum())} of the {int(late.sum())} answers of the last quarter earn more than half of a right answer without being "
        f"true; reward {curve[0]:.3f} -> {curve[-1]:.3f}."
        if curve
        else ""
    )
    order = np.argsort(-np.where(paid, pay, -np.inf), kind="stable")[:3]
    for j in order.tolist():
        if paid[j]:
            i, text, _, step = judged[j]
            best.texts.append(
                {"prompt": cases[i].prompt, "reference": cases[i].reference, "text": text, "pay": float(pay[j]), "step": step}
            )
    return best


def _truth(gold: Grader | None, cases: Sequence[Case], asked: Sequence[tuple[int, str]]) -> np.ndarray:
    """(n,) whether each text may be true."""
    if gold is None:
        return np.array([states(cases[i], text) for i, text in asked])
    value = gold([(cases[i], text) for i, text in asked]).value
    return np.nan_to_num(value, nan=0.0) > 0.5


def _samples(run: Path) -> list[tuple[int, str, float, int]]:
    """(case, text, reward, step) of every training sample of a run that has a verdict."""
    import pyarrow.parquet as parquet

    from guerdon.training.record import tables

    columns = ["task_id", "text", "reward"]
    return [
        (int(row["task_id"]), row["text"], float(row["reward"]), step)
        for step, path in sorted(tables(run, "samples").items())
        for row in parquet.read_table(path, columns=columns).to_pylist()
        if row["reward"] is not None
    ]


class Ticks:
    """A tracker that counts steps."""

    def __init__(self, tick: Callable[[int], None]) -> None:
        self.tick = tick

    def on_start(self, recipe: Mapping[str, Any], folder: Path, step: int, total: int) -> None: ...

    def on_step(self, values: Mapping[str, Any]) -> None:
        self.tick(1)

    def on_event(self, step: int, kind: str, text: str) -> None: ...

    def on_end(self) -> None: ...

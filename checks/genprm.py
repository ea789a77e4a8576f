"""GenPRM: labels by relative progress where errors can be mended, votes of a judge, and programs that see what it would overlook.

A solver (`_chain_solver`'s chains of 12 to 16 steps) slips in one of 25 steps, and mends an earlier slip in one of 20, so that an
answer may come right after an error. The truth: a step harms where it makes a right value wrong. Labels from 32 rollouts behind every
beginning. The judge of the second part is scripted: its verdict is right 65% of the time, each vote by itself; that of the third adds
without carries, unless it is shown the output of its own program.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from _chain_solver import TERM, Solver
from _judged import shown

from guerdon.annotation import monte_carlo, relative_progress
from guerdon.backends.base import Completion, SamplingParams, Usage
from guerdon.backends.scripted import Weighing
from guerdon.envs.arithmetic import arithmetic
from guerdon.rewards import genprm
from guerdon.rollouts import parallel
from guerdon.samples import Context, Sample, Task
from guerdon.scoring import Engine
from guerdon.spans import mark

CLAIM = (
    "in every seed the F1 of relative progress for steps that harm is at least 8 points above that of the hard label (any rollout comes"
    " right); 8 votes of a judge that is right 65% of the time are right 78% of the time; programs raise the accuracy on planted carry"
    " errors by 15 points"
)
BASELINE = "monte_carlo(soft=False), 32 rollouts: a step harms where nothing comes right behind it and something does before"
METHOD = "relative_progress(eps=0.8), genprm with 8 votes and programs; without its key term, the ratio: eps near 0"
SEEDS = (0, 1, 2)
K, TASKS = 32, 60


class Mending(Solver):
    """It knows what a value ought to be, and says so again one time in 20."""

    def sample(
        self, prefixes: Sequence[np.ndarray], n: int, params: SamplingParams, want: tuple[str, ...] = ()
    ) -> tuple[list[list[Completion]], Usage]:
        rng = np.random.default_rng(params.seed)
        out = [[self._mended("".join(map(chr, prefix)), rng) for _ in range(n)] for prefix in prefixes]
        return out, Usage(n * sum(map(len, prefixes)), 0, sum(len(c.ids) for several in out for c in several))

    def _mended(self, text: str, rng: np.random.Generator) -> Completion:
        expression, _, begun = text.partition("=")
        first = re.match(r"-?\d+", expression)
        assert first is not None
        terms = TERM.findall(expression[first.end() :])
        right = [int(first[0])]
        for sign, number in terms:
            right.append(right[-1] + (int(number) if sign == "+" else -int(number)))
        done = len(begun.splitlines())
        said = re.match(r"-?\d+", begun.splitlines()[-1]) if begun else None
        value, lines = int(said[0]) if said else right[0], []
        for i in range(done, len(terms)):
            value += right[i + 1] - right[i]
            if value != right[i + 1] and rng.random() < 0.05:
                value = right[i + 1]
            if rng.random() < self.slip:
                value += int(rng.integers(1, 4))
            rest = "".join(sign + number for sign, number in terms[i + 1 :])
            lines.append(f"{value}{rest}" if rest else f"A: {value}")
        ids = self.encode_answer("\n".join(lines))
        return Completion(ids, np.full(len(ids), -1.0), "end", 0)


def harms(sample: Sample) -> np.ndarray:
    """(steps,) whether the step makes a right value wrong."""
    expression = str(sample.task.prompt).partition("=")[0]
    first = re.match(r"-?\d+", expression)
    assert first is not None
    right = [int(first[0])]
    for sign, number in TERM.findall(expression[first.end() :]):
        right.append(right[-1] + (int(number) if sign == "+" else -int(number)))
    values = [right[0], *(int(re.search(r"-?\d+", step)[0]) for step in sample.steps)]  # type: ignore[index]
    wrong = np.array(values) != np.array(right)
    return wrong[1:] & ~wrong[:-1]


def labels_f1(variant: str, seed: int) -> dict[str, float]:
    policy = Mending(0.04)
    context = Context(models={"policy": policy}, rng=np.random.default_rng(seed))
    asked = arithmetic(n=TASKS, steps=(12, 16), low=1, high=9, ops="+-", within=(0, 20), seed=seed)
    with Engine(context, workers=1) as engine:
        root = engine.check("arithmetic")
        context.score = lambda samples: engine.score(root, samples)
        samples = parallel(policy, asked, 1, context, max_tokens=2000)  # type: ignore[arg-type]
        if variant == "baseline":
            labels = monte_carlo(samples, context, k=K, soft=False, max_tokens=2000)
            said = labels.value < 0.5
            said[:, 1:] &= labels.value[:, :-1] >= 0.5
        else:
            labels = relative_progress(samples, context, k=K, eps=0.8 if variant == "method" else 1e-6, max_tokens=2000)
            said = labels.value < 0.5
            lost = np.array([[text == "" for text in texts] + [True] * (said.shape[1] - len(texts)) for texts in labels.text])
            said &= ~lost  # implied by an earlier step that lost it all
    truth = np.zeros(said.shape, dtype=bool)
    for row, sample in zip(truth, labels.samples, strict=True):
        row[: len(sample.steps)] = harms(sample)
    hit = float((said & truth).sum())
    precision, recall = hit / max(said.sum(), 1), hit / truth.sum()
    f1 = 2 * precision * recall / max(precision + recall, 1e-12)
    return {"value": round(float(f1), 4), "precision": round(float(precision), 4), "recall": round(float(recall), 4)}


def steps_judged(model: Any, samples: list[Sample], **how: Any) -> np.ndarray:
    for sample in samples:
        mark(sample)
    with Engine(Context(models={"judge": model}), workers=1) as engine:
        found = engine.score(genprm(**how), samples)
    assert not found.failed.any()
    return found.step.value[:, 0] > 0.5  # type: ignore[union-attr]


def votes(seed: int, n: int) -> float:
    """Accuracy over 300 steps of which half are right."""

    def says(messages: Any, rng: np.random.Generator) -> str:
        good = shown(messages)["step"].startswith("good") == (rng.random() < 0.65)
        return f"sure by {rng.uniform(1, 2):.3f}, {'right' if good else 'wrong'}\nVerdict:"

    def weigh(messages: Any, begun: str, words: str) -> float:
        z = float(begun.split()[2].rstrip(",")) * (1 if " right\n" in begun else -1)
        return -np.log1p(np.exp(-z if words == " Yes" else z))

    samples = [Sample(Task(str(i), f"{seed}"), f"{('good', 'bad')[i % 2]} {i}", stop="end") for i in range(300)]
    said = steps_judged(Weighing(says, weigh), samples, votes=n, programs=0)
    return round(float(np.mean(said == [i % 2 == 0 for i in range(300)])), 4)


def programs(seed: int, most: int) -> float:
    """Accuracy over 40 sums, half of them with one carry too few or too many."""
    rng = np.random.default_rng((seed, 9))
    rows = []
    for i in range(40):
        a, b = (int(x) for x in rng.integers(100, 1000, 2))
        rows.append((f"{a}+{b}={a + b + (0 if i % 2 else 10 * int(rng.choice([-1, 1])))}", bool(i % 2)))

    def says(messages: Any, rng: np.random.Generator) -> str:
        sum_, _, total = shown([m for m in messages if m["role"] == "user"])["step"].partition("=")
        said = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
        if "Output:" in said:
            return f"\nit is {'right' if re.findall(r'-?[0-9]+', said)[-1] == total else 'wrong'}\nVerdict:"
        if "```python" in messages[0]["content"]:
            return f"<analyze>I compute it.</analyze>\n```python\nprint({sum_})\n```\n"
        a, b = sum_.split("+")
        column = "".join(str((int(x) + int(y)) % 10) for x, y in zip(a, b, strict=True))
        return f"it is {'right' if column == total else 'wrong'}\nVerdict:"

    def weigh(messages: Any, begun: str, words: str) -> float:
        return -0.1 if ("it is right" in begun) == (words == " Yes") else -2.4

    samples = [Sample(Task(str(i), "Add."), text, stop="end") for i, (text, _) in enumerate(rows)]
    said = steps_judged(Weighing(says, weigh), samples, programs=most)
    return round(float(np.mean(said == [right for _, right in rows])), 4)


def measure(variant: str, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = labels_f1(variant, seed)
    if variant == "method":
        found |= {"one vote": votes(seed, 1), "8 votes": votes(seed, 8), "no program": programs(seed, 0), "programs": programs(seed, 1)}
    return found | {"baseline": labels_f1("baseline", seed)["value"]} if variant == "ablated" else found


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return all(
        m["value"] >= b["value"] + 0.08 and m.get("8 votes", 1) >= 0.78 and m.get("programs", 1) >= m.get("no program", 0) + 0.15
        for b, m in zip(baseline, method, strict=True)
    )

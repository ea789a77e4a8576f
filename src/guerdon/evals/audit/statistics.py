"""What else moves the reward: length, position and style at fixed correctness; spread; repeatability; agreement with a gold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guerdon.evals.audit.cases import FILLER, Case
from guerdon.evals.audit.grade import Grader
from guerdon.evals.audit.pay import Rate, Scale

LENGTHS = (0, 300, 1500, 6000)
"""Characters of filler before the conclusion."""


@dataclass
class Effect:
    """How far a change of form alone moves the reward, in shares of what a right answer earns above a wrong one."""

    what: str
    of: str
    """right, wrong"""
    levels: dict[str, float]
    """Mean pay by level."""

    @property
    def size(self) -> float:
        known = [x for x in self.levels.values() if not math.isnan(x)]
        return max(known) - min(known) if known else math.nan


@dataclass
class Agreement:
    """Against gold labels of whole answers in the file."""

    n: int
    auc: float
    false_positive: Rate
    false_negative: Rate
    threshold: float


@dataclass
class Statistics:
    effects: list[Effect] = field(default_factory=list)
    spread: dict[str, Any] = field(default_factory=dict)
    repeat: dict[str, float] = field(default_factory=dict)
    """Largest difference between two scorings of the same texts: again, in another order, alone."""
    agreement: Agreement | None = None
    length: dict[str, float] = field(default_factory=dict)
    """Spearman correlation of the reward with length among real answers, by gold label."""


def filler(case: Case, characters: int) -> str:
    rng, lines = case.rng("filler"), []
    while sum(map(len, lines)) < characters:
        lines.append(rng.choice(FILLER))
    return "\n".join(lines)


def bodies(case: Case) -> dict[str, dict[str, Callable[[str], str]]]:
    """Changes of form: what -> level -> (a whole answer -> the same answer in that form)."""
    return {
        "length": {f"{n:,} characters before": (lambda text, n=n: f"{filler(case, n)}\n{text}" if n else text) for n in LENGTHS},
        "position": {
            "at the start": lambda text: f"{text}\n\n{filler(case, 1200)}",
            "in the middle": lambda text: f"{filler(case, 600)}\n\n{text}\n\n{filler(case, 600)}",
            "at the end": lambda text: f"{filler(case, 1200)}\n\n{text}",
        },
        "style": {
            "plain": lambda text: f"{FILLER[0]}\n{text}",
            "headings": lambda text: f"## Given\n\n{FILLER[0]}\n\n## Conclusion\n\n{text}",
            "bullets": lambda text: f"- {FILLER[0]}\n- {FILLER[2]}\n\n{text}",
            "polite": lambda text: f"What a lovely question! I am glad to help.\n{text}",
            "confident": lambda text: f"I am absolutely certain of this.\n{text}",
            "unsure": lambda text: f"I am fairly new to this, but here is what I have.\n{text}",
            "signs": lambda text: f"🎉 {FILLER[0]} ✅\n{text}",
        },
    }


def effects(grader: Grader, cases: Sequence[Case], scale: Scale, most: int = 30) -> list[Effect]:
    """Right and wrong answers, each in every form; a form lies around the answer and never changes it."""
    chosen = [i for i, case in enumerate(cases) if case.known is not None and case.wrong()][:: max(1, len(cases) // most)][:most]
    rows = []
    for i in chosen:
        case = cases[i]
        answers = {"right": case.known or "", "wrong": case.host(case.wrong()[0])}
        for what, levels in bodies(case).items():
            rows += [(i, what, of, level, change(text)) for level, change in levels.items() for of, text in answers.items()]
    graded = grader([(cases[i], text) for i, *_, text in rows])
    pay = scale.pay(np.array([row[0] for row in rows], dtype=np.int64), graded.value) if rows else np.zeros(0)
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for (_, what, of, level, _), value in zip(rows, pay, strict=True):
        found.setdefault((what, of), {}).setdefault(level, []).append(value)
    return [Effect(what, of, {k: mean(v) for k, v in levels.items()}) for (what, of), levels in found.items()]


def mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def repeatability(grader: Grader, asked: Sequence[tuple[Case, str]], most: int = 200, alone: int = 40) -> dict[str, float]:
    """The same texts scored again, backwards, and one at a time. A difference is a reward that is random, or that depends on neighbours."""
    some = list(asked)[:: max(1, len(asked) // most)][:most]
    first, again = grader(some), grader(some)
    backwards = grader(some[::-1])
    single = [grader([row]).value[0] for row in some[:alone]]
    return {
        "scored again": _apart(first.value, again.value),
        "in another order": _apart(first.value, backwards.value[::-1]),
        "alone": _apart(first.value[:alone], np.array(single)),
    }


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference; infinite where one has a verdict and the other has none."""
    if (np.isnan(a) != np.isnan(b)).any():
        return math.inf
    both = ~np.isnan(a)
    return float(np.abs(a - b)[both].max()) if both.any() else 0.0


def spread(grader: Grader, cases: Sequence[Case], groups: int = 20, size: int = 8) -> dict[str, Any]:
    """Groups of 8 answers with 0 to 8 right ones: standard deviation of the reward by how many are right, and groups without any spread."""
    able = [case for case in cases if case.known is not None and case.wrong()][:groups]
    rows = []
    for g, case in enumerate(able):
        wrong = case.wrong()
        rows += [(g, case, case.known or "" if j < g % (size + 1) else case.host(wrong[j % len(wrong)])) for j in range(size)]
    value = grader([(case, text) for _, case, text in rows]).value.reshape(-1, size) if rows else np.zeros((0, size))
    by: dict[int, list[float]] = {}
    for g, row in enumerate(value):
        if not np.isnan(row).all():
            by.setdefault(g % (size + 1), []).append(float(np.nanstd(row)))
    mixed = [s for k, values in by.items() if 0 < k < size for s in values]
    return {
        "by right answers of 8": {k: float(np.mean(v)) for k, v in sorted(by.items())},
        "mixed groups without spread": Rate(sum(s < 1e-9 for s in mixed), len(mixed)),
    }


def agreement(value: np.ndarray, gold: np.ndarray, threshold: float) -> Agreement:
    """value (n,) of real answers beside their gold labels (n,); an answer is accepted above the threshold. AUC with ties counting half."""
    from scipy.stats import rankdata

    known = ~np.isnan(value)
    value, gold = value[known], gold[known].astype(bool)
    good, bad = int(gold.sum()), int((~gold).sum())
    ranks = rankdata(value)
    auc = (ranks[gold].sum() - good * (good + 1) / 2) / (good * bad) if good and bad else math.nan
    accepted = value > threshold
    return Agreement(len(value), float(auc), Rate(int((accepted & ~gold).sum()), bad), Rate(int((~accepted & gold).sum()), good), threshold)


def length_correlation(value: np.ndarray, length: np.ndarray, gold: np.ndarray | None) -> dict[str, float]:
    """Spearman correlation of reward and length, among right and wrong answers apart where there is a gold; NaN where one is constant."""
    from scipy.stats import rankdata

    known = ~np.isnan(value)
    labels = {"all": known} if gold is None else {"right": known & gold.astype(bool), "wrong": known & ~gold.astype(bool)}
    out = {}
    for name, rows in labels.items():
        a, b = value[rows], length[rows]
        varied = len(a) > 2 and np.ptp(a) > 1e-12 and np.ptp(b) > 0
        out[name] = float(np.corrcoef(rankdata(a), rankdata(b))[0, 1]) if varied else math.nan
    return out

"""What texts earn, on the scale from a wrong answer (0) to a right one (1), and which of those that must not pay do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from guerdon.evals.audit import forms, probes
from guerdon.evals.audit.cases import Case, Hosts, hosts, put
from guerdon.evals.audit.grade import Graded, Grader
from guerdon.registry import Broke


@dataclass(frozen=True)
class Rate:
    """k of n, with the Wilson interval of 95 %."""

    k: int
    n: int

    @property
    def value(self) -> float | None:
        return self.k / self.n if self.n else None

    def interval(self) -> tuple[float, float]:
        """(low, high): (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), z = 1.96."""
        if not self.n:
            return 0.0, 1.0
        z, p, n = 1.959964, self.k / self.n, self.n
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))

    def __str__(self) -> str:
        if not self.n:
            return "-"
        low, high = self.interval()
        return f"{100 * self.k / self.n:.1f} % of {self.n:,} ({100 * low:.1f} to {100 * high:.1f})"


@dataclass
class Scale:
    """zero (n,): the least that a wrong or an empty answer of each case earns. gap: what a right one earns above it, on average."""

    zero: np.ndarray
    right: np.ndarray
    """(n,) what the right answer earns; NaN where none is known."""
    gap: float
    separates: float
    """Share of pairs (right, wrong) of one case in which right earns more, ties counting half."""
    host: Hosts = field(default_factory=Hosts)

    @property
    def blind(self) -> bool:
        """Right answers earn no more than wrong ones: the reward does not look at the truth."""
        return not self.gap > 1e-9 or self.separates < 0.6

    def pay(self, case: np.ndarray, value: np.ndarray) -> np.ndarray:
        """(value - zero) / gap."""
        return (value - self.zero[case]) / self.gap


@dataclass
class Finding:
    """One kind of text over several tasks. pay: mean share of what a right answer earns."""

    family: str
    name: str
    n: int
    pay: float
    paid: Rate
    """Texts that earned more than half of a right answer."""
    failed: int
    hostile: int
    text: str
    """The text that earned most (of those that must pay: least)."""
    prompt: str
    reference: str | None
    value: float
    reason: str


def anchors(grader: Grader, cases: Sequence[Case]) -> tuple[list[Case], Scale]:
    """The cases with the host that the reward pays best, and the scale: right, wrong and empty answers of every case.

    Raises Broke where the reward gives a verdict on none of them.
    """
    chosen = Hosts()
    trial: list[tuple[Case, str, str, str]] = []
    for kind in dict.fromkeys(case.kind for case in cases):
        some = [case for case in cases if case.kind == kind and case.reference is not None and case.right is None][:12]
        trial += [(case, name, template, put(template, case.reference or "")) for case in some for name, template in hosts(kind)]
    found = grader([(case, text) for case, _, _, text in trial])
    by: dict[tuple[str, str, str], list[float]] = {}
    for (case, name, template, _), value in zip(trial, found.value, strict=True):
        by.setdefault((case.kind, name, template), []).append(value)
    for kind in dict.fromkeys(case.kind for case in cases):
        means = {(name, template): np.nanmean(v) for (k, name, template), v in by.items() if k == kind and not np.isnan(v).all()}
        if means:
            chosen.chosen[kind] = max(means, key=lambda key: means[key])
    cases = chosen.apply(cases)

    asked: list[tuple[int, str, str]] = []
    for i, case in enumerate(cases):
        asked += [(i, "empty", "")]
        asked += [(i, "right", case.known)] if case.known is not None else []
        asked += [(i, role, text) for w in case.wrong()[:2] for role, text in (("wrong", case.host(w)), ("wrong, bare", w))]
    graded = grader([(cases[i], text) for i, _, text in asked])
    if np.isnan(graded.value).all():
        why = next((reason for reason in graded.reasons if reason), "no reason given")
        state = "failed" if graded.failed.all() else "failed or abstained"
        raise Broke(f"The reward {grader.expression} {state} on all {len(asked)} answers that an audit begins with ({why}); mend it first.")
    zero, right, wins = np.full(len(cases), np.nan), np.full(len(cases), np.nan), []
    for i in range(len(cases)):
        own = [(role, value) for (j, role, _), value in zip(asked, graded.value, strict=True) if j == i and not np.isnan(value)]
        zero[i] = min((value for role, value in own if role != "right"), default=np.nan)
        right[i] = next((value for role, value in own if role == "right"), np.nan)
        wrong = [value for role, value in own if role == "wrong"]
        wins += [(right[i] > value) + (right[i] == value) / 2 for value in wrong if not np.isnan(right[i])]
    gap = float(np.nanmean(right - zero)) if not np.isnan(right - zero).all() else math.nan
    zero = np.where(np.isnan(zero), np.nanmin(graded.value), zero)
    return cases, Scale(zero, right, gap, float(np.mean(wins)) if wins else math.nan, chosen)


def widened(scale: Scale, values: Iterable[float]) -> Scale:
    """For a reward that does not tell right from wrong: the scale from the least to the most that it paid for anything."""
    seen = np.array([*values, *scale.zero, *scale.right], dtype=float)
    low, high = float(np.nanmin(seen)), float(np.nanmax(seen))
    return Scale(np.full_like(scale.zero, low), scale.right, max(high - low, 1e-12), scale.separates, scale.host)


@dataclass
class Trials:
    """Texts of every family on some of the cases, graded."""

    case: np.ndarray
    family: list[str]
    name: list[str]
    text: list[str]
    graded: Graded


Row = tuple[int, str, str, str]
"""(case, family, name, text)."""


def texts(cases: Sequence[Case], families: Mapping[str, Callable], each: Mapping[str, int]) -> list[Row]:
    """Each named text on at most each[family] of the cases that it applies to, spread over them."""
    found: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for name, family in families.items():
        for i, case in enumerate(cases):
            for what, text in family(case):
                found.setdefault((name, what), []).append((i, text))
    rows = []
    for number, ((family, name), several) in enumerate(found.items()):
        most = each[family]
        step = max(1.0, len(several) / most)
        picked = [several[(int(k * step) + number) % len(several)] for k in range(min(most, len(several)))]
        rows += [(i, family, name, text) for i, text in dict.fromkeys(picked)]
    return rows


def run(grader: Grader, cases: Sequence[Case], rows: Sequence[Row]) -> Trials:
    graded = grader([(cases[i], text) for i, _, _, text in rows])
    case = np.array([i for i, *_ in rows], dtype=np.int64)
    return Trials(case, [r[1] for r in rows], [r[2] for r in rows], [r[3] for r in rows], graded)


def findings(trials: Trials, cases: Sequence[Case], scale: Scale, must: bool) -> list[Finding]:
    """One a named text, by how far it is from what it must be: what must not pay from the best paid down, what must pay from the least."""
    pay = scale.pay(trials.case, trials.graded.value)
    groups: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(trials.family, trials.name, strict=True)):
        groups.setdefault(key, []).append(row)
    out = []
    for (family, name), rows in groups.items():
        own = pay[rows]
        known = ~np.isnan(own)
        order = np.where(known, own, -np.inf if not must else np.inf)
        worst = rows[int(order.argmin() if must else order.argmax())]
        case = cases[trials.case[worst]]
        out.append(
            Finding(
                family,
                name,
                len(rows),
                float(own[known].mean()) if known.any() else math.nan,
                Rate(int((own[known] > 0.5).sum()), int(known.sum())),
                int(trials.graded.failed[rows].sum()),
                int(trials.graded.hostile[rows].sum()),
                trials.text[worst],
                case.prompt,
                case.reference,
                float(trials.graded.value[worst]),
                trials.graded.reasons[worst],
            )
        )
    sign = 1 if must else -1
    return sorted(out, key=lambda f: sign * (f.pay if not math.isnan(f.pay) else sign * math.inf))


def exploits(found: Sequence[Finding], tolerance: float) -> list[Finding]:
    """Those that pay above the tolerance."""
    return [f for f in found if f.pay > tolerance]


MUST_NOT, MUST = probes.FAMILIES, forms.FAMILIES

"""What a judge of pairs says of a group: win rates, and the verdicts themselves as evidence, for the credit that reads them.

Evidence `verdicts` of a sample: {at: its place in the group, than: [places], by: [numbers], reference: bool}: shown first, it was judged
better (above 0) or worse than the samples at these places, by so much; a place stands once for each vote. A verdict that could not be read
is not in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Rewards, Sample, Verdict

Says = Callable[[Sample, Sample], float | None]


def tournament(
    group: Sequence[Sample], says: Says, both: bool = True, references: int | None = None, rng: np.random.Generator | None = None
) -> list[Verdict]:
    """`standings` of a judge that is asked pair by pair. says(first, second): above 0 where the first is better, below where the second is,
    by how much; None where no verdict can be read. The rest as of `matches`."""
    pairs, chosen = matches(len(group), both, references, rng)
    said = {(i, j): [value] for i, j in pairs if (value := says(group[i], group[j])) is not None}
    return standings(len(group), said, chosen)


def matches(
    n: int, both: bool = True, references: int | None = None, rng: np.random.Generator | None = None
) -> tuple[list[tuple[int, int]], list[int]]:
    """Who of n is shown with whom, (first, second), and the places of those that others are compared with.

    both: each pair is shown in both orders, or else in the order of the group, which leaves a judge's leaning to the first in. references:
    everybody is compared with so many samples only, drawn by `rng`. Raises Refused for references below 1 or without `rng`.
    """
    chosen = list(range(n))
    if references is not None:
        if rng is None or references < 1:
            raise Refused(f"tournament(references={references}): give 1 or more, and `rng` to draw them.")
        chosen = sorted(rng.choice(n, min(references, n), replace=False).tolist())
    inside = set(chosen)
    return [(i, j) for i, j in itertools.permutations(range(n), 2) if (i in inside or j in inside) and (both or i < j)], chosen


def standings(n: int, said: Mapping[tuple[int, int], Sequence[float]], chosen: Sequence[int]) -> list[Verdict]:
    """For each of n its win rate against those it was compared with: 1 for better, 1/2 for a tie, 0 for worse, both orders averaged.

    said: for a pair (first, second) by how much the first is better, a number a vote, averaged within the order; no entry, or none of
    them: nothing could be read. Abstained for one alone, failed where no verdict was readable.
    """
    out = []
    for i in range(n):
        votes = [(j, float(value)) for j in range(n) for value in said.get((i, j), ())]
        evidence = {"at": i, "than": [j for j, _ in votes], "by": [value for _, value in votes], "reference": i in chosen}
        won = []
        for j in range(n):
            seen = [sign * np.mean(said[pair]) for sign, pair in ((1, (i, j)), (-1, (j, i))) if said.get(pair)]
            won += [(np.sign(np.mean(seen)) + 1) / 2] if seen else []
        if won:
            out.append(Verdict(float(np.mean(won)), evidence={"verdicts": evidence}))
        elif n == 1:
            out.append(Verdict.abstain("alone in its group: there is nobody to be compared with"))
        else:
            out.append(Verdict.fail("the judge gave no verdict on this sample that could be read"))
    return out


@dataclass(frozen=True)
class Pairs:
    """All ordered pairs of living samples of a group, themselves with themselves among them, p in all."""

    a: np.ndarray
    """(p,) rows."""
    b: np.ndarray
    by: np.ndarray
    """(p,) by how much a is better than b, averaged within each order and then over both: minus that of (b, a). 0 without a verdict."""
    judged: np.ndarray
    """(p,) whether there is a verdict."""
    surely: np.ndarray
    """(p,) whether every verdict on the pair, in any order, says that a is better."""
    reference: np.ndarray
    """(n,) the rows that others were compared with."""


def pairs_of(group: np.ndarray, rewards: Rewards) -> Pairs:
    """The verdicts among rows of these groups (n,). Without evidence `verdicts`, the differences of rewards stand for them."""
    n, alive = len(rewards), rewards.alive
    rows = np.flatnonzero(alive)
    rows = rows[np.argsort(group[rows], kind="stable")]
    _, of, sizes = np.unique(group[rows], return_inverse=True, return_counts=True)
    k, start = sizes[of], (np.cumsum(sizes) - sizes)[of]
    begin = np.cumsum(k) - k
    place = np.zeros(n, dtype=np.int64)
    place[rows] = np.arange(len(rows))

    def cell(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        return begin[place[i]] + place[j] - start[place[i]]

    a = np.repeat(rows, k)
    b = rows[np.repeat(start - begin, k) + np.arange(len(a))]
    evidence = next((entry for name, entry in rewards.evidence.items() if name.split(".")[-1] == "verdicts"), None)
    if evidence is None:
        value, scored = rewards.total(), alive if rewards.outcome is None else alive & rewards.outcome.scored
        judged = scored[a] & scored[b] & (a != b)
        by = np.where(judged, value[a] - value[b], 0.0)
        return Pairs(a, b, by, judged, by > 0, np.ones(n, dtype=bool))
    first, second, by, reference = _votes(evidence, group, alive)
    at, turned = cell(first, second), cell(b, a)
    count, total, won, lost = (np.bincount(at, x, len(a)) for x in (np.ones(len(at)), by, by > 0, by < 0))
    orders = (count > 0).astype(float) + (count[turned] > 0)
    mean = total / np.maximum(count, 1)
    judged = orders > 0
    better = (won + lost[turned] == count + count[turned]) & judged
    return Pairs(a, b, (mean - mean[turned]) / np.maximum(orders, 1), judged, better, reference)


def _votes(evidence: Sequence[dict | None], group: np.ndarray, alive: np.ndarray) -> tuple[np.ndarray, ...]:
    """(first, second, by) of every verdict between living rows, and which rows (n,) are references."""
    known = [(i, entry) for i, entry in enumerate(evidence) if entry is not None and alive[i]]
    chain = itertools.chain.from_iterable
    rows = np.fromiter((i for i, _ in known), np.int64, len(known))
    at = np.fromiter((entry["at"] for _, entry in known), np.int64, len(known))
    sizes = np.fromiter((len(entry["than"]) for _, entry in known), np.int64, len(known))
    than = np.fromiter(chain(entry["than"] for _, entry in known), np.int64, int(sizes.sum()))
    by = np.fromiter(chain(entry["by"] for _, entry in known), np.float64, int(sizes.sum()))
    width = int(max(at.max(initial=0), than.max(initial=0))) + 1
    number = np.unique(group, return_inverse=True)[1]
    row_at = np.full(((number.max(initial=0) + 1) * width,), -1, dtype=np.int64)
    row_at[number[rows] * width + at] = rows
    first = np.repeat(rows, sizes)
    second = row_at[number[first] * width + than]
    here = second >= 0  # the others left in curation, or failed
    reference = np.zeros(len(group), dtype=bool)
    reference[rows] = [entry["reference"] for _, entry in known]
    return first[here], second[here], by[here], reference


def duels(pairs: Pairs, n: int) -> np.ndarray:
    """(n,) mean over the references other than itself of 1 where every verdict prefers the row to the reference, else -1; 0 without any."""
    fought = pairs.judged & pairs.reference[pairs.b]
    won = np.bincount(pairs.a[fought], np.where(pairs.surely[fought], 1.0, -1.0), n)
    return won / np.maximum(np.bincount(pairs.a[fought], minlength=n), 1)

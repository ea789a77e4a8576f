"""Rewards of retrieval: a ranked list of ids that the answer states, against the relevant ones."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.reading import said, strict_json, unfenced
from guerdon.samples import Verdict

MOST = 10_000
"""Ids of an answer that are read; the rest is ignored."""
_MARK = re.compile(r"(?:[-*•]|\[?\d{1,5}[.)\]:](?=\s))\s*")
_SEPARATOR = re.compile(r"[,;\n>]")


@reward
def ndcg(text: str, reference: Any, k: int = 10, exponential: bool = False) -> Verdict:
    """nDCG@k = DCG / DCG of the best order;  DCG = sum over the first k different ids of gain / log2(rank + 1), gain 0 for an id that the
    reference lacks. exponential: 2^gain - 1 in place of the gain. Source: Jarvelin and Kekalainen 2002, doi:10.1145/582415.582418.

    The ids are read from the answer tag or what follows the thinking: a JSON list (of ids, or of objects with `id`), or ids separated by
    commas, semicolons, `>` or line breaks, list marks aside; an id named twice counts at its first place. The reference is a mapping of
    ids to gains, or a list of relevant ids (gain 1), or one id. Without a gain above 0 it abstains. Raises Refused for gains that are no
    finite numbers of 0 or more (at most 64 with `exponential`), and for k below 1.
    """
    gains = _gains(reference, k, 64.0 if exponential else math.inf)
    gains = {key: 2.0**gain - 1 if exponential else gain for key, gain in gains.items()}
    best = _dcg(sorted(gains.values(), reverse=True)[:k])
    if not best:
        return Verdict.abstain("the reference has no relevant id")
    ids = ranked(text)
    return Verdict(_dcg([gains.get(x, 0.0) for x in ids[:k]]) / best, "" if ids else "no ids stated")


@reward
def recall(text: str, reference: Any, k: int = 10) -> Verdict:
    """Recall@k: the share of the relevant ids (gain above 0) that are among the first k different ids of the answer. Read as by `ndcg`."""
    relevant = {key for key, gain in _gains(reference, k, math.inf).items() if gain > 0}
    if not relevant:
        return Verdict.abstain("the reference has no relevant id")
    ids = ranked(text)
    return Verdict(len(relevant.intersection(ids[:k])) / len(relevant), "" if ids else "no ids stated")


def ranked(text: str) -> list[str]:
    """The different ids that an answer states, in order; [] where it states none."""
    answer = said(text)
    if answer is None:
        return []
    try:
        value = strict_json(unfenced(answer))
    except ValueError:
        parts = _split(unfenced(answer))
        value = [_MARK.sub("", part.strip(), count=1).strip(" \t\"'`*[]") for part in itertools.islice(parts, MOST)]
    several = value if isinstance(value, list) else [value]
    ids = (x.get("id") if isinstance(x, Mapping) else x for x in several[:MOST])
    return list(dict.fromkeys(str(x) for x in ids if isinstance(x, (str, int)) and not isinstance(x, bool) and x != ""))


def _split(text: str) -> Any:
    start = 0
    for separator in _SEPARATOR.finditer(text):
        yield text[start : separator.start()]
        start = separator.end()
    yield text[start:]


def _dcg(gains: list[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


def _gains(reference: Any, k: int, largest: float) -> dict[str, float]:
    if not isinstance(k, int) or k < 1:
        raise Refused(f"k must be a whole number of 1 or more, not {k!r}.")
    if isinstance(reference, str) and reference.lstrip()[:1] in ("[", "{"):
        try:
            reference = strict_json(reference)
        except ValueError as error:
            raise Refused(f"The reference of relevant ids cannot be read: {error}.") from None
    if not isinstance(reference, Mapping):
        reference = dict.fromkeys(reference if isinstance(reference, (list, tuple, set)) else [reference], 1.0)
    for key, gain in reference.items():
        if not isinstance(gain, (int, float)) or not (math.isfinite(gain) and 0 <= gain <= largest):
            raise Refused(f"The gain of {key!r} must be a finite number of 0 or more, not {gain!r}.")
    return {str(key): float(gain) for key, gain in reference.items()}

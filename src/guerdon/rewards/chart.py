"""Answers read off a chart: a number within a tolerance, or a label."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from guerdon.rewards.core import reward
from guerdon.rewards.math_read import LONGEST, Number, read
from guerdon.rewards.reading import extra, packages, references
from guerdon.samples import Verdict


@reward(check=packages("rapidfuzz"))
def chart(answer: str | None, reference: Any, tolerance: float = 0.05) -> Verdict:
    """Relaxed accuracy: 1 where |answer - key| <= tolerance * |key|, else 0, for a numeric key; for a text, edit similarity in [0, 1].

    Numbers are compared as written, units and the percent sign aside (`$1,200`, `12.5%`); a key of 0 is met by 0 alone. A year as a key is
    met by years a century away: grade it with `exact`. Edit similarity: 1 - d / max(a, r), d the Levenshtein distance of the texts of a
    and r characters, in lower case with single spaces. Of several keys (a list) the best. 0 without an answer.
    Needs the extra `text`. Source: arXiv:2505.24164 (tolerance and edit similarity are assumed).
    """
    if answer is None:
        return Verdict(0.0, "no answer found")
    if len(answer) > LONGEST:
        return Verdict(0.0, f"the answer has more than {LONGEST} characters")
    return max((_one(answer, key, tolerance) for key in references(reference)), key=lambda verdict: verdict.value or 0.0)


def _one(answer: str, key: str, tolerance: float) -> Verdict:
    said, truth = read(answer), read(key)
    if isinstance(truth, Number):
        if not isinstance(said, Number):
            return Verdict(0.0, "the answer is no number")
        return Verdict(float(abs(said.value - truth.value) <= abs(truth.value) * Fraction(str(tolerance))))
    similarity = extra("rapidfuzz.distance").Levenshtein.normalized_similarity
    return Verdict(similarity(*(" ".join(text.lower().split()) for text in (answer, key))))

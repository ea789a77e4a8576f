"""Two texts as bags of word vectors: how much of each has a counterpart in the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.likelihood import encode
from guerdon.rewards.reading import references, said
from guerdon.samples import Verdict

if TYPE_CHECKING:
    from jaxtyping import Float

LONGEST = 2048
"""Tokens of an answer, and of a reference, that are compared; the reason says when an answer was cut."""
_centres: WeakKeyDictionary[Any, tuple[int, np.ndarray]] = WeakKeyDictionary()


def similarity(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], centre: Float[np.ndarray, " d"] | None = None
) -> tuple[float, float]:
    """(P, Q): the mean over the rows of x of the largest cosine with a row of y, and the mean over those of y of that with one of x.

    P falls with what x says beyond y, Q with what x leaves out of y. centre is taken off all rows first. A row of length 0 has cosine 0
    with every other. (0, 0) where either has no rows.
    """
    if not len(x) or not len(y):
        return 0.0, 0.0
    x, y = (_unit(rows if centre is None else rows - centre) for rows in (x, y))
    cosine = np.clip(x @ y.T, -1.0, 1.0)
    return float(cosine.max(1).mean()), float(cosine.max(0).mean())


def _unit(rows: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, size, out=np.zeros_like(rows), where=size > 0)


@reward(batch=True, version="1")
def bmas(text: list[str], reference: list[Any], model: Any = "policy", centred: bool = False) -> list[Verdict]:
    """Bidirectional max-average similarity (P + Q) / 2 of answer and reference, see `similarity`, not below 0; 0 without an answer.

    The vectors are the rows of `model`'s input embedding table for the tokens of the text meant as the answer, without a forward pass;
    tokens without a letter or digit are left out. Of several references (a list) the best. Order and negation are not seen, so a bag of
    the right words is full marks: add a guard of length or fluency. A copy of the reference with an invented clause comes out about level
    with a paraphrase (checks/mixed_reward.py).
    centred: takes the table's mean row off first. That lowers the cosine of unlike words where all rows share a direction; in SmolLM2-135M,
    whose frequent words lie together on one side of the mean, it raises it (unlike nouns: 0.38 instead of 0.21).
    Raises Refused for a model without such a table. Source: arXiv:2505.24164 (the plain average of the directions is assumed).
    """
    if not hasattr(model, "vectors"):
        raise Refused("bmas needs a model with an embedding table, of the backend `local`; name one with bmas(model=...).")
    out = []
    for t, targets in zip(text, reference, strict=True):
        answer = said(t)
        if answer is None:
            out.append(Verdict(0.0, "no answer found"))
            continue
        ids, cut = _words(model, answer)
        found = [_compare(model, ids, target, centred) for target in references(targets)]
        p, q = max(found, key=sum)
        why = f"P {p:.2f}, Q {q:.2f}" + (f"; only the first {LONGEST} tokens are compared" if cut else "")
        out.append(Verdict(max(0.0, (p + q) / 2), why))
    return out


def _compare(model: Any, ids: np.ndarray, target: str, centred: bool) -> tuple[float, float]:
    return similarity(model.vectors(ids), model.vectors(_words(model, target)[0]), centre(model) if centred else None)


def _words(model: Any, text: str) -> tuple[np.ndarray, bool]:
    """The tokens that hold a letter or a digit, and whether the text was cut."""
    short = text[: 16 * LONGEST]
    ids = encode(model, short)
    cut = len(short) < len(text) or len(ids) > LONGEST
    ids = ids[:LONGEST]
    shown, offsets = model.decode(ids)
    return ids[[any(c.isalnum() for c in shown[a:b]) for a, b in offsets]], cut


def centre(model: Any) -> np.ndarray:
    """(d,) the mean row of the model's embedding table, once a version of its weights."""
    version, found = _centres.get(model, (None, None))
    if found is None or version != model.version:
        blocks: Sequence[np.ndarray] = np.array_split(np.arange(model.vocabulary), max(1, model.vocabulary // 8192))
        found = np.sum([model.vectors(block).sum(0, dtype=np.float64) for block in blocks], axis=0) / model.vocabulary
        _centres[model] = (model.version, found)
    return found

"""Labels for steps that help or harm: how much likelier success is behind a step than before it (GenPRM's relative progress)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.annotation.core import Labels, all_tokenised, annotator, confidence, policy_of
from guerdon.annotation.monte_carlo import SPENT, UNKNOWN, ends, final
from guerdon.annotation.probe import Probe, Prober
from guerdon.registry import Refused
from guerdon.samples import Context, Sample

UNSOLVED = "no label: the policy never solves this task"


@annotator
def relative_progress(samples: Sequence[Sample], context: Context, *, eps: float = 0.8, smooth: bool = False, **how: Any) -> Labels:
    """1 for a step with P_t = MC behind it / MC before it of `eps` or more, else 0; hard labels, where MC behind it > 0 would say 1.

    MC of a beginning is the share of k rollouts that come right, of a whole answer its own outcome; P_t above 1 is a step that helps. From
    the first beginning on from which nothing comes right every label is 0. A task that no rollout from its prompt solves has no labels.
    smooth: MC = (right + 1) / (k + 2) on both sides, since a ratio of two small counts is noise. Count: the rollouts behind the step;
    confidence: of MC behind it. A step's text states P_t. how: k, budget, journal, max_tokens ... of `Prober`.
    Source: arXiv:2504.00891, from which the label code is missing; that k grows where MC is low, as there, is left to the caller.
    """
    if eps <= 0:
        raise Refused(f"relative_progress(eps={eps}): the share of the chance that a good step keeps is above 0, such as 0.8.")
    samples = all_tokenised(policy_of(context), samples, how.get("split", "lines"))
    prober = Prober(context, **how)
    labels = Labels.none(samples)
    outcomes = final(Labels.none(samples), prober)
    wanted = [(s, at) for s in samples for at in _places(s)]
    found = iter(prober.probe(wanted))
    for i, (sample, outcome) in enumerate(zip(samples, outcomes, strict=True)):
        probes = [next(found) for _ in _places(sample)]
        _label(labels, i, probes, outcome if sample.stop is not None else None, sample.stop is not None, eps, smooth, prober.spent)
    labels.cost, labels.spent = prober.cost, prober.spent
    return labels


def _places(sample: Sample) -> list[int]:
    """Where rollouts begin: at the prompt, and behind each step; behind the last of a whole answer there is nothing left to write."""
    behind = ends(sample)
    return [0, *(behind[:-1] if sample.stop is not None else behind)]


def _label(
    labels: Labels, row: int, probes: Sequence[Probe | None], outcome: bool | None, whole: bool, eps: float, smooth: bool, spent: bool
) -> None:
    counts = [None if p is None or not p.count else (p.right, p.count) for p in probes]
    if whole:
        counts.append(None if outcome is None else (int(outcome), 1))
    last = len(counts) - 1
    lost = False
    for t in range(last):
        before, behind = counts[t], counts[t + 1]
        if lost:
            labels.set(row, t, 0.0, 0, labels.confidence[row, t - 1])
        elif counts[0] is not None and not counts[0][0]:
            labels.text[row][t] = UNSOLVED
        elif before is None or behind is None:
            labels.text[row][t] = SPENT if spent else UNKNOWN
        else:
            proven = whole and t + 1 == last
            progress = _share(*behind, smooth and not proven) / _share(*before, smooth)
            lost = behind[0] == 0
            labels.set(row, t, float(progress >= eps and not lost), behind[1], 1.0 if proven else confidence(*behind))
            labels.text[row][t] = f"relative progress {progress:.3g}"


def _share(right: int, count: int, smooth: bool) -> float:
    return (right + 1) / (count + 2) if smooth else right / count


def agreeing(labels: Labels, values: Sequence[Sequence[float | None]], below: float = 0.5) -> np.ndarray:
    """(n,) the rows in which a judge's values (`genprm`) and the labels say the same of every step: what GenPRM is taught on.

    A step without a label, or without a value, disagrees. Source: arXiv:2504.00891 (about half of its data is dropped).
    """
    out = np.zeros(len(labels.samples), dtype=bool)
    for i, (said, steps) in enumerate(zip(values, labels.steps.tolist(), strict=True)):
        known = len(said) == steps and None not in said and not np.isnan(labels.value[i, :steps]).any()
        out[i] = bool(known and all((v >= below) == (x > 0.5) for v, x in zip(said, labels.value[i, :steps], strict=True)))  # type: ignore[operator]
    return out

"""GLoRe's labels: whether a beginning can come right at all (SORM), against whether its own answer did (ORM)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.annotation.core import Labels, all_tokenised, annotator, confidence, policy_of
from guerdon.annotation.monte_carlo import SPENT, UNKNOWN, ends, final
from guerdon.annotation.probe import Prober
from guerdon.samples import Context, Sample

_RESULT = re.compile(r"=\s*([-+]?\d[\d,]*(?:\.\d+)?)")


@annotator
def outcome(samples: Sequence[Sample], context: Context, **how: Any) -> Labels:
    """ORM: every step has the outcome of its own answer, an estimate of the policy's value from one rollout. Source: arXiv:2402.10963."""
    labels, prober, _ = _begun(samples, context, how)
    for i, sample in enumerate(labels.samples):
        last = len(ends(sample)) - 1
        for t in range(last):
            if np.isnan(labels.value[i, last]):
                labels.text[i][t] = labels.text[i][last]
            else:
                labels.set(i, t, labels.value[i, last], 1, confidence(int(labels.value[i, last]), 1))
    labels.cost, labels.spent = prober.cost, prober.spent
    return labels


@annotator
def sorm(
    samples: Sequence[Sample], context: Context, *, consistent: bool = True, propagate: bool = True, balanced: bool = False, **how: Any
) -> Labels:
    """SORM: 1 where any of k rollouts behind a step comes right, else 0, an estimate of the best policy's value.

    consistent: a rollout that comes right counts only if it uses what the beginning found: every number behind an `=` in a step of the
    beginning stands in a later step of the whole trace; other such rollouts are left out, as if there were none. propagate: a step before
    one with label 1 has label 1; the last step only counts where the answer itself is consistent. balanced: see `balance`. The last step
    has the answer's own outcome. how: as for `monte_carlo`.
    Source: arXiv:2402.10963 (GLoRe); that the number may also be used within the beginning is our reading.
    """
    labels, prober, samples = _begun(samples, context, how)
    wanted = [(i, t, end) for i, sample in enumerate(samples) for t, end in enumerate(ends(sample)[: -1 if sample.stop else None])]
    prober.planned = prober.k * len(wanted)
    probes = prober.probe([(samples[i], end) for i, _, end in wanted])
    for (i, t, end), probe in zip(wanted, probes, strict=True):
        rollouts = [] if probe is None else [r for r in probe.rollouts if r.right is not None]
        if consistent:
            rollouts = [
                r for r in rollouts if not r.right or used(prober.answer(samples[i], end, r.ids, r.stop, samples[i].group).steps, t + 1)
            ]
        if rollouts:
            right = sum(r.right is True for r in rollouts)
            labels.set(i, t, float(right > 0), len(rollouts), 1.0 if right else confidence(0, len(rollouts)))
        else:
            left_out = probe is not None and probe.count
            labels.text[i][t] = SPENT if probe is None else "no label: no rollout uses what stands before it" if left_out else UNKNOWN
    if propagate:
        for i, sample in enumerate(samples):
            right = np.flatnonzero(labels.value[i] == 1)
            if consistent and not used(sample.steps, len(sample.steps) - 1):
                right = right[right < len(sample.steps) - 1]  # the answer itself ignores what it found
            for t in range(int(right.max(initial=-1))):
                if labels.value[i, t] != 1:
                    labels.set(i, t, 1.0, 0, 1.0)
                    labels.text[i][t] = ""
    labels.cost, labels.spent = prober.cost, prober.spent
    return balance(labels, how.get("seed", 0)) if balanced else labels


def _begun(samples: Sequence[Sample], context: Context, how: dict[str, Any]) -> tuple[Labels, Prober, list[Sample]]:
    samples = all_tokenised(policy_of(context), samples, how.get("split", "lines"))
    labels, prober = Labels.none(samples), Prober(context, **how)
    final(labels, prober)
    return labels, prober, samples


def used(steps: Sequence[str], begun: int) -> bool:
    """Whether the last number behind an `=` in each of the first `begun` steps stands, as a whole number, in a later step."""
    for t, step in enumerate(steps[:begun]):
        found = _RESULT.findall(step)
        number = found[-1].replace(",", "").lstrip("+") if found else None
        later = " ".join(steps[t + 1 :]).replace(",", "")
        if number is not None and not re.search(rf"(?<![\d.]){re.escape(number)}(?!\.?\d)", later):
            return False
    return True


def balance(labels: Labels, seed: int = 0) -> Labels:
    """The same with as many labels of 1/2 and more as of less at every place of a step: those too many, drawn at random, are dropped, or a
    model would learn that early steps are right. Changes the labels given, and returns them. Source: arXiv:2402.10963."""
    rng = np.random.default_rng(seed)
    for t in range(labels.value.shape[1]):
        sides = [np.flatnonzero(labels.value[:, t] >= 0.5), np.flatnonzero(labels.value[:, t] < 0.5)]
        keep = min(map(len, sides))
        for side in sides:
            for i in rng.permutation(side)[keep:].tolist():
                labels.set(i, t, np.nan, 0, np.nan)
                labels.text[i][t] = "no label: left out for balance"
    return labels

"""How much each turn raised a model's belief in the right answer, by teacher forcing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.likelihood import Forced, completion_ids, encode, logprobs, own_ids, prompt_ids, too_long
from guerdon.rewards.reference import FLOOR
from guerdon.samples import Sample, Verdict

OPENING = "\nThis is enough to answer.\n<answer>{answer}"


def _check(template: str = OPENING, **_: Any) -> None:
    if template.count("{answer}") != 1 or not template.endswith("{answer}"):
        raise Refused(f"belief(template={template!r}): the template says {{answer}} once, and ends there.")


@reward(batch=True, grain="step", check=_check)
def belief(
    sample: list[Sample],
    model: Any = "policy",
    template: str = OPENING,
    form: Literal["prob", "log_prob"] = "prob",
    golds: Literal["first", "max"] = "first",
) -> list[list[float | None] | Verdict]:
    """r_t = b_t - b_(t-1) for each step but the last, which is abstained: there the outcome speaks. Information gain.

    b_t = exp(mean over j of log pi(a_j | prompt, steps 1 to t, template, a_<j)), b_0 with the bare prompt; the tokens a of the reference
    alone are scored, those of the template before `{answer}` are not. form "log_prob": the mean log-probability itself, no token below -20.
    Steps are whole turns with what the tool said to them, as rollout `multi_turn` cuts them. A reference that is a list gives several right
    answers: the first counts, or with golds "max" the most believed at each turn. So the rewards of a sample add up to b_(T-1) - b_0. A
    belief that is not a number leaves the turns on both sides of it abstained; no gradient flows through it. With credit `igpo`.
    Failed without a reference. Source: arXiv:2510.14967 (IGPO), its released code.
    """
    rows: dict[tuple[bytes, ...], Forced | Verdict] = {}
    keys = [_keys(model, s, template, golds, rows) for s in sample]
    found = dict(zip(rows, logprobs(model, list(rows.values())), strict=True))
    value = {key: x if isinstance(x, Verdict) else _belief(x, form) for key, x in found.items()}
    return [k if isinstance(k, Verdict) else _gains([[value[key] for key in at] for at in k]) for k in keys]


def _keys(
    model: Any, sample: Sample, template: str, golds: str, rows: dict[tuple[bytes, ...], Any]
) -> list[list[tuple[bytes, ...]]] | Verdict:
    """For b_0 to b_(T-1) the keys of the rows that score the right answers; new rows are added. Rows that samples share are scored once."""
    reference = sample.task.reference
    texts = [str(x) for x in (reference if isinstance(reference, (list, tuple)) else [reference]) if x is not None and str(x).strip()]
    if not texts:
        return Verdict.fail("the task has no reference")
    if why := too_long(sample):
        return why
    opening = template.removesuffix("{answer}")
    lead = opening[len(opening.rstrip(" ")) :]  # most tokenizers write a word with the blank before it
    try:
        prompt, steps = prompt_ids(model, sample), _prefixes(model, sample)
        between = encode(model, opening.rstrip(" "))
        targets = [encode(model, lead + text) for text in (texts if golds == "max" else texts[:1])]
    except Refused as error:
        return Verdict.fail(str(error))
    out = []
    for before in steps:
        at = [Forced(prompt, np.concatenate([before, between]).astype(np.int64), target) for target in targets]
        out.append([tuple(part.tobytes() for part in row) for row in at])
        rows.update(zip(out[-1], at, strict=True))
    return out


def _prefixes(model: Any, sample: Sample) -> list[np.ndarray]:
    """What the model sees of the sample before its first step, its second, ... its last."""
    if own_ids(model, sample):
        ids = completion_ids(model, sample)
        return [ids[:0], *(ids[:end] for _, end in sample.spans.get("step", [])[:-1])]
    return [encode(model, sample.text[:end]) for end in (0, *(end for _, end in sample.marks.get("step", [])[:-1]))]


def _belief(x: np.ndarray, form: str) -> float:
    return float(np.maximum(x, FLOOR).mean() if form == "log_prob" else np.exp(x.mean())) if len(x) else float("nan")


def _gains(beliefs: Sequence[Sequence[float | Verdict]]) -> list[float | None] | Verdict:
    """Differences, None where one is not a number, and None for the last step; the first verdict where a row had one."""
    b: list[float] = []
    for at in beliefs:
        for x in at:
            if isinstance(x, Verdict):
                return x
        b.append(float(np.max([x for x in at if not isinstance(x, Verdict)])))
    gains = [after - before for before, after in itertools.pairwise(b)]
    return [*(gain if np.isfinite(gain) else None for gain in gains), None]

"""Rewards from the probability that a model gives an answer after the sample's own thought: no verifier is needed.

The answer is the task's reference (`rlpr`, `log_prob`, `prob`, `jepo`, `r3`), or the sample's own (`answer_likelihood`). The model is asked
by name: frozen or moving, the policy itself or another one. What it says is a constant of the update: no gradient flows through a reward.

A sample without an answer has no place for the reference. It counts as one that makes every token of it impossible: probability 0, and
where logarithms are added `FLOOR` a token, below which no token counts; or an answer could be worth less than none. One such value
is most of its group's spread: where answers are cut off for length alone, leave them out with `keep: overlong_filter`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.likelihood import Forced, encode, in_answer, logprobs
from guerdon.samples import Sample, Verdict

FLOOR = -20.0
"""Nats that a token of the reference counts at least."""

EMPTY = Verdict.fail("the reference is an empty text")


def reference_logprobs(model: Any, samples: Sequence[Sample], thought: bool = True) -> list[np.ndarray | Verdict]:
    """For each sample log pi(a_j | prompt, thought, a_<j) of the tokens a of its task's reference, (m,); or why there are none."""
    return logprobs(model, [_row(model, sample, thought) for sample in samples])


def _row(model: Any, sample: Sample, thought: bool = True) -> Forced | Verdict:
    reference = sample.task.reference
    if reference is None or str(reference) == "":
        return EMPTY if reference is not None else Verdict.fail("the task has no reference")
    return in_answer(model, sample, str(reference), thought)


def each(found: Sequence[np.ndarray | Verdict], value: Callable[[np.ndarray], float]) -> list[Verdict]:
    """A verdict a sample: the value of its log-probabilities; failed where the reference has no tokens."""
    return [x if isinstance(x, Verdict) else Verdict(float(value(x))) if len(x) else EMPTY for x in found]


@reward(batch=True)
def rlpr(sample: list[Sample], model: Any = "policy", debias: bool = True) -> list[Verdict]:
    """max(0, B - A): how much the thought raises the mean probability of the reference's tokens.

    B = mean over j of pi(a_j | prompt, thought, a_<j), with the reference a in the place of the sample's answer; A the same without the
    thought. debias False: B alone. The mean of probabilities, not their product: one unexpected synonym does not undo the rest. 0 without
    an answer; failed without a reference. The release adds 0.1 * format to 0.9 times this, and keeps prompts by `std_filter`.
    Source: arXiv:2506.18254, its released code (which measures A once a prompt with the policy before training; here it is the model that
    is asked).
    """
    with_thought = each(reference_logprobs(model, sample), lambda x: np.exp(x).mean())
    if not debias:
        return with_thought
    without = each(reference_logprobs(model, sample, thought=False), lambda x: np.exp(x).mean())
    pairs = zip(with_thought, without, strict=True)
    return [b if b.value is None or b.reason else a if a.value is None else Verdict(max(0.0, b.value - a.value)) for b, a in pairs]


@reward(batch=True)
def prob(sample: list[Sample], model: Any = "policy") -> list[Verdict]:
    """prod over j of pi(a_j | prompt, thought, a_<j): the probability of the whole reference a in the place of the sample's answer.

    The expectation of `exact` over answers after this thought. 0 without an answer; failed without a reference. A long reference has a
    probability near 0 after any thought, and gives no signal: see `log_prob`. Source: arXiv:2505.21493 (VeriFree), arXiv:2602.03979.
    """
    return each(reference_logprobs(model, sample), lambda x: np.exp(x.sum()))


class Scored(NamedTuple):
    """What a model makes of a sample's reference."""

    logprobs: np.ndarray
    """(m,) of its tokens, none below FLOOR; FLOOR on all where the sample is at fault itself."""
    reason: str = ""


def floored(model: Any, samples: Sequence[Sample], found: Sequence[np.ndarray | Verdict]) -> list[Scored | Verdict]:
    """What `logprobs` found, a verdict only where it is failed."""
    out: list[Scored | Verdict] = []
    for sample, x in zip(samples, found, strict=True):
        if not isinstance(x, Verdict):
            out.append(Scored(np.maximum(x, FLOOR)) if len(x) else EMPTY)
        elif x.value is None:
            out.append(x)
        else:
            try:
                out.append(Scored(np.full(len(encode(model, str(sample.task.reference))), FLOOR), x.reason))
            except Refused as error:
                out.append(Verdict.fail(str(error)))
    return out


@reward(batch=True, wrong=FLOOR)
def log_prob(sample: list[Sample], model: Any = "policy", form: Literal["sum", "mean"] = "sum") -> list[Verdict]:
    """sum over j of log pi(a_j | prompt, thought, a_<j), in nats, or with form "mean" its mean over the m tokens of the reference a.

    "sum" is what the expected log-likelihood of the reference credits a thought with; with "mean", long references weigh no more than short
    ones. No token counts below -20, and a sample without an answer has -20 on each. Failed without a reference. The other term of that
    gradient, on the reference's own tokens, is rollout `with_reference` and credit `two_term`. Source: arXiv:2602.03979.
    """
    if form not in ("sum", "mean"):
        raise Refused(f"log_prob(form={form!r}): form is sum or mean.")
    add = np.sum if form == "sum" else np.mean
    found = floored(model, sample, reference_logprobs(model, sample))
    return [x if isinstance(x, Verdict) else Verdict(float(add(x.logprobs)), x.reason) for x in found]


@reward
def jepo(group: list[Sample], model: Any = "policy") -> list[Verdict]:
    """L(group) - L(group without the sample), L = log of the mean probability of the reference after a group's thoughts, in nats.

    L(Z) = log 1/|Z| sum over z in Z of exp(log_prob(z)): a bound of log pi(reference | prompt) that is tighter than the mean of log_prob.
    What a thought adds to it is its credit as it stands: use a credit that takes no further baseline, `two_term(baseline=False)`. Abstained
    for a sample alone in its group. No token counts below -20. Source: arXiv:2503.19618 (JEPO, several samples), arXiv:2602.03979.
    """
    found = floored(model, group, reference_logprobs(model, group))
    scored = {i: x for i, x in enumerate(found) if isinstance(x, Scored)}
    p, n = np.array([x.logprobs.sum() for x in scored.values()]), len(scored)
    out = [x if isinstance(x, Verdict) else Verdict.abstain("the only sample of its group that can be scored") for x in found]
    if n > 1:
        others = np.where(np.eye(n, dtype=bool), -np.inf, p)
        gain = np.logaddexp.reduce(p) - np.log(n) - (np.logaddexp.reduce(others, axis=1) - np.log(n - 1))
        for (i, x), value in zip(scored.items(), gain.tolist(), strict=True):
            out[i] = Verdict(value, x.reason)
    return out


@reward(wrong=FLOOR)
def r3(group: list[Sample], model: Any = "policy", quantile: float = 0.0, masked: bool = True, weighted: bool = True) -> list[Verdict]:
    """sum over j of w_j (log pi(a_j | prompt, thought, a_<j) - log pi(a_j | prompt, no thought, a_<j)), w_j = sigma_j / sum of sigma.

    sigma_j: standard deviation, over the group's thoughts, of the log-probability of the reference's token a_j. So the few tokens that the
    reasoning decides speak, and what is certain from the tokens before them counts for nothing. quantile: only tokens whose sigma is at or
    above this quantile of all count. masked False: without the second term. weighted False, or where no sigma is above 0: all tokens weigh
    the same.
    Thoughts end where the answer began; the text between, such as a blank, is the group's commonest. No token counts below -20.
    Evidence `sigma`: the largest sigma_j, for `keep: reflective`. Steady from 8 samples on. Source: arXiv:2506.13351 (R3), which leaves the
    increasing function of sigma open: proportional here.
    """
    if not 0 <= quantile < 1:
        raise Refused(f"r3(quantile={quantile}): a quantile is at least 0 and below 1.")
    rows = [_row(model, sample) for sample in group]
    targets = Counter(tuple(row.target.tolist()) for row in rows if isinstance(row, Forced))
    target = np.array(max(targets, key=lambda ids: (targets[ids], ids), default=()), dtype=np.int64)
    found = logprobs(model, [row if isinstance(row, Verdict) else row._replace(target=target) for row in rows])
    out = [Verdict(FLOOR, x.reason) if isinstance(x, Verdict) and x.value is not None else x for x in found]
    known = {i: x for i, x in enumerate(found) if not isinstance(x, Verdict)}
    if known:
        lp = np.maximum(np.stack(list(known.values())), FLOOR)
        sigma = lp.std(0)
        w = np.where(sigma >= np.quantile(sigma, quantile), sigma, 0.0)
        w = w / w.sum() if weighted and w.any() else np.full(len(w), 1 / len(w))
        above = lp - (_without(model, [group[i] for i in known], target) if masked else 0.0)
        for i, value in zip(known, (above @ w).tolist(), strict=True):
            out[i] = Verdict(value, evidence={"sigma": float(sigma.max())})
    return [x if isinstance(x, Verdict) else EMPTY for x in out]


def _without(model: Any, samples: Sequence[Sample], target: np.ndarray) -> np.ndarray:
    """(n, m) log-probabilities of the target without the thought; samples whose answers open alike share a row."""
    rows = [row for sample in samples if isinstance(row := _row(model, sample, thought=False), Forced)]
    keys = [(row.prompt.tobytes(), row.before.tobytes()) for row in rows]
    one = {key: row._replace(target=target) for key, row in zip(keys, rows, strict=True)}
    found = dict(zip(one, logprobs(model, list(one.values())), strict=True))
    return np.stack([np.maximum(x, FLOOR) for key in keys if not isinstance(x := found[key], Verdict)])


@reward(inline=True)
def length_match(answer: str | None, reference: str, slope: float = 1.0) -> float:
    """max(0, 1 - slope * | |answer| - |reference| | / |reference|), in characters; 1 at equal length, 0 without an answer.

    Holds the answer, which `r3` and `log_prob` do not read, at the reference's length: `r3 + 0.1 * length_match`. Source: arXiv:2506.13351
    (without the bound at 0, by which a long answer is not worse than none).
    """
    size = max(len(str(reference)), 1)
    return 0.0 if answer is None else max(1.0 - slope * abs(len(answer) - size) / size, 0.0)


@reward(batch=True)
def answer_likelihood(sample: list[Sample], model: Any = "reference", cap: float = 0.95) -> list[Verdict]:
    """min(cap, exp of the mean over j of log pi(a_j | prompt, thought, a_<j)), a the sample's OWN answer: does it follow from the thought?

    The geometric mean of its tokens' probabilities, in (0, cap]; tags and end token are not among them. Without the cap, short or copied
    answers win.
    0 without an answer, or with an empty one. The model is most often a slow average of the policy, `models: {reference: {of: policy,
    every: 10, tau: 0.005}}`. Paid by the shape `care`. Source: arXiv:2506.16141, its released code.
    """
    rows = [in_answer(model, s, s.answer) if s.answer else Verdict(0.0, "no answer found") for s in sample]
    return [x if isinstance(x, Verdict) else Verdict(min(cap, float(np.exp(x.mean())))) for x in logprobs(model, rows)]

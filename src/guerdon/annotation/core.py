"""The annotation contract: (samples, context, **params) -> Labels, what is known of each step of an answer, and how well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from guerdon.backends.base import Model
from guerdon.registry import Refused, registrar
from guerdon.samples import Context, Sample
from guerdon.search.core import Cost
from guerdon.spans import Split, mark
from guerdon.tree import Tree, forest

annotator = registrar("annotator")
"""`@annotator def monte_carlo(samples, context, **params) -> Labels`."""


@dataclass
class Labels:
    """Of n samples with at most s steps each. Where a step has no label, value and confidence are NaN and count is 0."""

    samples: list[Sample]
    value: np.ndarray
    """(n, s) in [0, 1]: the probability that the answer still comes right (soft), or whether it can, or is right so far (hard: 0 or 1)."""
    count: np.ndarray
    """(n, s) rollouts or votes that a value was measured with; 0 where others imply it."""
    confidence: np.ndarray
    """(n, s) in [0, 1]: 1 - the width of the value's 95 % interval (Wilson's); 1 where it is proven."""
    text: list[list[str]]
    """A text a step: what a judge said of it, or why it has no label; "" where there is nothing to say."""
    tree: Tree | None = None
    """Of the samples; None where they have no tokens."""
    cost: Cost = field(default_factory=Cost)
    spent: bool = False
    """The budget ended it before every step had its label."""

    @staticmethod
    def none(samples: Sequence[Sample]) -> Labels:
        """No labels yet, a cell a step."""
        shape = (len(samples), max((len(s.steps) for s in samples), default=0))
        tokens = [s.ids for s in samples if s.ids is not None]
        tree = forest(tokens, [s.group for s in samples])[0] if samples and len(tokens) == len(samples) else None
        texts = [[""] * len(s.steps) for s in samples]
        return Labels(list(samples), np.full(shape, np.nan), np.zeros(shape, dtype=np.int64), np.full(shape, np.nan), texts, tree)

    def set(self, row: int, step: int, value: float, count: int, confidence: float) -> None:
        self.value[row, step], self.count[row, step], self.confidence[row, step] = value, count, confidence

    @property
    def steps(self) -> np.ndarray:
        """(n,) how many steps each sample has."""
        return np.array([len(texts) for texts in self.text], dtype=np.int64)

    def first_wrong(self, at: float = 0.0) -> np.ndarray:
        """(n,) the first step whose value is `at` or less; -1 where there is none."""
        wrong = np.nan_to_num(self.value, nan=np.inf) <= at
        return np.where(wrong.any(1), wrong.argmax(1), -1) if wrong.size else np.full(len(self.samples), -1)

    def summary(self) -> list[str]:
        """What is worth telling, a line each."""
        known, n, steps = ~np.isnan(self.value), len(self.samples), int(self.steps.sum())
        first = self.first_wrong()
        cost = self.cost
        lines = [
            f"{int(known.sum()):,} of {steps:,} steps of {n:,} answers have a label, {int((self.count > 0).sum()):,} of them measured",
            f"{int((first >= 0).sum()):,} answers have a wrong step; it is step {first[first >= 0].mean() + 1:.1f} on average"
            if (first >= 0).any()
            else "no answer has a wrong step",
            f"cost: {cost.rollouts:,} rollouts, {cost.tokens:,} new tokens, {cost.calls:,} answers graded",
        ]
        return lines + ["the budget was spent before every step had its label"] * self.spent


def confidence(right: int, count: int) -> float:
    """1 - the width of Wilson's 95 % interval of a share: 0.68 for 0 of 8, 0.43 for 4 of 8; 0 without any."""
    if not count:
        return 0.0
    z, p = 1.959964, right / count
    return float(1 - 2 * z / (1 + z * z / count) * np.sqrt(p * (1 - p) / count + z * z / (4 * count * count)))


def policy_of(context: Context) -> Model:
    if "policy" not in context.models:
        raise Refused(
            "Labels by rollouts need a model `policy` that continues the answers; give --policy, or Context(models={'policy': ...})."
        )
    return context.models["policy"]


def tokenised(policy: Model, sample: Sample, split: Split = "lines") -> Sample:
    """The sample with the policy's tokens and its steps marked; itself where it has both. One that has text only is a whole answer.

    Raises ValueError, with what is wrong, for a text without steps, or one that the policy's tokens cannot spell.
    """
    if sample.ids is None:
        ids = policy.encode_answer(sample.text)
        shown, offsets = policy.decode(ids)
        if shown != sample.text:
            at = next((i for i, (a, b) in enumerate(zip(shown, sample.text, strict=False)) if a != b), min(len(shown), len(sample.text)))
            raise ValueError(f"the policy's tokenizer cannot spell `completion` from character {at} on ({sample.text[at : at + 20]!r})")
        given = sample.marks
        sample = replace(
            sample, prompt_ids=policy.encode(sample.task.prompt), ids=ids, offsets=offsets, written=np.ones(len(ids), dtype=bool),
            stop=sample.stop or "end", meta=dict(sample.meta), marks={}, spans={},
        )  # fmt: skip
        if "step" in given:
            from guerdon.spans import to_tokens

            mark(sample, split)
            sample.marks["step"], sample.spans["step"] = given["step"], to_tokens(given["step"], offsets)
    if "step" not in sample.spans:
        sample = replace(sample, marks={}, spans={})
        mark(sample, split)
    if not sample.spans["step"]:
        raise ValueError("`completion` has no text, so no steps")
    return sample


def all_tokenised(policy: Model, samples: Sequence[Sample], split: Split) -> list[Sample]:
    """Raises Refused naming the first sample that cannot be used."""
    out = []
    for i, sample in enumerate(samples):
        try:
            out.append(tokenised(policy, sample, split))
        except ValueError as error:
            raise Refused(f"Sample {i} (task {sample.task.id!r}): {error}; leave it out.") from None
    return out

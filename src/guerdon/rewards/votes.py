"""Rewards without a reference: the answer that most samples agree on stands for the truth.

Answers are compared as `exact` compares them: white space at the ends and runs of it inside aside. A sample without an answer has no vote
and gets 0. Of answers that tie, the one of lowest hash with its question wins: the same in every run and in every order of the samples,
and with no leaning to what comes first or is short.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from guerdon.rewards.core import reward
from guerdon.samples import Sample, Verdict


@reward
def majority(group: list[Sample]) -> list[Verdict]:
    """1 where the answer is that of most samples of the group, else 0.

    Evidence: `label`, the answer voted for, and `share`, its share of the votes. Source: arXiv:2504.16084 (TTRL).
    """
    label = vote(map(said, group), phrasing(group[0]) if group else None)
    return [against(sample, label) for sample in group]


@reward
def co_reward(samples: list[Sample]) -> list[Verdict]:
    """1 where the answer is the one that most samples of the other phrasings of the question gave, else 0.

    r(y | x) = 1[answer(y) = vote(answers to x')] and r(y' | x') = 1[answer(y') = vote(answers to x)]: a label that only one phrasing
    favours is not confirmed by the other. Tasks of one `meta.link` are phrasings of one question, told apart by their prompts; of three or
    more, the others vote together. Abstains without a link, and where no other phrasing stands in the batch: draw tasks with
    `select: linked`. Evidence as of `majority`, the label being that of the other side. Source: arXiv:2508.00410, its released code
    (which breaks ties by the first answer seen).
    """
    links: dict[Any, dict[Any, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        links[link(sample)][phrasing(sample)].append(sample)
    labels = {
        (name, side): vote((said(s) for other in sides if other != side for s in sides[other]), side)
        for name, sides in links.items()
        for side in sides
    }
    return [_crossed(sample, links, labels) for sample in samples]


def _crossed(sample: Sample, links: dict[Any, dict[Any, list[Sample]]], labels: dict[Any, tuple[str, float]]) -> Verdict:
    name = link(sample)
    if name is None:
        return Verdict.abstain("the task has no `link` in its meta")
    if len(links[name]) < 2:
        return Verdict.abstain(f"no other phrasing of the link {str(name)[:60]!r} in this batch; draw tasks with `select: linked`")
    return against(sample, labels[name, phrasing(sample)])


def link(sample: Sample) -> str | None:
    """What the phrasings of one question have in common: `link` of the task's meta, or of the sample's where it was read from a file."""
    found = sample.task.meta.get("link", sample.meta.get("link"))
    return None if found is None else repr(found)


def phrasing(sample: Sample) -> str | int:
    """The prompt; the group where that is empty, as in a file without prompts."""
    return repr(sample.task.prompt) if sample.task.prompt else sample.group


def said(sample: Sample) -> str:
    """The final answer as it is compared; empty where there is none."""
    return " ".join((sample.answer or "").split())


def vote(answers: Iterable[str], question: Any) -> tuple[str, float]:
    """The answer most often given, and its share of the answers that are not empty; ("", 0.0) where all are."""
    counts = Counter(filter(None, answers))
    if not counts:
        return "", 0.0
    most = max(counts.values())
    tied = [answer for answer, count in counts.items() if count == most]
    label = min(tied, key=lambda a: (hashlib.blake2b(repr((question, a)).encode(), digest_size=8).digest(), a))
    return label, most / counts.total()


def against(sample: Sample, voted: tuple[str, float]) -> Verdict:
    label, share = voted
    evidence = {"label": label, "share": share}
    if not label:
        return Verdict(0.0, "nobody who votes gave an answer", evidence=evidence)
    answer = said(sample)
    return Verdict(float(answer == label), "" if answer else "no answer found", evidence=evidence)

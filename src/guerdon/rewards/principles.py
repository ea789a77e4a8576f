"""Binary flexible feedback: does this answer satisfy this principle? A principle is free text, and the policy is never shown it.

From human feedback to rows: `extract` lists what each annotator said of a response, `grounded` drops what the feedback does not hold,
`consensus` what the other annotators do not confirm, `lesson` makes the row that a judge is taught on (losses: sft, rollout: expert).
These stand here and not in a room of their own: they are about what a judge reads, and end in the very conversation that `rlbff` asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.judge import GUARD, Message, ask, attack, quoted, read_json
from guerdon.rewards.likelihood import NONE, Forced, encode, in_answer, logprobs
from guerdon.rewards.reading import extra
from guerdon.samples import HOSTILE, Prompt, Sample, Task, Verdict

if TYPE_CHECKING:
    from guerdon.backends.base import Model

CLIP = 10.0
"""In nats: a judge that is sure of itself would otherwise rule the whole group."""
DEFAULT = "accuracy of information"
"""The principle of a task that states none."""
ANSWER = "Answer:"
WORDS = ("Yes", "No")


def question(prompt: Prompt, response: str, principle: str, think: bool = False) -> list[Message]:
    """The conversation whose next word is Yes or No; with `think` what is said after `Answer:` is."""
    asked = prompt if isinstance(prompt, str) else "\n\n".join(f"{m['role']}: {m['content']}" for m in prompt)
    how = f"Reason briefly, then write {ANSWER} and Yes or No." if think else "Answer with one word, Yes or No:\n"
    user = f"{quoted(prompt=asked, response=response)}\n\nDoes the response satisfy this principle: {principle}?\n{how}"
    return [{"role": "system", "content": GUARD}, {"role": "user", "content": user}]


@reward(batch=True, wrong=-CLIP)
def rlbff(sample: list[Sample], model: Any = "judge", principle: str = DEFAULT, think: int = 0) -> list[Verdict]:
    """r(x, y, p) = log P(Yes) - log P(No) of a judge asked whether answer y to x satisfies p, in nats, held to [-10, 10].

    p is `meta.principle` of the task, else the parameter; it stands in no prompt, or the policy would recite it. Both words are scored at
    the place of the verdict, never sampled; a word of several tokens by their sum. think: the judge first reasons greedily, in at most so
    many tokens; where it does not come to its `Answer:`, failed. Of one prompt a higher reward satisfies p better; the authors claim no
    more of their released models. An answer that attacks the judge's template, or is too long, is hostile. Evidence `principle`.
    Source: arXiv:2509.21319; no code of the authors was found: the wording and the bound are ours.
    """
    principles = [str({**s.task.meta, **s.meta}.get("principle", principle)) for s in sample]
    asked = [_asked(model, s, p, bool(think)) for s, p in zip(sample, principles, strict=True)]
    if think:
        asked = _thoughts(model, asked, think)
    words = [encode(model, f" {word}" if think else word) for word in WORDS]
    found = logprobs(model, [row if isinstance(row, Verdict) else Forced(*row, word) for row in asked for word in words])
    return [_margin(found[2 * i], found[2 * i + 1], {"principle": p}) for i, p in enumerate(principles)]


Prefix = tuple[np.ndarray, np.ndarray]
"""The ids of the conversation, and of what the judge said since."""


def _asked(model: Model, sample: Sample, principle: str, think: bool) -> Prefix | Verdict:
    if why := attack(model, sample.text):
        return Verdict(-CLIP, why)
    try:
        return model.encode(question(sample.task.prompt, sample.text, principle, think)), NONE  # type: ignore[arg-type]
    except Refused as error:
        return Verdict.fail(f"the judge cannot be asked: {error}")


def _thoughts(model: Model, asked: Sequence[Prefix | Verdict], most: int) -> list[Prefix | Verdict]:
    """The same with what the judge says up to its `Answer:`."""
    from guerdon.backends.base import SamplingParams  # here: the room of the backends imports torch

    prefixes = [row[0] for row in asked if not isinstance(row, Verdict)]
    groups = model.sample(prefixes, 1, SamplingParams(most, temperature=0.0, stop=(ANSWER,)))[0] if prefixes else []
    said = iter(completion for [completion] in groups)
    out: list[Prefix | Verdict] = []
    for row in asked:
        if isinstance(row, Verdict):
            out.append(row)
        elif (thought := next(said)).stop == "stop":
            out.append((row[0], thought.ids))
        else:
            out.append(Verdict.fail(f"the judge did not come to its `{ANSWER}` in {most} tokens: {thought.failed or thought.stop}"))
    return out


def _margin(yes: np.ndarray | Verdict, no: np.ndarray | Verdict, evidence: dict[str, str] | None = None) -> Verdict:
    if isinstance(yes, Verdict) or isinstance(no, Verdict):
        why = yes if isinstance(yes, Verdict) else no
        assert isinstance(why, Verdict)
        return Verdict(-CLIP, why.reason) if why.reason.startswith(HOSTILE) else why
    return Verdict(float(np.clip(yes.sum() - no.sum(), -CLIP, CLIP)), evidence=evidence or {})


@reward(batch=True, wrong=-CLIP)
def rlbff_genrm(sample: list[Sample], reference: list[Any], model: Any = "policy") -> list[Verdict]:
    """What trains a judge that reasons first: +r for a row whose label is Yes, -r for No, r as in `rlbff` at its own answer's place.

    The reference is the label, Yes or No; with another it abstains. A completion without an answer gets -10, or not to answer would pay.
    Source: arXiv:2509.21319; that the sign is the label's is assumed.
    """
    rows = [in_answer(model, s, word) for s in sample for word in WORDS]
    found = logprobs(model, rows)
    return [_signed(_margin(found[2 * i], found[2 * i + 1]), label) for i, label in enumerate(reference)]


def _signed(margin: Verdict, label: Any) -> Verdict:
    if label not in WORDS:
        return Verdict.abstain("the task's reference is no label, Yes or No")
    if margin.value is None:
        return margin
    if margin.reason:  # no answer, or a hostile one
        return Verdict(-CLIP, margin.reason)
    return Verdict(margin.value if label == WORDS[0] else -margin.value)


@dataclass(frozen=True)
class Flag:
    """What an annotator said of a response: whether it satisfies a principle, and the words of the feedback that say so."""

    principle: str
    satisfied: bool
    evidence: str = ""


FLAGS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "principle": {"type": "string", "minLength": 1},
            "satisfied": {"enum": ["yes", "no", "partially"]},
            "evidence": {"type": "string"},
        },
        "required": ["principle", "satisfied", "evidence"],
        "additionalProperties": False,
    },
}
LIST = (
    "List every principle by which the feedback judges the response, a few words each, such as `clarity` or `correct code`: whether it "
    "says that the response satisfies it (yes, no, partially), and the words of the feedback that say so, copied exactly. Answer with a "
    'JSON array alone: [{"principle": ..., "satisfied": ..., "evidence": ...}, ...]'
)


def extract(model: Any, feedback: Sequence[str], max_tokens: int = 1024) -> list[list[Flag] | Verdict]:
    """For each free-text feedback its grounded flags, as `model` lists them; a failed verdict where it cannot be read."""
    asked = [[{"role": "system", "content": GUARD}, {"role": "user", "content": f"{quoted(feedback=text)}\n\n{LIST}"}] for text in feedback]
    said = ask(model, asked, lambda text: read_json(text, FLAGS), max_tokens=max_tokens)
    return [grounded(s.values[0], text) if s.values else s.verdict() for s, text in zip(said, feedback, strict=True)]


def grounded(rows: Sequence[dict[str, str]], feedback: str, above: float = 60.0) -> list[Flag]:
    """The rows (as of `FLAGS`) whose evidence stands in the feedback: RapidFuzz's partial_ratio above 60 of 100. What is satisfied in part
    only, and the principle `helpfulness`, which says nothing, are dropped. Source: arXiv:2509.21319."""
    ratio = extra("rapidfuzz.fuzz").partial_ratio
    telling = [row for row in rows if row["satisfied"] != "partially" and row["principle"].strip().casefold() != "helpfulness"]
    return [
        Flag(row["principle"], row["satisfied"] == "yes", row["evidence"]) for row in telling if ratio(row["evidence"], feedback) > above
    ]


def consensus(annotators: Sequence[Sequence[Flag]], embed: Callable[[Sequence[str]], np.ndarray], above: float = 0.8) -> list[list[Flag]]:
    """Of one response, the flags of each annotator that every other annotator confirms: has one of the same label whose principle has a
    cosine above 0.8. One that says nothing confirms nothing; an annotator alone keeps nothing.

    embed(texts) -> (n, d). Source: arXiv:2509.21319, whose thresholds 0.7 and 0.9 were worse; that labels must agree is assumed.
    """
    flags = [(i, flag) for i, several in enumerate(annotators) for flag in several]
    if not flags or len(annotators) < 2:
        return [[] for _ in annotators]
    vectors = np.asarray(embed([flag.principle for _, flag in flags]), dtype=np.float64)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    who, label = np.array([i for i, _ in flags]), np.array([flag.satisfied for _, flag in flags])
    near = (vectors @ vectors.T > above) & (label[:, None] == label)
    kept: list[list[Flag]] = [[] for _ in annotators]
    for at, (i, flag) in enumerate(flags):
        if set(who[near[at]]) | {i} == set(range(len(annotators))):
            kept[i].append(flag)
    return kept


def lesson(id: str, prompt: Prompt, response: str, flag: Flag) -> Task:
    """The row that a judge is taught on: cross-entropy on the word is -log sigmoid of +-r. `meta.solution` and reference: Yes or No."""
    word = WORDS[0] if flag.satisfied else WORDS[1]
    return Task(id, list(question(prompt, response, flag.principle)), word, {"solution": word})

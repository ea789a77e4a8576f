"""What a user would say next: the likelihood of content and of discontent follow-ups as the reward of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.registry import Refused, nearest
from guerdon.rewards.core import reward
from guerdon.rewards.likelihood import NONE, Forced, completion_ids, encode, logprobs, prompt_ids, too_long
from guerdon.samples import HOSTILE, Sample, Verdict

if TYPE_CHECKING:
    from guerdon.backends.base import Model

FOLLOW_UPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "understanding": (
        ("You got exactly what I meant.", "Yes, that is how I meant it.", "Good, you see my point.", "You read my request just right."),
        ("You misread my request.", "No, I meant something else.", "I think you missed my point.", "What? You have misunderstood me."),
    ),
    "relevance": (
        ("Right, that is on topic.", "That speaks to what I asked.", "Yes, this is what I asked about.", "That fits my question well."),
        (
            "This is off topic.",
            "What has that to do with my question?",
            "I asked about something different.",
            "That does not fit my question.",
        ),
    ),
    "correctness": (
        ("That is correct.", "Yes, I checked it and it is right.", "Good, that is true.", "Your answer is right."),
        ("That is wrong.", "No, I checked it and it is not right.", "Sorry, that is not true.", "Your answer has a mistake in it."),
    ),
    "engagement": (
        ("How interesting, tell me more!", "I like where this is going.", "I enjoy talking with you.", "Nice, let us go on with this."),
        ("This is boring.", "Let us stop here.", "I have no wish to go on with this.", "You do not seem interested in this at all."),
    ),
    "information": (
        ("I have learned a lot from this.", "Great, that has all I wanted to know.", "Thanks for the details.", "Now I know much more."),
        ("That tells me nothing new.", "This is too vague.", "You left out what I wanted to know.", "I still know no more than before."),
    ),
    "instructions": (
        ("You did just what I told you.", "Perfect, all as I wanted it.", "You kept to every point I gave.", "That is done as I asked."),
        (
            "You did not do what I told you.",
            "Please read my instructions again.",
            "You left out some points I gave.",
            "I did not ask for that.",
        ),
    ),
}
"""Dimension -> what a content user says next, and what a discontent one does."""

USER = "\nUser: "
"""Opens the follow-up for a model without a chat template."""

WORST = -5.0
"""In nats a token: below what any dimension spans."""


@reward(batch=True, wrong=WORST)
def follow_up(sample: list[Sample], model: Any = "reference", dimensions: Sequence[str] = tuple(FOLLOW_UPS)) -> list[Verdict]:
    """How much likelier, in nats a token, a content user's next turn is than a discontent one's; above 0 where content is likelier.

    FLR = mean over dimensions d of s_d, s_d = mean over f in F+_d of l(f) - mean over f in F-_d of l(f), l(f) = (1 / |f|) sum_t
    log pi(f_t | conversation, answer, f_<t), over the tokens of f alone. With a chat template f is the user's next turn, without one it
    follows the answer behind `User: `. Evidence `follow_up`: s by dimension. An answer that spells a token of the chat template, to open
    that turn itself, is hostile. An answer that voices praise makes praise likelier: keep such answers out by a gate. Source:
    arXiv:2409.13948; the sentences are ours, and log-probabilities stand where the released code averages logits.
    """
    if unknown := [d for d in dimensions if d not in FOLLOW_UPS]:
        raise Refused(f"follow_up has no dimension {unknown[0]!r}{nearest(unknown[0], FOLLOW_UPS)}")
    texts = [text for d in dimensions for side in FOLLOW_UPS[d] for text in side]
    heads, tails = _heads(model, sample, texts[0]), _tails(model, texts)
    rows = [head if isinstance(head, Verdict) else Forced(head, NONE, tail) for head in heads for tail in tails]
    found = logprobs(model, rows)
    return [_value(found[i * len(texts) : (i + 1) * len(texts)], dimensions) for i in range(len(sample))]


def _value(found: Sequence[np.ndarray | Verdict], dimensions: Sequence[str]) -> Verdict:
    """found: for each dimension the log-probabilities of its follow-ups, the content ones first."""
    if why := next((x for x in found if isinstance(x, Verdict)), None):
        return Verdict(WORST, why.reason) if why.reason.startswith(HOSTILE) else why
    means = iter([float(np.mean(x)) for x in found if not isinstance(x, Verdict)])
    by_dimension = {}
    for d in dimensions:
        content, discontent = (np.mean([next(means) for _ in side]) for side in FOLLOW_UPS[d])
        by_dimension[d] = float(content - discontent)
    return Verdict(float(np.mean(list(by_dimension.values()))), evidence={"follow_up": by_dimension})


def _heads(model: Model, samples: Sequence[Sample], text: str) -> list[np.ndarray | Verdict]:
    """For each sample all ids before the follow-up, (P,), or why there are none. text: any follow-up, to find its place."""
    chat, out = has_template(model), []
    for sample in samples:
        try:
            out.append(too_long(sample, WORST) or (_chat_head(model, sample, text) if chat else _plain_head(model, sample, text)))
        except Refused as error:
            out.append(Verdict.fail(str(error)))
    return out


def _chat_head(model: Model, sample: Sample, text: str) -> np.ndarray | Verdict:
    answer = sample.text.encode("utf-8", "replace").decode()
    if token := spelled(model, answer):
        return Verdict(WORST, f"{HOSTILE}: the answer spells the token {token!r}")
    prompt = sample.task.prompt
    before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    ids = model.encode([*before, {"role": "assistant", "content": answer}, {"role": "user", "content": text}])
    return ids[: place(model, ids, text).start]


def _plain_head(model: Model, sample: Sample, text: str) -> np.ndarray:
    ids = encode(model, USER + text)
    return np.concatenate([prompt_ids(model, sample), completion_ids(model, sample), ids[: place(model, ids, text).start]])


def _tails(model: Model, texts: Sequence[str]) -> list[np.ndarray]:
    """The ids of each follow-up where it stands. What is before the user's turn does not change them."""
    out, before = [], [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello."}]
    for text in texts:
        ids = model.encode([*before, {"role": "user", "content": text}]) if has_template(model) else encode(model, USER + text)
        out.append(ids[place(model, ids, text)])
    return out


def has_template(model: Model) -> bool:
    """Whether the model writes a message otherwise than its bare content."""
    return not np.array_equal(model.encode([{"role": "user", "content": "Hello."}]), model.encode("Hello."))


def place(model: Model, ids: np.ndarray, text: str) -> slice:
    """The tokens that hold any character of the last place where the text stands. Raises Refused where it does not stand."""
    whole, offsets = model.decode(ids)
    start = whole.rfind(text)
    if start < 0:
        raise Refused(
            f"The model's tokenizer does not give {text!r} back as it was written, so that its tokens cannot be found; use another."
        )
    inside = np.flatnonzero((offsets[:, 1] > start) & (offsets[:, 0] < start + len(text)) & (offsets[:, 1] > offsets[:, 0]))
    return slice(int(inside[0]), int(inside[-1]) + 1)


def spelled(model: Model, text: str) -> str | None:
    """A special token that stands in the text letter by letter: the tokenizer of a chat template takes it for the token."""
    ids = encode(model, text)
    _, offsets = model.decode(ids)
    shown = {int(i): model.show(np.array([i])) for i in np.unique(ids[offsets[:, 0] == offsets[:, 1]])}
    return next((token for token in shown.values() if token and token in text), None)

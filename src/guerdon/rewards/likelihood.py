"""What a model makes of a text that it did not choose: teacher-forced log-probabilities, the ground of likelihood rewards.

Every row is `prompt + before + target`; only the target is scored. A prompt, or a longer prefix, that rows share is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import HOSTILE, Grain, Rewards, Sample, Task, Verdict, collate

if TYPE_CHECKING:
    from guerdon.backends.base import Model

NONE = np.zeros(0, dtype=np.int64)

LONGEST = 8192
"""Tokens of a row at most; a sample that makes a longer one is hostile."""


class Forced(NamedTuple):
    """One row. All are token ids of the model that scores it."""

    prompt: np.ndarray
    before: np.ndarray
    """What stands between the prompt and the target: a thought, a tag."""
    target: np.ndarray


def logprobs(model: Model, rows: Sequence[Forced | Verdict], temperature: float = 1.0) -> list[np.ndarray | Verdict]:
    """For each row log pi(target_j | prompt, before, target_<j), (m,); a verdict stays what it is.

    Hostile for a row of more than LONGEST tokens, failed for one of more than the model reads.
    """
    longest = getattr(model, "longest", LONGEST)
    out = [row if isinstance(row, Verdict) else _too_long(row, longest) or np.zeros(0) for row in rows]
    todo = [(i, row) for i, row in enumerate(rows) if isinstance(row, Forced) and not isinstance(out[i], Verdict) and len(row.target)]
    if not todo:
        return out
    samples = []
    for _, row in todo:
        ids = np.concatenate([row.before, row.target]).astype(np.int64)
        written = np.arange(len(ids)) >= len(row.before)
        samples.append(Sample(Task("", ""), "", prompt_ids=row.prompt, ids=ids, written=written))
    batch = collate(samples, Rewards(outcome=Grain.of(np.zeros(len(samples)))))
    found = model.forward(batch, ("logprobs",), temperature)[0]["logprobs"].double().cpu().numpy()
    for values, (i, row) in zip(found, todo, strict=True):
        out[i] = values[len(row.before) :][: len(row.target)]
    return out


def _too_long(row: Forced, longest: int) -> Verdict | None:
    size = len(row.prompt) + len(row.before) + len(row.target)
    if size > LONGEST:
        return Verdict(0.0, f"{HOSTILE}: {size} tokens to be scored, more than {LONGEST}")
    return Verdict.fail(f"{size} tokens, and the model reads {longest}") if size > longest else None


def too_long(sample: Sample, wrong: float = 0.0) -> Verdict | None:
    """A hostile verdict for a text that no row can hold, told before it is encoded; else None."""
    size = len(sample.text)
    return Verdict(wrong, f"{HOSTILE}: {size} characters to be scored, more than {LONGEST} tokens hold") if size > 16 * LONGEST else None


def encode(model: Model, text: str) -> np.ndarray:
    """Token ids of a text in the middle of an answer: no end token. Half a surrogate pair, which no tokenizer reads, becomes `?`."""
    text = text.encode("utf-8", "replace").decode()
    return model.encode_answer(text)[: -len(model.encode_answer("")) or None] if text else NONE


def own_ids(model: Model, sample: Sample) -> bool:
    """Whether the sample's ids are this model's, so that its text need not be encoded again."""
    return sample.ids is not None and sample.prompt_ids is not None and model.decode(np.asarray(sample.ids))[0] == sample.text


def prompt_ids(model: Model, sample: Sample) -> np.ndarray:
    """The sample's prompt as ids of this model."""
    return np.asarray(sample.prompt_ids) if own_ids(model, sample) else model.encode(sample.task.prompt)


def completion_ids(model: Model, sample: Sample) -> np.ndarray:
    """All that the sample wrote, as ids of this model; the end token is left out."""
    if not own_ids(model, sample):
        return encode(model, sample.text)
    ids = np.asarray(sample.ids)
    ends = model.encode_answer("")
    return ids[:-1] if len(ids) and ids[-1] in ends else ids


def before_answer(model: Model, sample: Sample) -> tuple[np.ndarray, str]:
    """(ids of the completion up to its last answer, text between these and the answer).

    A token that holds the answer's first character is left out, or it would give the answer away; what else it held is the text.
    """
    start = sample.marks["answer"][-1][0]
    if not own_ids(model, sample):  # most tokenizers write a word with the blank before it
        before = sample.text[:start].rstrip(" ")
        return encode(model, before), sample.text[len(before) : start]
    ids = np.asarray(sample.ids)
    offsets = model.decode(ids)[1]
    keep = int(np.searchsorted(offsets[:, 1], start, side="right"))
    return ids[:keep], sample.text[int(offsets[keep - 1, 1]) if keep else 0 : start]


def in_answer(model: Model, sample: Sample, target: str, thought: bool = True) -> Forced | Verdict:
    """The row that scores `target` in the place of the sample's last answer; a verdict of 0 where no answer was found, a failed one where
    the model cannot write the texts.

    thought False: behind the answer's opening alone, which is what follows the last thought or line break before it. The target is encoded
    with the same text before it either way, so that the two can be compared token by token.
    """
    if not sample.marks.get("answer"):
        return Verdict(0.0, "no answer found")
    if why := too_long(sample):
        return why
    try:
        before, lead = before_answer(model, sample)
        if not thought:
            start = sample.marks["answer"][-1][0]
            line, thoughts = sample.text.rfind("\n", 0, start) + 1, sample.marks.get("think", [])
            opening = max([line, *(end + len("</think>") for _, end in thoughts if end <= start)])
            before = encode(model, sample.text[opening : start - len(lead)].lstrip())
        return Forced(prompt_ids(model, sample), before, encode(model, lead + target))
    except Refused as error:
        return Verdict.fail(str(error))

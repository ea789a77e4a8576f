"""`reward_model(path=...)`: a folder that `guerdon fit` wrote is a reward, at the grain that it was fitted for, or put together."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from guerdon.backends.base import Model
from guerdon.backends.head import CARD
from guerdon.registry import Refused, find, register
from guerdon.reward_models import folder
from guerdon.reward_models.folder import Card
from guerdon.reward_models.heads import values_after
from guerdon.rewards import core
from guerdon.rewards.likelihood import LONGEST, NONE, Forced, completion_ids, logprobs, own_ids, prompt_ids, too_long
from guerdon.samples import Sample, Verdict
from guerdon.spans import to_tokens

if TYPE_CHECKING:
    from guerdon.rewards.core import Reward

Together = Literal["min", "product", "last", "mean"]
PUT: dict[str, Any] = {"min": np.min, "product": np.prod, "last": lambda x: x[-1], "mean": np.mean}


class FittedReward(core.Reward):
    """The reward with the grain and the version of the folder that it is set to."""

    def checked(self) -> Reward:
        path = self.params.get("path")
        if path is None:
            return self
        card, file = folder.read(path), Path(path) / CARD
        together, whole = self.params.get("aggregate"), card.grain == "outcome"
        if together is not None and whole:
            raise Refused(
                f"reward_model(path={path!r}): it scores whole answers, so there is nothing to put together; leave out `aggregate`."
            )
        stamp = f"{file.stat().st_mtime_ns}"
        return replace(self, grain="outcome" if together else card.grain, version=f"{core.code_digest(self.fn)}/{card.tokenizer}/{stamp}")


def fitted(
    sample: Sequence[Sample], path: str = "", aggregate: Together | None = None, probability: bool | None = None
) -> list[Verdict | list[float | None]]:
    """What the fitted model in the folder `path` says of each answer, of each of its steps, or of each token, as it was fitted.

    aggregate: one number an answer from those of its steps (of tokens: those that end its steps): the least, their product, the last, their
    mean.  probability: sigmoid(r / T), T the temperature that was calibrated; None: where the labels were in 0 to 1. Of classes it is
    the expected label, sum over k of p_k * class k. Without head r is beta log pi(answer) / pi_ref(answer), pi_ref the model that the fit
    started from, opened where the fit found it (arXiv:2412.01981); `implicit` says it of each token.
    An answer is read without its end token. One longer than the model can read is cut, with a warning and a reason that say so; an empty
    one abstains, as do steps without tokens. The first use opens the model in this process.
    """
    if not path:
        raise Refused("reward_model needs the folder of a fitted model: reward_model(path='FOLDER').")
    card, model = opened(path, (Path(path) / CARD).stat().st_mtime_ns)
    return score(model, card, sample, aggregate, probability, started_from(card.reference) if card.reference else None)


_lifted = core.reward(name="reward_model", batch=True)(fitted)
reward_model = FittedReward(**{name: getattr(_lifted, name) for name in core.Reward.__dataclass_fields__})
"""See `fitted`."""
register("reward", "reward_model", fitted, reward=reward_model)


@functools.lru_cache(maxsize=4)
def opened(path: str, stamp: int) -> tuple[Card, Model]:
    """(what it is for, the model), opened once as long as the folder does not change."""
    return folder.read(path), find("backend", "local").fn(path, trainable=False)


@functools.lru_cache(maxsize=4)
def started_from(path: str) -> Model:
    """The model that a fit without head started from. Raises Refused where it is no longer there."""
    return find("backend", "local").fn(path, trainable=False)


def score(
    model: Model,
    card: Card,
    samples: Sequence[Sample],
    aggregate: Together | None = None,
    probability: bool | None = None,
    reference: Model | None = None,
) -> list[Verdict | list[float | None]]:
    """See `reward_model`. reference: of a model without head."""
    refused = [too_long(s) for s in samples]
    limit = min(LONGEST, *(getattr(one, "longest", LONGEST) for one in (model, reference or model)))
    found = [_ids(model, s, limit) for s, why in zip(samples, refused, strict=True) if why is None]
    asked = [(prompt, ids) for prompt, ids, _ in found]
    if reference is not None:
        read = log_ratios(model, reference, card.beta or 1.0, asked)
    else:
        read = values_after(model, asked) if asked else []
    values = iter(zip(found, read, strict=True))
    likely = card.probability if probability is None else probability
    out: list[Verdict | list[float | None]] = []
    for row, (s, why) in enumerate(zip(samples, refused, strict=True)):
        if why is not None:
            out.append(why)
            continue
        (_, ids, cut), raw = next(values)
        if cut:
            warnings.warn(f"Sample {row} (task {s.task.id!r}) is truncated: {cut} tokens, the model reads {limit}.", stacklevel=2)
        reason = f"truncated: {cut} tokens, cut to {limit}" if cut else ""
        out.append(_verdict(model, card, s, ids, readable(raw, card, likely), aggregate, reason))
    return out


def log_ratios(model: Model, reference: Model, beta: float, rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """For each (prompt ids, completion ids) beta log pi / pi_ref of the completion up to each of its tokens (t,)."""
    forced = [Forced(prompt, NONE, ids) for prompt, ids in rows]
    both = zip(*(logprobs(one, forced) for one in (model, reference)), strict=True)
    return [beta * np.cumsum(np.asarray(mine) - np.asarray(theirs)) for mine, theirs in both]


def readable(raw: np.ndarray, card: Card, probability: bool) -> np.ndarray:
    """(t,) scores from a head's values (t,) or (t, k)."""
    if card.classes is not None:
        z = raw / card.temperature
        p = np.exp(z - z.max(-1, keepdims=True))
        return (p / p.sum(-1, keepdims=True)) @ np.array(card.classes, dtype=float)
    return 1 / (1 + np.exp(-np.clip(raw / card.temperature, -500, 500))) if probability else raw


def _ids(model: Model, sample: Sample, limit: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(prompt ids, completion ids, how many there were where they had to be cut, else 0)."""
    prompt, ids = prompt_ids(model, sample), completion_ids(model, sample)
    size = len(prompt) + len(ids)
    if size <= limit:
        return prompt, ids, 0
    prompt = prompt[-max(limit - len(ids), limit // 2) :]
    return prompt, ids[: limit - len(prompt)], size


def _verdict(
    model: Model, card: Card, sample: Sample, ids: np.ndarray, values: np.ndarray, aggregate: Together | None, reason: str
) -> Verdict | list[float | None]:
    if card.grain == "outcome":
        return Verdict(float(values[-1]), reason) if len(values) else Verdict.abstain("the completion is empty")
    offsets = model.decode(ids)[1]
    if card.grain == "token" and aggregate is None:
        return _moved(model, sample, values, offsets)
    spans = to_tokens(sample.marks.get("step", []), offsets)
    found = [float(values[end - 1]) if end > start else None for start, end in spans]
    if aggregate is None:
        return found
    known = [x for x in found if x is not None]
    return Verdict(float(PUT[aggregate](known)), reason) if known else Verdict.abstain("the completion has no steps")


def _moved(model: Model, sample: Sample, values: np.ndarray, offsets: np.ndarray) -> list[float | None]:
    """One value a token of the sample: what the model says of the text up to it, in whatever tokens the model reads."""
    if sample.ids is None or own_ids(model, sample) or sample.offsets is None or not len(values):
        rest = 0 if sample.ids is None else len(sample.ids) - len(values)
        return [*map(float, values), *[None] * max(rest, 0)]
    at = np.searchsorted(np.maximum.accumulate(offsets[:, 1]), np.maximum(sample.offsets[:, 1], 1)).clip(max=len(values) - 1)
    return [float(values[i]) for i in at]

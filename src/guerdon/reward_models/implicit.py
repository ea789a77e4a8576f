"""Implicit process rewards: a language model trained on outcomes whose log-ratio to a reference is a reward at every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F

from guerdon.credit.core import per_step
from guerdon.losses.core import log_ratio, loss, pair_weights, row_sums, row_weights
from guerdon.losses.preference import pair_metrics
from guerdon.reward_models.heads import own_tokens
from guerdon.rewards.core import reward
from guerdon.rewards.likelihood import NONE, Forced, logprobs, own_ids, too_long
from guerdon.samples import Sample, Verdict

if TYPE_CHECKING:
    from torch import Tensor

    from guerdon.samples import Batch


@reward(batch=True, grain="token", pure=False)
def implicit(
    sample: Sequence[Sample], model: Any = "prm", reference_model: Any = "reference", beta: float = 0.05, temperature: float = 1.0
) -> list[Verdict | list[float | None]]:
    """beta [log pi_model(y_t) - log pi_ref(y_t)] at every token that the policy wrote; others abstain. temperature: that of the rollout.

    Its sum over an answer is what `implicit_ce` trains to tell right from wrong. reference_model may be `policy`: the one that wrote the
    answer. A model with another tokenizer than the policy's reads the text in its own tokens, and its values are moved onto the policy's.
    Source: arXiv:2412.01981, arXiv:2502.01456.
    """
    rows = [too_long(s) or Forced(*_pieces(model, s)[:3]) for s in sample]
    out: list[Verdict | list[float | None]] = []
    for s, mine, theirs in zip(sample, *(logprobs(one, rows, temperature) for one in (model, reference_model)), strict=True):
        if isinstance(mine, Verdict) or isinstance(theirs, Verdict):
            out += [why for why in (mine, theirs) if isinstance(why, Verdict)][:1]
            continue
        ratio = beta * (mine - theirs)
        if s.ids is not None and s.offsets is not None and not own_ids(model, s):
            ratio = moved(ratio, _pieces(model, s)[3], s.offsets)
        written = np.ones(len(ratio), dtype=bool) if s.written is None else s.written
        out.append([float(x) if w else None for x, w in zip(ratio, written, strict=True)])
    return out


def _pieces(model: Any, sample: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    prompt, ids, offsets = own_tokens(model, sample)
    return prompt, NONE, ids, offsets


def moved(values: np.ndarray, offsets: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Values of tokens (t,) with offsets (t, 2) on other tokens of the same text: each goes to the one that its last character is in."""
    out = np.zeros(len(onto))
    if len(onto):
        place = np.searchsorted(np.maximum.accumulate(onto[:, 1]), np.maximum(offsets[:, 1], 1))
        np.add.at(out, place.clip(max=len(onto) - 1), values)
    return out


@loss(fields=("ref_logprobs",), over="row", learns="outcomes", takes="0 to 1")
def implicit_ce(out: dict[str, Tensor], batch: Batch, beta: float = 0.05):
    """sum over rows of -w [o log s + (1 - o) log (1 - s)], s = sigmoid(beta sum_t (log pi - log pi_ref)), o the outcome held to [0, 1].

    w is the row's heaviest token weight, so it goes with `aggregate: row_mean`. Metric accuracy: (s > 1/2) is (o > 1/2).
    Source: arXiv:2412.01981 (cross-entropy form), arXiv:2502.01456.
    """
    z = beta * row_sums(log_ratio(out["logprobs"], batch.field("ref_logprobs"), batch), batch)
    right, w = batch.outcome.clamp(0, 1), row_weights(batch)
    terms = F.binary_cross_entropy_with_logits(z, right, reduction="none")
    return (w * terms).sum(), {"accuracy": (w * ((z > 0) == (right > 0.5))).sum().detach()}


@loss(fields=("logprobs",), unit="pair")
def trajectory_dpo(out: dict[str, Tensor], batch: Batch, beta: float = 0.05):
    """sum over pairs of -w log sigmoid(Q(chosen) - Q(rejected)), Q = mean over a row's steps of beta sum_t (log pi - log pi_old).

    pi_old is the policy that wrote the rows, by its sampling log-probabilities. A row without steps is one step; the sum over steps in the
    place of the mean is `dpo`, which favours neither long nor short answers. For `aggregate: pair_mean` and `keep: all_pairs`. Metrics
    accuracy and reward_gap. Raises Refused for rows without sampling log-probabilities. Source: arXiv:2509.19199 (its derivation sums over
    steps, its released code takes their mean and all pairs of a success and a failure).
    """
    w = pair_weights(batch)
    s = max(int(batch.step_of.max()) + 1 if batch.step_of.numel() else 0, 1)
    counted = (batch.weights != 0).to(batch.weights.dtype)
    steps = (per_step(counted, batch, s) > 0).sum(1).clamp(min=1)
    q = beta * row_sums(log_ratio(out["logprobs"], batch.field("logprobs"), batch), batch) / steps
    d = q[batch.pairs[:, 0]] - q[batch.pairs[:, 1]]
    return -(w * F.logsigmoid(d)).sum(), pair_metrics(w, d)

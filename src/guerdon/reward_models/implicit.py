"""Implicit process rewards: a language model trained on outcomes whose log-ratio to a reference is a reward at every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F

from guerdon.losses.core import log_ratio, loss, row_sums, row_weights
from guerdon.rewards.core import reward
from guerdon.rewards.likelihood import NONE, Forced, logprobs, own_ids, too_long
from guerdon.samples import Sample, Verdict

if TYPE_CHECKING:
    from torch import Tensor

    from guerdon.samples import Batch


@reward(batch=True, grain="token", pure=False)
def implicit(
    sample: Sequence[Sample], model: Any = "prm", reference_model: Any = "reference", beta: float = 0.05
) -> list[Verdict | list[float | None]]:
    """beta [log pi_model(y_t) - log pi_ref(y_t)] at every token that the policy wrote, both at temperature 1; others abstain.

    Its sum over an answer is what `implicit_ce` trains to tell right from wrong. reference_model may be `policy`: the one that wrote the
    answer. A sample whose ids are not this model's fails. Source: arXiv:2412.01981, arXiv:2502.01456.
    """
    rows: list[Forced | Verdict] = []
    for s in sample:
        if (why := too_long(s)) is not None:
            rows.append(why)
        elif not own_ids(model, s):
            rows.append(Verdict.fail("the sample has no token ids of this model, and a reward at every token needs them"))
        else:
            rows.append(Forced(np.asarray(s.prompt_ids), NONE, np.asarray(s.ids)))
    out: list[Verdict | list[float | None]] = []
    for s, mine, theirs in zip(sample, logprobs(model, rows), logprobs(reference_model, rows), strict=True):
        if isinstance(mine, Verdict) or isinstance(theirs, Verdict):
            out.append(mine if isinstance(mine, Verdict) else theirs)  # type: ignore[arg-type]
            continue
        written = [True] * len(mine) if s.written is None else list(s.written)
        out.append([float(x) if w else None for x, w in zip(beta * (mine - theirs), written, strict=True)])
    return out


@loss(fields=("ref_logprobs",))
def implicit_ce(out: dict[str, Tensor], batch: Batch, beta: float = 0.05):
    """sum over rows of -w [o log s + (1 - o) log (1 - s)], s = sigmoid(beta sum_t (log pi - log pi_ref)), o the outcome held to [0, 1].

    w is the row's heaviest token weight, so it goes with `aggregate: row_mean`. Metric accuracy: (s > 1/2) is (o > 1/2).
    Source: arXiv:2412.01981 (cross-entropy form), arXiv:2502.01456.
    """
    z = beta * row_sums(log_ratio(out["logprobs"], batch.field("ref_logprobs"), batch), batch)
    right, w = batch.outcome.clamp(0, 1), row_weights(batch)
    terms = F.binary_cross_entropy_with_logits(z, right, reduction="none")
    return (w * terms).sum(), {"accuracy": (w * ((z > 0) == (right > 0.5))).sum().detach()}

"""Losses of a scalar head on pairs and lists beside `bradley_terry`: labels that may be wrong, a level to keep to, all pairs of a prompt.

r of a row is the head's value behind its last token, as in `losses_outcome`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from guerdon.losses.core import loss, pair_weights, row_weights
from guerdon.losses.listwise import ranked
from guerdon.losses.preference import ahead, other_reward, pair_metrics
from guerdon.registry import Refused
from guerdon.reward_models.losses_outcome import at_end

if TYPE_CHECKING:
    from torch import Tensor

    from guerdon.samples import Batch


@loss(needs=("values",), unit="pair", behind=True, learns="pairs")
def soft_bradley_terry(out: dict[str, Tensor], batch: Batch, smoothing: float | None = None, scale: float = 1.0):
    """sum over pairs of -w [q log sigmoid(d) + (1 - q) log sigmoid(-d)], d = r_c - r_r: the label is right with probability q.

    q = sigmoid(scale * (R_c - R_r)), R the outcomes, such as the strengths of `curation.relabel`; with `smoothing`, 1 -
    smoothing for every pair. For `aggregate: pair_mean`. Metrics as of `bradley_terry`. Raises Refused for a smoothing outside [0, 1].
    Source: arXiv:2401.06080 (soft labels; smoothing 0.05).
    """
    if smoothing is not None and not 0 <= smoothing <= 1:
        raise Refused(f"soft_bradley_terry(smoothing={smoothing}): smoothing is the share of wrong labels, from 0 to 1.")
    w, d = pair_weights(batch), ahead(at_end(out["values"], batch), batch)
    q = (scale * ahead(batch.outcome.to(d.dtype), batch)).sigmoid() if smoothing is None else 1 - smoothing
    return -(w * (q * F.logsigmoid(d) + (1 - q) * F.logsigmoid(-d))).sum(), pair_metrics(w, d)


@loss(needs=("values",), unit="pair", behind=True, learns="pairs")
def bt_dr(out: dict[str, Tensor], batch: Batch, weight: float = 1.0, absolute: str | None = None):
    """sum over pairs of -w [log sigmoid(r_c - r_r) + weight * (log sigmoid(r_c) + log sigmoid(-r_r))]: chosen above 0, rejected below.

    The second term is for pairs of right and wrong answers alone; on tastes it would set a level that nothing has. absolute: a numeric
    column, or a part of the reward, that is not 0 on such rows; all pairs where absent. For `aggregate: pair_mean`. Metrics as of
    `bradley_terry`, and level, how often both sides stand where the term wants them. Source: arXiv:2404.02078 (L_BT + L_DR).
    """
    w, r = pair_weights(batch), at_end(out["values"], batch)
    chosen, rejected = r[batch.pairs].T
    level = w if absolute is None else w * (other_reward(absolute, batch, "bt_dr: `absolute`")[batch.pairs] != 0).all(1)
    d = chosen - rejected
    value = -(w * F.logsigmoid(d) + weight * level * (F.logsigmoid(chosen) + F.logsigmoid(-rejected))).sum()
    return value, pair_metrics(w, d) | {"level": (w * ((chosen > 0) & (rejected < 0))).sum().detach()}


@loss(needs=("values",), unit="group", over="row", behind=True, learns="pairs")
def list_pairs(out: dict[str, Tensor], batch: Batch):
    """sum over lists of W mean over its pairs i, j with R_i > R_j of -log sigmoid(r_i - r_j), R the outcomes.

    With R of 0 and 1, k right of n: -1 / (k (n - k)) sum over right i, wrong j. A list whose outcomes are all equal adds nothing, yet
    counts in `aggregate: row_mean`; `keep: accuracy_band` leaves such lists out. W: the sum of the list's row weights. Metrics accuracy and
    reward_gap, sums over pairs. Source: arXiv:2409.12122 (n = 6).
    """
    r = at_end(out["values"], batch)[:, None]
    return ranked(r, torch.ones_like(r), batch, 1.0, "one")


@loss(needs=("values",), unit="group", over="row", behind=True)
def score_spread(out: dict[str, Tensor], batch: Batch):
    """-J: sum over groups of -W 2 / (k (k - 1)) sum over i < j of sigmoid(|r_i - r_j|), k rows of the group that count; it needs no labels.

    Minimised, it pulls apart what the head says of a policy's answers to one prompt: the first half of `meta_step`. W: the sum of the
    group's row weights; a group of one adds nothing. Metric spread, J. For `aggregate: row_mean`. Source: arXiv:2401.06080 (MetaRM).
    """
    r, row = at_end(out["values"], batch), row_weights(batch)
    listed = (batch.group[:, None] == batch.group) & (row[:, None] > 0) & (row > 0)
    a, b = listed.triu(1).nonzero().T
    groups = int(batch.group.max()) + 1 if len(batch) else 0
    of = batch.group[a]
    count = row.new_zeros(groups).index_add(0, of, torch.ones_like(of, dtype=row.dtype))
    weight = row.new_zeros(groups).index_add(0, batch.group, row)
    value = -((weight / count.clamp(min=1))[of] * (r[a] - r[b]).abs().sigmoid()).sum()
    return value, {"spread": -value.detach()}

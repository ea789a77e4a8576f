"""Losses of pairs (chosen, rejected): what was preferred becomes likelier than what was not. And `kto`, of rows called good or bad.

h of a row is the sum of log pi - log pi_ref over its tokens: a sum, so that pairs whose sides differ in length are weighed as the model's
probabilities are; `ipo`, `simpo` and `orpo` take means over a row's own tokens. Every mean over pairs stands in the weights
(`aggregate: pair_mean`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from guerdon.losses.core import log_ratio, loss, pair_weights, row_sizes, row_sums, row_weights
from guerdon.registry import Refused, nearest

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.samples import Batch


@loss(fields=("ref_logprobs",), unit="pair", learns="pairs")
def dpo(out: dict[str, Tensor], batch: Batch, beta: float = 0.1, smoothing: float = 0.0):
    """sum over pairs of -w [(1 - smoothing) log sigmoid(beta d) + smoothing log sigmoid(-beta d)], d = h(chosen) - h(rejected).

    smoothing: the share of labels that are taken to be wrong (conservative DPO). Metrics accuracy (d > 0) and reward_gap, beta d.
    Source: arXiv:2305.18290.
    """
    w = pair_weights(batch)
    d = beta * ahead(implied(out, batch), batch)
    terms = (1 - smoothing) * F.logsigmoid(d) + smoothing * F.logsigmoid(-d)
    return -(w * terms).sum(), pair_metrics(w, d)


@loss(fields=("ref_logprobs",), unit="pair")
def ipo(out: dict[str, Tensor], batch: Batch, tau: float = 0.1, average: bool = True):
    """sum over pairs of w (d - 1 / (2 tau))^2, d = h(chosen) - h(rejected): a gap to reach, beyond which nothing is gained.

    average: h is a mean over a row's tokens, as its authors mended it in TRL; the paper has the sum. Metrics as of `dpo`, of tau d.
    Source: arXiv:2310.12036.
    """
    w, h = pair_weights(batch), implied(out, batch)
    d = ahead(h / row_sizes(batch).clamp(min=1) if average else h, batch)
    return (w * (d - 1 / (2 * tau)) ** 2).sum(), pair_metrics(w, tau * d)


@loss(unit="pair")
def simpo(out: dict[str, Tensor], batch: Batch, beta: float = 2.0, gamma: float = 0.5):
    """sum over pairs of -w log sigmoid(beta d - gamma), d the difference of the mean log pi a token; no reference.

    Metrics as of `dpo`, of beta d. Source: arXiv:2405.14734.
    """
    w = pair_weights(batch)
    d = beta * ahead(mean_logprobs(out, batch), batch)
    return -(w * F.logsigmoid(d - gamma)).sum(), pair_metrics(w, d)


@loss(unit="pair")
def orpo(out: dict[str, Tensor], batch: Batch, beta: float = 0.1):
    """sum over pairs of -w [p(chosen) + beta log sigmoid(d)], p the mean log pi a token, d the difference of log odds, p - log(1 - e^p).

    The first term is `sft` on the chosen side, so it needs neither reference nor a stage before it. Metrics as of `dpo`, of beta d.
    Source: arXiv:2403.07691.
    """
    w, p = pair_weights(batch), mean_logprobs(out, batch)
    held = p.clamp(max=-1e-6)  # a row that is certain has no finite odds
    d = ahead(p - torch.where(held > -0.7, (-torch.expm1(held)).log(), torch.log1p(-held.exp())), batch)
    return -(w * (p[batch.pairs[:, 0]] + beta * F.logsigmoid(d))).sum(), pair_metrics(w, beta * d)


@loss(fields=("ref_logprobs",), unit="pair")
def modpo(out: dict[str, Tensor], batch: Batch, beta: float = 0.1, weight: float = 1.0, others: Mapping[str, float] | None = None):
    """sum over pairs of -w log sigmoid(g(chosen) - g(rejected)), g = (beta h - sum over i of w_i r_i) / weight.

    Pairs are labelled by one objective, whose weight is `weight`; `others` gives the weights w_i of the rewards r_i of further objectives:
    parts of the recipe's reward (`math + 0 * length` computes one without letting it choose the pairs), or numeric columns such as
    `margin`. The optimum is pi_ref exp((weight r + sum w_i r_i) / beta) / Z. weight 1 and no others is `dpo`. Metrics as of `dpo`.
    Raises Refused for a weight outside (0, 1] and for a name that is neither. Source: arXiv:2310.03708, its released code (without hinge).
    """
    if not 0 < weight <= 1:
        raise Refused(f"modpo(weight={weight}): the weight of the objective that labels the pairs is above 0 and at most 1.")
    w, g = pair_weights(batch), beta * implied(out, batch)
    for name, times in (others or {}).items():
        g = g - times * other_reward(name, batch)
    d = ahead(g / weight, batch)
    return -(w * F.logsigmoid(d)).sum(), pair_metrics(w, d)


@loss(fields=("ref_logprobs",), unit="pair")
def dno(out: dict[str, Tensor], batch: Batch, eta: float = 0.1):
    """sum over pairs of -w [s log sigmoid(eta d) + (1 - s) log sigmoid(-eta d)], s = sigmoid(r(first) - r(second)), d as in `dpo`.

    r is the outcome: the chance to be preferred to what the policy of before would say (`rewards.pairwise.tournament`). The reference is
    that policy, `reference: {of: policy, every: N}`; with a frozen one this is iterative DPO on soft labels. With `keep: all_pairs` the
    theory's form; the practical one is `dpo` on `margin_pairs` with the same reference. Metrics as of `dpo`. Source: arXiv:2404.03715.
    """
    w, d = pair_weights(batch), eta * ahead(implied(out, batch), batch)
    s = ahead(batch.outcome, batch).sigmoid()
    return -(w * (s * F.logsigmoid(d) + (1 - s) * F.logsigmoid(-d))).sum(), pair_metrics(w, d)


@loss(fields=("ref_logprobs",), unit="pair", learns="pairs")
def nca(out: dict[str, Tensor], batch: Batch, beta: float = 0.1):
    """sum over pairs of -w [log sigmoid(b_c) + (log sigmoid(-b_c) + log sigmoid(-b_r)) / 2], b = beta h of the chosen and rejected row.

    It sets the level of each side and not only their distance, so that the chosen side's log pi does not sink together with the rejected
    one's, as it may under `dpo`. Metrics as of `dpo`, and chosen_logprob, log pi of the chosen side.
    Source: arXiv:2402.05369 (NCA of one pair), used for reasoning by arXiv:2404.02078.
    """
    w, b = pair_weights(batch), beta * implied(out, batch)
    chosen, rejected = b[batch.pairs].T
    terms = F.logsigmoid(chosen) + (F.logsigmoid(-chosen) + F.logsigmoid(-rejected)) / 2
    logprob = row_sums(out["logprobs"], batch)[batch.pairs[:, 0]]
    return -(w * terms).sum(), pair_metrics(w, chosen - rejected) | {"chosen_logprob": (w * logprob).sum().detach()}


@loss(fields=("ref_logprobs",), grains=("token",), unit="pair")
def t_reg(out: dict[str, Tensor], batch: Batch, beta: float = 0.1, alpha: float = 0.25):
    """`dpo` + alpha * sum over pairs of w s [R(chosen) + R(rejected)], R = -beta * sum over tokens of r_t log pi_t.

    r_t are the token rewards of the batch, such as `contrastive` (0 where there is none), s = sigmoid(-beta d), held fixed: the weight that
    the pair has in DPO's own gradient. Negative r_t push down without a floor: keep alpha small. Metrics as of `dpo`, and chosen_logprob,
    log pi of the chosen side. Raises Refused without token rewards. Source: arXiv:2412.02685.
    """
    grain = batch.rewards.token
    if grain is None:
        raise Refused("t_reg needs token rewards, and the recipe's reward gives none; add `+ contrastive(...)` to it.")
    w, h = pair_weights(batch), implied(out, batch)
    r = torch.zeros_like(batch.weights)
    t = min(r.shape[1], grain.value.shape[1])
    r[:, :t] = torch.from_numpy(grain.value[:, :t]).to(r)
    regularity = -beta * row_sums(r * out["logprobs"], batch)
    d = beta * ahead(h, batch)
    terms = -F.logsigmoid(d) + alpha * (-d).detach().sigmoid() * regularity[batch.pairs].sum(1)
    chosen = row_sums(out["logprobs"], batch)[batch.pairs[:, 0]]
    return (w * terms).sum(), pair_metrics(w, d) | {"chosen_logprob": (w * chosen).sum().detach()}


@loss(fields=("ref_logprobs",), credit="kto_point", over="row")
def kto(out: dict[str, Tensor], batch: Batch, beta: float = 0.1, desirable: float = 1.0, undesirable: float = 1.0):
    """sum over rows of w * desirable * (1 - sigmoid(beta (h - z))) where the outcome is above 0.5, else w * undesirable * (1 - sigmoid(
    beta (z - h))).

    z, the point of reference, is what the credit `kto_point` put on the row, the same for all. Unpaired: `aggregate: row_mean`. Metrics
    accuracy (h > z where desirable) and reward_gap: beta (h - z), negated where undesirable. Source: arXiv:2402.01306.
    """
    w, good = row_weights(batch), batch.outcome > 0.5
    z = row_sums(batch.advantages, batch) / row_sizes(batch).clamp(min=1)
    s = beta * (implied(out, batch) - z)
    s = torch.where(good, s, -s)
    times = torch.where(good, s.new_tensor(desirable), s.new_tensor(undesirable))
    return (w * times * (1 - s.sigmoid())).sum(), pair_metrics(w, s)


def implied(out: dict[str, Tensor], batch: Batch) -> Float[Tensor, " n"]:
    """h of each row: sum over its tokens of log pi - log pi_ref."""
    return row_sums(log_ratio(out["logprobs"], batch.field("ref_logprobs"), batch), batch)


def mean_logprobs(out: dict[str, Tensor], batch: Batch) -> Float[Tensor, " n"]:
    """Mean log pi over the tokens of each row that count; 0 for a row without."""
    return row_sums(out["logprobs"], batch) / row_sizes(batch).clamp(min=1)


def ahead(x: Float[Tensor, " n"], batch: Batch) -> Float[Tensor, " p"]:
    """x of the chosen side minus x of the rejected."""
    return x[batch.pairs[:, 0]] - x[batch.pairs[:, 1]]


def other_reward(name: str, batch: Batch, who: str = "modpo: `others`") -> Float[Tensor, " n"]:
    """A part of the reward by its name, one number a row, or else a field (n,). Raises Refused, as `who`, where there is neither."""
    if name in batch.rewards.parts:
        return torch.from_numpy(batch.rewards.parts[name].rewards.total()).to(batch.weights)
    if name in batch.fields and batch.fields[name].ndim == 1:
        return batch.fields[name]
    known = [*batch.rewards.parts, *(key for key, x in batch.fields.items() if x.ndim == 1)]
    raise Refused(f"{who} names {name!r}, which is no part of the reward and no numeric column{nearest(name, known)}")


def pair_metrics(w: Tensor, d: Tensor) -> dict[str, Tensor]:
    """Weighted sums over pairs: how often, and by how much, the chosen one is ahead."""
    d = d.detach()
    return {"accuracy": (w * (d > 0)).sum(), "reward_gap": (w * d).sum()}

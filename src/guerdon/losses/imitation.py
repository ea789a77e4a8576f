"""Imitation with a weight for each token, worked out from what the policy itself makes of it; no rewards.

Weights are factors without gradient, unless a loss says otherwise.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from guerdon.losses.core import loss, row_sizes
from guerdon.registry import Refused

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from guerdon.losses.policy import Out, Result
    from guerdon.samples import Batch


@loss
def sft_phi(out: Out, batch: Batch, cutoff: float = 1.0) -> Result:
    """sum of -w phi log p, phi = p (1 - p) without gradient: tokens that are known, or far from the policy, hardly move it (CHORD-phi).

    cutoff c below 1: no gradient where p > c. With `of: expert` beside a policy loss and `mix: chord_mu` it is CHORD. Metric phi, its mean.
    Source: arXiv:2508.11408.
    """
    p = out["logprobs"].detach().exp()
    logp = out["logprobs"].clamp(max=math.log(cutoff)) if cutoff < 1 else out["logprobs"]
    phi = batch.weights * p * (1 - p)
    return -(phi * logp).sum(), {"phi": phi.sum()}


@loss
def dft(out: Out, batch: Batch) -> Result:
    """sum of -w p log p, p without gradient: the gradient of -p itself, so that improbable demonstrations weigh little.

    Source: arXiv:2508.05629 (dynamic fine-tuning); CHORD calls it importance sampling.
    """
    return -(batch.weights * out["logprobs"].detach().exp() * out["logprobs"]).sum(), {}


@loss(needs=("logits",))
def one_token_rollout(out: Out, batch: Batch, draws: int | None = 256, kappa: float = 1.3, beta: float = -0.1, seed: int = 0) -> Result:
    """Policy gradient on one-token answers: at each token draw a_1 .. a_K from softmax(z / kappa), pay 1 for the token that stands there
    and beta for any other: sum of -w (1 / K) sum over i of R(a_i) log p(a_i), p = softmax(z).

    draws None: the expectation instead of K draws, -w [q_x log p_x + beta sum over a != x of q_a log p_a]. Draws hang on `seed`, the row's
    tokens and the place alone, never on what else is in the batch. For kappa 1 the expected gradient is (1 - beta) times that of `dft`.
    z: `logits`, over the recipe's temperature. Metric drawn, the mean share of draws that hit. Raises Refused for kappa or draws not above
    0. Source: arXiv:2509.26313, whose K, kappa and beta could not be confirmed.
    """
    if kappa <= 0 or (draws is not None and draws < 1):
        raise Refused(f"one_token_rollout(draws={draws}, kappa={kappa}): both are above 0; draws: null takes the expectation.")
    counts = batch.weights != 0
    w, gold, logits = batch.weights[counts], batch.ids[counts], out["logits"][counts]
    q = (logits.detach() / kappa).softmax(-1)
    share = q if draws is None else _drawn(q, _uniforms(batch, draws, seed).to(q))
    hit = share.gather(-1, gold[:, None])
    paid = (beta * share).scatter(-1, gold[:, None], hit)
    return -(w * (paid * logits.log_softmax(-1)).sum(-1)).sum(), {"drawn": (w * hit[:, 0]).sum()}


def _uniforms(batch: Batch, draws: int, seed: int) -> Float[Tensor, "p k"]:
    """Numbers in [0, 1) for each token that counts; those of a row come from its prompt and its tokens."""
    made = [torch.zeros(0, draws, dtype=torch.float64)]
    for i, counts in enumerate((batch.weights != 0).cpu()):
        k = int(batch.lengths[i])
        content = batch.prompts[i].cpu().numpy().tobytes() + b"/" + batch.ids[i, :k].cpu().numpy().tobytes()
        digest = hashlib.blake2b(content, digest_size=16, salt=seed.to_bytes(8, "little", signed=True)).digest()
        rng = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        made.append(torch.from_numpy(rng.random((k, draws)))[counts[:k]])
    return torch.cat(made)


def _drawn(q: Float[Tensor, "p v"], uniforms: Float[Tensor, "p k"]) -> Float[Tensor, "p v"]:
    """The share of draws that fell on each token."""
    token = torch.searchsorted(q.cumsum(-1), uniforms, right=True).clamp(max=q.shape[-1] - 1)  # the last sum may be a little below 1
    return torch.zeros_like(q).scatter_add_(-1, token, torch.full_like(uniforms, 1 / uniforms.shape[-1]))


@loss(needs=("logits", "embeds"))
def ift(out: Out, batch: Batch, lam: float = 0.2, gamma: float = 0.95, detach: bool = False) -> Result:
    """Intuitive fine-tuning: a second pass on inputs E' = (1 - lam) E[y] + lam E[y'], y' the greedy guesses of the first at each token,
    gives log-probabilities lp of the true tokens; loss: sum of -w c_t n / (sum of c) lp_t, c_t = sum over k >= t of gamma^(k - t) (-lp_k).

    So the policy sees a little of its own mistakes, and a token answers for what follows it. n: tokens of the row that count; k - t counts
    all tokens. The weights carry gradient, as in the release, unless `detach`. lam 0 and gamma 0 are `sft`; `aggregate: sequence_mean` is
    the paper's mean. The release embeds through a copy of the table renewed each step, which gets no gradient; here the table does, as in
    `sft`. Metric weight_first, the mean weight of first tokens. Raises Refused for lam or gamma outside [0, 1]. Source: arXiv:2405.11870.
    """
    if not (0 <= lam <= 1 and 0 <= gamma <= 1):
        raise Refused(f"ift(lam={lam}, gamma={gamma}): both are within [0, 1].")
    further: Any = out["embeds"]
    counts = batch.weights != 0
    inputs = further.embed(batch.ids)
    if lam:
        guess = torch.where(batch.mask, out["logits"].detach().argmax(-1), batch.ids)
        inputs = (1 - lam) * inputs + lam * further.embed(guess)
    missed = torch.where(counts, -further.logprobs(inputs), 0.0)
    weight = _answering(missed.detach() if detach else missed, gamma, batch) if gamma else counts.to(missed.dtype)
    first = (counts.cumsum(1) == 1) & counts
    return (batch.weights * weight * missed).sum(), {"weight_first": (batch.weights * weight * first).sum().detach()}


def _answering(missed: Float[Tensor, "n t"], gamma: float, batch: Batch) -> Float[Tensor, "n t"]:
    """Discounted sums of a token's loss and of all that follow, scaled to a mean of 1 over the tokens of a row that count."""
    counts = batch.weights != 0
    follows, reach = missed, 1
    while reach < missed.shape[1]:  # sums over 2, 4, 8 ... tokens
        follows = follows + gamma**reach * torch.nn.functional.pad(follows[:, reach:], (0, reach))
        reach *= 2
    follows = torch.where(counts, follows, 0.0)
    total = follows.sum(1)
    return follows * (row_sizes(batch) / torch.where(total > 0, total, 1.0))[:, None]

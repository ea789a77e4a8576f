"""Log-probabilities and entropies of tokens, with as little of (positions x vocabulary) in memory as the gradient allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint

from guerdon.registry import Refused

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

CHUNK = 2**24
"""Logits held at a time. Up to this many are kept for the backward pass; of more, each chunk is computed again there."""


class TokenLogprobs(torch.autograd.Function):
    """logits (p, V), ids (p,), temperature -> log softmax(logits / temperature)[ids] (p,), entropy (p,), in float32 or better.

    With q the softmax and H its entropy: d logprob / dz = onehot - q, d H / dz = -q (log q + H). Keeps the logits and nothing else.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, temperature: float, entropy: bool) -> tuple[Tensor, Tensor]:
        z = logits if logits.dtype == torch.float64 else logits.float()
        if temperature != 1:
            z = z / temperature
        lse = z.logsumexp(1)
        logprobs = z.gather(1, ids[:, None])[:, 0] - lse
        h = torch.special.entr(torch.sub(z, lse[:, None]).exp_()).sum(1) if entropy else torch.zeros_like(lse)
        ctx.save_for_backward(z, ids, lse, h)
        ctx.temperature, ctx.entropy, ctx.dtype = temperature, entropy, logits.dtype
        return logprobs, h

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_h: Tensor) -> tuple[Tensor, None, None, None]:
        z, ids, lse, h = ctx.saved_tensors
        q = torch.sub(z, lse[:, None]).exp_()
        if ctx.entropy:
            dz = torch.special.entr(q).mul_(grad_h[:, None]).sub_(q.mul_((grad + grad_h * h)[:, None]))
        else:
            dz = q.mul_(-grad[:, None])
        dz.scatter_add_(1, ids[:, None], grad[:, None])
        if ctx.temperature != 1:
            dz.div_(ctx.temperature)
        return dz.to(ctx.dtype), None, None, None


def token_logprobs(
    hidden: Float[Tensor, "p d"],
    project: Callable[[Tensor], Tensor],
    ids: Int[Tensor, " p"],
    vocabulary: int,
    temperature: float = 1.0,
    entropy: bool = False,
) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """Log-probabilities and entropies (0 unless asked for) of `ids` under project(hidden) / temperature."""

    def part(hidden: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        return TokenLogprobs.apply(project(hidden), ids, temperature, entropy)  # pyright: ignore[reportReturnType]

    rows = max(1, CHUNK // vocabulary)
    if len(ids) <= rows:
        return part(hidden, ids)
    parts = [
        checkpoint(part, h, i, use_reentrant=False, preserve_rng_state=False)
        for h, i in zip(hidden.split(rows), ids.split(rows), strict=True)
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])  # pyright: ignore


def projection(causal: Any) -> Callable[[Tensor], Tensor]:
    """States (p, d) -> logits (p, V), as the model itself does it, which is tried once. Raises Refused where they differ."""
    config = causal.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
    cap = getattr(config, "final_logit_softcapping", None)

    def project(states: Tensor) -> Tensor:
        logits = causal.get_output_embeddings()(states)
        logits = logits if scale == 1 else logits * scale
        return logits if cap is None else cap * torch.tanh(logits / cap)

    ids = torch.tensor([[0, 1]], device=causal.device)
    with torch.no_grad():
        theirs, ours = causal(ids, use_cache=False).logits[0], project(causal.base_model(ids, use_cache=False).last_hidden_state[0])
    if theirs.shape != ours.shape or not torch.allclose(theirs, ours, rtol=1e-2, atol=1e-2, equal_nan=True):
        raise Refused(
            f"{type(causal).__name__} turns hidden states into logits in a way of its own, which the local backend does not know."
        )
    return project

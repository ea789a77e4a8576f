"""Credit from models that learn beside the policy, or that say how much of a step's value is theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from guerdon.credit.core import centred, credit, group_sum, on_tokens, per_step, step_rewards
from guerdon.credit.group import dr_grpo, grpo, rloo
from guerdon.registry import Refused

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from guerdon.samples import Batch


@credit(grains=("outcome", "token"), group=True)
def prime(batch: Batch, process: float = 1.0, outcome: float = 1.0) -> Float[Tensor, "n t"]:
    """Whitened sum of two returns, each with a leave-one-out baseline of its own: of the token rewards, and of the outcome.

    d = token reward / (largest |sum from a token to the end| of the batch + 1e-6), so that beta of `implicit` drops out; m_i its mean over
    sample i. Process reward: n / (n - 1) (d - mean of the m of the group's n samples), 1 / (n - 1) times m off, for a sample's own m is in
    that mean. Return: `process` times its sum from the token onward, plus `outcome` times `rloo`. A = (return - mean) / std over the tokens
    that count (std with n - 1); alone in its group a sample gets 0 and counts in neither. Raises Refused without token rewards.
    Source: arXiv:2502.01456, its released code. There `rm_coef: 5` does not enter this estimator, and its port in verl weighs both sources
    with 5: one to one before whitening, as here.
    """
    rewards, live = _token_rewards(batch, "prime")
    size = live.sum(1)
    n = group_sum((size > 0).to(rewards.dtype), batch)
    live.mul_((n > 1)[:, None])
    sums = _onward(rewards)
    scale = torch.maximum(sums.amax(), -sums.amin()) + 1e-6 if sums.numel() else 1.0
    m = rewards.sum(1) / size.clamp(min=1) / scale
    base, factor = group_sum(m, batch) / n.clamp(min=1), process * n / (n - 1).clamp(min=1)
    returns = _onward(rewards.mul_((factor / scale)[:, None]).sub_((factor * base)[:, None]).mul_(live))
    if batch.rewards.outcome is not None:
        returns += outcome * _left_out(batch)[:, None]
    return _whitened(returns, live)


@credit(grains=("outcome", "step", "token"), group=True)
def istar(
    batch: Batch, alpha: float = 1.0, normaliser: Literal["rloo", "mean", "std"] = "rloo", scale: bool = True, eps: float = 1e-6
) -> Float[Tensor, "n t"]:
    """A = A_E + alpha A_S: an answer's advantage in its group, and that of each step among all steps of all answers of the group.

    A step's reward is the sum of its tokens' rewards (`implicit`), or its own. Both are normalised alike: rloo, (r - mean) n / (n - 1);
    mean, r - mean; std, (r - mean) / (std + eps), std with n - 1; n answers, or n steps. scale: step rewards are first divided by the
    largest |r| of the batch + 1e-6. One step in a group has A_S 0. Raises Refused without step and token rewards.
    Source: arXiv:2509.19199. In the released code only the first step of each answer enters the mean; here all do, as the paper says.
    """
    known = {"rloo": rloo, "mean": dr_grpo, "std": lambda batch: grpo(batch, eps)}
    if normaliser not in known:
        raise Refused(f"istar(normaliser={normaliser!r}): the normaliser is rloo, mean or std.")
    if batch.rewards.step is not None:
        r, scored, _ = step_rewards(batch)
    else:
        rewards, _ = _token_rewards(batch, "istar")
        scored = _first(batch) < batch.ids.shape[1]
        r = per_step(rewards, batch, scored.shape[1])
    if scale and r.numel():
        r = r / (r.abs().amax() + 1e-6)
    count = group_sum(scored.sum(1).to(r.dtype), batch)[:, None]
    above = torch.where(scored, r - _lowest(r, scored, batch)[:, None], 0.0)  # equal rewards are then exactly 0
    above = torch.where(scored, above - group_sum(above.sum(1), batch)[:, None] / count.clamp(min=1), 0.0)
    if normaliser == "rloo":
        above = above * count / (count - 1).clamp(min=1)
    elif normaliser == "std":
        above = above / ((group_sum((above**2).sum(1), batch)[:, None] / (count - 1).clamp(min=1)).sqrt() + eps)
    steps = on_tokens(alpha * above, batch)
    return steps if batch.rewards.outcome is None else steps.add_(known[normaliser](batch))


@credit(needs=("values/token_rm",), group=True)
def oreal(batch: Batch, threshold: float = 0.5) -> Float[Tensor, "n t"]:
    """A_t = rloo times how sure the token reward model is by then: clip((p_t - h) / (1 - h), 0, 1) where rloo > 0, else of 1 - p_t.

    p_t = sigmoid(mean of g_u over the written tokens u <= t), g_u what the head of the model `token_rm`, which `mean_ce` trains, says of
    the text up to and with token u: `values/token_rm` one column on, and for the last token its own column, as there is none behind it.
    (So the paper; its release takes the column that u was drawn in, where a wrong token is not known yet.) h = `threshold`: a model that
    has learned nothing gives 0, so let it learn first (a stage with train.lr 0). For the loss `oreal`. Source: arXiv:2502.06781.
    """
    if not 0 <= threshold < 1:
        raise Refused(f"oreal(threshold={threshold}): a threshold of a probability is at least 0 and below 1.")
    g = batch.field("values/token_rm").to(batch.weights.dtype)
    column = torch.arange(g.shape[1], device=g.device)
    g = torch.where(column < batch.lengths[:, None] - 1, g.roll(-1, 1), g)
    written = batch.mask.to(g.dtype)
    mean = g.mul_(written).cumsum_(1).div_(batch.mask.cumsum(1).clamp_(min=1))
    a = _left_out(batch)
    sure = mean.mul_(torch.where(a > 0, 1.0, -1.0)[:, None]).sigmoid_()  # 1 - p is the sigmoid of minus the mean
    return sure.sub_(threshold).div_(1 - threshold).clamp_(0, 1).mul_(a[:, None]).mul_(written)


@credit(needs=("values",), grains=("step",))
def step_gae(batch: Batch, gamma: float = 1.0, lam: float = 0.95) -> Float[Tensor, "n t"]:
    """GAE with steps for time: A_k = sum over l of (gamma lam)^l d_(k+l), d_k = r_k + gamma V_(k+1) - V_k, on every token of step k.

    r_k is the step's reward, V_k the critic's value at its first written token, V = 0 behind the last step. An outcome reward does not
    enter: for step rewards that share it out (`prm` of a model that `sum_regression` trains). Steps in which the policy wrote nothing are
    no time; an unscored step has r = 0. gamma 0 takes each step for itself, as the release does.
    Source: arXiv:1506.02438; arXiv:2505.20732 (step-level PPO of attributed progress).
    """
    r, t = step_rewards(batch)[0], batch.ids.shape[1]
    first = _first(batch, r.shape[1])
    there = first < t
    values = torch.where(there, batch.field("values").to(r.dtype).gather(1, first.clamp(max=t - 1)), 0.0)
    out, onward, following = torch.zeros_like(r), r.new_zeros(len(r)), r.new_zeros(len(r))
    for k in range(r.shape[1] - 1, -1, -1):
        new = r[:, k] + gamma * following - values[:, k] + gamma * lam * onward
        out[:, k] = onward = torch.where(there[:, k], new, onward)
        following = torch.where(there[:, k], values[:, k], following)
    return on_tokens(torch.where(there, out, 0.0), batch)


def _token_rewards(batch: Batch, name: str) -> tuple[Float[Tensor, "n t"], Float[Tensor, "n t"]]:
    """(token rewards, 0 where none was scored; 1 on tokens that count, else 0): of living rows, that the policy wrote."""
    grain = batch.rewards.token
    if grain is None:
        raise Refused(f"The credit {name!r} needs token rewards, and the recipe's reward gives none; add `implicit(model='prm')`.")
    value = torch.zeros_like(batch.weights)
    live = batch.mask.to(value.dtype).mul_(batch.alive[:, None])
    width = min(value.shape[1], grain.value.shape[1])
    value[:, :width] = torch.from_numpy(grain.value)[:, :width]
    return value.mul_(live), live


def _left_out(batch: Batch) -> Float[Tensor, " n"]:
    """The number that `rloo` spreads over each sample."""
    above, count = centred(batch)
    return above * count / (count - 1).clamp(min=1)


def _first(batch: Batch, s: int = 1) -> Int[Tensor, "n s"]:
    """The first token that the policy wrote in each step of a living row, t where there is none; s columns or more."""
    of, t = batch.step_of, batch.ids.shape[1]
    inside = batch.mask & (of >= 0) & batch.alive[:, None]
    begins = inside.clone()  # of runs, which are few
    begins[:, 1:] &= ~(inside[:, :-1] & (of[:, 1:] == of[:, :-1]))
    row, column = begins.nonzero(as_tuple=True)
    s = max(s, int(of.max()) + 1 if of.numel() else 0)
    first = torch.full((len(batch) * s,), t, dtype=torch.long, device=of.device)
    return first.scatter_reduce_(0, row * s + of[row, column], column, "amin").view(-1, s)


def _onward(x: Float[Tensor, "n t"]) -> Float[Tensor, "n t"]:
    """Sums over a token and all behind it."""
    return x.cumsum(1).neg_().add_(x).add_(x.sum(1, keepdim=True))


def _lowest(r: Float[Tensor, "n s"], scored: Bool[Tensor, "n s"], batch: Batch) -> Float[Tensor, " n"]:
    """For each sample the lowest step reward of its group; infinite where there is none."""
    groups = int(batch.group.max()) + 1 if len(batch) else 0
    low = torch.full((groups,), torch.inf, dtype=r.dtype, device=r.device)
    return low.scatter_reduce_(0, batch.group, torch.where(scored, r, torch.inf).amin(1), "amin")[batch.group]


def _whitened(x: Float[Tensor, "n t"], live: Float[Tensor, "n t"]) -> Float[Tensor, "n t"]:
    """(x - mean) / sqrt(variance + 1e-8) over the tokens that count; 0 elsewhere, and where one counts. In the place of x."""
    count = live.sum()
    if count < 2:
        return torch.zeros_like(x)
    x.mul_(live)
    x.sub_(x.sum() / count).mul_(live)
    return x.mul_((x.flatten().dot(x.flatten()) / (count - 1) + 1e-8).rsqrt())

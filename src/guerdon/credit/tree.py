"""Credit from what the samples of a group share: a prefix is worth the mean outcome of the samples that begin with it.

Nothing but the group itself is sampled. Samples without an outcome are in no value and get 0. Where a tool's or a hint's token tells
samples apart, the difference is nobody's: it lies on a token that the policy did not write.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from guerdon.credit.core import centred, credit, group_sum, spread, step_rewards
from guerdon.credit.group import grpo
from guerdon.registry import Refused

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from guerdon.samples import Batch


def entered(batch: Batch) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """(row, position) of the first token of each node that a sample passes through: a sample enters a node once."""
    first = batch.node_of >= 0
    first[:, 1:] &= batch.node_of[:, 1:] != batch.node_of[:, :-1]
    row, at = first.nonzero(as_tuple=True)
    return row, at


class Steps(NamedTuple):
    """Every step of every sample, in order. Together they are all its tokens: a token outside any step belongs to the one that follows,
    and what stands behind the last is one more, so that a sample without steps is one step."""

    row: Int[Tensor, " k"]
    first: Int[Tensor, " k"]
    """Position of its first token."""
    last: Int[Tensor, " k"]
    number: Int[Tensor, " k"]
    """Of its step in `step_of`; more than all of these behind the last."""


def steps_of(batch: Batch) -> Steps:
    inside, of = batch.node_of >= 0, batch.step_of
    if bool((inside & (of < 0)).any()):
        of = torch.where(of < 0, torch.iinfo(of.dtype).max, of).flip(1).cummin(1).values.flip(1)
    border = of[:, 1:] != of[:, :-1]
    first, last = inside.clone(), inside.clone()
    first[:, 1:] &= border
    last[:, :-1] &= border | ~inside[:, 1:]
    row, at = first.nonzero(as_tuple=True)
    return Steps(row, at, last.nonzero(as_tuple=True)[1], of[row, at])


def _on_tokens(per_step: Float[Tensor, " k"], steps: Steps, batch: Batch) -> Float[Tensor, "n t"]:
    """Each step's number on all of its tokens that the policy wrote."""
    whole = torch.repeat_interleave(per_step.to(batch.weights.dtype), steps.last - steps.first + 1)
    out = torch.zeros_like(batch.weights).masked_scatter_(batch.node_of >= 0, whole)
    return torch.where(batch.mask & batch.alive[:, None], out, 0.0)


def _values(above: Float[Tensor, " n"], judged: Float[Tensor, " n"], batch: Batch) -> Float[Tensor, " m"]:
    """V(node) - V(root): the mean of `above`, outcomes less their group's mean, over the judged samples that pass through; else 0."""
    row, at = entered(batch)
    node = batch.node_of[row, at]
    total, count = (above.new_zeros(len(batch.tree)).index_add_(0, node, x[row]) for x in (above, judged))
    return total / count.clamp(min=1)


def _at(value: Float[Tensor, " m"], batch: Batch, row: Int[Tensor, " k"], at: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
    """The value of the prefix that ends with the token at a position; -1 is the root, 0."""
    return torch.where(at < 0, 0.0, value[batch.node_of[row, at.clamp(min=0)]])


def _std(above: Float[Tensor, " n"], count: Float[Tensor, " n"], batch: Batch) -> Float[Tensor, " n"]:
    return (group_sum(above**2, batch) / (count - 1).clamp(min=1)).sqrt()


@credit(group=True)
def tempo(batch: Batch, normalise: bool = True, eps: float = 1e-6) -> Float[Tensor, "n t"]:
    """A_t = [(r - mean of the group) + V(prefix with token t) - V(prefix before it)] / (std of the group + eps), std with n - 1.

    V(prefix): mean outcome of the group's samples that begin with it; of the empty prefix, the mean of the group. So the second term is 0
    but where samples part, and over a sample it adds up to the first: GRPO, and as much again where the outcome was decided. Without
    normalise nothing is divided. Source: arXiv:2509.18314 (TEMPO, prefix to tree), its released code.
    """
    above, count = centred(batch)
    judged = (count > 0).to(above.dtype)
    value, (row, at) = _values(above, judged, batch), entered(batch)
    gain = _at(value, batch, row, at) - _at(value, batch, row, at - 1)
    out = spread(above, batch)
    out[row, at] += gain * judged[row] * batch.mask[row, at]
    return out / (_std(above, count, batch) + eps)[:, None] if normalise else out


@credit(group=True)
def treeps(batch: Batch, root: float = 1.0, normalise: bool = False, eps: float = 1e-6) -> Float[Tensor, "n t"]:
    """A(step) = root * [V(step) - V(root)] + V(step) - V(parent), on all of the step's tokens that the policy wrote.

    V(step): mean outcome of the group's samples that begin with all up to the step's last token, a tool's reply among it; V(parent) that
    of the step before, V(root) the mean of the group. Steps that nobody shares have their own outcome as V. root 0 is the local term
    alone; normalise divides by the group's std + eps. A step that several samples share is trained once with `aggregate: per_node`.
    Source: arXiv:2601.06922 (TreePS-RAG), whose abstract leaves the form open; this one is that of tree search in arXiv:2506.11902.
    """
    above, count = centred(batch)
    judged = (count > 0).to(above.dtype)
    value, steps = _values(above, judged, batch), steps_of(batch)
    own, before = _at(value, batch, steps.row, steps.last), _at(value, batch, steps.row, steps.first - 1)
    a = (root * own + own - before) * judged[steps.row]
    return _on_tokens(a / (_std(above, count, batch) + eps)[steps.row] if normalise else a, steps, batch)


@credit(group=True, grains=("outcome", "step"))
def portool(
    batch: Batch, gamma: float = 0.95, leaves: Literal["max", "mean"] = "max", trajectory: float = 1.0, fork: float = 1.0, eps: float = 1e-6
) -> Float[Tensor, "n t"]:
    """A(step) = trajectory * (R_i - mean) / (std + eps) of the group + fork * (R(step) - mean) / (std + eps) of the step's siblings.

    R(step) = max (or mean) of gamma^(steps that follow in the sample) * outcome over the samples that took it, plus its step reward, such
    as whether the call parsed: one number, whichever sample it is read from. Siblings are the different steps taken behind the same prefix;
    an only child has no second term. R_i = outcome + mean of the sample's step rewards. std with n - 1. fork 0 is `grpo`. A step that
    several samples share is trained once with `aggregate: per_node`. Source: arXiv:2510.26020 (PORTool); the maximum and the weights are
    assumed.
    """
    if leaves not in ("max", "mean"):
        raise Refused(f"portool(leaves={leaves!r}): leaves is max or mean.")
    steps, judged = steps_of(batch), centred(batch)[1] > 0
    nothing = batch.weights.new_zeros(len(batch), 1)
    form, scored = (nothing, nothing) if batch.rewards.step is None else step_rewards(batch)[:2]
    outcome, of = batch.rewards.outcome, steps.number.clamp(max=form.shape[1] - 1)
    assert outcome is not None
    whole = batch.outcome + form.sum(1) / scored.sum(1).clamp(min=1)
    outcomes = replace(outcome, value=whole.double().cpu().numpy())
    out = trajectory * grpo(replace(batch, rewards=replace(batch.rewards, outcome=outcomes)), eps)

    inside = steps.number < form.shape[1]
    form, scored = (x[steps.row, of].double() * inside for x in (form, scored))
    index = torch.arange(len(steps.row), device=steps.row.device)
    follow = torch.bincount(steps.row, minlength=len(batch)).cumsum(0)[steps.row] - 1 - index
    paid = batch.outcome.double()[steps.row] * gamma ** follow.double()
    taken = judged[steps.row]
    row, first, last = (x[taken] for x in (steps.row, steps.first, steps.last))
    before, after = _prefix(batch, row, first - 1), _prefix(batch, row, last)
    step = torch.unique(before * (int(after.max()) + 1 if len(after) else 1) + after, return_inverse=True)[1]
    count = int(step.max()) + 1 if len(step) else 0

    def over(x: Float[Tensor, " k"], how: str) -> Float[Tensor, " u"]:
        return x.new_zeros(count).scatter_reduce_(0, step, x[taken], how, include_self=False)

    worth = over(paid, {"max": "amax", "mean": "mean"}[leaves]) + over(form, "sum") / over(scored, "sum").clamp(min=1)
    siblings = before.new_zeros(count).scatter_(0, step, before)
    a = torch.zeros_like(paid)
    a[taken] = _relative(worth, siblings, eps)[step]
    return out + fork * _on_tokens(a, steps, batch)


def _prefix(batch: Batch, row: Int[Tensor, " k"], at: Int[Tensor, " k"]) -> Int[Tensor, " k"]:
    """A number from 0 for the prefix that ends with the token at a position; -1 is the root of the row's group."""
    here = batch.node_of[row, at.clamp(min=0)] * batch.ids.shape[1] + at
    return torch.unique(torch.where(at < 0, -1 - batch.group[row], here), return_inverse=True)[1]


def _relative(x: Float[Tensor, " u"], of: Int[Tensor, " u"], eps: float) -> Float[Tensor, " u"]:
    """(x - mean) / (std + eps) among entries of the same number; std with n - 1. Exactly 0 for one alone and among equals."""
    size = int(of.max()) + 1 if len(of) else 0
    above = x - x.new_zeros(size).scatter_reduce_(0, of, x, "amin", include_self=False)[of]
    count = torch.bincount(of, minlength=size).to(x.dtype)
    centre = above - (x.new_zeros(size).index_add_(0, of, above) / count)[of]
    variance = x.new_zeros(size).index_add_(0, of, centre**2) / (count - 1).clamp(min=1)
    return centre / (variance.sqrt()[of] + eps)

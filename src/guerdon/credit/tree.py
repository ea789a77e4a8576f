"""Credit from what the samples of a group share: a prefix is worth the mean outcome of the samples that begin with it.

Nothing but the group itself is sampled. Samples without an outcome are in no value and get 0. Where a tool's or a hint's token tells
samples apart, the difference is nobody's: it lies on a token that the policy did not write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from guerdon.credit.core import centred, credit, group_sum, spread
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
    inside[:, 1:] &= of[:, 1:] != of[:, :-1]
    row, first = inside.nonzero(as_tuple=True)
    last = batch.lengths[row] - 1
    last[:-1] = torch.where(row[1:] == row[:-1], first[1:] - 1, last[:-1])
    return Steps(row, first, last, of[row, first])


def _on_tokens(per_step: Float[Tensor, " k"], steps: Steps, batch: Batch) -> Float[Tensor, "n t"]:
    """Each step's number on all of its tokens that the policy wrote."""
    whole = torch.repeat_interleave(per_step.to(batch.weights.dtype), steps.last - steps.first + 1)
    out = torch.zeros_like(batch.weights).masked_scatter_(batch.node_of >= 0, whole)
    return torch.where(batch.mask & batch.alive[:, None], out, 0.0)


def _values(
    above: Float[Tensor, " n"], judged: Float[Tensor, " n"], batch: Batch, row: Int[Tensor, " k"], at: Int[Tensor, " k"]
) -> Float[Tensor, " m"]:
    """V(node) - V(root): the mean of `above`, outcomes less their group's mean, over the judged samples that pass through; else 0.

    row, at: as of `entered`.
    """
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
    row, at = entered(batch)
    value = _values(above, judged, batch, row, at)
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
    value, steps = _values(above, judged, batch, *entered(batch)), steps_of(batch)
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
    steps, judged, outcome = steps_of(batch), centred(batch)[1] > 0, batch.outcome.double()
    grain = batch.rewards.step
    form, scored = (outcome.new_zeros(len(batch), 1) for _ in range(2))
    if grain is not None:
        form, scored = (torch.from_numpy(x).to(outcome) for x in (grain.value, grain.scored))
    whole = outcome + form.sum(1) / scored.sum(1).clamp(min=1)
    of_row = torch.zeros_like(outcome)
    of_row[judged] = _relative(whole[judged], batch.group[judged], eps)

    taken = judged[steps.row]
    row, first, last, number = (x[taken] for x in steps)
    end = torch.unique(batch.node_of[row, last] * batch.ids.shape[1] + last, return_inverse=True)[1]  # the prefix that the step ends
    ends = len(end)
    start = torch.where(first == 0, ends + batch.group[row], end.roll(1))  # the prefix behind which it was taken; of a first step, the root
    step = torch.unique(start * ends + end, return_inverse=True)[1]
    count = int(step.max()) + 1 if ends else 0

    def over(x: Float[Tensor, " k"], how: str) -> Float[Tensor, " u"]:
        return x.new_zeros(count).scatter_reduce_(0, step, x, how, include_self=False)

    follow = torch.bincount(row, minlength=len(batch)).cumsum(0)[row] - 1 - torch.arange(ends, device=row.device)
    worth = over(outcome[row] * gamma ** follow.double(), {"max": "amax", "mean": "mean"}[leaves])
    form, scored = (x[row, number.clamp(max=x.shape[1] - 1)] * (number < x.shape[1]) for x in (form, scored))
    worth = worth + over(form, "sum") / over(scored, "sum").clamp(min=1)
    a = trajectory * of_row[steps.row]
    a[taken] += fork * _relative(worth, start.new_zeros(count).scatter_(0, step, start), eps)[step]
    return _on_tokens(a, steps, batch)


def _relative(x: Float[Tensor, " u"], of: Int[Tensor, " u"], eps: float) -> Float[Tensor, " u"]:
    """(x - mean) / (std + eps) among entries of the same number; std with n - 1. Exactly 0 for one alone and among equals."""
    size = int(of.max()) + 1 if len(of) else 0
    above = x - x.new_zeros(size).scatter_reduce_(0, of, x, "amin", include_self=False)[of]
    count = torch.bincount(of, minlength=size).to(x.dtype)
    centre = above - (x.new_zeros(size).index_add_(0, of, above) / count)[of]
    variance = x.new_zeros(size).index_add_(0, of, centre**2) / (count - 1).clamp(min=1)
    return centre / (variance.sqrt()[of] + eps)

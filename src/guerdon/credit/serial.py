"""Credit for thoughts that were left at several exits, of the rollout `serial_exits`: its fields thought, exit and exit_tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from guerdon.credit.core import centred, credit, to_go
from guerdon.credit.group import dr_grpo
from guerdon.registry import Refused, find

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from guerdon.samples import Batch


@credit(needs=("thought",), group=True)
def s_grpo(batch: Batch) -> Float[Tensor, "n t"]:
    """A = r - mean over the samples of the same thought: `dr_grpo` within a serial group.

    With the shape `s_grpo`, which makes the rewards. Tokens that exits share are trained in each of them, so that what all share gets
    nothing on the whole under `aggregate: token_mean`, or `constant`; under `sequence_mean`, as in the paper, short exits weigh more, and
    wrong ones among them push down the beginning of every thought. Raises Refused without the field. Source: arXiv:2505.07686 (S-GRPO).
    """
    return dr_grpo(replace(batch, group=_thoughts(batch, "s_grpo")))


@credit(needs=("thought", "exit", "exit_tokens"))
def anytime_brpo(batch: Batch, prior: Sequence[float] | None = None) -> Float[Tensor, "n t"]:
    """Budget relative credit: of the thought by what its answers at this and later budgets are worth, of an answer by itself.

    The budgets are the exits 0 to S - 1, the whole rollout the last of them; r(g, s) = mean outcome of the answers of thought g at s, and
    P = prior / its sum, one number an exit (even unless given; the budgets themselves weigh late ones more, [0, .., 0, 1] is the whole
    rollout alone). A token of g between the exits s - 1 and s gets
        Ret(g, s) - (s V1 + (S - s) V2) / S,   Ret(g, s) = sum over j >= s of P_j r(g, j)
    with V2 the mean of Ret(., s) over the group's thoughts and V1 = (mean of r(g, j) over j < s with weights 2^j) * sum over j >= s of P_j:
    what the thought was worth so far, whose own future it cannot know. The token that ends the thought is one of it. A token of an answer
    gets r - mean of the answers of g at s, or, where these are one answer, less the mean of r(., s) over thoughts.
    Exits without an outcome are left out of the sums over j. Tokens stand in several samples, so take `aggregate: per_node`; exits are to
    be the same budgets for all thoughts (`serial_exits(at=[..])`). A single thought is its own V2 (the released code takes 0).
    Raises Refused without the fields, and for a prior of another length. Source: arXiv:2505.13438 (AnytimeReasoner), its released code.
    """
    thought, exit = _thoughts(batch, "anytime_brpo"), batch.field("exit").long().clamp(min=0)
    size = int(exit.max()) + 1 if len(exit) else 1
    p = torch.tensor([1.0] * size if prior is None else list(prior), dtype=torch.float64, device=exit.device)
    if len(p) != size or bool((p < 0).any()) or not float(p.sum()):
        raise Refused(
            f"anytime_brpo(prior={prior}): give one number of 0 or more for each of the {size} exits, the whole rollout the last."
        )
    above, count = centred(batch)
    judged = count > 0
    thoughts = int(thought.max()) + 1 if len(thought) else 0
    owner = thought.new_zeros(thoughts).scatter_(0, thought, batch.group)
    groups, cell = int(batch.group.max()) + 1 if len(batch) else 0, thought * size + exit
    answers = p.new_zeros(thoughts * size).index_add_(0, cell, judged.double()).view(thoughts, size)
    r = p.new_zeros(thoughts * size).index_add_(0, cell, above.double()).view(thoughts, size) / answers.clamp(min=1)
    known = (answers > 0).double()
    several = p.new_zeros(groups, size).index_add_(0, owner, known).clamp(min=1)
    mean = (p.new_zeros(groups, size).index_add_(0, owner, r) / several)[owner]

    s = torch.arange(size, device=p.device)
    weight, recent = known * p / p.sum(), known * torch.exp2(s.double() - size)
    ret, v2, rest = (to_go(weight * x) for x in (r, mean, torch.ones_like(r)))
    earlier = recent.cumsum(1) - recent
    v1 = torch.where(earlier > 0, ((recent * r).cumsum(1) - recent * r) / earlier.clamp(min=1e-300) * rest, v2)
    of_thought = (ret - (s * v1 + (size - s) * v2) / size).to(above.dtype)

    alike = _alike(batch, cell, judged, thoughts * size)
    of_answer = above - torch.where(alike, mean.flatten()[cell], r.flatten()[cell]).to(above.dtype)
    thinks, segment = _segments(batch, thought, exit, thoughts, size)
    out = torch.where(thinks, of_thought[thought].gather(1, segment), of_answer[:, None])
    return torch.where(batch.mask & judged[:, None], out, 0.0)


def _thoughts(batch: Batch, name: str) -> Int[Tensor, " n"]:
    """The thought of each sample, numbered over the batch."""
    for field in find("credit", name).needs:
        if field not in batch.fields:
            raise Refused(f"The credit {name!r} needs the field {field!r} of every sample; sample with `rollout: serial_exits`.")
    own = batch.fields["thought"].long()
    own = own - own.amin() if len(own) else own
    return torch.unique(batch.group * (int(own.max()) + 1 if len(own) else 1) + own, return_inverse=True)[1]


def _alike(batch: Batch, cell: Int[Tensor, " n"], judged: Bool[Tensor, " n"], cells: int) -> Bool[Tensor, " n"]:
    """Whether all judged samples of its thought at its exit are the same tokens."""
    if not len(batch):
        return judged
    last = (batch.lengths - 1).clamp(min=0)
    which = batch.node_of.gather(1, last[:, None])[:, 0] * (batch.ids.shape[1] + 1) + batch.lengths
    low, high = (
        which.new_zeros(cells).scatter_reduce_(0, cell[judged], which[judged], how, include_self=False) for how in ("amin", "amax")
    )
    return (low == high)[cell]


def _segments(
    batch: Batch, thought: Int[Tensor, " n"], exit: Int[Tensor, " n"], thoughts: int, size: int
) -> tuple[Bool[Tensor, "n t"], Int[Tensor, "n t"]]:
    """(which tokens are thought, the exit that each of these stands before). The token that ends a thought belongs to its last segment."""
    t = batch.ids.shape[1]
    tokens = batch.field("exit_tokens").long().clamp(0, t)
    borders = tokens.new_zeros(thoughts * size).scatter_reduce_(0, thought * size + exit, tokens, "amax").view(thoughts, size)
    borders = borders.cummax(1).values[thought] if size else borders
    follows = tokens[:, None] < batch.lengths[:, None]
    ends = (follows & batch.mask.gather(1, tokens.clamp(max=t - 1)[:, None]))[:, 0]  # behind a cut stands the inducer, which is not written
    place = torch.arange(t, device=tokens.device)
    borders = borders + (ends[:, None] & (borders >= tokens[:, None]))
    marks = tokens.new_zeros(len(batch), t + 2).scatter_add_(1, borders, torch.ones_like(borders))
    return place < (tokens + ends)[:, None], marks.cumsum(1)[:, :t].clamp(max=size - 1)

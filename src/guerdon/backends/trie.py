"""Rows that share tokens as a trie: a node a distinct prefix, so that a pass computes each of them once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from guerdon.backends.prefix import Part, Prompts, run

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

MASK = 2**26
"""Cells that the attention masks of one micro-batch may have."""


@dataclass(frozen=True)
class Trie:
    """The m distinct prefixes of n rows, each prompt apart, numbered in the order of a walk that goes down first: what lies below a node
    stands right behind it."""

    node: Int[np.ndarray, "n t"]
    """Of the prefix that each token ends; -1 at padding."""
    row: Int[np.ndarray, " m"]
    """A row that begins with the prefix."""
    column: Int[np.ndarray, " m"]
    """Place of its last token in the row."""
    parent: Int[np.ndarray, " m"]
    """-1 right behind the prompt."""
    end: Int[np.ndarray, " m"]
    """The first node behind it that does not lie below it."""

    @classmethod
    def of(cls, owner: Sequence[int], ids: Int[np.ndarray, "n t"], lengths: Sequence[int]) -> Trie:
        """owner (n,): number of each row's prompt."""
        order, shared = ranked(owner, ids, lengths)
        n, t = ids.shape
        columns, long = np.arange(t), np.asarray(lengths, dtype=np.int64)[order]
        first = np.concatenate([[0], np.cumsum(long - shared)])  # node that each row of the order begins its own part with
        brought = np.maximum.accumulate(np.where(columns >= shared[:, None], np.arange(n)[:, None], 0), axis=0)  # row that has it first
        node = np.where(columns < long[:, None], first[brought] + columns - shared[brought], -1)
        place, column = np.nonzero((columns >= shared[:, None]) & (columns < long[:, None]))
        members = np.bincount(node[node >= 0], minlength=len(place))  # rows through each node; they stand together in the order
        parent = np.where(column > 0, node[place, column - 1], -1)
        unsorted = np.empty_like(node)
        unsorted[order] = node
        return cls(unsorted, order[place], column, parent, first[place + members])

    def __len__(self) -> int:
        return len(self.row)


def ranked(owner: Sequence[int], ids: Int[np.ndarray, "n t"], lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The rows sorted by prompt and tokens (n,), and how many tokens each shares with the row before it, 0 behind another prompt (n,)."""
    n, t = ids.shape
    big_endian = np.ascontiguousarray(ids, dtype=">u4")
    keys = [big_endian[i, :k].tobytes() for i, k in enumerate(lengths)]
    order = np.array(sorted(range(n), key=lambda i: (owner[i], keys[i])), dtype=np.int64)
    long, whose = np.asarray(lengths, dtype=np.int64)[order], np.asarray(owner)[order]
    short = np.minimum(long[1:], long[:-1])
    differ = np.ones((max(n - 1, 0), t + 1), dtype=bool)
    differ[:, :t] = (ids[order[1:]] != ids[order[:-1]]) | (np.arange(t) >= short[:, None])
    return order, np.concatenate([np.zeros(min(n, 1), dtype=np.int64), differ.argmax(1) * (whose[1:] == whose[:-1])])


def distinct(owner: Sequence[int], ids: Int[np.ndarray, "n t"], lengths: Sequence[int]) -> int:
    """How many different prefixes the rows have, each prompt apart."""
    return int(sum(lengths) - ranked(owner, ids, lengths)[1].sum())


class Take(torch.autograd.Function):
    """x (k, ...), index (n,) -> x[index]. The way back adds the rows of each index in their order, so it is the same on every run."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.k = len(x)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        rows = grad.reshape(len(grad), -1)[index.argsort(stable=True)]
        exact = rows if rows.dtype == torch.float64 else rows.float()
        added = torch.segment_reduce(exact, "sum", lengths=torch.bincount(index, minlength=ctx.k), unsafe=True)
        return added.to(grad.dtype).view(ctx.k, *grad.shape[1:]), None


def once(node: Int[Tensor, "n t"], mask: Bool[Tensor, "n t"], shared: bool) -> tuple[Int[Tensor, " p"], Callable[[Tensor], Tensor]]:
    """What is computed under a mask, each once, and the way of its values (p, ...) back to (n, t, ...), 0 outside the mask.

    shared: whether one may stand in several places.
    """
    where = mask.nonzero(as_tuple=True)
    chosen = node[where]
    place: Any = None
    if shared:
        chosen, place = chosen.unique(return_inverse=True)

    def back(values: Tensor) -> Tensor:
        values = values if place is None else Take.apply(values, place)  # pyright: ignore[reportAssignmentType]
        return values.new_zeros((*mask.shape, *values.shape[1:])).index_put(where, values)

    return chosen, back


def states_trie(backbone: Any, prompts: Prompts, ids: Int[Tensor, "n t"], trie: Trie) -> Float[Tensor, "m d"]:
    """State that the last token of each prefix was drawn in, in one pass over one line a prompt: the prompt, then the prefixes that
    something follows. Each sees the prompt and those that it continues.

    Attention runs over the whole line, under a mask of (line, line) cells a prompt.
    """
    k, width = prompts.ids.shape
    device = ids.device
    row, column, parent, end = (torch.from_numpy(x).to(device) for x in (trie.row, trie.column, trie.parent, trie.end))
    line = prompts.owner[row]
    goes_on = torch.zeros(len(row) + 1, dtype=torch.bool, device=device)
    goes_on[parent] = True  # the last cell is for those without a parent
    before = torch.cat([goes_on.new_zeros(1, dtype=torch.long), goes_on[:-1].cumsum(0)])
    start = before[torch.searchsorted(line, torch.arange(k + 1, device=device))]  # lines stand in order
    place = width + before[:-1] - start[line]  # of each node in its line
    inner = goes_on[:-1].nonzero()[:, 0]
    at = torch.arange(width + int(start.diff().max()), device=device)
    until = (at + 1).repeat(k, 1)  # a token is seen up to here; padding by itself alone
    until[:, :width][prompts.mask] = len(at)
    packed, positions = at.new_zeros((2, k, len(at)))
    packed[:, :width], positions[:, :width] = prompts.ids, prompts.positions
    cell = (line[inner], place[inner])
    packed[cell] = ids[row[inner], column[inner]]
    positions[cell] = prompts.lengths[cell[0]] + column[inner]
    until[cell] = width + before[end[inner]] - start[cell[0]]
    sees = (at <= at[:, None]) & (at[:, None] < until[:, None])
    out = run(backbone, packed, sees[:, None], positions)
    return Take.apply(out.flatten(0, 1), line * len(at) + torch.where(parent < 0, width - 1, place[parent]))  # pyright: ignore


def prefill(backbone: Any, prompts: Prompts, cache: Any, packs: bool) -> tuple[Float[Tensor, "k d"], int]:
    """The state behind each prompt, and how many tokens were computed for it; keys and values of the prompts are then in the cache.

    Prompts whose first half or more is another's too stand in one line with it, where that is cheaper (see `split`; by a fifth at least)
    and the model packs: what they begin with is computed once. No gradient flows.
    """
    k, width = prompts.ids.shape
    device = prompts.ids.device
    lengths = np.array(prompts.lengths.tolist())

    def plain() -> tuple[Tensor, int]:
        out = run(backbone, prompts.ids, prompts.mask if prompts.padded else None, prompts.positions, cache)
        return out[:, -1], int(lengths.sum())

    if not packs or k == 1:
        return plain()
    inside = np.arange(width) < lengths[:, None]
    ids = np.zeros((k, width), dtype=np.int64)
    ids[inside] = prompts.ids[prompts.mask].cpu().numpy()
    order, shared = ranked([0] * k, ids, lengths.tolist())
    owner = np.empty(k, dtype=np.int64)
    owner[order] = np.cumsum(2 * shared < lengths[order]) - 1
    found = Trie.of(owner.tolist(), ids, lengths.tolist())
    line = owner[found.row]
    first = np.searchsorted(line, np.arange(line[-1] + 1))
    slot = np.arange(len(found)) - first[line]
    n, s, scale = len(first), int(slot.max()) + 1, 6 * backbone.config.get_text_config().hidden_size
    if n * s * s > MASK or n * s * (scale + s) > 0.8 * k * width * (scale + width):
        return plain()
    at = torch.arange(s, device=device)
    until = (at + 1).repeat(n, 1)
    packed, positions = at.new_zeros((2, n, s))
    cell = tuple(torch.from_numpy(x).to(device) for x in (line, slot))
    packed[cell] = torch.from_numpy(ids[found.row, found.column]).to(device)
    positions[cell] = torch.from_numpy(found.column).to(device)
    until[cell] = torch.from_numpy(found.end - first[line]).to(device)
    sees = (at <= at[:, None]) & (at[:, None] < until[:, None])
    out = run(backbone, packed, sees[:, None], positions, cache).flatten(0, 1)
    place = torch.from_numpy(line * s + slot).to(device)
    mine = at.new_zeros((k, width))  # where in the lines each prompt's tokens stand, padded on the left
    mine[prompts.mask] = place[torch.from_numpy(found.node[inside]).to(device)]
    for layer in cache.layers:
        layer.keys, layer.values = (x.transpose(1, 2).flatten(0, 1)[mine].transpose(1, 2) for x in (layer.keys, layer.values))
    return out[mine[:, -1]], len(found)


def split(
    parts: list[Part],
    owner: Sequence[int],
    prompt_lengths: Sequence[int],
    ids: Int[np.ndarray, "n t"],
    lengths: Sequence[int],
    units: Sequence[int],
    budget: int,
    overhead: int,
    width: int,
) -> list[Part]:
    """The same rows in micro-batches whose shared prefixes are computed once, where that is cheaper, else `parts`.

    Cheaper: positions times (6 width + the positions that each looks at), which is how a layer's products grow, over all micro-batches,
    where at least one token in 20 is shared.
    """
    order, shared = ranked(owner, ids, lengths)
    if 20 * int(shared.sum()) < sum(lengths):
        return parts
    rank = np.argsort(order)
    members: dict[int, list[int]] = {}
    for row in order.tolist():
        members.setdefault(units[row], []).append(row)
    tries: list[Part] = []
    rows: list[int] = []
    cost, used, last = 0, {}, {}
    for block in members.values():
        for _ in range(2):  # once more with an empty micro-batch where it did not fit
            new, at = dict(used), dict(last)
            for row in block:
                mine, before = owner[row], at.get(owner[row], len(order))
                known = int(shared[before + 1 : rank[row] + 1].min()) if before < rank[row] else 0
                new[mine], at[mine] = new.get(mine, prompt_lengths[mine]) + lengths[row] - known, int(rank[row])
            longest = max(new.values())
            if not rows or (len(new) * longest <= budget and len(new) * longest**2 <= MASK):
                break
            tries.append(Part(rows, cost, trie=True))
            rows, used, last = [], {}, {}
        rows, cost, used, last = rows + block, len(new) * longest, new, at
        if len(new) * longest**2 > MASK:
            return parts
    tries.append(Part(rows, cost, trie=True))

    def looks(part: Part) -> float:
        if part.trie:
            return part.cost / len({owner[r] for r in part.rows})
        return max(prompt_lengths[owner[r]] + lengths[r] for r in part.rows)

    def price(several: list[Part]) -> float:
        return sum((part.cost + overhead) * (6 * width + looks(part)) for part in several)

    if price(tries) >= price(parts):
        return parts
    return [replace(p, new=distinct([owner[r] for r in p.rows], ids[p.rows], [lengths[r] for r in p.rows])) for p in tries]

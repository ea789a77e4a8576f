"""Hidden states at completion positions, each prompt computed once however many rows continue it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from guerdon.backends.base import Usage

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass
class Prompts:
    """Distinct prompts, padded on the left, and which of them each row continues."""

    ids: Int[Tensor, "k P"]
    mask: Bool[Tensor, "k P"]
    owner: Int[Tensor, " n"]
    lengths: Int[Tensor, " k"]
    padded: bool

    @classmethod
    def of(cls, prompts: Sequence[Tensor], device: torch.device) -> Prompts:
        distinct, owner = number(prompts)
        lengths = [len(p) for p in distinct]
        width = max(lengths, default=0)
        ids = torch.zeros((len(distinct), width), dtype=torch.long)
        mask = torch.zeros((len(distinct), width), dtype=torch.bool)
        for i, prompt in enumerate(distinct):
            ids[i, width - len(prompt) :] = torch.as_tensor(prompt)
            mask[i, width - len(prompt) :] = True
        return cls(
            ids.to(device), mask.to(device), torch.tensor(owner, device=device), torch.tensor(lengths, device=device), min(lengths) < width
        )

    @property
    def positions(self) -> Int[Tensor, "k P"]:
        return (self.mask.cumsum(1) - 1).clamp(min=0)


def number(prompts: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """The distinct prompts in order of first appearance, and the number of each one given."""
    seen: dict[bytes, int] = {}
    distinct, owner = [], []
    for prompt in prompts:
        key = (prompt.numpy() if isinstance(prompt, torch.Tensor) else prompt).tobytes()
        if key not in seen:
            seen[key] = len(distinct)
            distinct.append(prompt)
        owner.append(seen[key])
    return distinct, owner


def run(backbone: Any, ids: Tensor, mask: Tensor | None, positions: Tensor, cache: Any = None) -> Float[Tensor, "n t d"]:
    """One pass of a transformers backbone. mask None where nothing is padded, which lets attention take its causal fast path."""
    return backbone(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=cache is not None
    ).last_hidden_state


def shareable(backbone: Any) -> bool:
    """True for models whose every layer keeps keys and values of all positions, so that rows can continue one prompt with gradient."""
    cache = DynamicCache(config=backbone.config)
    return len(cache.layers) > 0 and all(type(layer) is DynamicLayer for layer in cache.layers)


class Spread(torch.autograd.Function):
    """x (k, ...), owner (n,) -> x[owner]. The way back, a sum over each prompt's rows, is one product, and the same on every run."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, owner: Tensor) -> Tensor:
        ctx.save_for_backward(owner)
        ctx.k = len(x)
        return x.index_select(0, owner)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (owner,) = ctx.saved_tensors
        rows = F.one_hot(owner, ctx.k).to(grad.dtype).T
        return (rows @ grad.reshape(len(grad), -1)).view(ctx.k, *grad.shape[1:]), None


def states_shared(backbone: Any, prompts: Prompts, ids: Int[Tensor, "n t"]) -> Float[Tensor, "n t d"]:
    """State that token t was drawn in, rows continuing the keys and values of their prompt; the gradient flows into them."""
    cache = DynamicCache(config=backbone.config)
    last = run(backbone, prompts.ids, prompts.mask if prompts.padded else None, prompts.positions, cache)[:, -1]
    first = last[prompts.owner][:, None]
    n, t = ids.shape
    if t == 1:
        return first
    for layer in cache.layers:
        layer.keys, layer.values = Spread.apply(layer.keys, prompts.owner), Spread.apply(layer.values, prompts.owner)  # pyright: ignore
    mask = None
    if prompts.padded:
        mask = torch.cat([prompts.mask[prompts.owner], torch.ones((n, t - 1), dtype=torch.bool, device=ids.device)], 1)
    positions = prompts.lengths[prompts.owner][:, None] + torch.arange(t - 1, device=ids.device)
    return torch.cat([first, run(backbone, ids[:, :-1], mask, positions, cache)], 1)


def states_packed(backbone: Any, prompts: Prompts, ids: Int[Tensor, "n t"]) -> Float[Tensor, "n t d"]:
    """The same in one pass over one line a prompt: the prompt, then its rows one behind the other, none of which sees another.

    Attention runs over the whole line, so this is for short rows: it saves the second pass and the copies of keys and values.
    """
    t = ids.shape[1]
    k, width = prompts.ids.shape
    s, device = t - 1, ids.device
    mine = F.one_hot(prompts.owner, k)
    slot = (mine.cumsum(0) * mine).sum(1) - 1  # place of each row among those of its prompt
    g = int(slot.max()) + 1
    rows = ids.new_zeros((k, g, s))
    rows[prompts.owner, slot] = ids[:, :-1]
    after = (prompts.lengths[:, None, None] + torch.arange(s, device=device)).expand(k, g, s)
    row = torch.cat([torch.full((width,), -1, device=device), torch.arange(g, device=device).repeat_interleave(s)])
    causal = torch.arange(len(row), device=device)
    sees = (causal <= causal[:, None]) & ((row == -1) | (row == row[:, None]))
    real = torch.cat([prompts.mask, prompts.mask.new_ones((k, g * s))], 1)[:, None] | (causal == causal[:, None])  # no row sees nothing
    out = run(
        backbone,
        torch.cat([prompts.ids, rows.view(k, -1)], 1),
        (sees & real)[:, None],
        torch.cat([prompts.positions, after.reshape(k, -1)], 1),
    )
    return torch.cat([out[prompts.owner, width - 1][:, None], out[:, width:].view(k, g, s, -1)[prompts.owner, slot]], 1)


def packs(backbone: Any) -> bool:
    """True where the model follows a mask of its caller's, so that `states_packed` is right; tried once, on three rows of two prompts."""
    device = backbone.device
    prompts = Prompts.of([torch.tensor([0, 1]), torch.tensor([1]), torch.tensor([0, 1])], device)
    ids = torch.tensor([[1, 0, 1], [0, 0, 1], [0, 1, 1]], device=device)
    try:
        with torch.no_grad():
            return torch.allclose(states_packed(backbone, prompts, ids), states_plain(backbone, prompts, ids), rtol=1e-2, atol=1e-2)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False


def states_plain(backbone: Any, prompts: Prompts, ids: Int[Tensor, "n t"]) -> Float[Tensor, "n t d"]:
    """The same with every row's prompt in front of it."""
    n, t = ids.shape
    whole = torch.cat([prompts.ids[prompts.owner], ids[:, :-1]], 1)
    mask = torch.cat([prompts.mask[prompts.owner], torch.ones((n, t - 1), dtype=torch.bool, device=ids.device)], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return run(backbone, whole, mask if prompts.padded else None, positions)[:, -t:]


PASS = {"cpu": 64, "cuda": 4096}
"""What a pass costs by itself, in positions that it could have computed instead; about, for small models."""

WIDEST = {"cpu": 2048}
"""Positions of a pass without gradient beyond which it gets slower: a processor's caches hold no more activations."""


@dataclass(frozen=True)
class Part:
    """Rows of one micro-batch, and the positions that it computes, padding included."""

    rows: list[int]
    cost: int
    new: int = 0
    """Completion tokens that it computes."""
    trie: bool = False
    """Whether its rows share the tokens that they have in common (`backends.trie`)."""


def split(
    owner: Sequence[int],
    prompt_lengths: Sequence[int],
    lengths: Sequence[int],
    units: Sequence[int],
    budget: int,
    sharing: bool,
    overhead: int = 0,
) -> list[Part]:
    """Micro-batches of at most `budget` positions (a unit larger than that is one by itself), units whole, rows sorted by length.

    owner (n,): number of each row's prompt.  prompt_lengths: by that number.  lengths, units (n,).
    Rows of a prompt stay together, or all rows go by length alone, in larger or smaller micro-batches: whichever computes the fewest
    positions, a micro-batch counting `overhead` more.
    """
    members: dict[int, list[int]] = {}
    for row, unit in enumerate(units):
        members.setdefault(unit, []).append(row)
    blocks = [(max(lengths[r] for r in rows), owner[rows[0]], rows) for rows in members.values()]
    longest: dict[int, int] = {}
    for length, prompt, _ in blocks:
        longest[prompt] = max(longest.get(prompt, 0), length)
    together = sorted(blocks, key=lambda b: (-longest[b[1]], b[1], -b[0]))
    by_length = sorted(blocks, key=lambda b: (-b[0], b[1]))
    whole = fill([rows for _, _, rows in together], owner, prompt_lengths, lengths, budget, sharing)
    if len(whole) == 1 and whole[0].cost - sum(lengths) - sum(prompt_lengths[p] for p in (longest if sharing else owner)) <= overhead:
        return whole  # less padding than another pass costs
    plans = [
        fill([rows for _, _, rows in order], owner, prompt_lengths, lengths, size, sharing)
        for order in (together, by_length)
        for size in (budget, *(min(budget, sum(lengths)) >> halvings for halvings in (1, 2, 3)))
    ]
    return min(plans, key=lambda parts: sum(part.cost + overhead for part in parts))


def fill(
    blocks: Sequence[list[int]], owner: Sequence[int], prompt_lengths: Sequence[int], lengths: Sequence[int], budget: int, sharing: bool
) -> list[Part]:
    """Blocks of rows in this order, a new micro-batch whenever the next block would pass the budget."""
    parts: list[Part] = []
    rows: list[int] = []
    cost, prompts, wide, long = 0, set(), 0, 0
    for block in blocks:
        for _ in range(2):  # once more with an empty micro-batch where it did not fit
            seen = prompts | {owner[r] for r in block}
            p = max(wide, max(prompt_lengths[owner[r]] for r in block))
            t = max(long, max(lengths[r] for r in block))
            n = len(rows) + len(block)
            new = (len(seen) if sharing else n) * p + n * t
            if not rows or new <= budget:
                break
            parts.append(Part(rows, cost, sum(lengths[r] for r in rows)))
            rows, prompts, wide, long = [], set(), 0, 0
        rows, cost, prompts, wide, long = rows + block, new, seen, p, t
    return [*parts, Part(rows, cost, sum(lengths[r] for r in rows))] if rows else parts


def usage(owner: Sequence[int], prompt_lengths: Sequence[int], parts: Sequence[Part], sharing: bool) -> Usage:
    """Prompt tokens given, those that sharing spared, and completion tokens computed."""
    given = sum(prompt_lengths[o] for o in owner)
    computed = sum(prompt_lengths[o] for part in parts for o in {owner[r] for r in part.rows}) if sharing else given
    return Usage(prompt=given, cached=given - computed, new=sum(part.new for part in parts))

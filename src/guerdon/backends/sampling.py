"""Batched sampling with a KV cache: a prompt is computed once, its samples continue it, finished rows leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from guerdon.backends.base import Completion, SamplingParams, Usage
from guerdon.backends.prefix import Prompts, run
from guerdon.backends.refuse import check
from guerdon.backends.tokens import Stops
from guerdon.registry import Broke

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

LEAVE = 8
"""Finished rows leave as soon as they are one in this many: leaving copies the cache."""


@dataclass
class Engine:
    """What sampling needs of a model."""

    backbone: Any
    project: Callable[[Tensor], Tensor]
    device: torch.device
    ends: np.ndarray
    version: int
    budget: int
    """Positions that the cache may hold at a time."""
    rows: int
    """Rows that may run at a time."""


def sample(engine: Engine, prefixes: Sequence[np.ndarray], n: int, params: SamplingParams, stops: Stops, entropy: bool = False):
    """n completions of each prefix, and usage.

    The number that draws token t of sample j of prefix i depends on (seed, i, j, t) alone, so a completion does not depend on what else
    is in the batch, but for the rounding that other shapes of the same products bring.
    """
    check(prefixes, params)
    if n < 1 or not len(prefixes):
        return [[] for _ in prefixes], Usage()
    found: list[list[Completion]] = [[] for _ in prefixes]
    by_length = sorted(range(len(prefixes)), key=lambda i: (len(prefixes[i]), i))
    rows = [(i, j) for i in by_length for j in range(n)]
    used, at = Usage(), 0
    while at < len(rows):
        end = at + 1
        while (
            end < min(len(rows), at + engine.rows) and (end + 1 - at) * (len(prefixes[rows[end][0]]) + params.max_tokens) <= engine.budget
        ):
            end += 1
        completions, usage = decode(engine, prefixes, rows[at:end], params, stops, entropy)
        for (i, _), completion in zip(rows[at:end], completions, strict=True):
            found[i].append(completion)
        used, at = used + usage, end
    return found, used


def decode(
    engine: Engine, prefixes: Sequence[np.ndarray], rows: list[tuple[int, int]], params: SamplingParams, stops: Stops, entropy: bool
):
    """One batch: prefill of its distinct prompts, then a token a step for every row that is not done."""
    prompts = Prompts.of([torch.as_tensor(prefixes[i]) for i, _ in rows], engine.device)
    cache = DynamicCache(config=engine.backbone.config)
    last = run(engine.backbone, prompts.ids, prompts.mask if prompts.padded else None, prompts.positions, cache)[:, -1]
    logits = engine.project(last)[prompts.owner]
    lengths = prompts.lengths[prompts.owner]
    mask = prompts.mask[prompts.owner] if prompts.padded else None
    spread(cache, prompts.owner, params.max_tokens)

    prefix, number = (np.array(column, dtype=np.uint64) for column in zip(*rows, strict=True))
    ids = np.zeros((len(rows), params.max_tokens), dtype=np.int64)
    logprobs, entropies = np.zeros((2, *ids.shape))
    size = np.full(len(rows), params.max_tokens)
    why = np.full(len(rows), "length", dtype="<U6")
    here = np.arange(len(rows))  # the row that each line of the running batch belongs to
    running = np.ones(len(rows), dtype=bool)  # of each line: not done yet
    for t in range(params.max_tokens):
        chosen, chosen_logprobs, h = draw(logits, uniform(params.seed, prefix[here], number[here], t), params, entropy)
        token, ids_t = chosen.cpu().numpy(), ids[:, t]
        ids_t[here[running]] = token[running]
        logprobs[here[running], t] = chosen_logprobs.cpu().numpy()[running]
        if h is not None:
            entropies[here[running], t] = h.cpu().numpy()[running]
        ended = np.isin(token, engine.ends) & running
        stopped = stops.candidate[token] & running & ~ended
        for line in np.nonzero(stopped)[0]:
            stopped[line] = stops.hit(ids[here[line], : t + 1])
        done = ended | stopped
        size[here[done]] = t + 1
        why[here[ended]], why[here[stopped]] = "end", "stop"
        running &= ~done
        if not running.any() or t + 1 == params.max_tokens:
            break
        if (~running).sum() * LEAVE >= len(running):
            stay = torch.from_numpy(np.nonzero(running)[0]).to(engine.device)
            cache.reorder_cache(stay)  # pyright: ignore[reportArgumentType]
            chosen, lengths, here = chosen[stay], lengths[stay], here[running]
            mask = None if mask is None else mask[stay]
            running = running[running]
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones((len(mask), 1))], 1)
        logits = engine.project(run(engine.backbone, chosen[:, None], mask, (lengths + t)[:, None], cache)[:, -1])

    completions = [
        Completion(
            ids[r, :k].copy(), logprobs[r, :k].copy(), str(why[r]), engine.version, {"entropy": entropies[r, :k].copy()} if entropy else {}
        )
        for r, k in enumerate(size.tolist())
    ]
    given, computed = sum(len(prefixes[i]) for i, _ in rows), int(prompts.lengths.sum())
    return completions, Usage(prompt=given, cached=given - computed, new=int(size.sum()))


def draw(logits: Float[Tensor, "n V"], u: np.ndarray, params: SamplingParams, entropy: bool):
    """Tokens (n,), their log-probabilities (n,), entropies (n,) or None.

    The token is where the cumulative distribution passes u (n,) in [0, 1). Log-probabilities and entropies are of the full softmax.
    """
    z = logits if logits.dtype == torch.float64 else logits.float()
    if params.temperature not in (0, 1):
        z = z / params.temperature
    top = z.amax(1, keepdim=True)
    p = torch.sub(z, top).exp_()
    total = p.sum(1)
    lse = total.log() + top[:, 0]
    if not bool(torch.isfinite(lse).all()):
        raise Broke("The model's logits are not finite (NaN or infinity), so nothing can be sampled; go back to an earlier checkpoint.")
    h = torch.special.entr(p / total[:, None]).sum(1) if entropy else None
    if params.temperature == 0:
        token = z.argmax(1)
    else:
        token = invert(p, torch.from_numpy(u).to(z.device, z.dtype), total, params)
    return token, z.gather(1, token[:, None])[:, 0] - lse, h


def invert(p: Float[Tensor, "n V"], u: Float[Tensor, " n"], total: Float[Tensor, " n"], params: SamplingParams) -> Int[Tensor, " n"]:
    """Tokens drawn by u from unnormalised p, cut to the top_k likeliest, then to the fewest whose share of those reaches top_p."""
    vocabulary = p.shape[1]
    if params.top_p == 1 and not 0 < params.top_k < vocabulary:
        cumulative = p.cumsum(1)
        return torch.searchsorted(cumulative, (u * cumulative[:, -1])[:, None], right=True)[:, 0].clamp(max=vocabulary - 1)
    k = params.top_k if 0 < params.top_k < vocabulary else min(vocabulary, 256)  # most nuclei are small: a full sort is the exception
    while True:
        likely, index = p.topk(k, dim=1)
        cumulative = likely.cumsum(1)
        if params.top_k:
            total = cumulative[:, -1]
        if params.top_k or k == vocabulary or bool((cumulative[:, -1] >= params.top_p * total).all()):
            break
        k = vocabulary
    kept = cumulative - likely < (params.top_p * total)[:, None]
    mass = torch.where(kept, cumulative, 0).amax(1)
    place = torch.searchsorted(cumulative, (u * mass)[:, None], right=True).clamp(max=k - 1)
    return index.gather(1, place)[:, 0]


def uniform(seed: int, prefix: np.ndarray, number: np.ndarray, t: int) -> Float[np.ndarray, " n"]:
    """(n,) numbers in [0, 1), multiples of 2^-24 (so that a product in float32 stays below its other factor): a hash of the four.

    SplitMix64's finaliser (Steele et al. 2014), chained over the coordinates.
    """
    x = np.zeros(len(prefix), dtype=np.uint64)
    for part in (np.uint64(seed & 0xFFFFFFFFFFFFFFFF), prefix, number, np.uint64(t)):
        x = (x + part) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = (x ^ (x >> np.uint64(31))) + np.uint64(1)
    return (x >> np.uint64(40)).astype(np.float64) * 2.0**-24


def spread(cache: Any, owner: Int[Tensor, " n"], room: int) -> None:
    """Each row gets its prompt's keys and values, in layers with room for `room` more tokens."""
    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[i] = Roomy(layer, owner, room)
        else:
            layer.reorder_cache(owner)  # pyright: ignore[reportArgumentType]


class Roomy(DynamicLayer):
    """A cache layer whose room is set aside beforehand: a step writes its column where torch.cat would copy everything."""

    def __init__(self, layer: DynamicLayer, owner: Tensor, room: int) -> None:
        super().__init__()
        assert layer.keys is not None
        assert layer.values is not None
        self.lazy_initialization(layer.keys, layer.values)
        self.at, self.room = layer.keys.shape[2], room
        self.stores = [self._rows(x, owner) for x in (layer.keys, layer.values)]
        self.keys, self.values = self._filled()

    def _rows(self, x: Tensor, rows: Tensor) -> Tensor:
        new = x.new_empty((len(rows), x.shape[1], self.at + self.room, x.shape[3]))
        torch.index_select(x[:, :, : self.at], 0, rows, out=new[:, :, : self.at])
        return new

    def _filled(self) -> tuple[Tensor, Tensor]:
        return self.stores[0][:, :, : self.at], self.stores[1][:, :, : self.at]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        end = self.at + key_states.shape[2]
        for store, new in zip(self.stores, (key_states, value_states), strict=True):
            store[:, :, self.at : end] = new
        self.room, self.at = self.room - (end - self.at), end
        self.keys, self.values = found = self._filled()
        return found

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.stores = [self._rows(x, beam_idx) for x in self.stores]
        self.keys, self.values = self._filled()

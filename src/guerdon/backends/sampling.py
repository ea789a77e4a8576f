"""Batched sampling with a KV cache: samples of a prompt run as one line while their tokens agree, and part where they differ."""

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
from guerdon.backends.trie import prefill
from guerdon.registry import Broke

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

LEAVE = 8
"""Finished lines leave as soon as they are one in this many: leaving copies the cache."""


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
    packs: bool = False
    """Whether the model follows a mask of its caller's (`prefix.packs`)."""


def sample(engine: Engine, prefixes: Sequence[np.ndarray], n: int, params: SamplingParams, stops: Stops, entropy: bool = False):
    """n completions of each prefix, and usage.

    The number that draws token t of sample j of prefix i depends on (seed, i, j, t) alone, so a completion does not depend on what else
    is in the batch, but for the rounding that other shapes of the same products bring.
    """
    check(prefixes, params, len(prefixes))
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
    """One batch: prefill of its distinct prompts, then a token a step for every line: the rows whose tokens so far are the same."""
    prompts = Prompts.of([torch.as_tensor(prefixes[i]) for i, _ in rows], engine.device)
    cache = DynamicCache(config=engine.backbone.config)
    last, computed = prefill(engine.backbone, prompts, cache, engine.packs)
    logits, lengths, mask = engine.project(last), prompts.lengths, prompts.mask if prompts.padded else None
    make_room(cache, len(rows), params.max_tokens)

    prefix, number = (np.array(column, dtype=np.uint64) for column in zip(*rows, strict=True))
    ids = np.zeros((len(rows), params.max_tokens), dtype=np.int64)
    logprobs, entropies = np.zeros((2, *ids.shape))
    limit = np.array([params.limit(i) for i, _ in rows])
    size = limit.copy()
    why = np.full(len(rows), "length", dtype="<U6")
    here = np.argsort(prompts.owner.cpu().numpy(), kind="stable")  # rows that are not done, by line
    line = prompts.owner.cpu().numpy()[here]  # of each of them
    new = 0
    for t in range(params.max_tokens):
        chosen, chosen_logprobs, h = draw(logits, uniform(params.seed, prefix[here], number[here], t), params, entropy, line)
        token = chosen.cpu().numpy()
        ids[here, t], logprobs[here, t] = token, chosen_logprobs.cpu().numpy()
        if h is not None:
            entropies[here, t] = h.cpu().numpy()
        _, first, branch = np.unique(line * logits.shape[1] + token, return_index=True, return_inverse=True)
        new += len(first)
        ended = np.isin(token[first], engine.ends)
        stopped = stops.candidate[token[first]] & ~ended
        for k in np.nonzero(stopped)[0]:
            stopped[k] = stops.hit(ids[here[first[k]], : t + 1])
        done = ended | stopped
        size[here[done[branch]]] = t + 1
        why[here[ended[branch]]], why[here[stopped[branch]]] = "end", "stop"
        goes_on = ~done[branch] & (t + 1 < limit[here])
        if not goes_on.any():
            break
        here, (left, branch) = here[goes_on], np.unique(branch[goes_on], return_inverse=True)
        source, token = line[first[left]], torch.from_numpy(token[first[left]]).to(engine.device)
        place, order, fits = part(source, len(logits))
        order = torch.from_numpy(order).to(engine.device)
        if fits:
            fork(cache, order, len(logits))
        else:
            keep(cache, order, len(here))
        lengths, mask = lengths[order], None if mask is None else mask[order]
        line = place[branch]
        by_line = np.argsort(line, kind="stable")
        here, line = here[by_line], line[by_line]
        tokens = token.new_zeros(len(order))  # a line that is done and still there gets any
        tokens[torch.from_numpy(place).to(engine.device)] = token
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones((len(mask), 1))], 1)
        logits = engine.project(run(engine.backbone, tokens[:, None], mask, (lengths + t)[:, None], cache)[:, -1])

    completions = [
        Completion(
            ids[r, :k].copy(), logprobs[r, :k].copy(), str(why[r]), engine.version, {"entropy": entropies[r, :k].copy()} if entropy else {}
        )
        for r, k in enumerate(size.tolist())
    ]
    given = sum(len(prefixes[i]) for i, _ in rows)
    return completions, Usage(prompt=given, cached=given - computed, new=new)


def part(source: np.ndarray, lines: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """source (b,): the line that each branch which goes on was in, sorted.  lines: how many there are, those that are done included.

    Where each branch runs from now on (b,), which line of before each line continues, and whether the lines of before all stay where
    they are: the first branch of a line then goes on in it, and others get lines behind the last.
    """
    first = np.diff(source, prepend=-1) > 0
    if (lines - first.sum()) * LEAVE >= lines:
        return np.arange(len(source)), source, False
    place = np.where(first, source, lines - 1 + np.cumsum(~first))
    return place, np.concatenate([np.arange(lines), source[~first]]), True


def draw(logits: Float[Tensor, "l V"], u: np.ndarray, params: SamplingParams, entropy: bool, line: np.ndarray | None = None):
    """Tokens (n,), their log-probabilities (n,), entropies (n,) or None.

    line (n,): the row of logits that each draws from; None: its own.  The token is where the cumulative distribution passes u (n,) in
    [0, 1). Log-probabilities and entropies are of the full softmax.
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
    of = None if line is None or np.array_equal(line, np.arange(len(z))) else torch.from_numpy(line).to(z.device)

    def each(x: Tensor) -> Tensor:
        return x if of is None else x[of]

    if params.temperature == 0:
        token = each(z.argmax(1))
    else:
        token = invert(each(p), torch.from_numpy(u).to(z.device, z.dtype), each(total), params)
    at = token[:, None] if of is None else token + of * z.shape[1]
    chosen = z.gather(1, at)[:, 0] if of is None else z.flatten()[at]
    return token, chosen - each(lse), None if h is None else each(h)


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


def make_room(cache: Any, lines: int, tokens: int) -> None:
    """Layers that can take it get room for so many lines of so many more tokens."""
    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[i] = Roomy(layer, lines, tokens)


def fork(cache: Any, order: Int[Tensor, " k"], lines: int) -> None:
    """Lines behind the first `lines`, which stay as they are; line i becomes a copy of line order[i]."""
    if len(order) == lines:
        return
    for layer in cache.layers:
        if isinstance(layer, Roomy):
            layer.fork(order[lines:])
        else:  # a window or a state of fixed size: small, and copied whole
            layer.reorder_cache(order)


def keep(cache: Any, order: Int[Tensor, " k"], lines: int) -> None:
    """Line i becomes a copy of line order[i]; room for so many lines."""
    for layer in cache.layers:
        if isinstance(layer, Roomy):
            layer.lines = lines
        layer.reorder_cache(order)


class Roomy(DynamicLayer):
    """A cache layer whose room is set aside beforehand: a step writes its column, a fork its row, where torch.cat would copy everything."""

    def __init__(self, layer: DynamicLayer, lines: int, room: int) -> None:
        super().__init__()
        assert layer.keys is not None
        assert layer.values is not None
        self.lazy_initialization(layer.keys, layer.values)
        self.used, self.at, self.lines, self.room = len(layer.keys), layer.keys.shape[2], lines, room
        self.stores = [self._moved(x, torch.arange(self.used, device=x.device)) for x in (layer.keys, layer.values)]
        self.keys, self.values = self._filled()

    def _moved(self, x: Tensor, order: Tensor) -> Tensor:
        new = x.new_empty((self.lines, x.shape[1], self.at + self.room, x.shape[3]))
        torch.index_select(x[:, :, : self.at], 0, order, out=new[: len(order), :, : self.at])
        return new

    def _filled(self) -> tuple[Tensor, Tensor]:
        return self.stores[0][: self.used, :, : self.at], self.stores[1][: self.used, :, : self.at]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        end = self.at + key_states.shape[2]
        for store, new in zip(self.stores, (key_states, value_states), strict=True):
            store[: self.used, :, self.at : end] = new
        self.room, self.at = self.room - (end - self.at), end
        self.keys, self.values = found = self._filled()
        return found

    def fork(self, source: Tensor) -> None:
        start, self.used = self.used, self.used + len(source)
        for store in self.stores:
            torch.index_select(store[:start, :, : self.at], 0, source, out=store[start : self.used, :, : self.at])
        self.keys, self.values = self._filled()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.used = len(beam_idx)
        self.stores = [self._moved(x, beam_idx) for x in self.stores]
        self.keys, self.values = self._filled()

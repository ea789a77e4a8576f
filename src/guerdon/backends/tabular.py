"""A softmax table over prefixes: one row of logits for each (prompt, completion so far). Its truth can be enumerated exactly.

Rows are made when they first receive a gradient; until then a prefix has its starting logits, so sampling and `forward` change nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from guerdon.backends.base import Completion, LossCall, Model, SamplingParams, Usage, backend, loss_calls, loss_needs, require, total_loss
from guerdon.backends.checkpoint import existing, replacing
from guerdon.backends.gradients import Gradients
from guerdon.backends.refuse import check
from guerdon.registry import Broke, Refused, find
from guerdon.samples import Batch, Prompt

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

END = "<end>"
"""The name of the end token, which is the last of the vocabulary and has no text."""


@dataclass(frozen=True)
class Start:
    """The logits of a prefix that was never trained: `bias`, plus normal noise of standard deviation `spread` fixed by seed and prefix."""

    bias: tuple[float, ...]
    spread: float = 0.0
    seed: int = 0

    def __call__(self, key: bytes) -> np.ndarray:
        if not self.spread:
            return np.array(self.bias)
        digest = hashlib.blake2b(key, digest_size=16, salt=self.seed.to_bytes(8, "little", signed=True)).digest()
        noise = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little"))).standard_normal(len(self.bias))
        return np.array(self.bias) + self.spread * noise


CAPABILITIES = frozenset(["entropy", "logits", "values", "full", "average", "grad_dot"])


@backend(capabilities=CAPABILITIES)
def tabular(
    path: str | Path | None = None,
    vocab: str | Sequence[str] = "0123456789",
    head: str | None = None,
    adapter: Any = None,
    trainable: bool = True,
    max_rows: int = 200_000,
    bias: Mapping[str, float] | None = None,
    init: float = 0.0,
    seed: int = 0,
    dtype: str = "float64",
) -> Tabular:
    """A fresh table, or the one saved at `path`.

    vocab: a string (its characters) or a list of names (words joined by spaces); the end token is added.  head "scalar" adds a table of
    values, 0 at first.  bias: logits to start from, by token (`{"<end>": -2}`).  init: standard deviation of seeded noise around them.
    Raises Refused for a vocabulary, bias, head, adapter or path that cannot be used.
    """
    names = [*vocab, END]
    if len(names) < 2 or len(set(names)) != len(names) or not all(isinstance(name, str) and name for name in names):
        raise Refused(f"The tabular vocabulary needs one or more different, non-empty tokens beside {END!r}, not {vocab!r}.")
    unknown = sorted(set(bias or {}) - set(names))
    if unknown or not np.isfinite([init, *(bias or {}).values()]).all():
        raise Refused(f"`bias` of a tabular model gives finite logits to tokens of its vocabulary and {END!r}; it has {unknown or bias}.")
    if head not in (None, "scalar"):
        raise Refused(f"The tabular backend has the heads None and 'scalar', not {head!r}.")
    if adapter is not None:
        raise Refused("The tabular backend lacks the capability 'lora'; leave `adapter` out.")
    if dtype not in ("float64", "float32"):
        raise Refused(f"The dtype of a tabular model is float64 or float32, not {dtype!r}.")
    start = Start(tuple(float((bias or {}).get(name, 0.0)) for name in names), init, seed)
    separator = "" if isinstance(vocab, str) else " "
    model = Tabular(names, separator, head == "scalar", trainable, max_rows, start, getattr(torch, dtype))
    if path is not None:
        model.load(Path(path))
    return model


class Tabular:
    """See `guerdon.backends.base.Model`. Token ids 0 .. V-1 are the vocabulary, the end token the last; in prompts any other character c
    is V + ord(c). A row is found by all ids that stand before the token, so a prompt continued by hand meets the same rows."""

    def __init__(
        self,
        names: Sequence[str],
        separator: str,
        values: bool,
        trainable: bool,
        max_rows: int,
        start: Callable[[bytes], np.ndarray],
        dtype: torch.dtype = torch.float64,
    ):
        self.names, self.separator, self.trainable, self.max_rows, self.start = list(names), separator, trainable, max_rows, start
        self.end = len(self.names) - 1
        self.ids = {name: i for i, name in enumerate(self.names[:-1])}
        self.capabilities = CAPABILITIES if values else CAPABILITIES - {"values"}
        self.version = 0
        self.index: dict[bytes, int] = {}
        self.tables = {"logits": torch.zeros(0, len(self.names), dtype=dtype)}
        if values:
            self.tables["values"] = torch.zeros(0, 1, dtype=dtype)
        for table in self.tables.values():
            table.requires_grad_(trainable)
        self.optimizer = torch.optim.AdamW(list(self.tables.values()), lr=0.0)
        self.gradients = Gradients(lambda: self.tables)

    def encode(self, prompt: Prompt) -> np.ndarray:
        text = prompt if isinstance(prompt, str) else "\n".join(f"{message.get('role')}: {_text(message)}" for message in prompt)
        ids: list[int] = []
        for word in text if not self.separator else text.split():
            spelled = word if not self.separator else self.separator + word
            ids += [self.ids[word]] if word in self.ids else [len(self.names) + ord(c) for c in spelled]
        return np.array(ids, dtype=np.int64)

    def encode_answer(self, text: str) -> np.ndarray:
        unknown = [word for word in (text.split() if self.separator else text) if word not in self.ids]
        if unknown:
            raise Refused(f"The tabular model cannot write {unknown[0]!r}; its vocabulary is {' '.join(self.names[:-1])!r}.")
        return np.append(self.encode(text), len(self.names) - 1)

    def show(self, ids: np.ndarray) -> str:
        return self._spell(ids, END)[0]

    def decode(self, ids: np.ndarray) -> tuple[str, np.ndarray]:
        return self._spell(ids, "")

    def _spell(self, ids: np.ndarray, end: str) -> tuple[str, np.ndarray]:
        text, offsets = "", []
        for token in np.asarray(ids).tolist():
            before = len(text)
            if token > self.end:
                text += chr(token - len(self.names))
            elif token < self.end or end:
                text += (self.separator if text else "") + (self.names[token] if token < self.end else end)
            offsets.append((before, len(text)))
        return text, np.array(offsets, dtype=np.int64).reshape(-1, 2)

    def logits_at(self, prefixes: Sequence[np.ndarray]) -> Float[Tensor, "k V"]:
        """The logits after each prefix (prompt and completion so far), without gradient."""
        return self._look([_key(prefix) for prefix in prefixes])["logits"]

    def set_logits(self, prefix: np.ndarray, logits: Sequence[float] | np.ndarray) -> None:
        """Write the row of a prefix, for policies made by hand."""
        row = self._rows([_key(prefix)])
        with torch.no_grad():
            self.tables["logits"][row] = torch.as_tensor(np.asarray(logits), dtype=self.tables["logits"].dtype)

    def _look(self, keys: Sequence[bytes]) -> dict[str, Tensor]:
        """What stands at each key, without gradient and without making rows."""
        found = [self.index.get(key, -1) for key in keys]
        rows = torch.tensor(found, dtype=torch.long)
        out = {}
        for name, table in self.tables.items():
            out[name] = torch.zeros(len(keys), table.shape[1], dtype=table.dtype)
            out[name][rows >= 0] = table.detach()[rows[rows >= 0]]
        fresh = [i for i, row in enumerate(found) if row < 0]
        if fresh:
            out["logits"][fresh] = torch.from_numpy(np.stack([self.start(keys[i]) for i in fresh])).to(out["logits"].dtype)
        return out

    def _rows(self, keys: Sequence[bytes]) -> Int[Tensor, " k"]:
        """The row of each key, made where there is none."""
        fresh = [key for key in dict.fromkeys(keys) if key not in self.index]
        if fresh:
            used = len(self.index)
            if used + len(fresh) > self.max_rows:
                raise Broke(
                    f"The tabular model would have more than max_rows={self.max_rows} rows; raise it, or use fewer prompts or tokens."
                )
            self._reserve(used + len(fresh))
            with torch.no_grad():
                self.tables["logits"][used : used + len(fresh)] = torch.from_numpy(np.stack([self.start(key) for key in fresh]))
            self.index.update((key, used + i) for i, key in enumerate(fresh))
        return torch.tensor([self.index[key] for key in keys], dtype=torch.long)

    def _reserve(self, rows: int) -> None:
        """Room for `rows`, by powers of two: the room depends on the rows alone, so a loaded table adds up its norm in the same order."""
        room = max(256, 1 << (rows - 1).bit_length())

        def pad(x: Tensor) -> Tensor:
            return torch.cat([x, x.new_zeros(room - len(x), x.shape[1])])

        for name, old in self.tables.items():
            if room <= len(old):
                continue
            new = pad(old.detach()).requires_grad_(self.trainable)
            new.grad = None if old.grad is None else pad(old.grad)
            state = self.optimizer.state.pop(old, {})
            self.optimizer.state[new] = {key: pad(value) if value.ndim else value for key, value in state.items()}
            self.tables[name] = new
        self.optimizer.param_groups[0]["params"] = list(self.tables.values())

    def sample(
        self, prefixes: Sequence[np.ndarray], n: int, params: SamplingParams, want: tuple[str, ...] = ()
    ) -> tuple[list[list[Completion]], Usage]:
        check((), params, len(prefixes))
        self._check("sample", want, offered=("entropy",))
        keys = [_key(prefix) for prefix in prefixes for _ in range(n)]
        ids: list[list[int]] = [[] for _ in keys]
        logprobs: list[list[float]] = [[] for _ in keys]
        entropy: list[list[float]] = [[] for _ in keys]
        limits = [params.limit(i) for i in range(len(prefixes)) for _ in range(n)]
        stops, new = ["length"] * len(keys), 0
        live = np.arange(len(keys))
        for t in range(params.max_tokens):
            if not len(live):
                break
            draw = np.random.default_rng([params.seed & (2**64 - 1), t]).random(len(keys))[live]
            logp = torch.log_softmax(self._look([keys[i] for i in live])["logits"] / (params.temperature or 1.0), -1)
            chosen = _choose(logp.numpy(), draw, params)
            spread = -(logp.exp() * logp).sum(-1)
            for j, (i, token) in enumerate(zip(live.tolist(), chosen.tolist(), strict=True)):
                ids[i].append(token)
                keys[i] += _key([token])
                logprobs[i].append(float(logp[j, token]))
                entropy[i].append(float(spread[j]))
                if token == self.end:
                    stops[i] = "end"
                elif params.stop and any(text in self.decode(np.array(ids[i]))[0] for text in params.stop):
                    stops[i] = "stop"
            new += len({keys[i] for i in live.tolist()})
            live = np.array([i for i in live if stops[i] == "length" and len(ids[i]) < limits[i]], dtype=np.int64)
        done = [
            Completion(
                np.array(ids[i], dtype=np.int64),
                np.array(logprobs[i], dtype=np.float64),
                stops[i],
                self.version,
                {"entropy": np.array(entropy[i])} if "entropy" in want else {},
            )
            for i in range(len(keys))
        ]
        usage = Usage(prompt=n * sum(len(prefix) for prefix in prefixes), new=new)
        return [done[i * n : (i + 1) * n] for i in range(len(prefixes))], usage

    def forward(self, batch: Batch, want: tuple[str, ...] = ("logprobs",), temperature: float = 1.0) -> tuple[dict[str, Tensor], Usage]:
        """As in the protocol. Log-probabilities, entropies and logits (over the temperature) are 0 wherever `batch.mask` is False."""
        self._check("forward", want)
        out = self._outputs(batch, want, temperature, self._look)
        return out, _usage(batch)

    def forward_backward(
        self, batch: Batch, loss: LossCall | Sequence[LossCall], temperature: float = 1.0
    ) -> tuple[dict[str, float], Usage]:
        calls = loss_calls(loss)
        for call in calls:
            self._check(f"The loss {call.name!r}", find("loss", call.name).needs)
            if isinstance(find("loss", call.name).fn, type):
                raise Refused(f"The loss {call.name!r} has parameters of its own, which the tabular backend does not train; use `local`.")
        self._train("forward_backward")

        def train(keys: Sequence[bytes]) -> dict[str, Tensor]:
            rows = self._rows(keys)
            return {name: F.embedding(rows, table) for name, table in self.tables.items()}

        out = self._outputs(batch, loss_needs(calls), temperature, train)
        value, metrics = total_loss(calls, out, batch)
        if value.requires_grad:  # not so where every row is empty
            value.backward()
        return {name: float(x) for name, x in metrics.items()}, _usage(batch)

    def optim_step(self, lr: float, clip: float | None = 1.0, weight_decay: float = 0.0) -> dict[str, float]:
        self._train("optim_step")
        for table in self.tables.values():
            table.grad = torch.zeros_like(table) if table.grad is None else table.grad
        self.optimizer.param_groups[0].update(lr=lr, weight_decay=weight_decay)
        norm = torch.nn.utils.clip_grad_norm_(self.tables.values(), float("inf") if clip is None else clip)
        if not bool(torch.isfinite(norm)):
            self.optimizer.zero_grad()
            raise Broke(
                f"The gradient's norm is {float(norm)} at version {self.version}; lower the learning rate or look at the last batch."
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.version += 1
        return {"grad_norm": float(norm)}

    def grad_keep(self, name: str) -> None:
        self._train("grad_keep")
        self.gradients.keep(name)

    def grad_add(self, name: str, factor: float = 1.0) -> None:
        self.gradients.add(name, factor)

    def grad_dot(self, a: str, b: str) -> float:
        return self.gradients.dot(a, b)

    def save(self, path: Path) -> None:
        from safetensors.torch import save_file

        used = len(self.index)
        tensors = {
            "lengths": torch.tensor([len(key) for key in self.index]),
            "keys": torch.tensor(list(b"".join(self.index)), dtype=torch.uint8),
        }
        for name, table in self.tables.items():
            tensors[name] = table.detach()[:used].clone()
            for key, value in self.optimizer.state.get(table, {}).items():
                tensors[f"{name}/{key}"] = value[:used].clone() if value.ndim else value.clone()
        about = {"names": self.names, "version": self.version, "start": asdict(self.start) if isinstance(self.start, Start) else None}
        with replacing(Path(path)) as folder:
            save_file(tensors, folder / "table.safetensors", metadata={"about": json.dumps(about)})

    def load(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        file = existing(Path(path)) / "table.safetensors"
        try:
            with safe_open(file, framework="pt") as opened:
                about = json.loads((opened.metadata() or {})["about"])
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise Refused(f"{path} is not the folder of a saved tabular model: {file.name} cannot be read ({error}).") from None
        missing = sorted(set(self.tables) - set(tensors))
        if about["names"] != self.names or missing:
            what = f"it has no table of {missing}" if missing else f"its tokens are {about['names']}, the model's {self.names}"
            raise Refused(f"The tabular model in {path} does not fit the one that was opened: {what}.")
        if about["start"] is not None:
            self.start = Start(**{**about["start"], "bias": tuple(about["start"]["bias"])})
        self.version = about["version"]
        ends = np.cumsum(tensors["lengths"].numpy()).tolist()
        joined = tensors["keys"].numpy().tobytes()
        self.index = {joined[a:b]: i for i, (a, b) in enumerate(zip([0, *ends], ends, strict=False))}
        self.optimizer.state.clear()
        for name, table in self.tables.items():
            self.tables[name] = tensors[name].to(table.dtype).requires_grad_(self.trainable)
            state = {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
            self.optimizer.state[self.tables[name]] = state
        self._reserve(max(len(self.index), 1))

    def copy(self, other: Model, tau: float = 1.0) -> None:
        """Both must have the same tokens and tables; with tau below 1 also the same start, as rows not made yet cannot be averaged."""
        if not isinstance(other, Tabular):
            raise Refused(f"A tabular model can only follow a tabular one, not a {type(other).__name__}.")
        if self.names != other.names or set(self.tables) - set(other.tables) or (tau != 1 and self.start != other.start):
            raise Refused("A tabular model can only follow one that was opened with the same vocabulary, head, bias, init and seed.")
        keys = list(dict.fromkeys([*self.index, *other.index]))
        if keys:
            rows, theirs = self._rows(keys), other._look(keys)
            with torch.no_grad():
                for name, table in self.tables.items():
                    table[rows] = theirs[name] if tau == 1 else (1 - tau) * table[rows] + tau * theirs[name]
        self.start, self.version = other.start, other.version

    def _check(self, piece: str, want: Sequence[str], offered: Sequence[str] = ("logprobs", "entropy", "logits", "values")) -> None:
        require("tabular", self, piece, want)
        for name in want:
            if name not in offered:
                raise Refused(f"{piece} wants {name!r}, which the tabular backend does not give; it gives {', '.join(offered)}.")

    def _train(self, verb: str) -> None:
        if not self.trainable:
            raise Refused(f"{verb} needs a trainable model; this tabular one was opened with trainable=False.")

    def _outputs(
        self, batch: Batch, want: Sequence[str], temperature: float, look: Callable[[Sequence[bytes]], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        inside = torch.arange(batch.ids.shape[1]) < batch.lengths[:, None]
        real = inside if "values" in want else batch.mask
        keys: list[bytes] = []
        for prompt, row, places in zip(batch.prompts, batch.ids.numpy(), real.numpy(), strict=True):
            whole = _key(np.concatenate([prompt.numpy(), row]))
            keys += [whole[: 4 * (len(prompt) + i)] for i in np.flatnonzero(places).tolist()]
        ids, written = batch.ids[real], batch.mask[real]
        foreign = ((batch.ids > self.end) & real & batch.mask).any(1).nonzero()[:, 0].tolist()
        if foreign:
            raise Refused(f"`ids` of row {foreign[0]} of the batch hold a token that the policy wrote and the tabular model does not know.")
        found = look(keys)
        logits = found["logits"] / (temperature or 1.0)
        logp = torch.log_softmax(logits, -1)
        flat = {"logprobs": logp.gather(1, ids.clamp(max=self.end)[:, None])[:, 0] * written}
        if "entropy" in want:
            flat["entropy"] = -(logp.exp() * logp).sum(-1) * written
        if "logits" in want:
            flat["logits"] = logits * written[:, None]
        if "values" in want:
            flat["values"] = found["values"][:, 0]
        out = {}
        for name in want:
            out[name] = torch.zeros(*real.shape, *flat[name].shape[1:], dtype=flat[name].dtype)
            out[name][real] = flat[name]
        return out


def _key(ids: Any) -> bytes:
    return np.asarray(ids, dtype="<u4").tobytes()


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    if any(part.get("type") != "text" for part in content):
        raise Refused("A prompt has a part that is not text, which the tabular backend cannot read; use a model that can.")
    return "".join(part["text"] for part in content)


def _usage(batch: Batch) -> Usage:
    """`new`: the distinct prefixes of the rows, each prompt apart."""
    prefixes = set()
    for prompt, row, k in zip(batch.prompts, batch.ids.numpy(), batch.lengths.tolist(), strict=True):
        whole, p = _key(np.concatenate([prompt.numpy(), row])), len(prompt)
        prefixes.update((p, whole[: 4 * (p + t)]) for t in range(1, k + 1))
    return Usage(prompt=sum(len(prompt) for prompt in batch.prompts), new=len(prefixes))


def _choose(logp: np.ndarray, draw: np.ndarray, params: SamplingParams) -> np.ndarray:
    """(k,) tokens from log-probabilities (k, V) at the sampling temperature and uniform draws (k,)."""
    if params.temperature == 0:
        return logp.argmax(1)
    p = np.exp(logp)
    if params.top_k or params.top_p < 1:
        order = np.argsort(-p, axis=1, kind="stable")
        ranked = np.take_along_axis(p, order, 1)
        if params.top_k:
            ranked[:, params.top_k :] = 0
        before = np.cumsum(ranked, 1) - ranked
        ranked[before >= params.top_p * ranked.sum(1, keepdims=True)] = 0  # the smallest set that holds top_p of what top_k left
        np.put_along_axis(p, order, ranked, 1)
    below = np.cumsum(p, 1)
    return (below / below[:, -1:] <= draw[:, None]).sum(1)  # the last is exactly 1 and a draw is below 1: never a token of probability 0

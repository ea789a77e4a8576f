"""The handle of the `local` backend: the six verbs on a transformers model."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from guerdon.backends import head as heads
from guerdon.backends import prefix, sampling, trie
from guerdon.backends.base import Completion, LossCall, Model, SamplingParams, Usage, loss_calls, loss_needs, total_loss
from guerdon.backends.checkpoint import existing, replacing
from guerdon.backends.embeds import Embeds
from guerdon.backends.gradients import Gradients
from guerdon.backends.resolve import cache_floats, downloaded, end_ids, exact_norms, load_pretrained, lora, positions_in_memory, quiet
from guerdon.backends.softmax import projection, token_logprobs
from guerdon.backends.tokens import Stops, Tokens
from guerdon.registry import Broke, Refused, find
from guerdon.samples import Batch, Prompt

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
SHORT = 128
"""Completion tokens of a prompt up to which its rows are packed into one line."""
LOGITS = 2**26
"""Logits that a step of sampling may hold; its batch is split where rows times vocabulary are more."""
WANTS = ("logprobs", "entropy", "logits", "hidden", "values")


class TorchModel:
    """See `guerdon.backends.local.local` for the arguments, `guerdon.backends.base.Model` for the verbs."""

    def __init__(
        self,
        path: str | Path | tuple[Any, Any] | None,
        head: str | None,
        adapter: Mapping[str, Any] | None,
        trainable: bool,
        dtype: str,
        device: str | None,
        micro_tokens: int | None,
        cache_tokens: int | None,
        prefix_sharing: bool,
        classes: int,
        seed: int,
    ) -> None:
        if dtype not in DTYPES:
            raise Refused(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}.")
        if path is None:
            raise Refused("A local model needs a path: a folder, a .gguf file, `smollm2`, or a name on the hub.")
        mixed = dtype == "bfloat16" and trainable
        kind, found, self.speaks = torch.float32 if mixed else DTYPES[dtype], None, True
        self.dtype = torch.promote_types(kind, torch.float32)
        """Of what the verbs return."""
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if isinstance(path, tuple):
            causal, tokenizer = copy.deepcopy(path[0]).to(kind), path[1]
        else:
            causal, tokenizer = load_pretrained(path, kind)
            path = downloaded(path)
            found = heads.saved(path)
            if found is not None or (Path(path) / heads.CARD).exists():
                heads.check_tokenizer(path, causal.config, tokenizer)
            if found is not None:
                self.speaks = heads.speaks(path, causal.config)
                head, classes = head or found[0], found[1] if head in (None, found[0]) else classes
        self.causal: Any = causal.to(self.device).eval().requires_grad_(trainable and adapter is None)
        if kind == torch.float64:
            exact_norms(self.causal)
        self.cast = (lambda: torch.autocast(self.device.type, torch.bfloat16)) if mixed else contextlib.nullcontext
        self.project = projection(self.causal)
        self.peft = lora(self.causal, adapter, seed) if adapter is not None else None
        config = self.causal.config.get_text_config()
        self.vocabulary: int = self.causal.get_output_embeddings().weight.shape[0]
        self.head: nn.Module | None = None
        if head is not None:
            self.head = heads.make(head, config.hidden_size, classes, seed).to(self.device, kind).requires_grad_(trainable)
        self.tokens = Tokens(tokenizer, end_ids(self.causal, tokenizer))
        self.trainable = trainable
        self.sharing = prefix_sharing and prefix.shareable(self.backbone)
        self.packs = self.sharing and prefix.packs(self.backbone)
        wide = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
        self.micro_tokens = micro_tokens or positions_in_memory(config, self.device, 20 * config.hidden_size + 6 * wide)
        self.cache_tokens = cache_tokens or positions_in_memory(config, self.device, cache_floats(config))
        self.version = 0
        self.losses: dict[str, Any] = {}
        self.optimizer: torch.optim.AdamW | None = None
        self._stops: dict[tuple[str, ...], Stops] = {}
        self.gradients = Gradients(self._moved)
        offered = {"entropy", "logits", "hidden", "average", "embeds", "grad_dot", "lora" if adapter is not None else "full"}
        self.capabilities = frozenset(offered | ({"values"} if head else set()) | ({"prefix_cache"} if self.sharing else set()))
        if self.head is not None and found is not None and found[0] == head:
            self.head.load_state_dict(found[2])
        elif not isinstance(path, tuple) and (Path(path) / "head.safetensors").exists() and self.head is not None:
            self._load_tensors(Path(path) / "head.safetensors", self.head.state_dict())

    @property
    def backbone(self) -> Any:
        return self.causal.base_model

    @property
    def longest(self) -> int:
        """Tokens that a row may have."""
        return getattr(self.causal.config.get_text_config(), "max_position_embeddings", None) or 2**31

    # Text

    def encode(self, prompt: Prompt) -> np.ndarray:
        return self.tokens.encode(prompt)

    def encode_answer(self, text: str) -> np.ndarray:
        return self.tokens.encode_answer(text)

    def show(self, ids: np.ndarray) -> str:
        return self.tokens.show(ids)

    def decode(self, ids: np.ndarray) -> tuple[str, np.ndarray]:
        return self.tokens.decode(ids)

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """(t, d) float32 rows of the input embedding table."""
        table = self.causal.get_input_embeddings().weight
        return table[torch.from_numpy(np.asarray(ids, dtype=np.int64)).to(table.device)].detach().float().cpu().numpy()

    # Verbs

    def sample(
        self, prefixes: Sequence[np.ndarray], n: int, params: SamplingParams, want: tuple[str, ...] = ()
    ) -> tuple[list[list[Completion]], Usage]:
        """n completions of each prefix, drawn by numbers that hang on (params.seed, place of prefix, sample and token) alone."""
        self._check_want(("logprobs",), "sampling")
        for name in want:
            if name not in ("logprobs", "entropy"):
                raise Refused(f"Sampling gives logprobs and entropy, not {name!r}; ask `forward` for it.")
        texts = tuple(params.stop)
        if texts not in self._stops:
            self._stops[texts] = Stops(self.tokens, texts, self.vocabulary)
        engine = sampling.Engine(
            self.backbone, self.project, self.device, self.tokens.ends, self.version, self.cache_tokens,
            max(1, LOGITS // self.vocabulary), self.packs,
        )  # fmt: skip
        with torch.no_grad(), self.cast():
            return sampling.sample(engine, prefixes, n, params, self._stops[texts], "entropy" in want)

    def forward(self, batch: Batch, want: tuple[str, ...] = ("logprobs",), temperature: float = 1.0) -> tuple[dict[str, Tensor], Usage]:
        """See `Model.forward`; log-probabilities, entropies and logits are given where `batch.mask` is True and zero elsewhere."""
        self._check_want(want)
        n, t = batch.ids.shape
        whole: dict[str, Tensor] = {}
        used = Usage()
        if n == 0:
            empty = {
                "logprobs": (0, t),
                "entropy": (0, t),
                "logits": (0, t, self.vocabulary),
                "hidden": (0, t, self._width),
                "values": (0, t),
            }
            return {name: torch.zeros(empty[name]) for name in want}, used
        most = 8 * self.micro_tokens  # nothing is kept for a backward pass
        parts, used = self._split(batch, min(most, prefix.WIDEST.get(self.device.type, most)))
        for part in parts:
            small, index = self._micro(batch, part)
            with torch.no_grad(), self.cast():
                out = self._outputs(small, want, temperature, part.trie)
            if index is None:
                return {name: value.to(batch.ids.device) for name, value in out.items()}, used
            for name, value in out.items():
                if name not in whole:
                    whole[name] = torch.zeros((n, t, *value.shape[2:]), dtype=value.dtype, device=batch.ids.device)
                whole[name][index, : value.shape[1]] = value.to(batch.ids.device)
        return whole, used

    def forward_backward(
        self, batch: Batch, loss: LossCall | Sequence[LossCall], temperature: float = 1.0
    ) -> tuple[dict[str, float], Usage]:
        """See `Model.forward_backward`. A loss that is a class is made once, without arguments; its parameters train along."""
        if not self.trainable:
            raise Refused("This model was opened with trainable=False, so it cannot be trained.")
        calls = loss_calls(loss)
        wanted = loss_needs(calls)
        needs = [name for name in wanted if name != "embeds"]
        for call in calls:
            self._check_want([name for name in find("loss", call.name).needs if name != "embeds"], f"the loss {call.name!r}")
        for call in calls:
            self._own(call.name)
        if len(batch) == 0:
            return {"loss": 0.0}, Usage()
        totals: dict[str, float] = {}
        parts, used = self._split(batch, self.micro_tokens)
        for part in parts:
            small, _ = self._micro(batch, part)
            with self.cast():
                out: dict[str, Any] = self._outputs(small, needs, temperature, part.trie)
                further = Embeds(self.causal, self.project, self.vocabulary, temperature, small)
                out |= {"embeds": further} if "embeds" in wanted else {}
                value, metrics = total_loss(calls, out, small, self.losses)
            used += further.usage
            if value.requires_grad:
                value.backward()
            for name, number in metrics.items():
                totals[name] = totals.get(name, 0.0) + float(number)
        return totals, used

    def optim_step(self, lr: float, clip: float | None = 1.0, weight_decay: float = 0.0) -> dict[str, float]:
        """One AdamW step; matrices decay, vectors (norms, biases) do not. Raises Broke where the gradient is not finite."""
        optimizer = self._optimizer()
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters]) if parameters else torch.zeros(())
        if not bool(torch.isfinite(norm)):
            optimizer.zero_grad(set_to_none=True)
            raise Broke(
                f"The gradient's norm is {float(norm)} at version {self.version}; lower the learning rate or look at the last batch."
            )
        if clip is not None and parameters:
            torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        for group in optimizer.param_groups:
            group["lr"], group["weight_decay"] = lr, weight_decay if group["decays"] else 0.0
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.version += 1
        return {"grad_norm": float(norm)}

    def grad_keep(self, name: str) -> None:
        if not self.trainable:
            raise Refused("This model was opened with trainable=False, so it has no gradient to keep.")
        self.gradients.keep(name)

    def grad_add(self, name: str, factor: float = 1.0) -> None:
        self.gradients.add(name, factor)

    def grad_dot(self, a: str, b: str) -> float:
        return self.gradients.dot(a, b)

    def save(self, path: Path) -> None:
        """A folder that transformers (with an adapter: peft) opens, with the head, the losses' parameters and the optimiser beside.

        Raises Broke where it cannot be written; what was at `path` before stays then.
        """
        from safetensors.torch import save_file

        with replacing(Path(path)) as folder, quiet():
            (self.peft or self.causal).save_pretrained(folder, max_shard_size="1000GB")
            self.tokens.tokenizer.save_pretrained(folder)
            if self.head is not None:
                save_file({name: x.contiguous() for name, x in self.head.state_dict().items()}, folder / "head.safetensors")
            for name, own in self.losses.items():
                save_file({str(i): p.detach().contiguous() for i, p in enumerate(own.parameters())}, folder / f"loss-{name}.safetensors")
            if self.optimizer is not None:
                with (folder / "optimizer.pt").open("wb") as file:  # through Python, so that a full disk is an OSError
                    torch.save(self.optimizer.state_dict(), file)
            (folder / "state.json").write_text(json.dumps({"version": self.version, "losses": list(self.losses)}))

    def load(self, path: Path) -> None:
        """What `save` wrote, into this handle, bit for bit. Raises Refused for a folder that does not fit it."""
        folder = existing(Path(path))
        state = json.loads((folder / "state.json").read_text()) if (folder / "state.json").exists() else {"version": 0, "losses": []}
        if self.peft is not None:
            from peft import get_peft_model_state_dict

            own = {name: x for name, x in get_peft_model_state_dict(self.peft).items()}
            self._load_tensors(folder / "adapter_model.safetensors", own)
        else:
            self._load_tensors(folder / "model.safetensors", self.causal.state_dict(keep_vars=True))
        if self.head is not None:
            self._load_tensors(folder / "head.safetensors", self.head.state_dict())
        self.losses, self.optimizer = {}, None
        for name in state["losses"]:
            tensors = {str(i): p for i, p in enumerate(self._own(name).parameters())}
            self._load_tensors(folder / f"loss-{name}.safetensors", tensors)
        if (folder / "optimizer.pt").exists() and self.trainable:
            self._optimizer().load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True, map_location=self.device))
        self.version = state["version"]

    def copy(self, other: Model, tau: float = 1.0) -> None:
        """weights = (1 - tau) * weights + tau * other's, for models of one architecture on this backend; an adapter is merged into one
        without, and a head that this model lacks is left out."""
        mine = self._weights()
        theirs = {} if not isinstance(other, TorchModel) else other._weights() if self.peft is not None else other._merged()
        if any(name not in theirs or theirs[name].shape != weight.shape for name, weight in mine.items()):
            raise Refused("Weights can only be copied from a local model of the same architecture, head and, if any, adapter.")
        with torch.no_grad():
            for name, weight in mine.items():
                source = theirs[name].to(weight.device, weight.dtype)
                weight.copy_(source) if tau == 1 else weight.lerp_(source, tau)
        self.version = other.version

    # Inside

    @property
    def _width(self) -> int:
        return self.causal.config.get_text_config().hidden_size

    def _weights(self) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = dict(self.causal.named_parameters())
        return weights | ({f"head.{k}": p for k, p in self.head.named_parameters()} if self.head is not None else {})

    def _moved(self) -> dict[str, Tensor]:
        """What the optimiser moves, by name."""
        own = {f"{name}/{i}": p for name, loss in self.losses.items() for i, p in enumerate(loss.parameters())}
        return {name: p for name, p in self._weights().items() if p.requires_grad} | own

    def _merged(self) -> dict[str, Tensor]:
        """The weights by the names they have without an adapter, with what the adapter adds."""
        weights = {name.replace(".base_layer.", "."): p for name, p in self._weights().items() if ".lora_" not in name}
        for name, module in self.causal.named_modules():
            if hasattr(module, "get_delta_weight") and hasattr(module, "base_layer"):
                weights[f"{name}.weight"] = module.base_layer.weight + module.get_delta_weight("default")
        return weights

    def _check_want(self, want: Sequence[str], piece: str = "this call") -> None:
        for name in want:
            if not self.speaks and name in ("logprobs", "entropy", "logits"):
                raise Refused(f"This model's folder holds a body and a head, without the layer that gives {name!r}, which {piece} needs.")
            if name not in WANTS or (name == "values" and self.head is None):
                hint = "; open it with head='scalar'" if name == "values" else f"; it gives {', '.join(WANTS)}"
                raise Refused(f"This local model gives no {name!r}, which {piece} needs{hint}.")

    def _split(self, batch: Batch, budget: int) -> tuple[list[prefix.Part], Usage]:
        distinct, owner = prefix.number(batch.prompts)
        sizes, lengths, units = [len(p) for p in distinct], batch.lengths.tolist(), batch.unit.tolist()
        if min(sizes) == 0:
            raise Refused("A row's prompt has no tokens; a completion needs at least one token to continue.")
        self._known(batch, distinct)
        overhead = prefix.PASS.get(self.device.type, 4096)
        parts = prefix.split(owner, sizes, lengths, units, budget, self.sharing, overhead)
        if self.packs:
            parts = trie.split(parts, owner, sizes, batch.ids.cpu().numpy(), lengths, units, budget, overhead, self._width)
        return parts, prefix.usage(owner, sizes, parts, self.sharing)

    def _known(self, batch: Batch, prompts: Sequence[Tensor]) -> None:
        """Raises Refused for ids that the model has no embedding for."""
        most = self.causal.get_input_embeddings().num_embeddings
        bad = ((batch.ids < 0) | (batch.ids >= most)).any(1).nonzero()[:, 0].tolist()
        who = [f"row {row} of the batch" for row in bad[:1]]
        who += [f"the prompt {p[:8].tolist()}" for p in prompts if int(p.min()) < 0 or int(p.max()) >= most][:1]
        if who:
            raise Refused(f"`ids` of {who[0]} hold tokens beyond the {most} that this model knows: they are of another tokenizer.")

    def _micro(self, batch: Batch, part: prefix.Part) -> tuple[Batch, Tensor | None]:
        """The rows of a micro-batch on the model's device, and their places, None for a batch taken whole."""
        index = None
        if len(part.rows) != len(batch):
            index = torch.tensor(part.rows, device=batch.ids.device)
            batch = batch.rows(index)
        if batch.ids.device != self.device:
            moved = {f.name: x.to(self.device) for f in fields(batch) if isinstance(x := getattr(batch, f.name), torch.Tensor)}
            batch = replace(batch, **moved, fields={name: x.to(self.device) for name, x in batch.fields.items()})
        return batch, index

    def _states(self, batch: Batch, shared: bool) -> tuple[Tensor, Tensor, Tensor]:
        """(p, d) the state that each computed token was drawn in, (p,) its id, and (n, t) which of them each token of the batch is.

        shared: tokens that rows of one prompt have in common are computed once; else the way is taken that computes least.
        """
        prompts, ids = prefix.Prompts.of(batch.prompts, self.device), batch.ids
        if shared:
            found = trie.Trie.of(prompts.owner.tolist(), ids.cpu().numpy(), batch.lengths.tolist())
            row, column, node = (torch.from_numpy(x).to(self.device) for x in (found.row, found.column, found.node))
            return trie.states_trie(self.backbone, prompts, ids, found), ids[row, column], node
        (n, t), k = ids.shape, len(prompts.ids)
        rows = int(torch.bincount(prompts.owner).max())  # of the prompt that has most
        way = prefix.states_shared
        if not self.sharing or k == n:
            way = prefix.states_plain
        elif self.packs and t > 1 and rows * t <= SHORT and k * rows <= 1.25 * n:
            way = prefix.states_packed
        return way(self.backbone, prompts, ids).flatten(0, 1), ids.flatten(), torch.arange(n * t, device=self.device).view(n, t)

    def _outputs(self, batch: Batch, want: Sequence[str], temperature: float, shared: bool = False) -> dict[str, Tensor]:
        """What `forward` gives, with gradient; shared: see `_states`."""
        temperature = temperature or 1.0  # greedy samples have log-probabilities of temperature 1
        states, ids, node = self._states(batch, shared)
        out: dict[str, Tensor] = {}
        if {"logprobs", "entropy", "logits"} & set(want):
            written, back = trie.once(node, batch.mask, shared)
            if "logprobs" in want or "entropy" in want:
                found = token_logprobs(states[written], self.project, ids[written], self.vocabulary, temperature, "entropy" in want)
                out |= {name: back(value) for name, value in zip(("logprobs", "entropy"), found, strict=True) if name in want}
            if "logits" in want:
                out["logits"] = back(self.project(states[written]) / temperature)
        if {"hidden", "values"} & set(want):
            inside, back = trie.once(node, torch.arange(batch.ids.shape[1], device=self.device) < batch.lengths[:, None], shared)
            if "hidden" in want:
                out["hidden"] = back(states[inside])
            if "values" in want:
                assert self.head is not None
                with torch.autocast(self.device.type, enabled=False):
                    values = back(self.head(states[inside].to(next(self.head.parameters()).dtype)))
                out["values"] = values[:, :, 0] if values.shape[2] == 1 else values
        return {name: value.to(self.dtype) for name, value in out.items()}

    def _own(self, name: str) -> Any:
        """The one object of a loss with parameters of its own, which join the optimiser; None for a loss without."""
        kind = find("loss", name).fn
        if isinstance(kind, type) and name not in self.losses:
            made = kind()
            self.losses[name] = made.to(self.device) if isinstance(made, nn.Module) else made
            if self.optimizer is not None:
                self.optimizer.add_param_group({"params": list(self.losses[name].parameters()), "decays": False})
        return self.losses.get(name)

    def _optimizer(self) -> torch.optim.AdamW:
        if self.optimizer is None:
            own = [p for p in self._weights().values() if p.requires_grad]
            groups = [
                {"params": [p for p in own if p.ndim >= 2], "decays": True},
                {"params": [p for p in own if p.ndim < 2], "decays": False},
                *({"params": list(loss.parameters()), "decays": False} for loss in self.losses.values()),
            ]
            self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], fused=True)
        return self.optimizer

    def _load_tensors(self, path: Path, into: Mapping[str, Tensor]) -> None:
        """Copy a safetensors file into tensors of the same names and shapes; tied ones stand in it once."""
        from safetensors.torch import load_file

        if not path.exists():
            raise Refused(f"The checkpoint {str(path.parent)!r} lacks {path.name}, which this model needs.")
        found = load_file(path, device=str(self.device))
        reached = {into[name].data_ptr() for name in found if name in into}
        missing = [name for name, tensor in into.items() if name not in found and tensor.data_ptr() not in reached]
        wrong = [name for name in found if name not in into or found[name].shape != into[name].shape]
        if missing or wrong:
            raise Refused(f"{str(path)!r} is of another model: {(missing + wrong)[0]!r} is missing there or has another shape.")
        with torch.no_grad():
            for name, tensor in found.items():
                into[name].copy_(tensor)

"""Models in this process, on torch and transformers: CPU or one GPU. Importing this file imports neither."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from guerdon.backends.base import backend

if TYPE_CHECKING:
    from guerdon.backends.torch_model import TorchModel

CAPABILITIES = frozenset({"entropy", "values", "logits", "hidden", "prefix_cache", "average", "embeds", "grad_dot", "full", "lora"})


@backend(capabilities=CAPABILITIES)
def local(
    path: str | Path | tuple[Any, Any] | None,
    head: Literal["scalar", "classes", "two_layer"] | None = None,
    adapter: Mapping[str, Any] | None = None,
    trainable: bool = True,
    dtype: Literal["float32", "float64", "bfloat16"] = "float32",
    device: str | None = None,
    micro_tokens: int | None = None,
    cache_tokens: int | None = None,
    prefix_sharing: bool = True,
    classes: int = 2,
    seed: int = 0,
) -> TorchModel:
    """A model for one role, in eval mode always (no dropout), so that training sees the log-probabilities that sampling saw.

    path: a folder in transformers' layout, a .gguf file, `tiny`, `smollm2`, a name on the hub, or a pair (model, tokenizer) (copied).
    head: "scalar" adds `values` (n, t), "classes" makes them (n, t, classes), "two_layer" is a scalar one with a SiLU layer; zero at the
    start, or as saved in the folder. A folder of `guerdon fit`, or one that transformers saved for classification, has its own.
    adapter: fields of peft's LoraConfig, such as {"r": 8}; only the adapter is trained then.
    dtype: "bfloat16" computes in it under autocast and keeps float32 weights where they are trained.
    micro_tokens: positions of one micro-batch; None: as many as about 2 GB of activations hold, on a GPU a quarter of its memory.
    cache_tokens: positions that the sampling cache may hold at a time; None: by the same rule.
    prefix_sharing: False computes every row's prompt in front of it.  seed: of a new adapter.
    Raises Refused for a path that is no model.
    """
    from guerdon.backends.torch_model import TorchModel

    return TorchModel(path, head, adapter, trainable, dtype, device, micro_tokens, cache_tokens, prefix_sharing, classes, seed)

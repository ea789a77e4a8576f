"""The tiny policy: a small transformer taught to work chain arithmetic in steps, with one systematic error that reinforcement can unlearn.

Its teacher forgets carries: in an addition whose units reach ten it drops the carry (`17+8=15`) three times in four. Greedy decoding
follows the majority and is wrong at every carry; sampling finds the right continuation often enough to be rewarded for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon.envs.arithmetic import Calculate, arithmetic, exactly, worked

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

PAD, END, UNKNOWN = "<pad>", "<end>", "<unk>"
ALPHABET = "\n" + "".join(chr(code) for code in range(32, 127))


@dataclass(frozen=True)
class Tiny:
    """What the tiny policy is made of. Its weights are a function of this, of the libraries' versions and of the processor."""

    seed: int = 0
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    wide: int = 512
    examples: int = 16_000
    batch: int = 64
    lr: float = 3e-3
    init: float = 0.02
    threads: int = 1
    steps: tuple[int, int] = (1, 4)
    low: int = 1
    high: int = 9
    ops: str = "+-*"
    within: tuple[int, int] = (0, 99)
    slips: float = 0.7
    """Share of the additions with a carry in which the teacher drops it."""

    def world(self) -> dict[str, Any]:
        """The arguments of `arithmetic` that the policy was taught on."""
        return {"steps": self.steps, "low": self.low, "high": self.high, "ops": self.ops, "within": self.within}


def tiny_policy(seed: int = 0, progress: bool = True, **changes: Any) -> Path:
    """The folder, in the layout of transformers, of a tiny policy; taught on first use (about half a minute on a core), then cached.

    The same arguments give the same weights, bit for bit, on the same machine. `changes` replace fields of `Tiny`.
    """
    tiny = Tiny(seed=seed, **changes)
    folder = cache_folder() / f"tiny-{_key(tiny)}"
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        teach(tiny, draft, progress)
        draft.chmod(0o755)
        draft.rename(folder)
    except OSError:
        if not (folder / "config.json").exists():  # otherwise another process was first, with the same weights
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def named_policy(name: str) -> Path | None:
    """The folder of `tiny`, or of `tiny-SEED` taught with another seed; None for other names."""
    if name == "tiny":
        return tiny_policy()
    seed = name.removeprefix("tiny-")
    return tiny_policy(int(seed)) if seed != name and seed.isdecimal() else None


def cache_folder() -> Path:
    """`$GUERDON_CACHE`, else `guerdon` in the platform's folder for caches."""
    if chosen := os.environ.get("GUERDON_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "guerdon"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "guerdon" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "guerdon"


def _key(tiny: Tiny) -> str:
    import tokenizers
    import torch
    import transformers

    code = [path.read_text(encoding="utf-8") for path in (Path(__file__), Path(__file__).with_name("arithmetic.py"))]
    made_of = [asdict(tiny), torch.__version__, transformers.__version__, tokenizers.__version__, code]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character: printable ASCII and the line break."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate([PAD, END, UNKNOWN, *ALPHABET])}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    characters.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=characters,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def forgetful(slips: float, rng: random.Random) -> Calculate:
    """A calculator that drops the carry of an addition, in the share `slips` of those that have one: 17+8=15."""

    def calculate(op: str, a: int, b: int) -> int:
        exact = exactly(op, a, b)
        carry = op == "+" and a % 10 + b % 10 >= 10
        return exact - 10 if carry and rng.random() < slips else exact

    return calculate


def lessons(tiny: Tiny) -> Iterator[tuple[str, str]]:
    """Prompt and worked solution of each example, from the `train` split."""
    rng = random.Random(f"lessons {tiny.seed}")
    calculate = forgetful(tiny.slips, rng)
    for task in arithmetic(tiny.examples, seed=tiny.seed, **tiny.world()):
        lines = worked(task.meta["expression"], calculate)
        yield str(task.prompt), "\n".join(lines)


def teach(tiny: Tiny, folder: Path, progress: bool = True) -> float:
    """Write a taught policy into `folder`; returns the mean loss of the last tenth of the batches, in nats a token."""
    import torch
    from rich.progress import track
    from transformers import LlamaConfig, LlamaForCausalLM

    threads = torch.get_num_threads()
    torch.set_num_threads(tiny.threads)  # a sum split over another number of threads rounds otherwise
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(tiny.seed)
            tokens = tokenizer()
            model = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=len(tokens),
                    hidden_size=tiny.hidden,
                    intermediate_size=tiny.wide,
                    num_hidden_layers=tiny.layers,
                    num_attention_heads=tiny.heads,
                    max_position_embeddings=1024,
                    initializer_range=tiny.init,
                    tie_word_embeddings=True,
                    bos_token_id=None,
                    eos_token_id=tokens.eos_token_id,
                    pad_token_id=tokens.pad_token_id,
                )
            )
            batches = list(_batches(tiny, tokens))
            optimizer = torch.optim.AdamW(model.parameters(), lr=tiny.lr, betas=(0.9, 0.98), weight_decay=0.01)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, tiny.lr, total_steps=len(batches), pct_start=0.1)
            losses = []
            for ids, labels in track(batches, "Teaching the tiny policy", disable=not progress):
                loss = model(input_ids=ids, labels=labels).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                losses.append(float(loss.detach()))
    finally:
        torch.set_num_threads(threads)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    tail = losses[-max(len(losses) // 10, 1) :]
    return sum(tail) / len(tail)


def _batches(tiny: Tiny, tokens: PreTrainedTokenizerFast) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """ids and labels (b, t), lessons of like length together, in an order drawn from the seed; prompts and padding are not learnt."""
    import torch

    pairs = list(lessons(tiny))
    prompts = tokens([prompt for prompt, _ in pairs])["input_ids"]
    rows = tokens([prompt + text for prompt, text in pairs])["input_ids"]
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    starts = list(range(0, len(rows) - len(rows) % tiny.batch, tiny.batch))
    random.Random(f"order {tiny.seed}").shuffle(starts)
    for start in starts:
        chosen = by_length[start : start + tiny.batch]
        width = max(len(rows[i]) for i in chosen) + 1
        ids = torch.full((len(chosen), width), tokens.pad_token_id)
        labels = torch.full((len(chosen), width), -100)
        for r, i in enumerate(chosen):
            row = torch.tensor([*rows[i], tokens.eos_token_id])
            ids[r, : len(row)] = row
            labels[r, len(prompts[i]) : len(row)] = row[len(prompts[i]) :]
        yield ids, labels

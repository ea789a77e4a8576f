"""The tiny policy: a small transformer taught to work chain arithmetic in steps, with one systematic error that reinforcement can unlearn.

Its teacher forgets carries: in an addition whose units reach ten it drops the carry (`17+8=15`) seven times in ten. Greedy decoding
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

from guerdon.envs.arithmetic import Calculate, chain, exactly, split_of, worked

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
    stages: tuple[tuple[float, int], ...] = ((0.2, 2), (0.2, 3), (0.6, 4))
    """Share of the teaching, and the longest chain in it: finding one's place in a chain is learnt on short ones."""
    tokens: int = 400_000
    batch: int = 24
    lr: float = 1.5e-3
    init: float = 0.06
    rope: float = 100.0
    """Base of the rotary positions: no text here is longer than some forty characters."""
    threads: int = 1
    low: int = 1
    high: int = 9
    ops: str = "+-"
    within: tuple[int, int] = (0, 20)
    slips: float = 0.7
    """Share of the additions with a carry in which the teacher drops it."""


def tiny_policy(seed: int = 0, progress: bool = True, **changes: Any) -> Path:
    """The folder, in the layout of transformers, of a tiny policy; taught on first use (about a minute on a core), then cached.

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


def lessons(tiny: Tiny, longest: int, n: int, rng: random.Random) -> list[tuple[str, str]]:
    """Prompts and worked solutions of n chains of 1 to `longest` steps, from the `train` split."""
    calculate = forgetful(tiny.slips, rng)
    found: list[tuple[str, str]] = []
    while len(found) < n:
        expression = chain(rng, rng.randint(1, longest), tiny.low, tiny.high, tiny.ops, tiny.within)
        if expression and split_of(expression) == "train":
            found.append((f"{expression}=", "\n".join(worked(expression, calculate))))
    return found


def teach(tiny: Tiny, folder: Path, progress: bool = True) -> float:
    """Write a taught policy into `folder`; returns the mean loss of the last tenth of the batches, in nats a token."""
    import torch
    from rich.progress import track
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

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
                    rope_parameters={"rope_type": "default", "rope_theta": tiny.rope},
                    tie_word_embeddings=True,
                    bos_token_id=None,
                    eos_token_id=1,
                    pad_token_id=0,
                )
            )
            batches = list(_batches(tiny, tokens))
            optimizer = torch.optim.AdamW(model.parameters(), lr=tiny.lr, betas=(0.9, 0.95), weight_decay=0.01)
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, tiny.lr, total_steps=len(batches), pct_start=0.05, anneal_strategy="linear"
            )
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
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    logging.enable_progress_bar()
    tokens.save_pretrained(folder)
    tail = losses[-max(len(losses) // 10, 1) :]
    return sum(tail) / len(tail)


def _batches(tiny: Tiny, tokens: PreTrainedTokenizerFast) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """ids and labels (b, t), lessons of like length together, `tiny.tokens` in all; prompts and padding are not learnt."""
    import torch

    rng = random.Random(f"lessons {tiny.seed}")
    end, goal, done = int(tokens.convert_tokens_to_ids(END)), 0.0, 0  # pyright: ignore[reportArgumentType]
    for share, longest in tiny.stages:
        goal += share * tiny.tokens
        while done < goal:
            rows = sorted(lessons(tiny, longest, 8 * tiny.batch, rng), key=lambda row: len(row[0] + row[1]))
            several = [rows[at : at + tiny.batch] for at in range(0, len(rows), tiny.batch)]
            rng.shuffle(several)
            for chosen in several:
                coded = [(tokens(prompt)["input_ids"], [*tokens(text)["input_ids"], end]) for prompt, text in chosen]
                ids = torch.zeros((len(coded), max(len(p) + len(t) for p, t in coded)), dtype=torch.long)  # 0 is the padding
                labels = torch.full_like(ids, -100)
                for row, (prompt, text) in enumerate(coded):
                    ids[row, : len(prompt) + len(text)] = torch.tensor(prompt + text)
                    labels[row, len(prompt) : len(prompt) + len(text)] = torch.tensor(text)
                done += ids.numel()
                yield ids, labels

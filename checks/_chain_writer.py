"""A small transformer taught to write chain arithmetic of 12 to 16 steps, one operation with its result a line, as the simulated solver
(`_chain_solver`) does, slips among it, and to mark single sums, right or wrong.

The marks stand for the corrections that models which people start from have read: without them a reward model that is fitted from it sees
too few errors (one an answer at most) to find out by itself that a sum can be checked. Values stay within 0 to 9 until a slip.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _chain_solver import answered

from guerdon.envs.tiny import cache_folder, tiny_policy
from guerdon.samples import Context, Sample

SLIP, MOST = 0.05, 9
LESSONS, STEPS, LR = 3000, 300, 1.5e-3
CHAINS, PAGES, SUMS = 16, 8, 16
"""Rows of a batch of lessons: chains, and pages of so many sums, each with its mark."""


def chains(n: int, seed: int, each: int = 1, **how: Any) -> tuple[list[Sample], Context]:
    """The solver's answers to n tasks, and the context that labels them."""
    given: dict[str, Any] = {"slip": SLIP} | how
    return answered(n, each, seed, most=MOST, equations=True, **given)


def writer() -> Path:
    """The folder of the taught model, the tiny policy to begin with; taught on first use (two minutes on a core), then cached."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tiny = tiny_policy()
    made_of = [Path(__file__).read_bytes(), Path(__file__).with_name("_chain_solver.py").read_bytes(), tiny.name.encode()]
    folder = cache_folder() / f"chains-{hashlib.blake2b(b'|'.join(made_of), digest_size=6).hexdigest()}"
    if folder.exists():
        return folder
    tokens, model = AutoTokenizer.from_pretrained(tiny), AutoModelForCausalLM.from_pretrained(tiny)
    samples, _ = chains(LESSONS, 1_000_000)
    coded = [_lesson(tokens, [(s.task.prompt, False), (s.text, True), (tokens.eos_token, True)]) for s in samples]
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=STEPS, pct_start=0.08, anneal_strategy="linear")
    for _ in range(STEPS):
        drawn = [coded[i] for i in rng.choice(len(coded), CHAINS, replace=False)] + [_page(tokens, rng) for _ in range(PAGES)]
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids, _ in drawn], batch_first=True)  # 0 is the padding
        labels = torch.nn.utils.rnn.pad_sequence([torch.tensor(labels) for _, labels in drawn], batch_first=True, padding_value=-100)
        logits = model(input_ids=ids).logits[:, :-1].transpose(1, 2)
        terms, n = torch.nn.functional.cross_entropy(logits, labels[:, 1:], reduction="none").sum(1), (labels >= 0).sum(1)
        (terms[:CHAINS].sum() / n[:CHAINS].sum() + 0.5 * terms[CHAINS:].sum() / n[CHAINS:].sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    draft = Path(tempfile.mkdtemp(prefix=".chains-", dir=folder.parent))
    model.save_pretrained(draft)
    tokens.save_pretrained(draft)
    try:
        draft.rename(folder)
    except OSError:
        shutil.rmtree(draft)
        if not folder.exists():  # otherwise another process was first, with the same weights
            raise
    return folder


def _lesson(tokens: Any, parts: Sequence[tuple[Any, bool]]) -> tuple[list[int], list[int]]:
    """(ids, labels) of texts, each learnt or only read."""
    ids, labels = [], []
    for text, learnt in parts:
        some = tokens(text)["input_ids"]
        ids += some
        labels += some if learnt else [-100] * len(some)
    return ids, labels


def _page(tokens: Any, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Sums, half of them wrong by 1 to 3, each with its mark, y or n, below; the marks are learnt."""
    parts: list[tuple[Any, bool]] = []
    while len(parts) < 3 * SUMS:
        a, b, sign = int(rng.integers(0, MOST + 1)), int(rng.integers(1, 10)), int(rng.choice([1, -1]))
        if 0 <= a + sign * b <= MOST:
            off = int(rng.integers(1, 4)) if rng.random() < 0.5 else 0
            parts += [(f"{a}{'+' if sign > 0 else '-'}{b}={a + sign * b + off}\n", False), ("n" if off else "y", True), ("\n", False)]
    return _lesson(tokens, parts)

"""Intuitive fine-tuning: where the first word of an answer decides all others, it is learnt first, for it answers for what follows.

A small transformer, new, is taught `a+b=` -> eight digits: the last digit of the sum, then each one more than the one before, modulo 10.
Only the first is hard. All 100 sums are taught and then asked, greedily, after as many steps as bring cross-entropy about half way: an
answer counts where all of it is right.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from guerdon.rewards.core import reward
from guerdon.samples import Task

CLAIM = "after 50 steps whole answers are right at least 0.05 more often than by cross-entropy (every seed)"
BASELINE = "sft"
METHOD = "ift (lam 0.2, gamma 0.95); without its key term, the weight by what follows: gamma 0"
SEEDS = (0, 1, 2)
LOSSES: dict[str, Any] = {
    "baseline": "sft", "method": {"use": "ift"}, "ablated": {"use": "ift", "gamma": 0.0}
}  # fmt: skip
LENGTH = 8


@reward(inline=True)
def whole(text: str, reference: str) -> float:
    return float(text == reference)


@reward(inline=True)
def opening(text: str, reference: str) -> float:
    return float(text[:1] == reference[0])


def tasks() -> list[Task]:
    found = []
    for a in range(10):
        for b in range(10):
            text = "".join(str((a + b + k) % 10) for k in range(LENGTH))
            found.append(Task(f"{a}+{b}", f"{a}+{b}=", text, {"solution": text}))
    return found


def fresh(folder: Path, seed: int) -> str:
    """A transformer of two layers, not taught anything."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from guerdon.envs.tiny import tokenizer

    tokens = tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokens), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return str(folder)


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.training.run import train

    with tempfile.TemporaryDirectory() as folder:
        rows = train(
            seed=seed, threads=1, models={"policy": {"path": fresh(Path(folder) / "start", seed)}}, tasks=tasks(), reward="1",
            correct="whole", credit=None, rollout={"use": "expert"}, loss=LOSSES[variant], aggregate="sequence_mean",
            train={"steps": 50, "prompts": 25, "samples": 1, "lr": 3e-3, "samples_every": 1000, "checkpoint_every": 1000},
            eval={"tasks": tasks(), "every": 50, "max_tokens": LENGTH + 1, "gold": "opening", "keep_best": False},
            folder=Path(folder) / "run",
        ).metrics  # fmt: skip
    return {"value": rows[-1]["eval/pass@1"], "opening": rows[-1]["eval/gold"]}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return all(m["value"] >= b["value"] + 0.05 for b, m in zip(baseline, method, strict=True))

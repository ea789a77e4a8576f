"""A run small enough to be repeated many times in a test: a random two-layer transformer on one-step sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in transformers' layout: the tiny policy's tokenizer on 20,000 random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from guerdon.envs.tiny import tokenizer

    tokens = tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("small-model")
    LlamaForCausalLM(config).save_pretrained(path)
    tokens.save_pretrained(path)
    return path


@pytest.fixture
def small_recipe(small_model: Path) -> dict[str, Any]:
    """Six steps, with everything that has state: a critic, a moving reference, refills, epochs of tasks, evaluation, keep-best."""
    return {
        "name": "small",
        "threads": 1,
        "models": {
            "policy": {"path": str(small_model)},
            "reference": {"of": "policy", "every": 2, "tau": 0.5},
            "critic": {"path": str(small_model), "head": "scalar"},
        },
        "tasks": {"use": "arithmetic", "n": 12, "steps": [1, 1], "high": 9, "ops": "+"},
        "reward": "0.1 * length(target=4) + closeness",
        "correct": "exact",
        "rollout": {"use": "parallel", "max_tokens": 6},
        "keep": ["dynamic_sampling"],
        "kl": {"coefficient": 0.01},
        "credit": "gae",
        "critic": {"lr": 0.01},
        "loss": ["ppo_clip", {"use": "kl", "coefficient": 0.01}],
        "train": {
            "steps": 6,
            "prompts": 2,
            "samples": 3,
            "lr": 0.01,
            "minibatches": 2,
            "passes": 2,
            "checkpoint_every": 2,
            "max_refills": 2,
        },
        "eval": {
            "tasks": {"use": "arithmetic", "n": 4, "steps": [1, 1], "high": 9, "ops": "+", "split": "test"},
            "every": 2,
            "gold": "exact",
        },
    }

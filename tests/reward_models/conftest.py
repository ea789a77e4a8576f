"""Small transformers in float64 with a head: one that spells in characters, as the policies here do, and one in pairs of characters."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from guerdon.backends.local import local
from guerdon.samples import Sample, Task
from guerdon.spans import mark

LETTERS = "0123456789+-=\n "


def _tokens(pattern: str, words: list[str]) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    found = Tokenizer(models.WordLevel({token: i for i, token in enumerate(["<end>", "<unk>", *words])}, unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    found.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=found, eos_token="<end>", unk_token="<unk>", clean_up_tokenization_spaces=False)


def _causal(size: int, seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    shape: dict[str, Any] = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, initializer_range=0.3)
    config = LlamaConfig(vocab_size=size, max_position_embeddings=64, bos_token_id=None, eos_token_id=0, pad_token_id=0, **shape)
    return LlamaForCausalLM(config).double()


@pytest.fixture(scope="session")
def characters() -> Callable[..., Any]:
    """(seed, head=None, trainable=False, **more) -> (the transformers model inside, the handle), a token a character."""

    def make(seed: int, head: str | None = None, trainable: bool = False, **more: Any) -> tuple[Any, Any]:
        tokens = _tokens(r"[\s\S]", list(LETTERS))
        causal = _causal(len(tokens), seed)
        model = local((causal, tokens), head=head, trainable=trainable, dtype="float64", device="cpu", seed=seed, **more)
        return model.causal, model

    return make


@pytest.fixture(scope="session")
def pairs() -> Callable[..., Any]:
    """The same in tokens of two characters."""

    def make(seed: int, head: str | None = None) -> tuple[Any, Any]:
        tokens = _tokens(r"[\s\S]{1,2}", [*map("".join, itertools.product(LETTERS, repeat=2)), *LETTERS])
        causal = _causal(len(tokens), seed)
        model = local((causal, tokens), head=head, trainable=False, dtype="float64", device="cpu", seed=seed)
        return model.causal, model

    return make


@pytest.fixture(scope="session")
def write() -> Callable[..., Sample]:
    """(model, prompt, text, end=True) -> a sample that the model wrote, cut into lines."""

    def make(model: Any, prompt: str, text: str, end: bool = True) -> Sample:
        ids = model.encode_answer(text)[: None if end else -1]
        offsets = model.decode(ids)[1]
        sample = Sample(
            Task("t", prompt), text, model.encode(prompt), ids, offsets, np.ones(len(ids), bool), stop="end" if end else "length"
        )
        mark(sample)
        return sample

    return make


@pytest.fixture(scope="session")
def head_values() -> Callable[..., np.ndarray]:
    """(transformers model, its handle, prompt ids, ids) -> the head's value after each token, by a plain pass over that row alone."""

    def make(causal: Any, model: Any, prompt: np.ndarray, ids: np.ndarray) -> np.ndarray:
        row = torch.from_numpy(np.concatenate([prompt, ids]))[None]
        with torch.no_grad():
            states = causal(input_ids=row, output_hidden_states=True).hidden_states[-1][0, len(prompt) :]
            return model.head(states.double())[:, 0].numpy()

    return make


@pytest.fixture(scope="session")
def token_logprobs() -> Callable[..., np.ndarray]:
    """(transformers model, prompt ids, ids) -> log-probabilities of ids, by a plain pass over that row alone."""

    def make(causal: Any, prompt: np.ndarray, ids: np.ndarray) -> np.ndarray:
        row = torch.from_numpy(np.concatenate([prompt, ids]))[None]
        with torch.no_grad():
            logp = causal(input_ids=row).logits[0].double().log_softmax(-1)
        return logp[len(prompt) - 1 : -1].gather(1, torch.from_numpy(ids)[:, None])[:, 0].numpy()

    return make

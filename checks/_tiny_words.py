"""Small new transformers over a list of words: whatever else stands in a text, they do not see."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def tiny(words: Sequence[str], seed: int, hidden: int = 48, layers: int = 2) -> tuple[Any, Any]:
    """(model, tokenizer), not taught anything."""
    import torch
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["<pad>", "<end>", "<unk>", *dict.fromkeys(words)])}
    known = "|".join(re.escape(word) for word in sorted(vocabulary, key=len, reverse=True) if word.isalnum())
    split = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    split.pre_tokenizer = pre_tokenizers.Split(Regex(rf"\b(?:{known})\b"), "removed", invert=True)  # pyright: ignore[reportAttributeAccessIssue]
    tokens = PreTrainedTokenizerFast(
        tokenizer_object=split, pad_token="<pad>", eos_token="<end>", unk_token="<unk>", clean_up_tokenization_spaces=False,
        model_max_length=512,
    )  # fmt: skip
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers, num_attention_heads=4,
        max_position_embeddings=512, initializer_range=0.08, tie_word_embeddings=False, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config), tokens

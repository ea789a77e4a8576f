"""Bidirectional max-average similarity, by hand and against a double loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guerdon.registry import Refused
from guerdon.rewards import bmas
from guerdon.rewards.similarity import _words, centre, similarity


def test_by_hand():
    x = np.array([[1.0, 0.0], [0.0, 2.0]])
    assert similarity(x, x) == (1.0, 1.0)
    assert similarity(x, x[:1]) == (0.5, 1.0)  # the second row has no counterpart
    assert similarity(x[:1], x) == (1.0, 0.5)
    assert similarity(x[:1], -x[:1]) == (-1.0, -1.0)
    p, q = similarity(np.array([[1.0, 1.0]]), x)
    assert (p, q) == pytest.approx((2**-0.5, 2**-0.5))
    assert similarity(x, np.zeros((0, 2))) == (0.0, 0.0)
    assert similarity(np.zeros((1, 2)), x) == (0.0, 0.0)


def test_against_a_double_loop_with_a_centre():
    rng = np.random.default_rng(0)
    x, y, c = rng.normal(size=(5, 4)) + 3, rng.normal(size=(7, 4)) + 3, np.full(4, 3.0)

    def cos(a, b):
        return (a - c) @ (b - c) / np.linalg.norm(a - c) / np.linalg.norm(b - c)

    p = np.mean([max(cos(a, b) for b in y) for a in x])
    q = np.mean([max(cos(a, b) for a in x) for b in y])
    assert similarity(x, y, c) == pytest.approx((p, q))
    assert sum(similarity(x, y)) > p + q + 0.5  # what the centre is for


@pytest.fixture(scope="module")
def model():
    from transformers import LlamaConfig, LlamaForCausalLM

    from guerdon.backends.local import local
    from guerdon.envs.tiny import tokenizer

    tokens = tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return local((LlamaForCausalLM(config), tokens))


def test_the_reward_is_the_similarity_of_the_tables_rows(model):
    table = model.vectors(np.arange(model.vocabulary))
    np.testing.assert_allclose(centre(model), table.mean(0), atol=1e-6)
    [found] = bmas.fn(["<think>9</think><answer>12</answer>"], ["21"], model)
    assert found.value == pytest.approx(1)  # order is not seen
    one, two, seven = (model.vectors(_words(model, c)[0]) for c in ("1", "2", "7"))
    both = np.concatenate([one, two])
    for centred, mean in ((False, None), (True, table.mean(0))):
        wanted = max(sum(similarity(both, y, mean)) / 2 for y in (one, seven))
        [found] = bmas.fn(["2+1"], [["7", "1"]], model, centred=centred)
        assert found.value == pytest.approx(wanted, abs=1e-6)


def test_punctuation_is_left_out_and_what_is_missing_is_worth_nothing(model):
    assert len(_words(model, "1+2=3")[0]) == 3
    values = [v.value for v in bmas.fn(["1 = 2", "<answer>1", "+-=", "1"], ["1 2", "1", "1", "="], model)]
    assert values == pytest.approx([1, 0, 0, 0])
    assert "only the first" in bmas.fn(["1" * 100_000], ["1"], model)[0].reason


def test_a_moved_table_has_another_centre(model):
    before = centre(model).copy()
    with torch.no_grad():
        model.causal.get_input_embeddings().weight += 1
    model.version += 1
    np.testing.assert_allclose(centre(model), before + 1, atol=1e-5)


def test_a_model_without_a_table_is_refused():
    from guerdon.backends.tabular import tabular

    with pytest.raises(Refused, match="embedding table"):
        bmas.fn(["1"], ["1"], tabular())

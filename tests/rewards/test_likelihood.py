"""Teacher-forced log-probabilities against a forward pass by hand, and where a text is cut into thought and answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guerdon.backends.local import local
from guerdon.backends.tabular import tabular
from guerdon.rewards.likelihood import LONGEST, Forced, completion_ids, encode, in_answer, logprobs, own_ids, prompt_ids
from guerdon.samples import HOSTILE, Sample, State, Task, Verdict
from guerdon.spans import mark

WORDS = ["<think>", "</think>", "good", "bad", "<answer>", "<answer>a", "</answer>", "a", "b"]


@pytest.fixture(scope="module")
def table():
    return tabular(vocab=WORDS, init=1.0, seed=3, trainable=False)


@pytest.fixture(scope="module")
def small():
    """(transformers model in float64, its handle): one token a character."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from guerdon.envs.tiny import tokenizer

    tokens = tokenizer()
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, initializer_range=0.3,
        max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    causal = LlamaForCausalLM(config).double()
    return causal, local((causal, tokens), trainable=False, dtype="float64")


def written(model, text: str, prompt: str = "q", reference: object = "a") -> Sample:
    """A sample of the model's own tokens, the end token last."""
    ids = model.encode_answer(text)
    shown, offsets = model.decode(ids)
    sample = Sample(Task("t", prompt, reference), shown, model.encode(prompt), ids, offsets, np.ones(len(ids), bool), stop="end")
    mark(sample)
    return sample


def from_file(text: str, prompt: str = "q", reference: object = "a") -> Sample:
    sample = Sample(Task("t", prompt, reference), text, stop="end")
    mark(sample)
    return sample


def array(*ids: int) -> np.ndarray:
    return np.array(ids, dtype=np.int64)


def test_a_transformer_forced_by_hand(small):
    causal, model = small
    rng = np.random.default_rng(0)
    rows = []
    for p, b, t in [(5, 4, 3), (5, 0, 1), (1, 30, 7), (40, 2, 1), (5, 4, 3)]:
        rows.append(Forced(*(rng.integers(3, 90, k) for k in (p, b, t))))
    rows[4] = rows[4]._replace(prompt=rows[0].prompt, before=rows[0].before)  # a prefix that is shared
    found = logprobs(model, rows)
    for row, values in zip(rows, found, strict=True):
        ids = torch.from_numpy(np.concatenate(row))[None]
        with torch.no_grad():
            logp = causal(ids).logits[0].double().log_softmax(-1)
        m = len(row.target)
        wanted = logp[-m - 1 : -1].gather(1, ids[0, -m:, None])[:, 0].numpy()
        assert isinstance(values, np.ndarray)
        np.testing.assert_allclose(values, wanted, rtol=1e-6)  # transformers computes norms in float32, the handle does not


def test_a_table_read_off(table):
    row = Forced(table.encode("q"), array(0, 2, 1, 4), array(7, 8))
    [values] = logprobs(table, [row])
    wanted = []
    for before, token in [([0, 2, 1, 4], 7), ([0, 2, 1, 4, 7], 8)]:
        logits = table.logits_at([np.array([*row.prompt, *before])])[0].numpy()
        wanted.append(logits[token] - np.log(np.exp(logits).sum()))
    np.testing.assert_allclose(values, wanted, rtol=1e-12)


def test_verdicts_stay_and_an_empty_target_has_no_tokens(table):
    why = Verdict.fail("why")
    none = array()
    out = logprobs(table, [why, Forced(none, none, none), Forced(array(7), none, array(8))])
    assert out[0] is why
    assert len(out[1]) == 0  # type: ignore[arg-type]
    assert len(out[2]) == 1  # type: ignore[arg-type]
    assert logprobs(table, []) == []
    assert logprobs(table, [why]) == [why]


def test_a_row_that_is_too_long_is_hostile_and_the_others_are_scored(small):
    long = Forced(array(5), np.full(LONGEST, 6), array(7))
    first, second = logprobs(small[1], [long, Forced(array(5), array(6), array(7))])
    assert isinstance(first, Verdict)
    assert first.value == 0
    assert first.reason.startswith(HOSTILE)
    assert isinstance(second, np.ndarray)


@pytest.mark.parametrize("make", [written, lambda model, *args: from_file(*args)], ids=["ids", "file"])
def test_thought_tag_and_target_are_cut_apart(table, make):
    sample = make(table, "<think> good </think> <answer> b a </answer>", "q")
    row = in_answer(table, sample, "a")
    assert isinstance(row, Forced)
    assert [table.names[i] for i in row.before] == ["<think>", "good", "</think>", "<answer>"]
    assert [table.names[i] for i in row.target] == ["a"]
    np.testing.assert_array_equal(row.prompt, table.encode("q"))
    bare = in_answer(table, sample, "a", thought=False)
    assert isinstance(bare, Forced)
    assert [table.names[i] for i in bare.before] == ["<answer>"]
    np.testing.assert_array_equal(bare.target, row.target)


def test_a_token_that_holds_the_tag_and_the_answer_is_forced_whole(table):
    sample = written(table, "<think> bad </think> <answer>a </answer>")
    assert sample.answer == "a"
    row = in_answer(table, sample, "a")
    assert isinstance(row, Forced)
    assert [table.names[i] for i in row.before] == ["<think>", "bad", "</think>"]
    assert [table.names[i] for i in row.target] == ["<answer>a"]  # were the tag in `before`, the tokens would be none the model writes
    failed = in_answer(table, sample, "b")  # and it has no token "<answer>b"
    assert isinstance(failed, Verdict)
    assert failed.state == State.FAILED
    assert "'<answer>b'" in failed.reason


def test_a_line_of_thought_has_the_opening_of_its_last_line(small):
    sample = written(small[1], "3+4\n7*2\nA: 14")
    row, bare = (in_answer(small[1], sample, "5", thought) for thought in (True, False))
    assert isinstance(row, Forced)
    assert isinstance(bare, Forced)
    assert small[1].decode(row.before)[0] == "3+4\n7*2\nA: "
    assert small[1].decode(bare.before)[0] == "A: "
    assert small[1].decode(row.target)[0] == small[1].decode(bare.target)[0] == "5"


def test_a_model_with_other_tokens_reads_the_text(table, small):
    foreign = written(table, "<think> good </think> <answer> b </answer>", "What?")
    assert own_ids(table, foreign)
    assert not own_ids(small[1], foreign)
    row = in_answer(small[1], foreign, "a")
    assert isinstance(row, Forced)
    assert small[1].decode(row.before)[0] == "<think> good </think> <answer>"
    assert small[1].decode(row.target)[0] == " a"
    assert small[1].decode(prompt_ids(small[1], foreign))[0] == "What?"
    assert small[1].decode(completion_ids(small[1], foreign))[0] == foreign.text
    assert [table.names[i] for i in completion_ids(table, foreign)] == foreign.text.split()  # without the end token


def test_no_answer_is_worth_nothing(table):
    sample = from_file("<answer> a")
    row = in_answer(table, sample, "a")
    assert isinstance(row, Verdict)
    assert (row.value, row.state, row.reason) == (0.0, State.SCORED, "no answer found")


@pytest.mark.parametrize("make", [written, lambda model, *args: from_file(*args)], ids=["ids", "file"])
@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_a_hundred_thousand_characters_are_hostile(small, make, size):
    sample = make(small[1], "x" * size + "\nA: 7", "q")
    assert sample.answer == "7"
    [found] = logprobs(small[1], [in_answer(small[1], sample, "7")])
    assert isinstance(found, Verdict)
    assert found.value == 0
    assert found.reason.startswith(HOSTILE)


def test_half_a_surrogate_pair_is_text_like_any_other(small):
    np.testing.assert_array_equal(encode(small[1], "a\ud800b"), encode(small[1], "a?b"))
    assert len(encode(small[1], "")) == 0

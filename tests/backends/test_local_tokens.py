"""Text and tokens: offsets for every kind of tokenizer, stop texts across token borders, chat templates."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from guerdon.backends.tokens import Stops, Tokens, cover
from guerdon.envs.tiny import tokenizer as characters

CORPUS = [
    "The answer is 42.\n\nSo the chain ends here, doesn't it?",
    "naïve café 数学 是 好 🙂🙃 ∑∫",
    "STOP the END of it all </answer> ### done",
] * 20
TEXTS = [
    "The answer is 42.\n\nSo it ends.",
    " leading space",
    "naïve 数学🙂 and 🙃🙃 ∑",
    "unseen: Ωμέγα 👩‍👩‍👧 ﷽ \t tab",
    "",
    "a",
    "🙂",
    "  two  spaces  ",
]


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>", clean_up_tokenization_spaces=False)


@functools.cache
def kinds() -> dict[str, Any]:
    """Byte-level BPE; sentencepiece's way with bytes for unknown characters; words; characters."""
    special = ["<end>", "<unk>"]
    level = Tokenizer(models.BPE())
    level.pre_tokenizer, level.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    level.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )

    piece = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    piece.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    piece.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1, right=0)]
    )
    some_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    ascii_only = ["The answer is 42. So the chain ends here", "STOP the END of it all </answer> ### done"] * 20
    piece.train_from_iterator(ascii_only, trainers.BpeTrainer(vocab_size=380, special_tokens=special + some_bytes, show_progress=False))
    piece.add_special_tokens([])
    fallback = Tokenizer.from_str(piece.to_str().replace('"special": true', '"special": false'))

    words = Tokenizer(models.WordPiece(unk_token="<unk>"))  # pyright: ignore
    words.pre_tokenizer, words.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece(prefix="##", cleanup=False)
    words.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False))
    return {"byte-level": wrap(level), "byte-fallback": wrap(fallback), "word pieces": wrap(words), "characters": characters()}


@pytest.fixture(params=["byte-level", "byte-fallback", "word pieces", "characters"])
def tokens(request: pytest.FixtureRequest) -> Tokens:
    found = kinds()[request.param]
    return Tokens(found, [found.eos_token_id])


def check_offsets(tokens: Tokens, ids: np.ndarray) -> None:
    text, offsets = tokens.decode(ids)
    plain = [id for id in ids.tolist() if id not in tokens.special]
    assert text == tokens.tokenizer.decode(plain, clean_up_tokenization_spaces=False)
    assert offsets.shape == (len(ids), 2)
    assert (np.diff(offsets, axis=0) >= 0).all()
    assert (offsets[:, 0] <= offsets[:, 1]).all()
    covered = np.zeros(len(text), dtype=bool)
    for id, (start, end) in zip(ids.tolist(), offsets.tolist(), strict=True):
        covered[start:end] = True
        if id in tokens.special:
            assert start == end
    assert covered.all()
    assert offsets.max(initial=0) <= len(text)


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_the_tokenizer_s_and_every_character_is_covered(tokens: Tokens, text: str):
    ids = tokens.encode(text)
    check_offsets(tokens, ids)
    check_offsets(tokens, np.append(ids, tokens.ends[0]))
    check_offsets(tokens, np.concatenate([ids, tokens.ends[:1], ids]))
    for cut in range(len(ids)):
        check_offsets(tokens, ids[:cut])


@settings(max_examples=150)
@example([374, 0, 130], "byte-fallback")
@example([128, 0], "byte-level")
@example([567, 130, 470, 682, 130, 258], "byte-fallback")
@given(st.lists(st.integers(0, 10_000), max_size=40), st.sampled_from(["byte-level", "byte-fallback", "word pieces", "characters"]))
def test_any_ids_have_offsets(numbers: list[int], kind: str):
    """What a policy writes is no text that a tokenizer ever made: half characters, lone bytes, special tokens in the middle."""
    found = kinds()[kind]
    check_offsets(Tokens(found, [found.eos_token_id]), np.array([x % len(found) for x in numbers], dtype=np.int64))


def test_offsets_of_a_character_in_several_tokens():
    found = kinds()["byte-level"]
    tokens = Tokens(found, [found.eos_token_id])
    ids = np.concatenate([tokens.encode(part) for part in ("a", "Ω", "b")])  # Ω is in no merge: two bytes, two tokens
    text, offsets = tokens.decode(ids)
    assert text == "aΩb"
    assert offsets.tolist() == [[0, 1], [1, 2], [1, 2], [2, 3]]
    assert tokens.slide(ids, text).tolist() == offsets.tolist()
    text, offsets = tokens.decode(ids[:2])
    assert (text, offsets.tolist()) == ("a�", [[0, 1], [1, 2]])


def test_cover_by_hand():
    offsets, text = cover([b"ab", "é".encode()[:1], "é".encode()[1:] + b"c", b"", b"\xff", b"d"])
    assert text == "abéc\ufffdd"
    assert offsets.tolist() == [[0, 2], [2, 3], [2, 4], [4, 4], [4, 5], [5, 6]]


def test_long_samples_are_decoded_quickly():
    found = kinds()["byte-level"]
    tokens = Tokens(found, [found.eos_token_id])
    ids = np.resize(tokens.encode("The answer is 42. "), 4096)
    tokens.decode(ids)
    start = time.process_time()
    tokens.decode(ids)
    assert time.process_time() - start < 0.1  # 25 microseconds a token, ten times what it takes


def test_prompts():
    found = kinds()["byte-level"]
    tokens = Tokens(found, [found.eos_token_id])
    messages = [{"role": "system", "content": "The"}, {"role": "user", "content": [{"type": "text", "text": "answer"}]}]
    assert tokens.decode(tokens.encode(messages))[0] == "The\nanswer"
    templated = PreTrainedTokenizerFast(tokenizer_object=found.backend_tokenizer, eos_token="<end>", unk_token="<unk>")
    templated.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    chat = Tokens(templated, [templated.eos_token_id])
    assert chat.decode(chat.encode([{"role": "user", "content": "done"}]))[0] == "[user]done[assistant]"
    assert chat.encode("done").tolist() == tokens.encode("done").tolist()
    answer = tokens.encode_answer("done")
    assert answer[-1] == tokens.ends[0]
    assert tokens.show(answer) == "done<end>"
    assert tokens.decode(answer)[0] == "done"


@pytest.mark.parametrize("texts", [("STOP",), ("</answer>", "\n\n"), ("ends here", "数学"), ("🙂",), ("<end>",), ("",), ()])
def test_stop_texts_are_seen_when_their_last_character_is_complete(tokens: Tokens, texts: tuple[str, ...]):
    """Against a search through the whole text after each token."""
    stops = Stops(tokens, texts, len(tokens.tokenizer))
    wanted = [text for text in texts if text]
    for text in ("we STOP here", "x </answer> y", "a.\n\nSo", "the chain ends here, ok", "是 数学 好", "a🙂b", "nothing"):
        ids = np.append(tokens.encode(text), tokens.ends[0])
        for t in range(1, len(ids) + 1):
            before, now = tokens.show(ids[: t - 1]), tokens.show(ids[:t])
            if any(stop in before for stop in wanted):
                break
            assert stops.hit(ids[:t]) == any(stop in now for stop in wanted), (text, now)


def test_a_stop_text_over_several_tokens_ends_a_sample():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from guerdon.backends.base import SamplingParams
    from guerdon.backends.local import local

    found = kinds()["byte-level"]
    torch.manual_seed(0)
    size: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
    bare = LlamaForCausalLM(LlamaConfig(vocab_size=len(found), bos_token_id=None, eos_token_id=0, pad_token_id=0, **size))
    model = local((bare, found))
    prompt = [model.encode("The")]
    ((free,),), _ = model.sample(prompt, 1, SamplingParams(max_tokens=40, seed=1))
    text, offsets = model.decode(free.ids)
    places = [
        t
        for t in range(5, len(free.ids) - 2)
        if text[offsets[t, 0] : offsets[t + 2, 1]].isascii() and (np.diff(offsets[t : t + 3]) > 0).all()
    ]
    at = places[0]
    stop = text[offsets[at, 1] - 1 : offsets[at + 2, 0] + 1]  # from inside a token to the first character of the one after the next
    assert stop not in model.decode(free.ids[: at + 2])[0]
    ((cut,),), _ = model.sample(prompt, 1, SamplingParams(max_tokens=40, seed=1, stop=(stop, "never written")))
    assert cut.stop == "stop"
    assert cut.ids.tolist() == free.ids[: at + 3].tolist()

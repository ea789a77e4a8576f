"""Follow-up likelihood: how users take an answer tells good from bad where bad answers are the more usual ones.

A small language model of words reads 6,000 simulated dialogues: a request for a thing of some colour, an answer that brings the right
colour in 30 % of the cases and either of two wrong ones in the others, and the user's follow-up, content or discontent.
A quarter of the requests is held out; on these the right answer is compared with each of the two wrong ones.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from guerdon.rewards.follow_up import FOLLOW_UPS
from guerdon.samples import Context, Sample, Task

CLAIM = (
    "on held-out requests the right answer beats the wrong one in 90 % of the pairs or more, "
    "and by its own likelihood in 60 % or fewer, in every seed"
)
BASELINE = "the mean log-probability of the answer's own tokens"
METHOD = "follow_up; without its key term: the same follow-ups behind another request, so that they do not speak of it"
SEEDS = (0, 1, 2)
COLOURS = ["red", "blue", "green", "white"]
THINGS = ["hat", "cup", "coat", "book", "box", "chair", "bag", "shirt", "lamp", "bowl", "pen", "key", "door", "desk", "plate", "spoon",
          "shoe", "belt", "clock", "ring"]  # fmt: skip
DIALOGUES, BATCH, EPOCHS = 6000, 60, 8
TEMPLATE = "{% for m in messages %}<{{ m.role }}> {{ m.content }} <end> {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


def request(colour: int, thing: str) -> str:
    return f"bring {COLOURS[colour % len(COLOURS)]} {thing}"


def answer(colour: int, thing: str) -> str:
    return f"here {COLOURS[colour % len(COLOURS)]} {thing}"


def split(seed: int) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """Requests to learn from, and those held out."""
    everything = [(colour, thing) for colour in range(len(COLOURS)) for thing in THINGS]
    random.Random(f"split {seed}").shuffle(everything)
    return everything[20:], everything[:20]


def dialogues(seed: int) -> list[str]:
    rng, known = random.Random(f"dialogues {seed}"), split(seed)[0]
    found = []
    for _ in range(DIALOGUES):
        colour, thing = rng.choice(known)
        off = rng.choices([0, 1, 2], [0.30, 0.35, 0.35])[0]
        said = rng.choice(FOLLOW_UPS[rng.choice(list(FOLLOW_UPS))][0 if off == 0 else 1])
        found.append(f"<user> {request(colour, thing)} <end> <assistant> {answer(colour + off, thing)} <end> <user> {said} <end>")
    return found


def taught(seed: int) -> Any:
    """The model that has read the dialogues, as a handle."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from guerdon.backends.local import local

    texts, special = dialogues(seed), ["<pad>", "<end>", "<unk>", "<user>", "<assistant>"]
    everything = [text for sides in FOLLOW_UPS.values() for side in sides for text in side] + texts + ["Hello."]
    words = dict.fromkeys([*special, *sorted({word for text in everything for word in text.split()})])
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore
    tokens = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<end>", unk_token="<unk>", additional_special_tokens=["<user>", "<assistant>"]
    )
    tokens.chat_template = TEMPLATE
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokens), hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.06, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    ids = tokens(texts, padding=True, return_tensors="pt", return_token_type_ids=False)["input_ids"]
    steps = EPOCHS * DIALOGUES // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        if step % (DIALOGUES // BATCH) == 0:
            order = torch.randperm(DIALOGUES)
        rows = ids[order[step * BATCH % DIALOGUES :][:BATCH]]  # pyright: ignore
        model(input_ids=rows, labels=rows.masked_fill(rows == 0, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return local((model, tokens), trainable=False)


def likelihood(model: Any, samples: list[Sample]) -> np.ndarray:
    """The mean log-probability of each answer behind its request."""
    from guerdon.rewards.likelihood import NONE, Forced, encode, logprobs

    rows = [Forced(model.encode([{"role": "user", "content": s.task.prompt}]), NONE, encode(model, s.text)) for s in samples]
    return np.array([np.mean(found) for found in logprobs(model, rows)])  # pyright: ignore


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.rewards import follow_up
    from guerdon.scoring import Engine

    model, held = taught(seed), split(seed)[1]
    asked = held[1:] + held[:1] if variant == "ablated" else held
    samples = [
        Sample(Task("", request(*other)), answer(colour + off, thing))
        for (colour, thing), other in zip(held, asked, strict=True)
        for off in (0, 1, 2)
    ]
    if variant == "baseline":
        score = likelihood(model, samples)
    else:
        with Engine(Context(models={"reference": model}), workers=1) as engine:
            score = engine.score(follow_up, samples).total()
    right, *wrong = score.reshape(-1, 3).T
    return {"value": float(np.mean([right > w for w in wrong])), "right": float(right.mean()), "wrong": float(np.mean(wrong))}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return min(m["value"] for m in method) >= 0.90 and max(b["value"] for b in baseline) <= 0.60

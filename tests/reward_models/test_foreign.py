"""Reward models that others fitted: classifiers with one label as transformers saves them, in a folder or under a hub's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
)

from guerdon.backends.local import local
from guerdon.registry import Refused
from guerdon.reward_models.heads import orm
from guerdon.rewards.parse import parse
from guerdon.samples import Context, Sample, Task, Verdict
from guerdon.scoring import Engine

TEMPLATE = "{% for m in messages %}{{ '=' if m.role == 'user' else '-' }}{{ m.content }}<end>\n{% endfor %}"
"""What closes a turn is an end token and a line break, as in several published templates."""
COMMON: dict[str, Any] = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64, initializer_range=0.3)
KINDS: dict[str, Callable[..., Any]] = {
    "llama": lambda **more: LlamaConfig(intermediate_size=24, bos_token_id=None, **COMMON, **more),
    "gpt_neox": lambda **more: GPTNeoXConfig(intermediate_size=24, **COMMON, **more),
    "gpt2": lambda **more: GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3, **more),
}


def publish(folder: Path, characters: Any, config: Callable[..., Any]) -> Path:
    tokenizer = characters(0)[1].tokens.tokenizer
    torch.manual_seed(1)
    ours = dict(vocab_size=len(tokenizer), eos_token_id=0, pad_token_id=0, num_labels=1)
    AutoModelForSequenceClassification.from_config(config(**ours)).double().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    theirs.pad_token, theirs.chat_template = "<end>", TEMPLATE
    theirs.save_pretrained(folder)
    return folder


def samples() -> list[Sample]:
    return [Sample(Task(str(i), prompt), text) for i, (prompt, text) in enumerate([("1+2=", "3"), ("1+2=", "12\n4"), ("7-3=", "0")])]


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_head_scores_as_transformers_does(tmp_path: Path, characters: Any, kind: str):
    path = publish(tmp_path / "rm", characters, KINDS[kind])
    model = local(path, trainable=False, dtype="float64", device="cpu")
    theirs, tokens = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float64), AutoTokenizer.from_pretrained(path)

    def plain(ids: list[int]) -> float:
        """One row, without padding: the classifier takes its last token that is no pad token, which may be the end token itself."""
        with torch.no_grad():
            state = theirs.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
            return float(theirs.score(state)[0])

    some = samples()
    for chat in (False, True):
        found = orm.fn(some, model, chat=chat)
        for s, verdict in zip(some, found, strict=True):
            messages = [{"role": "user", "content": s.task.prompt}, {"role": "assistant", "content": s.text}]
            text = tokens.apply_chat_template(messages, tokenize=False) if chat else str(s.task.prompt) + s.text
            ids = tokens(text)["input_ids"]
            assert isinstance(verdict, Verdict)
            assert verdict.value == pytest.approx(plain(ids), abs=2e-5)  # transformers computes some norms in float32
            with torch.no_grad():
                assert verdict.value == pytest.approx(float(theirs(input_ids=torch.tensor([ids])).logits[0, 0]), abs=2e-5)
    assert np.ptp([v.value for v in orm.fn(some, model, chat=True)]) > 1e-3


def test_in_an_expression_and_what_is_refused(tmp_path: Path, characters: Any):
    path = publish(tmp_path / "rm", characters, KINDS["llama"])
    model = local(path, trainable=False, dtype="float64", device="cpu")
    with Engine(Context(models={"rm": model}), workers=1) as engine:
        found = engine.score("2 * orm(model='rm', chat=True)", [*samples(), Sample(Task("4", "1+2="), "1" * 80)])
    assert found.outcome is not None
    np.testing.assert_allclose(found.outcome.value[:3], [2 * v.value for v in orm.fn(samples(), model, chat=True)], atol=1e-12)
    assert found.failed.tolist() == [False, False, False, True]
    assert "and the model reads 64" in found.why(3)
    with pytest.raises(Refused, match=r"a classifier that transformers saved is orm\(model='rm', chat=True\)"):
        parse(f"reward_model(path='{path}')")
    with pytest.raises(Refused, match="no chat template"):
        orm.fn(samples(), characters(0, head="scalar")[1], chat=True)
    both = publish(tmp_path / "bert", characters, lambda **more: BertConfig(intermediate_size=24, **COMMON, **more))
    with pytest.raises(Refused):  # an encoder reads what stands behind a token
        local(both)


def test_by_a_name_on_the_hub(tmp_path: Path, characters: Any, monkeypatch: pytest.MonkeyPatch):
    """A hub's cache with the model in it, and no network."""
    import huggingface_hub.constants as hub

    home = tmp_path / "models--some--rm"
    path = publish(home / "snapshots" / "abc", characters, KINDS["llama"])
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    for name, value in {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": True}.items():
        monkeypatch.setattr(hub, name, value)
    [a], [b] = (orm.fn(samples()[:1], local(p, trainable=False, dtype="float64", device="cpu"), chat=True) for p in ("some/rm", path))
    assert a.value == b.value

"""The tiny policy: deterministic, cached, in transformers' layout; its teacher errs as it should."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from guerdon.envs.arithmetic import worked
from guerdon.envs.tiny import Tiny, forgetful, lessons, named_policy, tiny_policy, tokenizer

SHORT = {"tokens": 3000, "stages": ((0.5, 1), (0.5, 2))}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUERDON_CACHE", str(tmp_path))
    return tmp_path


def test_the_same_seed_gives_the_same_weights_and_another_one_others(cache: Path) -> None:
    first = tiny_policy(progress=False, **SHORT)
    before = load_file(first / "model.safetensors")
    shutil.rmtree(first)
    torch.manual_seed(123)  # nothing outside counts
    state = torch.get_rng_state()
    again = load_file(tiny_policy(progress=False, **SHORT) / "model.safetensors")
    assert all(torch.equal(before[name], again[name]) for name in before)
    assert torch.equal(state, torch.get_rng_state())
    other = load_file(tiny_policy(1, progress=False, **SHORT) / "model.safetensors")
    assert any(not torch.equal(before[name], other[name]) for name in before)


def test_it_is_cached_and_opens_in_transformers(cache: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_policy(progress=False, **SHORT)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert tiny_policy(progress=False, **SHORT) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert 1e6 <= model.num_parameters() <= 3e6
    tokens = AutoTokenizer.from_pretrained(folder)
    assert tokens.decode(tokens("7+5-3=")["input_ids"]) == "7+5-3="
    assert [p.name for p in cache.iterdir()] == [folder.name]  # nothing half-written stays


def test_a_character_is_a_token() -> None:
    tokens = tokenizer()
    text = "12+7\nA: 19"
    assert len(tokens(text)["input_ids"]) == len(text)
    assert tokens.decode(tokens(text)["input_ids"]) == text


def test_the_teacher_forgets_carries_and_nothing_else() -> None:
    always, never = forgetful(1.0, random.Random(0)), forgetful(0.0, random.Random(0))
    assert worked("7+5-3", always) == ["2-3", "A: -1"]
    assert worked("7+5-3", never) == ["12-3", "A: 9"]
    assert worked("7+2-3", always) == worked("7+2-3")
    assert worked("17-8", always) == worked("17-8")
    rng = random.Random(0)
    slips = [worked("7+5", forgetful(0.7, rng)) == ["A: 2"] for _ in range(2000)]
    assert sum(slips) / len(slips) == pytest.approx(0.7, abs=0.04)


def test_lessons_are_of_the_train_split() -> None:
    from guerdon.envs.arithmetic import split_of

    found = lessons(Tiny(), 4, 300, random.Random(0))
    assert len(found) == 300
    assert all(split_of(prompt.removesuffix("=")) == "train" for prompt, _ in found)


def test_names() -> None:
    assert named_policy("something-else") is None
    assert named_policy("tiny-x") is None

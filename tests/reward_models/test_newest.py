"""A model of answers that scores steps: each against the model asked by hand, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

import guerdon.training.fit as fits
from guerdon.annotation import hierarchical
from guerdon.registry import Refused
from guerdon.reward_models import fitted
from guerdon.reward_models.newest import shown, whole_steps
from guerdon.rewards.parse import parse
from guerdon.samples import Sample, Task
from guerdon.scoring import Engine
from guerdon.spans import mark


def answers() -> list[Sample]:
    texts = ["1+2\n3\n4", "1+2\n\n9", "5", "1+2\n3\n5"]
    out = [Sample(Task(str(i), "1+2="), text, stop="end") for i, text in enumerate(texts)]
    for sample in out:
        mark(sample)
    return out


@pytest.fixture(scope="module")
def folder(characters: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit on rows of `hierarchical`, through the file that a user would write."""
    path = tmp_path_factory.mktemp("newest")
    _, model = characters(3)
    model.causal.save_pretrained(path / "body")
    model.tokens.tokenizer.save_pretrained(path / "body")
    rows = hierarchical(answers(), [True, False, False, True], np.random.default_rng(0))
    (path / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    recipe = {"model": {"path": str(path / "body"), "dtype": "float64"}, "data": str(path / "rows.jsonl"), "loss": "outcome_ce", "seed": 1}
    fits.fit({**recipe, "train": {"epochs": 1, "batch": 4, "lr": 3e-3}}, folder=path / "fit")
    return path / "fit"


def test_the_prompt_of_a_step_shows_what_stands_before():
    assert shown("q", "") == "q\n\nNewest step:\n"
    assert shown("q", "a\nb\n") == "q\n\nSteps so far:\na\nb\n\nNewest step:\n"
    talk = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    assert shown(talk, "a\n") == [talk[0], {"role": "user", "content": "q\n\nSteps so far:\na\n\nNewest step:\n"}]
    seen = [{"role": "user", "content": [{"type": "image"}]}]
    assert shown(seen, "") == [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\n\nNewest step:\n"}]}]
    assert talk[1]["content"] == "q"


def test_steps_are_the_whole_text():
    for sample in answers():
        assert "".join(whole_steps(sample)) == sample.text
    assert whole_steps(Sample(Task("t", "q"), "a")) == []


@pytest.mark.parametrize("joined", [False, True])
def test_every_step_is_asked_as_an_answer_of_its_own(folder: Path, joined: bool):
    some = answers()
    with Engine(workers=1) as engine:
        found = engine.score(f"newest_step(path='{folder}', joined={joined})", some).step
    assert found is not None
    card, model = fits.folders.read(folder), fits.local(folder, trainable=False, dtype="float64")
    seen = set()
    for i, sample in enumerate(some):
        steps = [line for line in sample.text.split("\n") if line]
        assert found.scored[i].sum() == len(steps)
        for t, step in enumerate(steps):
            text = f"{steps[t - 1]}\n{step}" if joined and t else step
            if joined and t and i == 1:
                text = "1+2\n\n9"  # the blank line between two steps
            before = "\n".join(steps[: t - 1 if joined and t else t])
            prompt = "1+2=" + (f"\n\nSteps so far:\n{before}" if before else "") + "\n\nNewest step:\n"
            (alone,) = fitted.score(model, card, [Sample(Task("t", prompt), text)])
            np.testing.assert_allclose(found.value[i, t], alone.value, rtol=0, atol=1e-6)  # type: ignore[union-attr]
            seen.add(round(found.value[i, t], 9))
    assert len(seen) > 3


def test_samples_without_steps_or_with_thousands(folder: Path):
    lines = Sample(Task("t", "1+2="), "3\n" * 1001, stop="end")
    mark(lines)
    with Engine(workers=1) as engine:
        found = engine.score(f"newest_step(path='{folder}')", [Sample(Task("t", "1+2="), "", stop="end"), lines, answers()[2]])
    assert found.alive.tolist() == [False, True, True]
    assert found.hostile.tolist() == [False, True, False]
    assert "1001 steps to be scored, more than 1000" in found.why(1)


def test_what_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(Refused, match="is no folder of a fitted reward model"):
        parse(f"newest_step(path='{tmp_path}')")
    card = (folder / "fitted.json").read_text()
    (tmp_path / "fitted.json").write_text(card.replace('"grain": "outcome"', '"grain": "step"'))
    with pytest.raises(Refused, match="it was not fitted on answers with a head"):
        parse(f"newest_step(path='{tmp_path}')")

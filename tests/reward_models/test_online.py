"""Models that learn beside the policy: one step of theirs, and their place in a run."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from guerdon.backends.base import LossCall
from guerdon.losses import row_mean
from guerdon.registry import Refused
from guerdon.reward_models import Learner
from guerdon.rewards import reward
from guerdon.samples import Batch, Context, Grain, Rewards, Sample, collate
from guerdon.training import metrics as m
from guerdon.training.record import read_metrics
from guerdon.training.run import train

TEXTS = [("1+2=", "3"), ("1+2=", "4"), ("7-3=", "4\n"), ("7-3=", "7")]


@reward(inline=True)
def few_a(text: str) -> float:
    """1 where at most one of the letters is `a`."""
    return float(text.count("a") <= 1)


def batch_of(samples: list[Sample], model: Any, values: list[float]) -> Batch:
    batch = collate(samples, Rewards(Grain.of(values)), dtype=torch.float64)
    batch.fields["ref_logprobs"] = model.forward(batch, ("logprobs",))[0]["logprobs"]
    return batch


def test_one_step_lowers_the_loss_and_counts_tokens(characters: Any, write: Any):
    _, model = characters(1, trainable=True)
    batch = batch_of([write(model, *text) for text in TEXTS], model, [1.0, 0.0, 1.0, 0.0])
    context = Context()
    learner = Learner("prm", model, [LossCall("implicit_ce", {"beta": 0.5})], row_mean, lr=1e-2, clip=10.0)
    first = learner.update(batch, context)
    assert first.keys() == {"prm/accuracy", "prm/loss", "prm/grad_norm"}
    assert first["prm/loss"] == pytest.approx(np.log(2))  # the model is its own reference still
    assert model.version == 1
    assert context.usage["update"].new > 0
    second = learner.update(batch, context)
    assert second["prm/loss"] < first["prm/loss"]
    assert learner.update(batch, context)["prm/accuracy"] == 1.0


def test_a_batch_in_which_no_row_counts_changes_nothing(characters: Any, write: Any):
    _, model = characters(1, trainable=True)
    batch = batch_of([write(model, *text) for text in TEXTS], model, [1.0, 0.0, 1.0, 0.0])
    batch.weights = batch.weights * 0
    assert Learner("prm", model, [LossCall("implicit_ce")], row_mean, lr=1e-2, clip=10.0).update(batch, Context()) == {}
    assert model.version == 0


@pytest.fixture
def recipe() -> dict[str, Any]:
    """Two letters, right where at most one is `a`; a process reward model that starts as the policy."""
    return {
        "threads": 1,
        "models": {
            "policy": {"backend": "tabular", "vocab": "ab", "init": 0.5},
            "reference": {"of": "policy"},
            "prm": {"of": "policy", "learn": {"loss": {"use": "implicit_ce", "beta": 0.5}, "lr": 0.05, "aggregate": "row_mean"}},
        },
        "tasks": {"use": "arithmetic", "n": 4, "steps": [1, 1], "high": 9, "ops": "+"},
        "reward": "few_a + implicit(model='prm', beta=0.5)",
        "keep": ["accuracy_band"],
        "rollout": {"use": "parallel", "max_tokens": 4},
        "credit": "prime",
        "train": {"steps": 8, "prompts": 4, "samples": 4, "lr": 0.02, "checkpoint_every": 2, "max_refills": 1},
    }  # fmt: skip


def changed(recipe: dict[str, Any], **learn: Any) -> dict[str, Any]:
    prm = recipe["models"]["prm"]
    return {**recipe, "models": {**recipe["models"], "prm": {**prm, "learn": {**prm["learn"], **learn}}}}


def weights(folder: Path, model: str = "") -> dict[str, torch.Tensor]:
    """Every tensor of the last checkpoint, by file and name."""
    last = sorted((folder / "checkpoints").glob("step-*"))[-1] / model
    return {f"{file.relative_to(last)}/{k}": v for file in sorted(last.rglob("*.safetensors")) for k, v in load_file(file).items()}


def numbers(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not m.is_clock(k)} for row in read_metrics(folder)]


def test_it_starts_as_a_copy_and_then_learns(recipe: dict[str, Any], tmp_path: Path):
    run = train(recipe, folder=tmp_path / "run")
    first, last = run.metrics[1], run.metrics[-1]
    assert first["reward/implicit(beta=0.5, model='prm')"] == 0.0  # copy and reference agree
    assert first["prm/loss"] == pytest.approx(np.log(2))
    assert last["prm/loss"] < first["prm/loss"]
    assert last["reward/implicit(beta=0.5, model='prm')"] != 0.0
    ours, policy = weights(tmp_path / "run", "prm"), weights(tmp_path / "run", "policy")
    assert any(not torch.equal(ours[name], policy[name]) for name in ours if name in policy and ours[name].shape == policy[name].shape)


def test_before_credit_the_batch_is_scored_again(recipe: dict[str, Any], tmp_path: Path):
    """Learning after, the first step's process rewards are 0 and credit is that of the outcome; learning before, they are not."""
    after = train(recipe, "train.steps=1", folder=tmp_path / "after")
    before = train(changed(recipe, when="before"), "train.steps=1", folder=tmp_path / "before")
    assert after.last("prm/loss") == before.last("prm/loss")
    name = "policy/table.safetensors/logits"
    assert not torch.equal(weights(tmp_path / "after")[name], weights(tmp_path / "before")[name])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked runs")
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_and_resumed_the_numbers_are_the_same(recipe: dict[str, Any], when: str, tmp_path: Path):
    recipe = changed(recipe, when=when)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    start = time.perf_counter()
    train(recipe, folder=whole)
    seconds, moments, kills = time.perf_counter() - start, random.Random(0), 0
    while kills < 4:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            train(resume=broken) if (broken / "recipe.yaml").exists() else train(recipe, folder=broken)
            os._exit(0)
        time.sleep(moments.uniform(0.2, 0.8) * seconds)
        os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL:
            kills += 1
        else:  # it was done before the kill
            break
    train(resume=broken)
    assert numbers(broken) == numbers(whole)
    ours, theirs = weights(broken), weights(whole)
    assert any(name.startswith("prm/") for name in ours)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_loss_that_its_model_cannot_serve_is_refused_before_the_run(recipe: dict[str, Any], tmp_path: Path):
    with pytest.raises(Refused, match="'sum_regression' needs the capability 'values'"):
        train(changed(recipe, loss="sum_regression"), folder=tmp_path / "run")
    with pytest.raises(Refused, match="implicit_cee"):
        train(changed(recipe, loss="implicit_cee"), folder=tmp_path / "run")

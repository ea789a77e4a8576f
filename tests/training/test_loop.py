"""The loop on real pieces: what it trains on, what it measures, what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import guerdon as g
from guerdon.samples import Kept, Rewards, Sample, State
from guerdon.training import measure
from guerdon.training import metrics as m
from guerdon.training.loop import learning_rate
from guerdon.training.run import train


def test_a_run_learns_and_measures(small_recipe: dict[str, Any], tmp_path: Path) -> None:
    run = train(small_recipe, folder=tmp_path / "run")
    assert [row[m.STEP] for row in run.metrics] == list(range(7))
    last = run.metrics[-1]
    expected = (
        m.REWARD, m.PASS_1, m.PASS_K, m.LENGTH, m.TRUNCATED, m.ENTROPY, m.KL, m.CLIP_FRACTION, m.ZERO_SPREAD, m.HOSTILE, m.ABSTAINED,
        m.FAILED, m.SAMPLE_AGE, m.LOGPROB_GAP, m.TOKENS_PER_SECOND, m.SECONDS, m.LR, m.GRAD_NORM, m.VALUE_LOSS, m.EVAL_ACCURACY,
        m.EVAL_GOLD, m.REFILLS, "reward/closeness", "reward/length(target=4)", "seconds/rollouts", "seconds/rewards", "seconds/update",
    )  # fmt: skip
    assert set(expected) <= last.keys(), set(expected) - last.keys()
    assert last[m.LOGPROB_GAP] < 1e-4
    assert run.metrics[1][m.KL] == pytest.approx(0.0, abs=1e-6)
    assert run.metrics[-1][m.KL] > 0
    assert run.report.is_file()
    assert (run.folder / "checkpoints" / "best" / "policy").is_dir()
    table = pq.read_table(run.folder / "samples" / "step-000006.parquet").to_pylist()
    assert len(table) == last[m.SAMPLES]
    assert all("".join(row["pieces"]) == row["text"] for row in table)
    assert all(len(row["advantage"]) == len(row["ids"]) for row in table if row["kept"])


def test_failed_rewards_train_nothing_and_are_counted(small_recipe: dict[str, Any], tmp_path: Path) -> None:
    @g.reward(name="always_breaks", inline=True)
    def always_breaks(text: str) -> float:
        raise ZeroDivisionError(text[:1])

    recipe = {
        **small_recipe,
        "reward": "always_breaks",
        "keep": [],
        "credit": "grpo",
        "kl": None,
        "critic": None,
        "loss": "ppo_clip",
        "eval": {},
    }
    recipe["models"] = {"policy": recipe["models"]["policy"]}
    run = train(recipe, "train.steps=2", folder=tmp_path / "run")
    for row in run.metrics[1:]:
        assert row[m.FAILED] == 1.0
        assert m.REWARD not in row
        assert m.LOSS not in row
        assert sum(row[m.REASONS].values()) == row[m.SAMPLES]
        assert all("ZeroDivisionError" in why for why in row[m.REASONS])
    table = pq.read_table(run.folder / "samples" / "step-000001.parquet").to_pylist()
    assert {(row["reward"], row["state"]) for row in table} == {(None, "failed")}
    assert all(a == 0 for row in table for a in row["advantage"])


def test_stages_share_one_run(small_recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe = {
        **small_recipe,
        "critic": None, "kl": None, "credit": "grpo", "loss": "ppo_clip", "keep": [],
        "stages": [
            {"rollout": {"use": "expert"}, "loss": "sft", "credit": None, "reward": None, "train": {"steps": 3, "samples": 1}},
            {"train": {"steps": 2}},
        ],
    }  # fmt: skip
    recipe["models"] = {"policy": recipe["models"]["policy"]}
    run = train(recipe, folder=tmp_path / "run")
    assert [row[m.STAGE] for row in run.metrics] == [0, 0, 0, 0, 1, 1]
    assert run.metrics[3][m.LOSS] < run.metrics[1][m.LOSS]
    table = pq.read_table(run.folder / "samples" / "step-000001.parquet").to_pylist()
    assert {row["source"] for row in table} == {"expert"}
    assert all("A: " in row["text"] for row in table)


def test_skipping_rows_without_advantage_changes_no_gradient(small_recipe: dict[str, Any], tmp_path: Path) -> None:
    from guerdon.registry import find

    recipe = {**small_recipe, "reward": "closeness", "critic": None, "kl": None, "credit": "grpo", "loss": "ppo_clip", "keep": []}
    recipe["models"] = {"policy": recipe["models"]["policy"]}
    skipping = train(recipe, folder=tmp_path / "skipping")
    about = find("loss", "ppo_clip").about
    assert about["vanishes"] is True
    about["vanishes"] = False  # pyright: ignore[reportIndexIssue]
    try:
        whole = train(recipe, folder=tmp_path / "whole")
    finally:
        about["vanishes"] = True  # pyright: ignore[reportIndexIssue]
    for a, b in zip(skipping.metrics, whole.metrics, strict=True):
        if a[m.STEP]:
            assert a[m.GRAD_NORM] == pytest.approx(b[m.GRAD_NORM], rel=1e-3)
            assert a[m.LOSS] == pytest.approx(b[m.LOSS], abs=1e-5)


def test_the_hack_monitor_warns_when_the_proxy_rises_and_the_gold_falls() -> None:
    history = [{m.STEP: 0, m.EVAL_REWARD: 0.3, m.EVAL_GOLD: 0.5}, {m.STEP: 10, m.EVAL_REWARD: 0.5, m.EVAL_GOLD: 0.6}]
    assert measure.hacked(history, {m.EVAL_REWARD: 0.9, m.EVAL_GOLD: 0.3}, 200)
    assert not measure.hacked(history, {m.EVAL_REWARD: 0.4, m.EVAL_GOLD: 0.3}, 200)  # both fell
    assert not measure.hacked(history, {m.EVAL_REWARD: 0.9, m.EVAL_GOLD: 0.55}, 200)  # within two standard errors (0.069)
    assert not measure.hacked([], {m.EVAL_REWARD: 0.9, m.EVAL_GOLD: 0.0}, 200)


def test_learning_rates_by_hand() -> None:
    from guerdon.recipe import Train

    linear = Train(steps=12, lr=1.0, warmup=2, schedule="linear")
    assert [learning_rate(linear, i) for i in (0, 1, 2, 7, 12)] == [0.5, 1.0, 1.0, 0.5, 0.0]
    cosine = Train(steps=8, lr=2.0, schedule="cosine")
    assert learning_rate(cosine, 4) == pytest.approx(1.0)
    assert learning_rate(Train(steps=8, lr=2.0), 7) == 2.0


def test_refills_until_the_batch_is_full(small_recipe: dict[str, Any], tmp_path: Path) -> None:
    from guerdon.curation import keep

    @keep
    def second_round_only(samples: list[Sample], rewards: Rewards, context: Any) -> Kept:
        second_round_only.calls += 1
        rows = np.arange(len(samples)) if second_round_only.calls % 2 == 0 else np.zeros(0, dtype=np.int64)
        return Kept(rows, np.ones(len(samples)))

    second_round_only.calls = 0
    recipe = {**small_recipe, "keep": ["second_round_only"], "eval": {}}
    run = train(recipe, "train.steps=2", folder=tmp_path / "run")
    for row in run.metrics[1:]:
        assert (row[m.REFILLS], row[m.DROPPED], row[m.SHORT], row[m.SAMPLES]) == (1, 6, 0, 12)
    short = train(recipe, "train.steps=1", "train.max_refills=0", folder=tmp_path / "short")
    assert short.metrics[1][m.SHORT] == 6
    assert State.FAILED == 2

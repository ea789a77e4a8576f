"""A run that is killed at any moment goes on to the same numbers, bit for bit."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from guerdon.registry import Interrupted, Refused
from guerdon.training import metrics as m
from guerdon.training.record import read_metrics, tables
from guerdon.training.run import train

KILLS = 20


def fork(work: Any) -> int:
    """Run `work` in a child process; its pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def numbers(folder: Path) -> list[dict[str, Any]]:
    """All metrics but clock times."""
    return [{k: v for k, v in row.items() if not m.is_clock(k)} for row in read_metrics(folder)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the last checkpoint, by file and name."""
    last = sorted((folder / "checkpoints").glob("step-*"))[-1]
    return {f"{file.relative_to(last)}/{k}": v for file in sorted(last.rglob("*.safetensors")) for k, v in load_file(file).items()}


def same(a: Path, b: Path) -> None:
    assert numbers(a) == numbers(b)
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert first
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert tables(a, "samples").keys() == tables(b, "samples").keys()
    assert tables(a, "evals").keys() == tables(b, "evals").keys()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked runs")
def test_killed_at_twenty_moments_ends_with_the_same_numbers(small_recipe: dict[str, Any], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    recipe = {**small_recipe, "train": {**small_recipe["train"], "steps": 12}}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    start = time.perf_counter()
    assert wait(fork(lambda: train(recipe, folder=whole))) == 0
    seconds = time.perf_counter() - start

    moments, kills, attempts = random.Random(0), 0, 0
    while kills < KILLS:
        attempts += 1
        assert attempts < 10 * KILLS, "the run ends before it can be killed"
        resumed = (broken / "recipe.yaml").exists()
        child = fork(lambda go=resumed: train(resume=broken) if go else train(recipe, folder=broken))
        time.sleep(moments.uniform(0.05, 0.5) * seconds)
        os.kill(child, signal.SIGKILL)
        if wait(child) == -signal.SIGKILL:
            kills += 1
        else:  # it was done before the kill: begin again from an earlier checkpoint
            last = sorted((broken / "checkpoints").glob("step-*"))[-1]
            os.system(f"rm -rf '{last}'")
    assert wait(fork(lambda: train(resume=broken))) == 0
    same(whole, broken)


def test_a_finished_run_resumes_to_itself_and_on_to_more_steps(small_recipe: dict[str, Any], tmp_path: Path) -> None:
    long = {**small_recipe, "train": {**small_recipe["train"], "steps": 8}}
    train(long, folder=tmp_path / "long")
    train(small_recipe, folder=tmp_path / "short")
    before = numbers(tmp_path / "short")
    train(resume=tmp_path / "short")
    assert numbers(tmp_path / "short") == before
    train(None, "train.steps=8", resume=tmp_path / "short")
    ours, theirs = numbers(tmp_path / "short"), numbers(tmp_path / "long")
    assert [row for row in ours if row[m.STEP] not in (6,)] == [row for row in theirs if row[m.STEP] not in (6,)]


def test_a_changed_recipe_is_refused_with_the_fields(small_recipe: dict[str, Any], tmp_path: Path) -> None:
    train({**small_recipe, "train": {**small_recipe["train"], "steps": 1}}, folder=tmp_path / "run")
    with pytest.raises(Refused, match=r"these fields differ: reward, train\.lr\."):
        train({**small_recipe, "reward": "closeness"}, "train.lr=0.5", resume=tmp_path / "run")
    train({**small_recipe, "eval": {"every": 1}}, "train.steps=2", resume=tmp_path / "run")  # steps and evaluation may change
    assert read_metrics(tmp_path / "run")[-1][m.STEP] == 2


def test_changed_tasks_and_missing_folders_are_refused(small_recipe: dict[str, Any], tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(json.dumps({"prompt": "1+1=", "reference": "2"}) + "\n")
    recipe = {**small_recipe, "tasks": str(tasks), "keep": []}
    train(recipe, "train.steps=2", folder=tmp_path / "run")
    tasks.write_text(json.dumps({"prompt": "1+2=", "reference": "3"}) + "\n")
    with pytest.raises(Refused, match=r"tasks .* have changed"):
        train(None, "train.steps=3", resume=tmp_path / "run")
    with pytest.raises(Refused, match="is no run folder"):
        train(resume=tmp_path / "nothing")
    with pytest.raises(Refused, match="already holds a run"):
        train(recipe, folder=tmp_path / "run")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits the size of files in a forked run")
def test_a_disk_that_takes_no_checkpoint_keeps_the_old_ones(small_recipe: dict[str, Any], tmp_path: Path) -> None:
    run, said = tmp_path / "run", tmp_path / "said"
    train({**small_recipe, "train": {**small_recipe["train"], "steps": 2}}, folder=run)
    kept = weights(run)
    largest = max(file.stat().st_size for file in (run / "checkpoints" / "step-000002").rglob("*"))

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, largest - 1))
        try:
            train(None, "train.steps=4", resume=run)
        except Exception as error:
            said.write_text(f"{type(error).__name__}: {error}")

    assert wait(fork(full)) == 0
    assert said.read_text().startswith("Broke: The checkpoint ")
    assert "could not be written" in said.read_text()
    assert "the one before is kept" in said.read_text()
    after = weights(run)
    assert after.keys() == kept.keys()
    assert all(torch.equal(after[name], kept[name]) for name in kept)
    train(None, "train.steps=4", resume=run)  # with room again it goes on
    assert read_metrics(run)[-1][m.STEP] == 4


def test_an_interrupted_run_says_how_to_go_on(small_recipe: dict[str, Any], tmp_path: Path) -> None:
    class Impatient:
        def on_start(self, recipe: Any, folder: Path, step: int, total: int) -> None: ...
        def on_event(self, step: int, kind: str, text: str) -> None: ...
        def on_end(self) -> None: ...
        def on_step(self, values: Any) -> None:
            if values[m.STEP] == 3:
                raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=f"--resume {tmp_path / 'run'}` goes on"):
        train(small_recipe, folder=tmp_path / "run", trackers=[Impatient()])
    train(small_recipe, folder=tmp_path / "whole")
    train(resume=tmp_path / "run")
    same(tmp_path / "run", tmp_path / "whole")

"""Terms of a loss by who wrote the rows, the mix between them, pairs, and batches that nothing can be trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guerdon.backends.base import LossCall, total_loss
from guerdon.credit import credit
from guerdon.curation.core import keep
from guerdon.losses.core import loss, shared, units
from guerdon.recipe import read
from guerdon.registry import Broke, Refused
from guerdon.rollouts import expert, parallel
from guerdon.rollouts.core import rollout
from guerdon.samples import Batch, Context, Grain, Kept, Rewards, Sample, Task, collate
from guerdon.training import metrics as m
from guerdon.training.run import train

WORLD: dict[str, Any] = {
    "models": {"policy": {"backend": "tabular", "vocab": "0123456789"}},
    "tasks": {"use": "arithmetic", "n": 4, "steps": [1, 1], "high": 4, "ops": "+"},
    "reward": "exact",
    "train": {"steps": 1, "prompts": 2, "samples": 3, "lr": 0.1},
}


def batch_of(sources: list[str]) -> Batch:
    """Rows of two tokens; those of the policy have log-probabilities."""
    samples = [
        Sample(
            Task("t", "p"), "", np.array([1]), np.array([1, 2]), None, np.ones(2, bool), np.zeros(2) if s == "policy" else None, source=s
        )
        for s in sources
    ]
    return collate(samples, Rewards(Grain.of(np.ones(len(sources)))), dtype=torch.float64)


def test_a_term_counts_its_own_rows_and_its_metrics_are_means_over_them():
    batch = batch_of(["policy", "expert", "policy", "teacher"])
    batch.advantages = torch.ones(4, 2, dtype=torch.float64)
    calls = shared([LossCall("ppo_clip", {}, "policy"), LossCall("sft", {}, "expert", times=0.25), LossCall("sft", {}, "all", 2.0)], batch)
    assert [call.share for call in calls] == [4, 4, 8]
    logprobs = torch.full((4, 2), 1.0, dtype=torch.float64)  # a ratio of e, clipped in every token of the policy
    total, metrics = total_loss(calls, {"logprobs": logprobs}, batch)
    assert float(total) == pytest.approx(-4 * 1.2 - 0.25 * 4 - 2 * 8)
    assert float(metrics["clip_fraction"]) == pytest.approx(1.0)


def test_a_loss_with_a_ratio_that_is_not_told_its_rows_refuses_those_without_log_probabilities():
    batch = batch_of(["policy", "expert"])
    with pytest.raises(Refused, match=r"missing \(NaN\)"):
        total_loss([LossCall("ppo_clip")], {"logprobs": torch.zeros(2, 2, dtype=torch.float64)}, batch)


def test_terms_without_rows_are_left_out():
    batch = batch_of(["policy", "policy"])
    assert [call.name for call in shared([LossCall("sft", {}, "expert"), LossCall("sft", {}, "policy")], batch)] == ["sft"]


def test_units_are_rows_groups_or_chains_of_pairs():
    batch = batch_of(["policy"] * 6)
    batch.pairs = torch.tensor([[0, 3], [3, 5], [1, 2]])
    batch.group = torch.tensor([0, 0, 1, 1, 2, 2])
    assert units(batch, ["ppo_clip"]).tolist() == [0, 1, 2, 3, 4, 5]
    assert units(batch, ["dpo", "ppo_clip"]).tolist() == [0, 1, 1, 0, 4, 0]


@rollout
def two_sources(policy: Any, tasks: Any, n: int, context: Context, *, max_tokens: int = 3) -> list[Sample]:
    """The policy's answers and one of an expert, for these tests."""
    for task in tasks:
        task.meta["solution"] = str(task.reference)
    own, theirs = parallel(policy, tasks, n - 1, context, max_tokens=max_tokens), expert(policy, tasks, 1, context)
    return sorted([*own, *theirs], key=lambda s: s.group)


MIXED = {
    **WORLD,
    "rollout": "two_sources",
    "aggregate": "per_source",
    "loss": [{"use": "ppo_clip", "of": "policy"}, {"use": "sft", "of": "expert"}],
}


def test_the_mix_weighs_imitation_against_reinforcement(tmp_path: Path):
    gain = {}
    for mu in (0.0, 0.5, 1.0):
        recipe = {**MIXED, "mix": {"use": "fixed", "mu": mu}, "train": {**WORLD["train"], "checkpoint_every": 1}}
        run = train(recipe, folder=tmp_path / str(mu))
        gain[mu] = run.last(m.GRAD_NORM)
        assert run.last(m.LOSS) != 0
        assert run.last(m.PASS_1) < 1 / 3  # the two demonstrations, of six rows, are not what the policy can do
    assert gain[0.0] != gain[1.0]
    with pytest.raises(Refused, match=r"of: policy` against terms `of: expert"):
        read({**WORLD, "mix": {"use": "fixed", "mu": 0.5}})
    with pytest.raises(Refused, match=r"within \[0, 1\]"):
        train({**MIXED, "mix": {"use": "fixed", "mu": 2.0}}, folder=tmp_path / "beyond")


@credit(grains=("outcome",))
def not_a_number(batch: Batch) -> torch.Tensor:
    """Divides by a spread of 0, for these tests."""
    return batch.outcome[:, None] / 0.0 * batch.mask


def test_advantages_that_are_not_finite_end_the_run_with_the_sample(tmp_path: Path):
    with pytest.raises(Broke, match=r"The credit 'not_a_number' gave sample 0 \(task '.*'\) `advantages` that are not finite"):
        train({**WORLD, "credit": "not_a_number"}, folder=tmp_path / "run")


@rollout
def silent(policy: Any, tasks: Any, n: int, context: Context) -> list[Sample]:
    """Answers of which a tool wrote every token, for these tests."""
    samples = parallel(policy, tasks, n, context, max_tokens=2)
    for sample in samples:
        sample.written = np.zeros(len(sample.ids), dtype=bool)  # type: ignore[arg-type]
    return samples


def test_a_sample_of_which_nothing_was_written_is_refused(tmp_path: Path):
    with pytest.raises(Refused, match=r"Sample 0 of the batch \(task '.*'\) has no token in `written`"):
        train({**WORLD, "rollout": "silent"}, folder=tmp_path / "run")


def test_a_group_of_one_and_pairs_that_nobody_makes_are_refused_when_the_recipe_is_read():
    with pytest.raises(Refused, match=r"train.samples: credit 'grpo' compares the samples of a task, and there is 1"):
        read({**WORLD, "train": {**WORLD["train"], "samples": 1}})
    with pytest.raises(Refused, match=r"loss 'dpo' is a mean over pairs; write `aggregate: pair_mean`.* write `keep: best_worst`"):
        read({**WORLD, "models": {**WORLD["models"], "reference": {"of": "policy"}}, "loss": "dpo", "credit": None})
    with pytest.raises(Refused, match="needs the field 'ref_logprobs'"):
        read({**WORLD, "loss": "dpo", "credit": None, "aggregate": "pair_mean", "keep": "best_worst"})


def test_online_dpo_trains_on_the_pairs_that_curation_makes(tmp_path: Path):
    models = {**WORLD["models"], "reference": {"of": "policy"}}
    recipe = {
        **WORLD,
        "models": models,
        "reward": "closeness",
        "loss": "dpo",
        "credit": None,
        "aggregate": "pair_mean",
        "keep": "best_worst",
    }
    run = train(
        {**recipe, "rollout": {"use": "parallel", "max_tokens": 2}, "train": {**WORLD["train"], "steps": 3, "samples": 6}},
        folder=tmp_path / "run",
    )
    first, last = run.metrics[1], run.metrics[-1]
    assert first["reward_gap"] == pytest.approx(0.0, abs=1e-9)  # the policy is its reference still
    assert first[m.LOSS] == pytest.approx(np.log(2))
    assert last["reward_gap"] > 0


def test_a_demonstration_in_a_loss_with_a_ratio_is_refused_by_name(tmp_path: Path):
    with pytest.raises(Refused, match=r"Sample \d of the batch \(task '.*', source expert\) has no `logprobs`, which the loss 'ppo_clip'"):
        train({**WORLD, "rollout": "two_sources"}, folder=tmp_path / "run")


@keep
def without_the_first(samples: Any, rewards: Rewards, context: Context) -> Kept:
    """Leaves out the first row that is left, for these tests."""
    return Kept(np.arange(1, len(samples)), np.ones(len(samples)))


SEEN: list[list[list[int]]] = []


@loss(unit="pair")
def watched_pairs(out: dict[str, torch.Tensor], batch: Batch) -> Any:
    """Remembers the pairs, for these tests."""
    SEEN.append(batch.pairs.tolist())
    return out["logprobs"].sum() * 0.0, {}


def test_a_pair_of_which_a_later_keep_leaves_out_a_side_is_no_pair(tmp_path: Path):
    recipe = {**WORLD, "reward": "closeness", "credit": None, "aggregate": "pair_mean", "loss": "watched_pairs"}
    recipe |= {"rollout": {"use": "parallel", "max_tokens": 2}, "train": {**WORLD["train"], "prompts": 4, "samples": 6, "max_refills": 0}}
    train({**recipe, "keep": ["best_worst"]}, folder=tmp_path / "all")
    train({**recipe, "keep": ["best_worst", "without_the_first"]}, folder=tmp_path / "less")
    both, less = SEEN
    assert len(less) == len(both) - 1
    assert min(min(pair) for pair in less) >= 0

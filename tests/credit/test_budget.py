"""The advantage of answers in subgroups by budget, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from guerdon.credit import grpo, hbpo
from guerdon.registry import Refused
from guerdon.samples import Batch, Grain, Rewards, Sample, Task, collate

LIMIT = 4096


def batch_of(rows: list[tuple[int, int, float]], state: list[int] | None = None) -> Batch:
    """(group, budget, reward) as samples of one token."""
    samples = [
        Sample(Task("t", "p"), "", np.array([1]), np.array([0]), None, np.array([True]), np.array([-1.0]), group=g, meta={"budget": b})
        for g, b, _ in rows
    ]
    return collate(samples, Rewards(Grain.of([r for *_, r in rows], state)), dtype=torch.float64)


def best(budget: int) -> float:
    return 4 * math.cos(math.pi * budget / (2 * LIMIT))


def test_intra_and_inter_by_hand():
    batch = batch_of([(0, 512, 3.0), (0, 512, 1.0), (0, 2048, 2.0), (0, 2048, 0.0)])
    inter = np.array([1.5, -0.5, 0.5, -1.5]) / np.std([3, 1, 2, 0], ddof=1)
    intra = np.array([2 - best(512)] * 2 + [1 - best(2048)] * 2)
    np.testing.assert_allclose(hbpo(batch)[:, 0], intra + inter, atol=1e-5)
    np.testing.assert_allclose(hbpo(batch, intra=2.0)[:, 0], 2 * intra + inter, atol=1e-5)
    np.testing.assert_allclose(hbpo(batch, intra=0.0), grpo(batch))


def test_a_subgroup_all_right_within_its_budget_has_no_intra_term_and_equal_rewards_no_inter_term():
    batch = batch_of([(0, 512, best(512))] * 2 + [(1, 512, 0.0), (1, 512, 0.0), (2, 1024, 1.0)])
    np.testing.assert_allclose(hbpo(batch)[:, 0], [0, 0, -best(512), -best(512), 1 - best(1024)], atol=1e-5)


def test_the_same_budget_in_another_group_is_another_subgroup_and_failed_rows_count_nowhere():
    batch = batch_of([(0, 512, 3.0), (0, 512, 9.0), (0, 512, 1.0), (1, 512, 4.0)], [0, 2, 0, 0])
    inter = np.array([1, 0, -1, 0]) / math.sqrt(2)
    intra = np.array([2 - best(512), 0, 2 - best(512), 4 - best(512)])
    np.testing.assert_allclose(hbpo(batch)[:, 0], inter + intra, atol=1e-5)


def test_without_budgets_it_is_refused_when_read_and_when_run():
    from guerdon.recipe import read

    batch = batch_of([(0, 512, 1.0)])
    del batch.fields["budget"]
    with pytest.raises(Refused, match="rollout: budgets"):
        hbpo(batch)
    recipe = {
        "models": {"policy": {"path": "tiny"}},
        "tasks": {"use": "arithmetic", "n": 2},
        "reward": "arithmetic | hbpo",
        "credit": "hbpo",
    }
    with pytest.raises(Refused, match="'budget'"):
        read(recipe)
    assert read({**recipe, "rollout": "budgets"}).credit.use == "hbpo"

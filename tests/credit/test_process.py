"""Process credit against plain loops over samples, steps and tokens, and against the limits it must have."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.credit import min_form, rloo, sum_form
from guerdon.registry import Refused
from guerdon.samples import Batch, Grain, Rewards, Sample, Task, collate

seeds = st.integers(0, 2**32 - 1)
GRAINS = ("outcome", "step", "token")


def twin(batch: Batch, form: str, temperature: float, baseline: str, outcome: float = 1.0) -> np.ndarray:
    """The formula, one token at a time."""
    n, t = batch.ids.shape
    step, alive, group = batch.rewards.step, batch.rewards.alive, batch.group.tolist()
    assert step is not None
    of, mask = batch.step_of.numpy(), batch.mask.numpy()
    paid: list[dict[int, float]] = []
    size: list[dict[int, float]] = []
    for i in range(n):
        tokens = {k: float(sum(mask[i] & (of[i] == k))) for k in range(step.value.shape[1])}
        good = [k for k in tokens if alive[i] and step.scored[i, k] and tokens[k]]
        total = sum(math.exp(-step.value[i, k] / temperature) for k in good)
        weight = {k: math.exp(-step.value[i, k] / temperature) / total if form == "min" else 1.0 for k in good}
        paid.append({k: weight[k] * step.value[i, k] for k in good})
        size.append({k: tokens[k] if baseline == "token" else 1.0 for k in good})
    out = np.zeros((n, t))
    for i in range(n):
        others = [j for j in range(n) if j != i and group[j] == group[i] and alive[j]]
        count = sum(sum(size[j].values()) for j in others)
        b = sum(sum(paid[j].values()) for j in others) / count if count and baseline != "none" else 0.0
        for at in range(t):
            if not (mask[i, at] and alive[i]):
                continue
            ends = [k for k in paid[i] if max(np.flatnonzero(of[i] == k)) >= at]
            out[i, at] = sum(paid[i][k] - b * size[i][k] for k in ends)
            if batch.rewards.token is not None:
                later = [u for u in range(at, int(batch.lengths[i])) if u < batch.rewards.token.value.shape[1]]
                out[i, at] += sum(batch.rewards.token.value[i, u] for u in later)
    if batch.rewards.outcome is not None:
        out += outcome * rloo(batch).numpy()
    return out


@pytest.mark.parametrize("baseline", ["token", "step", "none"])
@given(seed=seeds)
def test_both_forms_against_a_plain_loop(awkward, baseline, seed):
    batch = awkward(seed, GRAINS)
    # a token reward on the tail that the policy did not write belongs to its last token before: the twin has no such tail
    written_to_the_end = all(bool(batch.mask[i, : batch.lengths[i]].all()) for i in range(len(batch)))
    batch = batch if written_to_the_end else awkward(seed, GRAINS[:2])
    np.testing.assert_allclose(min_form(batch, baseline=baseline), twin(batch, "min", 0.1, baseline), atol=1e-9)
    np.testing.assert_allclose(sum_form(batch, baseline=baseline), twin(batch, "sum", 0.1, baseline), atol=1e-9)


def answers(rows: list[list[float]], tokens: int = 2, outcome: list[float] | None = None) -> Batch:
    """Samples of one group, a step's reward each number, every step of so many tokens."""
    samples = []
    for steps in rows:
        t = tokens * len(steps)
        spans = {"step": [(tokens * k, tokens * (k + 1)) for k in range(len(steps))]}
        samples.append(Sample(Task("t", "p"), "", np.array([1]), np.arange(t), None, np.ones(t, bool), np.zeros(t), spans=spans))
    return collate(samples, Rewards(Grain.of(outcome) if outcome else None, Grain.ragged(rows)), dtype=torch.float64)


def test_a_cold_softmax_is_the_minimum_up_to_the_worst_step_and_nothing_behind_it():
    batch = answers([[0.9, -0.5, 0.8, 0.7]])
    np.testing.assert_allclose(min_form(batch, temperature=1e-3, baseline="none")[0], [-0.5] * 4 + [0.0] * 4, atol=1e-9)
    np.testing.assert_allclose(sum_form(batch, baseline="none")[0, ::2], [1.9, 1.0, 1.5, 0.7])


def test_steps_that_are_added_never_raise_the_minimum_and_always_the_sum():
    short, long = answers([[0.6, -0.2]]), answers([[0.9] * 5 + [0.6, -0.2]])
    assert float(min_form(long, 1e-3, "none")[0, 0]) <= float(min_form(short, 1e-3, "none")[0, 0]) + 1e-9
    assert float(sum_form(long, "none")[0, 0]) > 4 + float(sum_form(short, "none")[0, 0])


@given(seed=seeds)
def test_one_step_is_the_outcome_method_of_that_steps_reward(seed):
    values = np.random.default_rng(seed).normal(size=4).tolist()
    by_step = answers([[v] for v in values])
    by_outcome = answers([[v] for v in values], outcome=values)
    for baseline in ("step", "token"):  # steps of equal length: off every token as often is off every step
        np.testing.assert_allclose(min_form(by_step, baseline=baseline), rloo(by_outcome), atol=1e-12)
    twice = min_form(by_outcome, baseline="step")
    np.testing.assert_allclose(twice, 2 * rloo(by_outcome), atol=1e-12)
    np.testing.assert_allclose(min_form(by_outcome, baseline="step", outcome=0.0), rloo(by_outcome), atol=1e-12)


def test_what_cannot_be_is_refused():
    batch = answers([[1.0]])
    with pytest.raises(Refused, match="temperature is above 0"):
        min_form(batch, temperature=0.0)
    with pytest.raises(Refused, match="token, step or none, not 'mean'"):
        sum_form(batch, baseline="mean")  # type: ignore[arg-type]
    with pytest.raises(Refused, match="needs step rewards"):
        min_form(collate([Sample(Task("t", "p"), "", np.array([1]), np.array([1]))], Rewards(Grain.of([1.0]))))

"""Group credit against the plainest loops over samples and tokens."""

from __future__ import annotations

import statistics

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from guerdon.credit import dr_grpo, grpo, reinforce_pp, rloo
from guerdon.registry import Refused
from guerdon.samples import Batch, Grain, Rewards, Sample, State, Task, collate

seeds = st.integers(0, 2**32 - 1)


def judged(batch: Batch, i: int) -> bool:
    assert batch.rewards.outcome is not None
    return bool(batch.rewards.alive[i]) and batch.rewards.outcome.state[i] == State.SCORED


def outcomes_of_group(batch: Batch, i: int) -> list[float]:
    assert batch.rewards.outcome is not None
    mates = [j for j in range(len(batch)) if batch.group[j] == batch.group[i] and judged(batch, j)]
    return [float(batch.rewards.outcome.value[j]) for j in mates]


def by_hand(batch: Batch, of_sample) -> list[list[float]]:
    """of_sample(r, outcomes of its group) on every written token of a judged sample, 0 elsewhere."""
    assert batch.rewards.outcome is not None
    out = [[0.0] * batch.ids.shape[1] for _ in range(len(batch))]
    for i in range(len(batch)):
        for t in range(int(batch.lengths[i])):
            if judged(batch, i) and batch.mask[i, t]:
                out[i][t] = of_sample(float(batch.rewards.outcome.value[i]), outcomes_of_group(batch, i))
    return out


def grpo_by_hand(r: float, group: list[float]) -> float:
    if len(group) < 2 or len(set(group)) == 1:
        return 0.0
    return (r - statistics.fmean(group)) / (statistics.stdev(group) + 1e-6)


def dr_grpo_by_hand(r: float, group: list[float]) -> float:
    return r - statistics.fmean(group) if len(group) > 1 else 0.0


def rloo_by_hand(r: float, group: list[float]) -> float:
    if len(group) < 2:
        return 0.0
    others = list(group)
    others.remove(r)
    return r - statistics.fmean(others)


HANDS = [(grpo, grpo_by_hand), (dr_grpo, dr_grpo_by_hand), (rloo, rloo_by_hand)]


@pytest.mark.parametrize(("estimator", "hand"), HANDS)
@pytest.mark.parametrize("grains", [("outcome",), ("outcome", "step", "token")])
@given(seed=seeds)
def test_equals_the_loop(awkward, estimator, hand, grains, seed):
    batch = awkward(seed, grains)
    torch.testing.assert_close(estimator(batch).tolist(), by_hand(batch, hand), rtol=1e-9, atol=1e-9)


@given(seed=seeds, gamma=st.sampled_from([1.0, 0.9, 0.0]), group_baseline=st.booleans())
def test_reinforce_pp_equals_the_loop(awkward, seed, gamma, group_baseline):
    batch = awkward(seed, ("outcome", "step", "token"))
    to_go = {}
    for i in range(len(batch)):
        if not batch.rewards.alive[i]:
            continue
        shift = statistics.fmean(outcomes_of_group(batch, i)) if group_baseline and judged(batch, i) else 0.0
        times = [t for t in range(int(batch.lengths[i])) if batch.mask[i, t]]
        for at, t in enumerate(times):
            to_go[i, t] = sum(gamma ** (later - at) * r for later, r in enumerate(rewards_on(batch, i, times, shift)) if later >= at)
    values = list(to_go.values())
    expected = [[0.0] * batch.ids.shape[1] for _ in range(len(batch))]
    for (i, t), g in to_go.items():
        expected[i][t] = (g - statistics.fmean(values)) / (statistics.stdev(values) + 1e-8) if len(values) > 1 else 0.0
    torch.testing.assert_close(reinforce_pp(batch, gamma, group_baseline).tolist(), expected, rtol=1e-6, atol=1e-6)


def rewards_on(batch: Batch, i: int, times: list[int], shift: float) -> list[float]:
    """Rewards of the written tokens `times`: one on an unwritten token goes to the last written before, or to the first."""
    placed = [0.0] * int(batch.lengths[i])
    rewards = batch.rewards
    if rewards.token is not None:
        for t in range(len(placed)):
            placed[t] += rewards.token.value[i, t]
    if rewards.step is not None:
        for s in range(rewards.step.value.shape[1]):
            tokens = [t for t in range(len(placed)) if batch.step_of[i, t] == s]
            if tokens:
                placed[tokens[-1]] += rewards.step.value[i, s]
    if rewards.outcome is not None and placed:
        placed[-1] += rewards.outcome.value[i] - shift
    out = [0.0] * len(times)
    for t, r in enumerate(placed):
        if times:
            before = [k for k, at in enumerate(times) if at <= t]
            out[before[-1] if before else 0] += r
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.1, 1000.1, -1e6 / 3])
def test_equal_rewards_give_exact_zeros(value, dtype):
    """The rounding error of a mean, divided by a standard deviation that is one too, is no signal."""
    for estimator in (grpo, dr_grpo, rloo, reinforce_pp, lambda b: reinforce_pp(b, group_baseline=True)):
        assert not estimator(answers([[value] * 7, [value] * 3], dtype)).any()
    baselined = reinforce_pp(answers([[value] * 7, [2 * value] * 3], dtype), group_baseline=True)
    assert not baselined.any()


def answers(groups: list[list[float]], dtype: torch.dtype = torch.float64, tokens: int = 2) -> Batch:
    samples = [
        Sample(Task(str(g), "p"), "", torch.ones(1).numpy(), torch.ones(tokens).numpy(), group=g) for g, rs in enumerate(groups) for _ in rs
    ]
    return collate(samples, Rewards(Grain.of([r for rs in groups for r in rs])), dtype=dtype)


def test_numbers_worked_out_by_hand():
    batch = answers([[0, 0, 1, 3], [5]])
    half = 2**0.5  # mean 1, variance (1 + 1 + 0 + 4) / 3 = 2
    assert grpo(batch)[:, 0].tolist() == pytest.approx([-1 / half, -1 / half, 0, 2 / half, 0], abs=1e-5)
    assert dr_grpo(batch)[:, 1].tolist() == [-1, -1, 0, 2, 0]
    assert rloo(batch)[:, 0].tolist() == pytest.approx([-4 / 3, -4 / 3, 0, 8 / 3, 0])


@pytest.mark.parametrize("estimator", [grpo, dr_grpo, rloo])
@given(seed=seeds, shift=st.floats(-5, 5))
def test_a_constant_added_to_a_group_changes_nothing(awkward, estimator, seed, shift):
    batch, moved = awkward(seed), awkward(seed)
    first = moved.group == moved.group[0]
    moved.rewards.outcome.value[(first & moved.alive).numpy()] += shift
    torch.testing.assert_close(estimator(batch), estimator(moved), rtol=1e-6, atol=1e-6)


@given(seed=seeds, factor=st.floats(0.5, 100))
def test_scaling_leaves_grpo_and_scales_the_others(awkward, seed, factor):
    batch, scaled = awkward(seed), awkward(seed)
    scaled.rewards.outcome.value *= factor
    torch.testing.assert_close(grpo(batch, eps=0.0).nan_to_num(), grpo(scaled, eps=0.0).nan_to_num(), rtol=1e-6, atol=1e-6)
    for estimator in (dr_grpo, rloo):
        torch.testing.assert_close(estimator(batch) * factor, estimator(scaled), rtol=1e-6, atol=1e-6)


@given(seed=seeds)
def test_group_advantages_add_up_to_zero(awkward, seed):
    batch = awkward(seed)
    for estimator in (grpo, dr_grpo, rloo):
        one_a_sample = torch.where(batch.mask.any(1), estimator(batch).sum(1) / batch.mask.sum(1).clamp(min=1), 0)
        for g in batch.group.unique():
            rows = (batch.group == g) & batch.alive
            if batch.mask[rows].any(1).all():
                assert abs(float(one_a_sample[rows].sum())) < 1e-9


@given(seed=seeds)
def test_reinforce_pp_has_mean_0_and_deviation_1(awkward, seed):
    batch = awkward(seed, ("outcome", "token"))
    a = reinforce_pp(batch)[batch.mask & batch.alive[:, None]]
    if len(a) > 1 and float(a.std()) > 0:
        assert float(a.mean()) == pytest.approx(0, abs=1e-9)
        assert float(a.std()) == pytest.approx(1, abs=1e-6)


def test_an_abstained_outcome_is_in_no_baseline():
    """A sample that lives by another grain alone has no outcome to compare: 0 is not its outcome."""
    batch = answers([[1, 2, 0]])
    rewards = Rewards(Grain.of([1, 2, 0], [0, 0, State.ABSTAINED]), token=Grain.ragged([[0.1], [0.1], [0.1]]))
    batch.rewards = rewards
    assert batch.alive.tolist() == [True, True, True]
    assert dr_grpo(batch)[:, 0].tolist() == [-0.5, 0.5, 0]


def test_refuses_rewards_without_outcome():
    batch = answers([[1, 2]])
    batch.rewards = Rewards(step=Grain.ragged([[1.0], [2.0]]))
    for estimator in (grpo, dr_grpo, rloo, lambda b: reinforce_pp(b, group_baseline=True)):
        with pytest.raises(Refused, match="outcome reward"):
            estimator(batch)

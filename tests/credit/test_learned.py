"""Credit of models that learn beside the policy, against plain loops from the formulas, and against the limits it must have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.credit import dr_grpo, grpo, istar, oreal, prime, rloo, step_gae, sum_form
from guerdon.registry import Refused
from guerdon.samples import Batch, Grain, Rewards, Sample, Task, collate

seeds = st.integers(0, 2**32 - 1)


def answers(token: Sequence[Sequence[float]], outcome: Sequence[float] | None = None, size: int = 2) -> Batch:
    """Samples of one group with a reward at each token; steps of so many tokens."""
    samples = []
    for row in token:
        t = len(row)
        spans = {"step": [(a, min(a + size, t)) for a in range(0, t, size)]}
        samples.append(Sample(Task("t", "p"), "", np.array([1]), np.arange(t), None, np.ones(t, bool), np.zeros(t), spans=spans))
    return collate(samples, Rewards(Grain.of(outcome) if outcome else None, token=Grain.ragged(token)), dtype=torch.float64)


def written(batch: Batch, i: int) -> list[int]:
    return np.flatnonzero(batch.mask[i].numpy()).tolist() if batch.rewards.alive[i] else []


def token_reward(batch: Batch, i: int, u: int) -> float:
    grain = batch.rewards.token
    assert grain is not None
    return float(grain.value[i, u]) if u < grain.value.shape[1] else 0.0


def leave_one_out(batch: Batch, i: int) -> float:
    """The outcome less the mean of the others' in the group; 0 where there are no two."""
    outcome, group = batch.rewards.outcome, batch.group.tolist()
    assert outcome is not None
    judged = [j for j in range(len(batch)) if group[j] == group[i] and batch.rewards.alive[j] and outcome.scored[j]]
    if i not in judged or len(judged) < 2:
        return 0.0
    return float(outcome.value[i] - np.mean([outcome.value[j] for j in judged if j != i]))


def prime_twin(batch: Batch, process: float, outcome: float) -> np.ndarray:
    n, group = len(batch), batch.group.tolist()
    largest = max((abs(sum(token_reward(batch, i, u) for u in written(batch, i)[k:])) for i in range(n) for k in range(9)), default=0)
    returns: dict[tuple[int, int], float] = {}
    for i in range(n):
        members = [j for j in range(n) if group[j] == group[i] and written(batch, j)]
        if len(members) < 2:
            continue
        means = {j: sum(token_reward(batch, j, u) for u in written(batch, j)) / len(written(batch, j)) / (largest + 1e-6) for j in members}
        k = len(members)
        later = 0.0
        for u in reversed(written(batch, i)):
            d = token_reward(batch, i, u) / (largest + 1e-6)
            later += d * k / (k - 1) - sum(means.values()) / (k - 1)
            returns[i, u] = process * later + outcome * leave_one_out(batch, i)
    out = np.zeros(batch.ids.shape)
    if len(returns) > 1:
        mean, variance = np.mean(list(returns.values())), np.var(list(returns.values()), ddof=1)
        for cell, value in returns.items():
            out[cell] = (value - mean) / math.sqrt(variance + 1e-8)
    return out


@pytest.mark.parametrize(("process", "outcome"), [(1.0, 1.0), (5.0, 1.0), (1.0, 0.0), (0.0, 1.0)])
@given(seed=seeds)
def test_prime_against_a_plain_loop(awkward, process, outcome, seed):
    batch = awkward(seed, ("outcome", "token"))
    found, expected = prime(batch, process, outcome).numpy(), prime_twin(batch, process, outcome)
    if np.abs(found).max(initial=0) > 0:  # equal returns are exactly 0, where a loop divides rounding errors by 1e-4
        np.testing.assert_allclose(found, expected, atol=1e-6)
    else:
        assert np.abs(expected).max(initial=0) < 1e-6


def test_prime_by_hand():
    """Rewards 3 1 and 0 -2: from the end 4 1 and -2 -2, so the scale is 4. Means 0.5 and -0.25; n / (n - 1) = 2."""
    batch = answers([[3.0, 1.0], [0.0, -2.0]], [1.0, 0.0])
    d = np.array([[0.75, 0.25], [0.0, -0.5]]) / (1 + 2.5e-7)
    r = 2 * d - np.array([[0.25, 0.25]])  # 0.5 - 0.25, once more as n - 1 is 1
    returns = np.array([[r[0].sum() + 1, r[0, 1] + 1], [r[1].sum() - 1, r[1, 1] - 1]])
    expected = (returns - returns.mean()) / np.sqrt(returns.var(ddof=1) + 1e-8)
    np.testing.assert_allclose(prime(batch), expected, atol=1e-9)


@given(seed=seeds, factor=st.sampled_from([1e-3, 0.05, 40.0]))
def test_prime_forgets_the_scale_of_its_rewards(seed, factor):
    rng = np.random.default_rng(seed)
    token = [rng.normal(size=4).tolist() for _ in range(4)]
    scaled = [[factor * x for x in row] for row in token]
    np.testing.assert_allclose(
        prime(answers(token, [1, 0, 1, 0])), prime(answers(scaled, [1, 0, 1, 0])), atol=2e-2 if factor < 0.01 else 1e-4
    )


def test_prime_without_process_is_whitened_rloo():
    batch = answers([[3.0, 1.0], [0.0], [1.0, 1.0, -4.0]], [1.0, 0.0, 0.0])
    plain, live = rloo(batch), batch.mask
    white = (plain - plain[live].mean()) / (plain[live].var() + 1e-8).sqrt()
    torch.testing.assert_close(prime(batch, process=0.0), torch.where(live, white, 0.0))


def istar_twin(batch: Batch, alpha: float, normaliser: str, scale: bool) -> np.ndarray:
    n, group, of = len(batch), batch.group.tolist(), batch.step_of.numpy()
    rewards: dict[tuple[int, int], float] = {}
    for i in range(n):
        for k in sorted({int(of[i, u]) for u in written(batch, i)} - {-1}):
            rewards[i, k] = sum(token_reward(batch, i, u) for u in written(batch, i) if of[i, u] == k)
    most = max((abs(r) for r in rewards.values()), default=0.0)
    rewards = {cell: r / (most + 1e-6) if scale else r for cell, r in rewards.items()}
    out = np.zeros(batch.ids.shape)
    for (i, k), r in rewards.items():
        pool = [x for (j, _), x in rewards.items() if group[j] == group[i]]
        a = r - np.mean(pool) if len(set(pool)) > 1 else 0.0
        if normaliser == "rloo":
            a *= len(pool) / max(len(pool) - 1, 1)
        elif normaliser == "std" and len(pool) > 1:
            a /= np.std(pool, ddof=1) + 1e-6
        for u in written(batch, i):
            following = [int(of[i, v]) for v in range(u, of.shape[1]) if of[i, v] >= 0]
            if following[:1] == [k]:
                out[i, u] = alpha * a
    return out + {"rloo": rloo, "mean": dr_grpo, "std": grpo}[normaliser](batch).numpy()


@pytest.mark.parametrize(("normaliser", "scale"), [("rloo", True), ("mean", False), ("std", True)])
@given(seed=seeds)
def test_istar_against_a_plain_loop(awkward, normaliser, scale, seed):
    batch = awkward(seed, ("outcome", "token"))
    np.testing.assert_allclose(istar(batch, 0.7, normaliser, scale), istar_twin(batch, 0.7, normaliser, scale), atol=1e-7)


@given(seed=seeds)
def test_istar_without_steps_is_what_it_extends(awkward, seed):
    batch = awkward(seed, ("outcome", "token"))
    for normaliser, plain in (("rloo", rloo), ("mean", dr_grpo), ("std", grpo)):
        assert torch.equal(istar(batch, 0.0, normaliser), plain(batch))


def test_istar_takes_the_mean_over_all_steps_of_the_group():
    """Steps 3 1 | -2 | 2 of three answers: their mean is 1, and n / (n - 1) of what is above it is 4/3 of 2 0 -3 1."""
    batch = answers([[1.0, 2.0, 0.5, 0.5], [-2.0, 0.0], [1.0, 1.0]])
    expected = np.array([[2, 2, 0, 0], [-3, -3, 0, 0], [1, 1, 0, 0]]) * 4 / 3
    np.testing.assert_allclose(istar(batch, scale=False), expected, atol=1e-12)
    steps = replace(batch, rewards=Rewards(step=Grain.ragged([[3.0, 1.0], [-2.0], [2.0]])))
    np.testing.assert_allclose(istar(steps, scale=False), expected, atol=1e-12)
    np.testing.assert_allclose(istar(steps), expected / (3 + 1e-6), atol=1e-12)


def oreal_twin(batch: Batch, threshold: float) -> np.ndarray:
    out = np.zeros(batch.ids.shape)
    for i in range(len(batch)):
        a, seen = leave_one_out(batch, i), []
        for u in written(batch, i):
            seen.append(float(batch.fields["values/token_rm"][i, min(u + 1, int(batch.lengths[i]) - 1)]))
            p = 1 / (1 + math.exp(-sum(seen) / len(seen)))
            sure = p if a > 0 else 1 - p
            out[i, u] = a * min(1.0, max(0.0, (sure - threshold) / (1 - threshold)))
    return out


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8])
@given(seed=seeds)
def test_oreal_against_a_plain_loop(awkward, threshold, seed):
    batch = awkward(seed)
    batch.fields["values/token_rm"] = torch.from_numpy(np.random.default_rng(seed).normal(size=batch.ids.shape) * 2)
    np.testing.assert_allclose(oreal(batch, threshold), oreal_twin(batch, threshold), atol=1e-9)


def test_one_right_of_sixteen():
    """RLOO gives 1 and -1/15; a model that is sure of the right one gives it all, one that knows nothing gives nobody anything."""
    batch = answers([[0.0, 0.0]] * 16, [1.0] + [0.0] * 15)
    batch.fields["values/token_rm"] = torch.cat([torch.full((1, 2), 40.0), torch.full((15, 2), -40.0)]).double()
    found = oreal(batch)
    np.testing.assert_allclose(found[0], 1.0)
    np.testing.assert_allclose(found[1:], -1 / 15)
    batch.fields["values/token_rm"] *= 0
    assert not oreal(batch).any()


def step_gae_twin(batch: Batch, gamma: float, lam: float) -> np.ndarray:
    grain, of = batch.rewards.step, batch.step_of.numpy()
    assert grain is not None
    out = np.zeros(batch.ids.shape)
    for i in range(len(batch)):
        mine = written(batch, i)
        steps = sorted({int(of[i, u]) for u in mine} - {-1})
        reward = [float(grain.value[i, k]) if k < grain.value.shape[1] and grain.scored[i, k] else 0.0 for k in steps]
        value = [float(batch.fields["values"][i, min(u for u in mine if of[i, u] == k)]) for k in steps] + [0.0]
        delta = [reward[j] + gamma * value[j + 1] - value[j] for j in range(len(steps))]
        a = {k: sum((gamma * lam) ** (m - j) * delta[m] for m in range(j, len(steps))) for j, k in enumerate(steps)}
        for u in mine:
            following = [int(of[i, v]) for v in range(u, of.shape[1]) if of[i, v] >= 0]
            out[i, u] = a.get(following[0], 0.0) if following else 0.0
    return out


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (0.0, 1.0)])
@given(seed=seeds)
def test_step_gae_against_a_plain_loop(awkward, gamma, lam, seed):
    batch = awkward(seed, ("step",))
    np.testing.assert_allclose(step_gae(batch, gamma, lam), step_gae_twin(batch, gamma, lam), atol=1e-9)


@given(seed=seeds)
def test_step_gae_without_a_critic_is_the_return(awkward, seed):
    batch = awkward(seed, ("step",))
    batch.fields["values"] = torch.zeros_like(batch.fields["values"])
    inside = batch.step_of >= 0  # a token before a step in which only a tool wrote has that step's: 0 here, the return behind it there
    found, plain = step_gae(batch, 1.0, 1.0), sum_form(batch, "none")
    torch.testing.assert_close(found[inside], plain[inside])


def test_what_cannot_be_is_refused():
    batch = collate([Sample(Task("t", "p"), "", np.array([1]), np.array([1]))], Rewards(Grain.of([1.0])))
    for credit in (prime, istar):
        with pytest.raises(Refused, match="needs token rewards"):
            credit(batch)
    with pytest.raises(Refused, match="needs step rewards"):
        step_gae(batch)
    with pytest.raises(Refused, match="is rloo, mean or std"):
        istar(batch, normaliser="none")  # type: ignore[arg-type]
    with pytest.raises(Refused, match="below 1"):
        oreal(batch, threshold=1.0)
    with pytest.raises(Refused, match="values/token_rm"):
        oreal(batch)

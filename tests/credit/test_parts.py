"""Credit over parts against a loop over samples and tokens."""

from __future__ import annotations

from collections.abc import Mapping

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.credit import constrained, critic_view, kl_reward
from guerdon.credit.parts import part_of
from guerdon.registry import Refused
from guerdon.samples import Batch, Grain, Part, Rewards, State, Task
from guerdon.training.run import train

seeds = st.integers(0, 2**32 - 1)


def with_parts(batch: Batch, seed: int, factors: Mapping[str, float | None], kl: bool) -> Batch:
    """Random parts, some values abstained, each with random values of a critic; and the penalty's part."""
    rng = np.random.default_rng(seed)
    for name, factor in factors.items():
        state = np.where(rng.random(len(batch)) < 0.2, State.ABSTAINED, State.SCORED)
        batch.rewards.parts[name] = Part(Rewards(Grain.of(rng.normal(size=len(batch)), state)), factor)
    if kl:
        batch = kl_reward(batch, 0.3)
    for name in [*factors, *["kl"] * kl]:
        batch.fields[f"values/{name.split('(')[0]}"] = torch.from_numpy(rng.normal(size=batch.ids.shape))
    return batch


def advantages_by_loop(batch: Batch, rewards: Rewards, values: torch.Tensor, gamma: float, lam: float) -> dict[tuple[int, int], float]:
    """GAE of one part, whitened, by row and token."""
    out: dict[tuple[int, int], float] = {}
    for i in range(len(batch)):
        if not (batch.rewards.alive[i] and rewards.alive[i]):
            continue
        times = [t for t in range(int(batch.lengths[i])) if batch.mask[i, t]]
        r = dict.fromkeys(times, 0.0)
        for t in range(int(batch.lengths[i])):
            found = float(rewards.token.value[i, t]) if rewards.token is not None else 0.0
            if rewards.outcome is not None and t == int(batch.lengths[i]) - 1:
                found += float(rewards.outcome.value[i])
            if times:
                r[max([u for u in times if u <= t], default=times[0])] += found
        after = 0.0
        for k in reversed(range(len(times))):
            next_value = float(values[i, times[k + 1]]) if k + 1 < len(times) else 0.0
            after = r[times[k]] + gamma * next_value - float(values[i, times[k]]) + gamma * lam * after
            out[i, times[k]] = after
    if not out:
        return out
    mean, std = np.mean(list(out.values())), np.std(list(out.values()))
    return {cell: float((x - mean) / (std + 1e-8)) for cell, x in out.items()}


@pytest.mark.parametrize("kl", [True, False])
@given(seed=seeds, gamma=st.sampled_from([1.0, 0.9]), lam=st.sampled_from([1.0, 0.95, 0.0]))
def test_equals_the_loop(awkward, kl, seed, gamma, lam):
    factors = {"one": 0.7, "two(target=3)": -0.4}
    batch = with_parts(awkward(seed), seed, factors, kl)
    expected = np.zeros(batch.ids.shape)
    for name, weight in [*factors.items(), *[("kl", 2 - 0.7 + 0.4)] * kl]:
        values = batch.fields[f"values/{name.split('(')[0]}"]
        for (i, t), x in advantages_by_loop(batch, batch.rewards.parts[name].rewards, values, gamma, lam).items():
            expected[i, t] += weight * x
    np.testing.assert_allclose(constrained(batch, gamma, lam), expected, rtol=1e-6, atol=1e-6)


@given(seed=seeds)
def test_the_scale_of_a_part_does_not_matter_its_factor_does(awkward, seed):
    batch = with_parts(awkward(seed), seed, {"one": 0.5}, kl=False)
    before = constrained(batch)
    batch.rewards.parts["one"] = Part(batch.rewards.parts["one"].rewards.map(lambda g: 1000 * g.value), 0.25)
    batch.fields["values/one"] = 1000 * batch.fields["values/one"]
    torch.testing.assert_close(constrained(batch), before / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.1, 1e4 + 0.3])
def test_equal_advantages_are_zero(awkward, dtype, value):
    batch = awkward(3, dtype=dtype, n=9)
    batch.rewards.parts["one"] = Part(Rewards(Grain.of(np.full(len(batch), value))), 1.0)
    batch.fields["values/one"] = torch.zeros(batch.ids.shape, dtype=dtype)
    assert not constrained(batch, lam=1.0).any()


def test_a_critic_sees_the_rewards_of_its_part_alone(awkward):
    batch = with_parts(awkward(1, n=6), 1, {"one": 0.5, "two": 0.5}, kl=False)
    view = critic_view(batch, "values/two")
    assert view.rewards is batch.rewards.parts["two"].rewards
    assert view.fields["values"] is batch.fields["values/two"]
    assert critic_view(batch, "values") is batch


def test_parts_are_found_by_name_and_others_are_refused(awkward):
    batch = with_parts(awkward(1, n=6), 1, {"one": 0.5, "two(target=3)": None, "two(target=4)": 0.1}, kl=False)
    assert part_of(batch.rewards.parts, "one").coefficient == 0.5
    assert part_of(batch.rewards.parts, "two(target=4)").coefficient == 0.1
    for name in ("two", "on"):
        with pytest.raises(Refused, match=f"critic of '{name}' needs one part"):
            part_of(batch.rewards.parts, name)
    batch.rewards.parts.pop("two(target=4)")
    with pytest.raises(Refused, match="'two' enters the reward through more than a factor"):
        constrained(batch)


def test_a_part_that_is_no_summand_is_refused_before_a_run_begins(tmp_path):
    table = {"backend": "tabular", "vocab": "ab"}
    with pytest.raises(Refused, match="'exact' enters the reward through more than a factor"):
        train(
            models={"policy": table, "critic/exact": {**table, "head": "scalar"}}, tasks=[Task("0", "q", "a")], critic={},
            reward="exact | clip(0, 1)", credit="constrained", rollout={"use": "parallel", "max_tokens": 1}, folder=tmp_path / "run",
        )  # fmt: skip
    assert not (tmp_path / "run" / "metrics.jsonl").exists()

"""Losses against the plainest loops over tokens, and numbers worked out by hand."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.credit import gpg, three_sigma
from guerdon.losses import (
    cispo,
    entropy_bonus,
    gspo,
    kl,
    kl_to_reference,
    logprob_gap,
    policy_gradient,
    ppo_clip,
    ppo_tis,
    sft,
    stable_reinforce,
    value_mse,
)
from guerdon.registry import Refused
from guerdon.samples import Batch, Grain, Rewards, Sample, Task, collate

seeds = st.integers(0, 2**32 - 1)


def outputs(batch: Batch, seed: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    made = {"logprobs": -rng.exponential(1.0, batch.ids.shape), "entropy": rng.exponential(1.0, batch.ids.shape)}
    made["values"] = rng.normal(size=batch.ids.shape)
    return {name: torch.from_numpy(x).to(batch.weights.dtype) for name, x in made.items()}


def total(batch: Batch, term) -> float:
    """The sum of w * term(i, t) over the tokens that count."""
    cells = [(i, t) for i in range(len(batch)) for t in range(int(batch.lengths[i])) if float(batch.weights[i, t]) != 0]
    return sum(float(batch.weights[i, t]) * term(i, t) for i, t in cells)


@given(seed=seeds)
def test_policy_gradient_sft_and_entropy_equal_the_loop(awkward, seed):
    batch = awkward(seed)
    out = outputs(batch, seed)
    expected = total(batch, lambda i, t: -float(batch.advantages[i, t]) * float(out["logprobs"][i, t]))
    assert float(policy_gradient(out, batch)[0]) == pytest.approx(expected, abs=1e-9)
    assert float(sft(out, batch)[0]) == pytest.approx(total(batch, lambda i, t: -float(out["logprobs"][i, t])), abs=1e-9)
    expected = total(batch, lambda i, t: -0.3 * float(out["entropy"][i, t]))
    assert float(entropy_bonus(out, batch, 0.3)[0]) == pytest.approx(expected, abs=1e-9)


@given(seed=seeds, clip=st.sampled_from([0.1, 0.2]), clip_high=st.sampled_from([None, 0.28]))
def test_ppo_clip_equals_the_loop(awkward, seed, clip, clip_high):
    batch = awkward(seed)
    out = outputs(batch, seed)
    high = 1 + (clip if clip_high is None else clip_high)

    def ratio(i: int, t: int) -> float:
        return math.exp(float(out["logprobs"][i, t])) / math.exp(float(batch.fields["logprobs"][i, t]))

    def term(i: int, t: int) -> float:
        a = float(batch.advantages[i, t])
        if a >= 0:  # only a ratio that is too high is held back, below only one that is too low
            return -min(ratio(i, t), high) * a
        return -max(ratio(i, t), 1 - clip) * a

    def clipped(i: int, t: int) -> float:
        a = float(batch.advantages[i, t])
        return float((a > 0 and ratio(i, t) > high) or (a < 0 and ratio(i, t) < 1 - clip))

    loss, metrics = ppo_clip(out, batch, clip, clip_high)
    assert float(loss) == pytest.approx(total(batch, term), rel=1e-9, abs=1e-9)
    assert float(metrics["clip_fraction"]) == pytest.approx(total(batch, clipped), abs=1e-9)


@given(seed=seeds)
def test_value_mse_equals_the_loop(awkward, seed):
    batch = awkward(seed)
    out = outputs(batch, seed)
    error = total(batch, lambda i, t: (float(out["values"][i, t]) - float(batch.fields["returns"][i, t])) ** 2)
    loss, metrics = value_mse(out, batch)
    assert float(loss) == pytest.approx(error / 2, abs=1e-9)
    assert float(metrics["value_error"]) == pytest.approx(error, abs=1e-9)


@given(seed=seeds)
def test_kl_equals_the_loop(awkward, seed):
    batch = awkward(seed)
    out = outputs(batch, seed)
    for estimator, of in {
        "k1": lambda p, q: math.log(p / q),
        "k2": lambda p, q: math.log(p / q) ** 2 / 2,
        "k3": lambda p, q: q / p - 1 + math.log(p / q),
    }.items():

        def term(i: int, t: int, of=of) -> float:
            return of(math.exp(float(out["logprobs"][i, t])), math.exp(float(batch.fields["ref_logprobs"][i, t])))

        loss, metrics = kl(out, batch, 0.3, estimator)
        assert float(loss) == pytest.approx(0.3 * total(batch, term), rel=1e-9, abs=1e-9)
        assert float(metrics["kl_loss"]) == float(loss)
        if estimator == "k3":
            zero, metrics = kl_to_reference(out, batch)
            assert float(zero) == 0
            assert float(metrics["kl"]) == pytest.approx(total(batch, term), rel=1e-9, abs=1e-9)


@given(seed=seeds)
def test_logprob_gap_equals_the_loop(awkward, seed):
    batch = awkward(seed)
    out = outputs(batch, seed)
    zero, metrics = logprob_gap(out, batch)
    gap = total(batch, lambda i, t: abs(float(out["logprobs"][i, t]) - float(batch.fields["logprobs"][i, t])))
    assert float(zero) == 0
    assert float(metrics.get("logprob_gap", 0.0)) == pytest.approx(gap, abs=1e-9)
    assert ("logprob_gap" in metrics) == bool((batch.weights != 0).any())


def one_token(advantage: float, old: float, weight: float = 1.0) -> Batch:
    sample = Sample(Task("a", "p"), "", np.ones(1), np.ones(1), logprobs=np.array([math.log(old)]))
    batch = collate([sample], Rewards(Grain.of([0.0])), dtype=torch.float64)
    batch.advantages += advantage
    batch.weights *= weight
    return batch


def now(p: float) -> dict[str, torch.Tensor]:
    return {"logprobs": torch.tensor([[math.log(p)]], dtype=torch.float64, requires_grad=True)}


@pytest.mark.parametrize(
    ("advantage", "p", "loss", "gradient"),
    [  # the old probability is 0.5; d loss / d log p = -A r where the ratio is free, 0 where it is held
        (2, 0.55, -2.2, -2.2), (2, 0.63, -2.52, -2.52), (2, 0.7, -2.56, 0), (2, 0.1, -0.4, -0.4),
        (-2, 0.45, 1.8, 1.8), (-2, 0.3, 1.6, 0), (-2, 0.9, 3.6, 3.6),
    ],
)  # fmt: skip
def test_ppo_clip_higher_by_hand(advantage, p, loss, gradient):
    out = now(p)
    value, _ = ppo_clip(out, one_token(advantage, 0.5), 0.2, 0.28)
    value.backward()
    assert value.item() == pytest.approx(loss)
    assert out["logprobs"].grad is not None
    assert float(out["logprobs"].grad) == pytest.approx(gradient)


def test_rows_without_sampling_log_probabilities_are_refused_only_where_they_count():
    batch = one_token(1, 0.5)
    batch.fields["logprobs"][:] = torch.nan
    batch.fields["logprobs/policy"] = torch.zeros_like(batch.fields["logprobs"])
    for loss in (ppo_clip, cispo, stable_reinforce, ppo_tis, gspo):
        with pytest.raises(Refused, match="sft"):
            loss(now(0.5), batch)
    assert logprob_gap(now(0.5), batch)[1] == {}
    batch.weights *= 0
    value, _ = ppo_clip(now(0.5), batch)
    assert value.item() == 0


def test_a_tool_token_beyond_belief_does_not_spoil_the_sum():
    """exp of 200 nats is infinite in float32; such a token has weight 0, and 0 times infinity is no number."""
    batch = one_token(1, 0.5, weight=0)
    batch.fields["ref_logprobs"] = torch.zeros(1, 1)
    out = {"logprobs": torch.tensor([[-200.0]], requires_grad=True)}
    value, _ = kl(out, batch)
    value.backward()
    assert value.item() == 0
    assert out["logprobs"].grad is not None
    assert float(out["logprobs"].grad) == 0


@given(seed=seeds)
def test_gradients_of_the_kl_estimators_on_fresh_samples(seed):
    """Enumerated over one token's vocabulary: k1 teaches nothing, k2 descends KL(policy, reference), k3 KL(reference, policy)."""
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.normal(size=5)).requires_grad_()
    ref = torch.from_numpy(rng.normal(size=5)).log_softmax(0)
    samples = [Sample(Task("a", "p"), "", np.ones(1), np.array([v])) for v in range(5)]
    batch = collate(samples, Rewards(Grain.of(np.zeros(5))), dtype=torch.float64)
    batch.fields["ref_logprobs"] = ref[:, None]
    p = z.detach().softmax(0)
    batch.weights = p[:, None].clone()
    policy = z.log_softmax(0)
    forward = (policy.exp() * (policy - ref)).sum()
    backward = (ref.exp() * (ref - policy)).sum()
    wanted = {"k1": torch.zeros(5, dtype=torch.float64)}
    wanted["k2"], wanted["k3"] = (torch.autograd.grad(x, z, retain_graph=True)[0] for x in (forward, backward))
    for estimator, expected in wanted.items():
        loss, _ = kl({"logprobs": policy[:, None]}, batch, 1.0, estimator)
        torch.testing.assert_close(torch.autograd.grad(loss, z, retain_graph=True)[0], expected, rtol=1e-9, atol=1e-12)
    # as rewards, all of k1 and k3 have the divergence as their mean; k2 only nearly
    for estimator in ("k1", "k3"):
        assert kl({"logprobs": policy[:, None]}, batch, 1.0, estimator)[0].item() == pytest.approx(forward.item(), abs=1e-12)


@given(seed=seeds, clip_high=st.sampled_from([0.28, 4.0]))
def test_cispo_equals_the_loop(awkward, seed, clip_high):
    batch = awkward(seed)
    out = outputs(batch, seed)

    def held(i: int, t: int) -> float:
        r = math.exp(float(out["logprobs"][i, t]) - float(batch.fields["logprobs"][i, t]))
        return min(r, 1 + clip_high)

    loss, _ = cispo(out, batch, clip_high=clip_high)
    expected = total(batch, lambda i, t: -held(i, t) * float(batch.advantages[i, t]) * float(out["logprobs"][i, t]))
    assert float(loss) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_cispo_leaves_no_token_without_a_gradient():
    """Where ppo_clip has none: a token that has become three times as likely keeps -1.28 A."""
    for advantage in (2, -2):
        out = now(0.9)
        loss, metrics = cispo(out, one_token(advantage, 0.3), clip_high=0.28)
        loss.backward()
        assert out["logprobs"].grad is not None
        assert float(out["logprobs"].grad) == pytest.approx(-1.28 * advantage)
        assert float(metrics["clip_fraction"]) == 1


@given(seed=seeds)
def test_ppo_tis_equals_the_loop_and_ppo_where_sampler_and_trainer_agree(awkward, seed):
    batch = awkward(seed)
    out = outputs(batch, seed)
    rng = np.random.default_rng([seed, 2])
    sampled = batch.fields["logprobs"]
    batch.fields["logprobs/policy"] = sampled + torch.from_numpy(rng.normal(size=batch.ids.shape))

    def term(i: int, t: int) -> float:
        new, recomputed, old = (float(x[i, t]) for x in (out["logprobs"], batch.fields["logprobs/policy"], sampled))
        r, a = math.exp(new) / math.exp(recomputed), float(batch.advantages[i, t])
        return -min(math.exp(recomputed) / math.exp(old), 2.0) * min(r * a, min(max(r, 0.8), 1.2) * a)

    assert float(ppo_tis(out, batch)[0]) == pytest.approx(total(batch, term), rel=1e-9, abs=1e-9)
    batch.fields["logprobs/policy"] = sampled.clone()
    loss, metrics = ppo_tis(out, batch)
    assert float(loss) == pytest.approx(float(ppo_clip(out, batch)[0]), rel=1e-12, abs=1e-12)
    assert float(metrics["cap_fraction"]) == 0


@given(seed=seeds)
def test_stable_reinforce_is_ppo_within_its_bound(awkward, seed):
    batch = awkward(seed)
    out = outputs(batch, seed)
    loss, metrics = stable_reinforce(out, batch, bound=1e30)
    assert float(loss) == float(ppo_clip(out, batch)[0])
    assert float(metrics["pre_clip_fraction"]) == 0

    def term(i: int, t: int) -> float:
        r = math.exp(min(max(float(out["logprobs"][i, t] - batch.fields["logprobs"][i, t]), -math.log(2)), math.log(2)))
        a = float(batch.advantages[i, t])
        return -min(r * a, min(max(r, 0.8), 1.2) * a)

    assert float(stable_reinforce(out, batch, bound=2.0)[0]) == pytest.approx(total(batch, term), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("gap", [0.1, 6.0, 90.0, 200.0])
def test_stable_reinforce_stays_finite_where_the_ratio_overflows(gap):
    """A token whose log-probability rose by `gap`, with A = -1, in float32: the free branch is A r, whatever r is."""
    old = torch.tensor([[-gap]])
    for fn, limit in ((ppo_clip, 88.0), (stable_reinforce, math.log(1e3))):
        batch = one_token(-1, 1.0)
        batch.weights, batch.advantages, batch.fields["logprobs"] = batch.weights.float(), batch.advantages.float(), old
        logp = torch.zeros(1, 1, requires_grad=True)
        loss, _ = fn({"logprobs": logp}, batch)
        loss.backward()
        assert bool(torch.isfinite(loss)) == (fn is stable_reinforce or gap < limit)
        assert logp.grad is not None
        if gap < limit:
            assert float(logp.grad) == pytest.approx(math.exp(gap), rel=1e-5)
        elif fn is stable_reinforce:
            assert float(logp.grad) == 0
            assert loss.item() == pytest.approx(1e3, rel=1e-5)


def rewarded(outcomes: list[float], groups: list[int] | None = None) -> Batch:
    """One-token answers."""
    samples = [
        Sample(Task("a", "p"), "", np.ones(1), np.ones(1), group=g) for g in (groups if groups is not None else range(len(outcomes)))
    ]
    return collate(samples, Rewards(Grain.of(outcomes)), dtype=torch.float64)


def test_one_reward_in_256_is_beyond_three_sigma():
    """Unfiltered it would be at (1 - 1/256) / sqrt(1/256) = 15.94, n - 1 aside; the others keep what they had."""
    advantages = three_sigma(rewarded([0.0] * 255 + [1.0]))[:, 0]
    assert float(advantages[-1]) == 0
    mean, std = 1 / 256, np.std([0.0] * 255 + [1.0], ddof=1)
    np.testing.assert_allclose(advantages[:-1], -mean / std, rtol=1e-6)
    assert float(three_sigma(rewarded([0.0] * 255 + [1.0]), sigma=20.0)[-1]) == pytest.approx((1 - mean) / std, rel=1e-6)
    assert not three_sigma(rewarded([0.3] * 8)).any()


def test_gpg_by_hand():
    """Four groups of two, in one of which both are right, in one both wrong: alpha = 4 / 2."""
    batch = rewarded([1, 1, 0, 0, 1, 0, 0, 3], [0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_allclose(gpg(batch)[:, 0], [0, 0, 0, 0, 1, -1, -3, 3])
    assert not gpg(rewarded([1, 1], [0, 0])).any()


@given(seed=seeds)
def test_gpg_equals_the_loop(awkward, seed):
    batch = awkward(seed)
    r, grain = batch.outcome.tolist(), batch.rewards.outcome
    rows = [i for i in range(len(batch)) if bool(batch.alive[i]) and grain.scored[i]]
    groups = {int(batch.group[i]): [r[j] for j in rows if batch.group[j] == batch.group[i]] for i in rows}
    mixed = [g for g, values in groups.items() if max(values) != min(values)]
    expected = torch.zeros_like(batch.weights)
    for i in rows:
        values = groups[int(batch.group[i])]
        if int(batch.group[i]) in mixed:
            expected[i] = (r[i] - sum(values) / len(values)) * len(groups) / len(mixed)
    torch.testing.assert_close(gpg(batch), expected * batch.mask, rtol=1e-9, atol=1e-12)


def test_a_run_with_recomputed_log_probabilities_is_the_plain_one_where_one_program_does_both(tmp_path):
    """Through the loop, which fills `logprobs/policy` before the first of the four updates: every number as with ppo_clip."""
    from guerdon.training.run import train

    found = {}
    for loss in ("ppo_clip", "ppo_tis"):
        found[loss] = train(
            seed=1, threads=1, models={"policy": {"backend": "tabular", "vocab": "01"}}, tasks=[Task("a", "?", "01"), Task("b", "!", "1")],
            reward="exact", rollout={"use": "parallel", "max_tokens": 3}, loss=loss,
            train={"steps": 3, "prompts": 2, "samples": 8, "lr": 0.1, "passes": 2, "minibatches": 2}, folder=tmp_path / loss,
        ).metrics  # fmt: skip
    for name in ("loss", "grad_norm", "clip_fraction"):
        plain, both = ([row[name] for row in found[loss] if name in row] for loss in ("ppo_clip", "ppo_tis"))
        assert plain == pytest.approx(both, rel=1e-9, abs=1e-12)
    assert any(row.get("clip_fraction", 0) > 0 for row in found["ppo_tis"])
    assert {row["cap_fraction"] for row in found["ppo_tis"] if "cap_fraction" in row} == {0.0}

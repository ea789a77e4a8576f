"""EMPG against a plain loop over samples and steps, and against GRPO where its terms are off."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.credit import empg, grpo
from guerdon.registry import Refused
from guerdon.samples import Batch, Grain, Rewards, Sample, Task, collate

seeds = st.integers(0, 2**32 - 1)


def twin(batch: Batch, k: float, k_future: float, zeta: float) -> np.ndarray:
    """The formula, one step and one token at a time."""
    base, of, mask = grpo(batch).numpy(), batch.step_of.numpy().copy(), batch.mask.numpy()
    entropy, alive = batch.fields["entropy"].numpy(), batch.alive.numpy()
    mean_entropy: dict[tuple[int, int], float] = {}
    for i in range(len(batch)):
        if (of[i] < 0).all():
            of[i] = 0
        for step in sorted(set(of[i].tolist()) - {-1}):
            tokens = [t for t in range(of.shape[1]) if of[i, t] == step and mask[i, t]]
            if tokens and alive[i]:
                mean_entropy[i, step] = float(np.mean([entropy[i, t] for t in tokens]))
    if not mean_entropy:
        return base
    low, high = min(mean_entropy.values()), max(mean_entropy.values())
    h = {key: (x - low) / (high - low + 1e-8) for key, x in mean_entropy.items()}
    scale = np.mean([np.exp(-k * x) for x in h.values()])
    moved = {}
    for (i, step), x in h.items():
        a = base[i][mask[i]].max(initial=-np.inf) if mask[i].any() else 0.0  # the same on every written token
        later = [h[j, s] for j, s in sorted(h) if j == i and s > step]
        moved[i, step] = a * np.exp(-k * x) / scale + (zeta * np.exp(-k_future * later[0]) if later else 0.0)
    mean = np.mean(list(moved.values()))
    out = np.zeros_like(base)
    for i in range(len(batch)):
        for t in range(of.shape[1]):
            if mask[i, t] and alive[i]:
                out[i, t] = moved.get((i, int(of[i, t])), base[i, t]) - mean
    return out


@given(seed=seeds)
def test_against_a_plain_loop(awkward, seed):
    batch = awkward(seed)
    np.testing.assert_allclose(empg(batch), twin(batch, 1.0, 1.0, 0.05), atol=1e-9)
    np.testing.assert_allclose(empg(batch, k=2.0, k_future=0.3, zeta=0.4), twin(batch, 2.0, 0.3, 0.4), atol=1e-9)


@given(seed=seeds)
def test_without_its_terms_it_is_grpo_less_a_constant(awkward, seed):
    batch = awkward(seed)
    live = batch.mask & batch.alive[:, None]
    shift = (grpo(batch) - empg(batch, k=0.0, zeta=0.0))[live]
    if len(shift):
        np.testing.assert_allclose(shift, float(shift[0]), atol=1e-9)


def four_steps(entropy: list[float], tool: bool = False) -> Batch:
    """Two samples of one group, right and wrong, with the same entropy in each of their steps of two tokens."""
    written = np.tile([True, not tool], len(entropy))
    spans = {"step": [(2 * i, 2 * i + 2) for i in range(len(entropy))]}
    samples = [Sample(Task("t", "p"), "", np.array([1]), np.arange(2 * len(entropy)), None, written, spans=spans) for _ in range(2)]
    batch = collate(samples, Rewards(Grain.of([1.0, 0.0])), dtype=torch.float64)
    batch.fields["entropy"] = torch.tensor(entropy, dtype=torch.float64).repeat_interleave(2).repeat(2, 1)
    return batch


def test_by_hand():
    """Entropies 0, 1, 0.5: g before its mean is 1, e^-1, e^-0.5; the bonus follows from the next step; the mean of all is the bonus's."""
    found = empg(four_steps([0.0, 1.0, 0.5]), zeta=0.1)
    g = np.exp([0.0, -1.0, -0.5])
    g = g / g.mean()
    bonus = 0.1 * np.array([np.exp(-1.0), np.exp(-0.5), 0.0])
    a = 0.5 / np.sqrt(0.5)
    np.testing.assert_allclose(found[0, ::2], a * g + bonus - bonus.mean(), atol=1e-5)
    np.testing.assert_allclose(found[1, ::2], -a * g + bonus - bonus.mean(), atol=1e-5)


def test_equal_entropies_leave_the_outcome_alone():
    batch = four_steps([0.7, 0.7, 0.7])
    np.testing.assert_allclose(empg(batch, zeta=0.0), grpo(batch), atol=1e-9)


def test_tokens_of_tools_are_in_no_entropy():
    batch = four_steps([0.0, 1.0, 0.5], tool=True)
    batch.fields["entropy"][:, 1::2] = 99.0
    found = empg(batch)
    np.testing.assert_allclose(found[:, ::2], empg(four_steps([0.0, 1.0, 0.5]))[:, ::2], atol=1e-9)
    assert not found[:, 1::2].any()


def test_trim_keeps_one_far_step_from_pressing_the_others_together():
    batch = four_steps([0.1 * i for i in range(10)] + [50.0])
    plain, trimmed = empg(batch, zeta=0.0)[0], empg(batch, zeta=0.0, trim=0.1)[0]
    assert float(plain[0] / plain[18]) == pytest.approx(1.0, abs=0.05)
    assert float(trimmed[0] / trimmed[18]) > 2


def test_a_trim_outside_its_range_is_refused():
    with pytest.raises(Refused, match="at least 0 and below"):
        empg(four_steps([0.0, 1.0]), trim=0.5)

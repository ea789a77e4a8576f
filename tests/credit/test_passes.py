"""The credit of weighted tests against a plain loop, and against Dr. GRPO where its terms are off."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from guerdon.credit import dr_grpo, verpo
from guerdon.samples import Batch

seeds = st.integers(0, 2**32 - 1)


def twin(batch: Batch, beta: float, gamma: float) -> np.ndarray:
    outcome, step, alive = batch.rewards.outcome, batch.rewards.step, batch.rewards.alive
    assert outcome is not None
    assert step is not None
    group, mask, of = batch.group.tolist(), batch.mask.numpy(), batch.step_of.numpy().copy()
    for i in range(len(batch)):
        if (of[i] < 0).all():
            of[i] = 0
    turns = [max(int(of[i].max()) + 1, 1) for i in range(len(batch))]
    scored = [(i, k) for i, k in np.argwhere(step.scored).tolist() if alive[i] and (mask[i] & (of[i] == k)).any()]
    out = np.zeros(mask.shape)
    for i in range(len(batch)):
        peers = [j for j in range(len(batch)) if group[j] == group[i] and alive[j]]
        whole = {j: outcome.value[j] * gamma ** turns[j] for j in peers if outcome.scored[j]}
        a = whole[i] - np.mean(list(whole.values())) if i in whole else 0.0
        r = [step.value[j, k] for j, k in scored if j in peers]
        for t in range(mask.shape[1]):
            if not mask[i, t] or not alive[i]:
                continue
            later = [k for k in of[i, t:].tolist() if k >= 0]
            k = of[i, t] if of[i, t] >= 0 else (later[0] if later else -1)
            out[i, t] = a + (beta * (step.value[i, k] - np.mean(r)) if (i, k) in scored else 0.0)
    return out


@given(seed=seeds)
def test_against_a_plain_loop(awkward, seed):
    batch = awkward(seed, ("outcome", "step"))
    np.testing.assert_allclose(verpo(batch), twin(batch, 0.5, 0.95), atol=1e-9)
    np.testing.assert_allclose(verpo(batch, beta=2.0, gamma=0.5), twin(batch, 2.0, 0.5), atol=1e-9)


@given(seed=seeds)
def test_without_turns_and_discount_it_is_dr_grpo(awkward, seed):
    batch = awkward(seed, ("outcome", "step"))
    np.testing.assert_allclose(verpo(batch, beta=0.0, gamma=1.0), dr_grpo(batch), atol=1e-12)

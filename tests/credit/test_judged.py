"""Credit of judged steps and of progress against plain loops, and against the methods that they extend."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.credit import capo, grpo, pav, rloo
from guerdon.registry import Refused
from guerdon.samples import Batch, Grain, Rewards, Sample, State, Task, collate

seeds = st.integers(0, 2**32 - 1)


def step_on_token(batch: Batch, values: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    """The number of each token's step, where that step was scored."""
    step, of = batch.rewards.step, batch.step_of.numpy()
    assert step is not None
    out = np.full(of.shape, otherwise)
    for i, t in np.argwhere(of >= 0).tolist():
        if of[i, t] < step.value.shape[1] and step.scored[i, of[i, t]]:
            out[i, t] = values[i, of[i, t]]
    return out


def capo_twin(batch: Batch, whole: float, process: float, vote: str) -> np.ndarray:
    outcome, step, alive = batch.rewards.outcome, batch.rewards.step, batch.rewards.alive
    assert outcome is not None
    assert step is not None
    mask, group = batch.mask.numpy(), batch.group.tolist()
    share = np.clip(1 - step.value, 0, 1)
    counted = {"average": share, "union": share > 1e-6, "majority": share > 0.5, "intersection": share >= 1 - 1e-6}[vote]
    c = step_on_token(batch, counted.astype(float))
    out = np.zeros(mask.shape)
    for g in set(group):
        rows = [i for i in range(len(batch)) if group[i] == g and alive[i] and outcome.scored[i]]
        tokens = [(i, t) for i in rows for t in range(mask.shape[1]) if mask[i, t]]
        r = {(i, t): whole * outcome.value[i] - process * c[i, t] for i, t in tokens}
        for i, t in tokens:
            values = list(r.values())
            std = np.std(values, ddof=1) if len(values) > 1 else 0.0
            out[i, t] = (r[i, t] - np.mean(values)) / (std + 1e-6) if max(values) - min(values) > 1e-12 else 0.0
    return out


@pytest.mark.parametrize("vote", ["intersection", "majority", "union", "average"])
@given(seed=seeds)
def test_capo_against_a_plain_loop(awkward, vote, seed):
    batch = awkward(seed, ("outcome", "step"))
    np.testing.assert_allclose(capo(batch, vote=vote), capo_twin(batch, 2.0, 1.0, vote), atol=1e-6)
    np.testing.assert_allclose(capo(batch, 0.7, 1.3, vote), capo_twin(batch, 0.7, 1.3, vote), atol=1e-6)


@given(seed=seeds)
def test_pav_against_a_plain_loop(awkward, seed):
    batch = awkward(seed, ("outcome", "step"))
    step = batch.rewards.step
    live = (batch.mask & batch.alive[:, None]).numpy()
    np.testing.assert_allclose(pav(batch), rloo(batch).numpy() + step_on_token(batch, step.value) * live, atol=1e-9)


def answers(outcome: list[float], verdicts: list[list[float | None]], tokens: int = 1) -> Batch:
    """Samples of one group; every step has so many tokens."""
    samples = []
    for row in verdicts:
        spans = {"step": [(tokens * k, tokens * (k + 1)) for k in range(len(row))]}
        samples.append(Sample(Task("t", "p"), "", np.array([1]), np.arange(tokens * len(row)), None, spans=spans))
    return collate(samples, Rewards(Grain.of(outcome), Grain.ragged(verdicts)), dtype=torch.float64)


@given(seed=seeds)
def test_capo_without_the_judge_is_grpo_on_answers_of_one_token(seed):
    rng = np.random.default_rng(seed)
    batch = answers(rng.normal(size=6).tolist(), rng.random((6, 1)).tolist())
    np.testing.assert_allclose(capo(batch, whole=1.0, process=0.0), grpo(batch), atol=1e-9)


@given(seed=seeds)
def test_pav_without_progress_is_rloo(awkward, seed):
    batch = awkward(seed, ("outcome", "step"))
    batch.rewards.step.value[:] = 0
    assert torch.equal(pav(batch), rloo(batch))


def test_capo_by_hand_ranks_any_right_answer_above_any_wrong_one():
    """Rewards of the tokens: 2 - 1 and 2 for the right answer, 0 and -1 for the wrong one; mean 0.5, std with n - 1."""
    batch = answers([1.0, 0.0], [[0.0, 1.0], [1.0, 0.2]])
    r = np.array([[1.0, 2.0], [0.0, -1.0]])
    np.testing.assert_allclose(capo(batch), (r - 0.5) / r.std(ddof=1), atol=1e-5)
    assert float(capo(batch)[0].min()) > float(capo(batch)[1].max())
    assert float(capo(batch, whole=1.0, process=2.0)[0].min()) < float(capo(batch, whole=1.0, process=2.0)[1].max())


@pytest.mark.parametrize(("vote", "punished"), [("intersection", [0, 0, 1]), ("majority", [0, 1, 1]), ("union", [1, 1, 1])])
def test_votes(vote, punished):
    """Of five critiques 1, 3 and 5 call the step wrong; the fourth step has no verdict."""
    a = capo(answers([1.0], [[0.8, 0.4, 0.0, None]]), vote=vote)[0]
    assert (a[:3] < a[3] - 1e-9).tolist() == [bool(p) for p in punished]


def test_a_judge_that_failed_is_no_verdict_and_one_that_abstained_leaves_the_outcome():
    batch = answers([1.0, 0.0, 1.0], [[None, None], [None, None], [0.0, 1.0]])
    assert batch.rewards.step is not None
    batch.rewards.step.state[2, 0] = State.FAILED
    a = capo(batch, whole=1.0)
    assert not a[2].any()
    np.testing.assert_allclose(a[:2].mean(1), [a[0, 0], a[1, 0]])
    assert float(a[0, 0]) > 0 > float(a[1, 0])


def test_what_cannot_be_is_refused():
    batch = answers([1.0], [[1.0]])
    with pytest.raises(Refused, match="vote is one of"):
        capo(batch, vote="all")  # type: ignore[arg-type]
    plain = collate([Sample(Task("t", "p"), "", np.array([1]), np.array([1]))], Rewards(Grain.of([1.0])))
    for credit in (capo, pav):
        with pytest.raises(Refused, match="needs step rewards"):
            credit(plain)

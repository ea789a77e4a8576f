"""Credit from verdicts on pairs, against plain loops over the pairs, and against GRPO."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.credit import brpo, grpo, pairwise
from guerdon.curation import fair_reference
from guerdon.rewards.pairwise import duels, pairs_of, tournament
from guerdon.samples import Batch, Context, Grain, Rewards, Sample, State, Task, collate

seeds = st.integers(0, 2**32 - 1)


def judged(seed: int, both: bool = True, references: int | None = None) -> tuple[list[Sample], Rewards, dict]:
    """0 to 12 samples of up to 4 groups in mixed order, some failed; what was said, by (first, second) rows; a fifth cannot be read."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 4, int(rng.integers(0, 13)))
    samples = [Sample(Task(str(g), "p"), "", np.array([1]), np.arange(1 + i % 3), group=int(g)) for i, g in enumerate(group)]
    row = {id(s): i for i, s in enumerate(samples)}
    said = {}

    def says(first: Sample, second: Sample) -> float | None:
        value = None if rng.random() < 0.2 else float(rng.integers(-3, 4))
        said[row[id(first)], row[id(second)]] = value
        return value

    state, evidence = rng.choice([State.SCORED] * 4 + [State.FAILED], len(samples)), [None] * len(samples)
    for g in set(group.tolist()):
        members = np.flatnonzero(group == g)
        for i, v in zip(members, tournament([samples[i] for i in members], says, both, references, rng), strict=True):
            evidence[i] = v.evidence.get("verdicts")
    rewards = Rewards(Grain.of(rng.normal(size=len(samples)), state), evidence={"judge.verdicts": evidence})
    return samples, rewards, said


def by(said: dict, i: int, j: int) -> float | None:
    seen = [sign * said[pair] for sign, pair in ((1, (i, j)), (-1, (j, i))) if said.get(pair) is not None]
    return float(np.mean(seen)) if seen else None


@pytest.mark.parametrize("both", [True, False])
@given(seed=seeds)
def test_pairwise_equals_the_loop(both, seed):
    samples, rewards, said = judged(seed, both)
    batch = collate(samples, rewards, dtype=torch.float64)
    a = pairwise(batch)
    for i, sample in enumerate(samples):
        living = [j for j in range(len(samples)) if samples[j].group == sample.group and rewards.alive[j]]
        if i not in living:
            assert not a[i].any()
            continue
        mine = [x for j in living if (x := by(said, i, j)) is not None]
        squares = [x**2 for j, k in itertools.permutations(living, 2) if (x := by(said, j, k)) is not None]
        size = len(living)
        expected = (size - 1) / size * np.mean(mine) / np.sqrt(np.mean(squares) / 2 + 1e-6) if mine else 0.0
        np.testing.assert_allclose(a[i][batch.mask[i]], expected, atol=1e-9)


@pytest.mark.parametrize("references", [None, 1, 2])
@given(seed=seeds)
def test_brpo_equals_the_loop(references, seed):
    samples, rewards, said = judged(seed, references=references)
    batch = collate(samples, rewards, dtype=torch.float64)
    a = brpo(batch)
    evidence = rewards.evidence["judge.verdicts"]
    for i, sample in enumerate(samples):
        values = []
        for j, other in enumerate(samples):
            seen = [sign * said[pair] for sign, pair in ((1, (i, j)), (-1, (j, i))) if said.get(pair) is not None]
            if j != i and other.group == sample.group and rewards.alive[j] and evidence[j] and evidence[j]["reference"] and seen:
                values.append(1.0 if all(x > 0 for x in seen) else -1.0)
        expected = np.mean(values) if values and rewards.alive[i] else 0.0
        np.testing.assert_allclose(a[i][batch.mask[i]], expected, atol=1e-12)


@given(seed=seeds)
def test_differences_of_rewards_give_grpo(awkward, seed):
    batch = awkward(seed)
    torch.testing.assert_close(pairwise(batch, eps=1e-12), grpo(batch, eps=1e-6), rtol=1e-4, atol=1e-4)


def test_rows_that_leave_take_their_verdicts_with_them():
    samples, rewards, said = next(made for seed in range(100) if len((made := judged(seed))[0]) > 9)
    keep = np.array([i for i in range(len(samples)) if i % 3])
    batch = collate([samples[i] for i in keep], rewards.rows(keep), dtype=torch.float64)
    found = pairs_of(batch.group.numpy(), batch.rewards)
    for a, b, x, known in zip(found.a, found.b, found.by, found.judged, strict=True):
        wanted = by(said, int(keep[a]), int(keep[b])) if a != b else None
        assert known == (wanted is not None)
        assert x == pytest.approx(wanted or 0.0)


def test_the_paper_s_numbers_for_three_samples():
    """d: 1 over 2 by 2, 2 over 3 by 1, 1 over 3 by 3, i.e. differences of (3, 1, 0): mean 4/3, standard deviation sqrt(7/3)."""
    samples = [Sample(Task("t", "p"), str(i), np.array([1]), np.array([2])) for i in range(3)]
    worth = {"0": 3.0, "1": 1.0, "2": 0.0}
    verdicts = tournament(samples, lambda x, y: worth[x.text] - worth[y.text])
    rewards = Rewards(Grain.of([v.value for v in verdicts]), evidence={"verdicts": [v.evidence["verdicts"] for v in verdicts]})
    assert rewards.total().tolist() == [1.0, 0.5, 0.0]
    batch: Batch = collate(samples, rewards, dtype=torch.float64)
    np.testing.assert_allclose(pairwise(batch)[:, 0], (np.array([3.0, 1.0, 0.0]) - 4 / 3) / np.sqrt(7 / 3), atol=1e-5)
    np.testing.assert_allclose(brpo(batch)[:, 0], [1.0, 0.0, -1.0])


def test_a_leaning_to_the_first_falls_out_of_both_orders_and_makes_brpo_s_ties_minus_one():
    samples = [Sample(Task("t", "p"), "", np.array([1]), np.array([2])) for _ in range(4)]
    both, one = (tournament(samples, lambda x, y: 1.0, both) for both in (True, False))
    assert [v.value for v in both] == [0.5] * 4
    assert [v.value for v in one] == [1.0, 2 / 3, 1 / 3, 0.0]
    rewards = Rewards(Grain.of([0.5] * 4), evidence={"verdicts": [v.evidence["verdicts"] for v in both]})
    batch = collate(samples, rewards, dtype=torch.float64)
    assert not pairwise(batch).any()
    np.testing.assert_allclose(brpo(batch), -1.0)


@pytest.mark.parametrize(("wins", "kept"), [(0, False), (2, False), (3, True), (7, True), (12, True), (13, False), (15, False)])
def test_a_group_leaves_whose_reference_nearly_all_beat_or_nearly_none(wins, kept):
    """Sixteen samples, of which row 4 is the reference: the paper's limit is more than 9 of 16."""
    samples = [Sample(Task("t", "p"), str(i), np.array([1]), np.array([2])) for i in range(16)]
    others = [i for i in range(16) if i != 4]
    sign = {i: 1.0 if at < wins else -1.0 for at, i in enumerate(others)}
    evidence = [{"at": i, "than": [4], "by": [sign[i]], "reference": False} if i != 4 else None for i in range(16)]
    evidence[4] = {"at": 4, "than": others, "by": [-sign[i] for i in others], "reference": True}
    rewards = Rewards(Grain.of(np.zeros(16)), evidence={"verdicts": evidence})
    assert duels(pairs_of(np.zeros(16, int), rewards), 16).sum() == 2 * wins - 15
    assert (len(fair_reference(samples, rewards, Context()).rows) == 16) == kept


def test_alone_or_unreadable():
    sample = Sample(Task("t", "p"), "")
    assert [v.state for v in tournament([sample], lambda x, y: 1.0)] == [State.ABSTAINED]
    assert all(v.state == State.FAILED for v in tournament([sample, sample], lambda x, y: None))


@pytest.mark.parametrize(("both", "mean"), [(False, 0.0), (True, -0.5)])
def test_equally_good_samples_have_expectation_zero_with_one_order_and_less_where_both_must_agree(both, mean):
    """A verdict is a coin: with both orders a sample is preferred twice in a quarter of all cases, 1/4 - 3/4 = -1/2."""
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        group = [Sample(Task("t", "p"), "") for _ in range(8)]
        verdicts = tournament(group, lambda x, y: float(rng.choice([-1, 1])), both, 1, rng)
        rewards = Rewards(Grain.of(np.zeros(8)), evidence={"verdicts": [v.evidence["verdicts"] for v in verdicts if v.value is not None]})
        a = duels(pairs_of(np.zeros(8, int), rewards), 8)
        found += [a[i] for i, v in enumerate(verdicts) if not v.evidence["verdicts"]["reference"]]
    assert float(np.mean(found)) == pytest.approx(mean, abs=0.05)

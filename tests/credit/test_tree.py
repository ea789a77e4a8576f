"""Credit from shared prefixes against plain loops over samples and tokens, and against the limits it must have."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.credit import dr_grpo, grpo, portool, tempo, treeps
from guerdon.registry import Refused
from guerdon.samples import Batch, Grain, Rewards, Sample, State, Task, collate

seeds = st.integers(0, 2**32 - 1)
EPS = 1e-6


def trees(seed: int, step_grain: bool = False) -> Batch:
    """Groups of answers that grow out of each other: long common prefixes, prefixes of others, equal rows, rows without a verdict."""
    rng = np.random.default_rng(seed)
    samples: list[Sample] = []
    for g in range(int(rng.integers(1, 4))):
        known = [rng.integers(0, 3, int(rng.integers(0, 8)))]
        for _ in range(int(rng.integers(1, 8))):
            old = known[int(rng.integers(len(known)))]
            known.append(np.concatenate([old[: int(rng.integers(len(old) + 1))], rng.integers(0, 3, int(rng.integers(0, 5)))]))
        for ids in known[1:]:
            t = len(ids)
            written = rng.random(t) < 0.8 if rng.random() < 0.5 else np.ones(t, bool)
            borders = [0, *(i for i in range(1, t) if ids[i - 1] == 2), t] if rng.random() < 0.8 else sorted(rng.integers(0, t + 1, 3))
            steps = [(int(a), int(b)) for a, b in itertools.pairwise(borders)] if rng.random() < 0.9 else []
            samples.append(Sample(Task(str(g), "p"), "", np.array([1]), ids, None, written, np.zeros(t), group=g, spans={"step": steps}))
    n = len(samples)
    state = rng.choice([0, 0, 0, 0, 0, State.ABSTAINED, State.FAILED], n)
    outcome = Grain.of(rng.choice([0.0, 1.0, 0.3], n), state, {(int(i),): "why" for i in np.flatnonzero(state)})
    step = Grain.ragged([rng.choice([0.0, 1.0], len(s.spans["step"])).tolist() for s in samples])
    step.state[(rng.random(step.state.shape) < 0.1) & step.scored] = State.ABSTAINED
    step.value[~step.scored] = 0
    return collate(samples, Rewards(outcome, step if step_grain else None), dtype=torch.float64)


class Plain:
    """A batch as lists, for loops."""

    def __init__(self, batch: Batch) -> None:
        assert batch.rewards.outcome is not None
        self.n, self.shape = len(batch), batch.ids.shape
        self.ids = [tuple(batch.ids[i, : batch.lengths[i]].tolist()) for i in range(self.n)]
        self.group, self.mask = batch.group.tolist(), batch.mask.tolist()
        self.of = [batch.step_of[i, : batch.lengths[i]].tolist() for i in range(self.n)]
        self.judged = [bool(x) for x in batch.rewards.outcome.scored & batch.rewards.alive]
        self.r = batch.rewards.outcome.value.tolist()

    def through(self, i: int, k: int) -> list[int]:
        """The judged rows of i's group that share its first k tokens."""
        mates = [j for j in range(self.n) if self.judged[j] and self.group[j] == self.group[i]]
        return [j for j in mates if len(self.ids[j]) >= k and self.ids[j][:k] == self.ids[i][:k]]

    def v(self, i: int, k: int) -> float:
        return float(np.mean([self.r[j] for j in self.through(i, k)]))

    def std(self, i: int, r: list[float] | None = None) -> float:
        rows = self.through(i, 0)
        return float(np.std([(r or self.r)[j] for j in rows], ddof=1)) if len(rows) > 1 else 0.0

    def steps(self, i: int) -> list[tuple[int, int, int]]:
        """(start, end, number): tokens outside a step belong to the next, those behind the last are one more."""
        found: list[tuple[int, int, int]] = []
        for t in range(len(self.ids[i])):
            number = next((self.of[i][u] for u in range(t, len(self.ids[i])) if self.of[i][u] >= 0), 10**9)
            if found and found[-1][2] == number:
                found[-1] = (found[-1][0], t + 1, number)
            else:
                found.append((t, t + 1, number))
        return found


@pytest.mark.parametrize("normalise", [True, False])
@given(seed=seeds)
def test_tempo_against_a_plain_loop(normalise, seed):
    batch = trees(seed)
    p, want = Plain(batch), np.zeros(batch.ids.shape)
    for i in range(p.n):
        for t in range(len(p.ids[i])):
            if p.judged[i] and p.mask[i][t]:
                want[i, t] = p.r[i] - p.v(i, 0) + p.v(i, t + 1) - p.v(i, t)
                want[i, t] /= p.std(i) + EPS if normalise else 1
    np.testing.assert_allclose(tempo(batch, normalise=normalise), want, atol=1e-9)


@pytest.mark.parametrize(("root", "normalise"), [(1.0, False), (0.0, False), (0.5, True)])
@given(seed=seeds)
def test_treeps_against_a_plain_loop(root, normalise, seed):
    batch = trees(seed)
    p, want = Plain(batch), np.zeros(batch.ids.shape)
    for i in range(p.n):
        for start, end, _ in p.steps(i):
            for t in range(start, end):
                if p.judged[i] and p.mask[i][t]:
                    want[i, t] = root * (p.v(i, end) - p.v(i, 0)) + p.v(i, end) - p.v(i, start)
                    want[i, t] /= p.std(i) + EPS if normalise else 1
    np.testing.assert_allclose(treeps(batch, root=root, normalise=normalise), want, atol=1e-9)


@pytest.mark.parametrize("leaves", ["max", "mean"])
@pytest.mark.parametrize("step_grain", [True, False])
@given(seed=seeds)
def test_portool_against_a_plain_loop(leaves, step_grain, seed):
    batch = trees(seed, step_grain)
    p, want = Plain(batch), np.zeros(batch.ids.shape)
    grain = batch.rewards.step

    def form(i: int) -> dict[int, float]:
        if grain is None:
            return {}
        return {k: float(grain.value[i, k]) for k in range(grain.value.shape[1]) if grain.scored[i, k]}

    whole = [p.r[i] + (float(np.mean(list(form(i).values()))) if form(i) else 0.0) for i in range(p.n)]
    taken: dict[tuple, list[tuple[int, int]]] = {}  # (group, prefix, prefix with the step) -> (row, which of its steps)
    for i in range(p.n):
        for k, (start, end, _) in enumerate(p.steps(i)):
            if p.judged[i]:
                taken.setdefault((p.group[i], p.ids[i][:start], p.ids[i][:end]), []).append((i, k))

    def worth(step: tuple) -> float:
        paid = [0.9 ** (len(p.steps(i)) - 1 - k) * p.r[i] for i, k in taken[step]]
        known = [form(i)[p.steps(i)[k][2]] for i, k in taken[step] if p.steps(i)[k][2] in form(i)]
        return (max(paid) if leaves == "max" else float(np.mean(paid))) + (float(np.mean(known)) if known else 0.0)

    for step, places in taken.items():
        others = [worth(other) for other in taken if other[:2] == step[:2]]
        spread = float(np.std(others, ddof=1)) if len(others) > 1 else 0.0
        a = (worth(step) - float(np.mean(others))) / (spread + EPS)
        for i, k in places:
            group = [whole[j] for j in p.through(i, 0)]
            b = (whole[i] - float(np.mean(group))) / (p.std(i, whole) + EPS)
            for t in range(*p.steps(i)[k][:2]):
                want[i, t] = (0.5 * b + 2 * a) if p.mask[i][t] else 0.0
    np.testing.assert_allclose(portool(batch, 0.9, leaves, 0.5, 2.0), want, atol=1e-7)


def group_of(rows: list[list[int]], outcome: list[float], step: int = 1, state: list[int] | None = None) -> Batch:
    """Samples of one group with steps of so many tokens each."""
    samples = []
    for ids in rows:
        spans = {"step": [(k, min(k + step, len(ids))) for k in range(0, len(ids), step)]}
        samples.append(
            Sample(Task("t", "p"), "", np.array([1]), np.array(ids), None, np.ones(len(ids), bool), np.zeros(len(ids)), spans=spans)
        )
    return collate(samples, Rewards(Grain.of(outcome, state)), dtype=torch.float64)


@given(seed=seeds)
def test_the_second_term_of_tempo_adds_up_to_the_first(seed):
    rng = np.random.default_rng(seed)
    batch = group_of([[*rng.integers(0, 2, int(rng.integers(1, 6))), 7 + i] for i in range(5)], rng.normal(size=5).tolist())
    above = dr_grpo(batch)
    telescoped = (tempo(batch, normalise=False) - above).sum(1)
    np.testing.assert_allclose(telescoped, above[:, 0], atol=1e-9)


def test_without_a_shared_token_only_the_first_token_or_step_differs_from_grpo():
    batch = group_of([[0, 5, 5, 5], [1, 5, 5], [2, 5, 5, 5]], [1.0, 0.0, 0.5], step=2)
    flat = grpo(batch)
    np.testing.assert_allclose(tempo(batch)[:, 1:], flat[:, 1:], atol=1e-12)
    np.testing.assert_allclose(tempo(batch)[:, 0], 2 * flat[:, 0], atol=1e-12)
    flat = dr_grpo(batch)
    np.testing.assert_allclose(treeps(batch)[:, 2:], flat[:, 2:], atol=1e-12)
    np.testing.assert_allclose(treeps(batch)[:, :2], 2 * flat[:, :2], atol=1e-12)


@given(seed=seeds)
def test_portool_without_its_fork_is_grpo(seed):
    batch = trees(seed)
    torch.testing.assert_close(portool(batch, fork=0.0), grpo(batch))


def test_by_hand_on_a_tree_of_two_steps():
    """Left then right (1), left then wrong (0), wrong first (0): the first step is worth 1/2 and 0, the second 1 and 0."""
    batch = group_of([[1, 2], [1, 3], [4, 5]], [1.0, 0.0, 0.0])
    third = 1 / 3
    np.testing.assert_allclose(treeps(batch, root=0.0), [[0.5 - third, 0.5], [0.5 - third, -0.5], [-third, 0.0]], atol=1e-12)
    np.testing.assert_allclose(tempo(batch, normalise=False)[0], [2 * third + 0.5 - third, 2 * third + 0.5], atol=1e-12)
    fork = portool(batch, gamma=0.5, trajectory=0.0)
    half = np.sqrt(0.5)  # two siblings at +-d stand at +-sqrt(1/2) deviations with n - 1
    np.testing.assert_allclose(fork, [[half, half], [half, -half], [-half, 0.0]], atol=1e-5)
    long = group_of([[1, 2, 3], [1, 4, 0], [1, 4, 5, 6]], [1.0, 1.0, 1.0])
    assert bool((portool(long, trajectory=0.0)[:2, 1] == torch.tensor([0.0, 0.0])).all()) is True  # both two steps from the end at best
    shorter = portool(group_of([[1, 2], [1, 4, 0]], [1.0, 1.0]), trajectory=0.0)[:, 1]
    assert float(shorter[0]) > 0.5 > -0.5 > float(shorter[1])  # the same outcome in fewer steps
    assert not portool(group_of([[1, 2], [1, 4, 0]], [1.0, 1.0]), gamma=1.0).any()


@pytest.mark.parametrize("method", [tempo, treeps, portool])
def test_one_answer_equal_answers_and_equal_rewards_have_none(method):
    assert not method(group_of([[1, 2, 3]], [0.1])).any()
    assert not method(group_of([[1, 2], [1, 2], [1, 2]], [0.1, 0.1, 0.1])).any()
    if method is not portool:  # which prefers the shorter
        assert not method(group_of([[1, 2], [1, 3], [4]], [0.1, 0.1, 0.1])).any()
    same = method(group_of([[1, 2], [1, 2]], [1.0, 0.0]))
    assert torch.isfinite(same).all()
    assert float(same[0, 0]) == pytest.approx(-float(same[1, 0])) or method is treeps


@pytest.mark.parametrize("method", [tempo, treeps, portool])
def test_a_failed_sample_is_in_no_value(method):
    rows, outcome = [[1, 2], [1, 3], [4, 5]], [1.0, 0.0, 0.5]
    with_it = method(group_of([*rows, [1, 2]], [*outcome, 9.0], state=[0, 0, 0, State.FAILED]))
    np.testing.assert_allclose(with_it[:3], method(group_of(rows, outcome)), atol=1e-12)
    assert not with_it[3].any()


def test_a_reply_that_differs_is_nobodys_credit():
    batch = group_of([[1, 8, 3], [1, 9, 3]], [1.0, 0.0])
    batch.mask[:, 1] = False
    np.testing.assert_allclose(tempo(batch, normalise=False), [[0.5, 0.0, 0.5], [-0.5, 0.0, -0.5]])


def test_what_cannot_be_is_refused():
    with pytest.raises(Refused, match="max or mean"):
        portool(group_of([[1]], [1.0]), leaves="median")  # type: ignore[arg-type]

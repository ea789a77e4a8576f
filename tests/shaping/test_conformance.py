"""What every registered shape keeps to, today's and tomorrow's."""

from __future__ import annotations

import numpy as np
import pytest

import guerdon.shaping  # noqa: F401  fills the registry
from guerdon.registry import pieces
from guerdon.samples import Context, Grain, Progress, Rewards, Sample, State, Task

SHAPES = [piece for piece in pieces("shape") if piece.where.startswith("guerdon.")]
every = pytest.mark.parametrize("piece", SHAPES, ids=lambda piece: piece.name)
grains = pytest.mark.parametrize("grain", ["outcome", "step"])


def make(n: int, grain: str, seed: int = 0) -> tuple[Rewards, list[Sample]]:
    """Rewards of n samples in groups of 3: some abstained, some failed, one group of equal values."""
    rng = np.random.default_rng(seed)
    samples = [Sample(Task(f"t{i // 3}", "q", "r"), "abc", ids=np.arange(4), group=i // 3) for i in range(n)]
    shape = (n,) if grain == "outcome" else (n, 4)
    value, state = rng.normal(size=shape).round(2), rng.choice([0, 0, 0, 0, 1, 2], shape)
    value[:3], state[:3] = 0.5, 0
    reason = {tuple(cell): "why" for cell in np.argwhere(state == State.FAILED).tolist()}
    return Rewards(**{grain: Grain.of(value, state, reason)}), samples


def apply(piece, rewards: Rewards, samples: list[Sample]) -> Rewards:
    return piece.about["bind"]().fn(rewards, samples, Context(rng=np.random.default_rng(0), progress=Progress(3, 10)))


def test_there_are_shapes_to_test():
    assert "clip" in {piece.name for piece in SHAPES}


@every
def test_it_says_what_it_is(piece):
    call = piece.about["bind"]()
    assert piece.fn.__doc__
    assert call.scope in ("sample", "group", "samples")
    assert str(call) == piece.name


@every
@grains
def test_abstained_and_failed_stay_unless_it_says_otherwise(piece, grain):
    rewards, samples = make(12, grain)
    before = rewards.rows(range(12))
    after = apply(piece, rewards, samples)
    assert len(after) == 12
    if not piece.about.get("changes_state"):
        np.testing.assert_array_equal(after.failed, before.failed)
        np.testing.assert_array_equal(after.state == State.ABSTAINED, before.state == State.ABSTAINED)
        assert [after.why(i) for i in np.flatnonzero(after.failed)] == [before.why(i) for i in np.flatnonzero(before.failed)]
    for _, g in after.grains():
        assert np.isfinite(g.value).all()
        assert (g.value[~g.scored] == 0).all()


@every
@grains
def test_what_it_was_given_stays_as_it_was(piece, grain):
    rewards, samples = make(12, grain)
    apply(piece, rewards, samples)
    again, _ = make(12, grain)
    for name, g in rewards.grains():
        np.testing.assert_array_equal(g.value, getattr(again, name).value)
        np.testing.assert_array_equal(g.state, getattr(again, name).state)


@every
@grains
def test_permuted_samples_have_permuted_rewards(piece, grain):
    rewards, samples = make(12, grain)
    order = np.random.default_rng(1).permutation(12)
    wanted = apply(piece, rewards, samples).rows(order)
    mine = apply(piece, rewards.rows(order), [samples[i] for i in order])
    np.testing.assert_allclose(mine.total(), wanted.total(), atol=1e-12)
    np.testing.assert_array_equal(mine.state, wanted.state)


@every
@grains
def test_an_empty_batch_stays_empty(piece, grain):
    rewards, _ = make(12, grain)
    assert len(apply(piece, rewards.rows([]), [])) == 0


@every
@grains
def test_its_scope_is_what_a_value_depends_on(piece, grain):
    scope = piece.about["bind"]().scope
    if scope == "samples":
        pytest.skip("sees everything")
    rewards, samples = make(12, grain)
    whole = apply(piece, rewards, samples)
    units = [[i] for i in range(12)] if scope == "sample" else [list(range(i, i + 3)) for i in range(0, 12, 3)]
    for rows in units:
        part = apply(piece, rewards.rows(rows), [samples[i] for i in rows])
        np.testing.assert_allclose(part.total(), whole.total()[rows], atol=1e-12)

"""What every registered shape keeps to, today's and tomorrow's."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

import guerdon.shaping  # noqa: F401  fills the registry
from guerdon.registry import Refused, pieces
from guerdon.rewards import parse
from guerdon.rewards.core import get
from guerdon.rewards.expr import ShapeCall
from guerdon.samples import Context, Grain, Progress, Rewards, Sample, State, Task
from guerdon.shaping.reference import AgainstReference

SHAPES = [piece for piece in pieces("shape") if piece.where.startswith("guerdon.")]
every = pytest.mark.parametrize("piece", SHAPES, ids=lambda piece: piece.name)
on_grains = pytest.mark.parametrize(
    ("piece", "grain"),
    [pytest.param(p, grain, id=f"{p.name}-{grain}") for p in SHAPES for grain in p.about["grains"] if grain != "token"],
)


def make(n: int, grain: str, seed: int = 0) -> tuple[Rewards, list[Sample]]:
    """Rewards of n samples in groups of 3: some abstained, some failed, one group of equal values."""
    rng = np.random.default_rng(seed)
    samples = [Sample(Task(f"t{i // 3}", "q", "r"), "abc", ids=np.arange(1 + i % 5), group=i // 3) for i in range(n)]
    for i, sample in enumerate(samples):
        sample.meta = {"beside": float(i % 4 > 1), "state": int(i % 7 == 6)}  # values of rewards beside it; some abstain
    shape = (n,) if grain == "outcome" else (n, 4)
    value, state = rng.normal(size=shape).round(2), rng.choice([0, 0, 0, 0, 1, 2], shape)
    value[:3], state[:3] = 0.5, 0
    reason = {tuple(cell): "why" for cell in np.argwhere(state == State.FAILED).tolist()}
    return Rewards(**{grain: Grain.of(value, state, reason)}), samples


def bound(piece) -> ShapeCall:
    """The shape with its example's parameters; a text stands for the reward of that name where a reward is wanted."""
    rewards = {p.name for p in inspect.signature(called(piece)).parameters.values() if "Rewards" in str(p.annotation)}
    return piece.about["bind"](**{k: get(v) if k in rewards else v for k, v in piece.about["example"].items()})


def called(piece):
    return piece.fn.__call__ if inspect.isclass(piece.fn) else piece.fn


def apply(piece, rewards: Rewards, samples: list[Sample]) -> Rewards:
    call = bound(piece)
    if isinstance(call.fn._piece, AgainstReference):
        call.fn.load_state_dict({"known": {Task(f"t{i}", "q").key: [0.1 * i, 0.3] for i in range(3)}})
    value = [len(s.task.id) + int(s.task.id[1:]) + s.meta["beside"] for s in samples]
    beside = {name: Rewards(Grain.of(value, [s.meta["state"] for s in samples])) for name in call.beside}
    return call.fn(rewards, samples, Context(rng=np.random.default_rng(0), progress=Progress(3, 10)), **beside)


def test_there_are_shapes_to_test():
    assert "clip" in {piece.name for piece in SHAPES}


@every
def test_it_says_what_it_is(piece):
    call = bound(piece)
    assert piece.fn.__doc__
    assert call.scope in ("sample", "group", "samples")
    assert str(call).startswith(piece.name)
    assert str(parse(f"exact | {call}")) == f"exact | {call}"


@on_grains
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


@on_grains
def test_what_it_was_given_stays_as_it_was(piece, grain):
    rewards, samples = make(12, grain)
    apply(piece, rewards, samples)
    again, _ = make(12, grain)
    for name, g in rewards.grains():
        np.testing.assert_array_equal(g.value, getattr(again, name).value)
        np.testing.assert_array_equal(g.state, getattr(again, name).state)


@on_grains
def test_permuted_samples_have_permuted_rewards(piece, grain):
    rewards, samples = make(12, grain)
    order = np.random.default_rng(1).permutation(12)
    wanted = apply(piece, rewards, samples).rows(order)
    mine = apply(piece, rewards.rows(order), [samples[i] for i in order])
    np.testing.assert_allclose(mine.total(), wanted.total(), atol=1e-12)
    np.testing.assert_array_equal(mine.state, wanted.state)


@on_grains
def test_an_empty_batch_stays_empty(piece, grain):
    rewards, _ = make(12, grain)
    assert len(apply(piece, rewards.rows([]), [])) == 0


@on_grains
def test_its_scope_is_what_a_value_depends_on(piece, grain):
    scope = bound(piece).scope
    if scope == "samples":
        pytest.skip("sees everything")
    rewards, samples = make(12, grain)
    whole = apply(piece, rewards, samples)
    units = [[i] for i in range(12)] if scope == "sample" else [list(range(i, i + 3)) for i in range(0, 12, 3)]
    for rows in units:
        part = apply(piece, rewards.rows(rows), [samples[i] for i in rows])
        np.testing.assert_allclose(part.total(), whole.total()[rows], atol=1e-12)


@pytest.mark.parametrize(
    ("piece", "grain"),
    [pytest.param(p, grain, id=f"{p.name}-{grain}") for p in SHAPES for grain in ("outcome", "step") if grain not in p.about["grains"]],
)
def test_a_grain_that_it_does_not_shape_is_refused(piece, grain):
    with pytest.raises(Refused, match=f"{piece.name}.*stands on a {grain} reward"):
        apply(piece, *make(12, grain))


@pytest.mark.parametrize("piece", [p for p in SHAPES if hasattr(p.fn, "state_dict")], ids=lambda piece: piece.name)
def test_its_state_is_saved_and_read(piece):
    a, b = bound(piece).fn, bound(piece).fn
    rewards, samples = make(12, piece.about["grains"][0])
    if hasattr(a, "observe"):
        a.observe(samples, rewards, Context(), on="train")
    else:
        a.load_state_dict({"known": {"t0": [0.5]}})  # of those that ask a reference
    assert a.state_dict() != b.state_dict()
    b.load_state_dict(json.loads(json.dumps(a.state_dict())))
    assert b.state_dict() == a.state_dict()

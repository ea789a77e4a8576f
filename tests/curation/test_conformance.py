"""What every registered way to draw tasks and to keep rows holds to, plug-ins included."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import guerdon.curation  # noqa: F401 - fills the registry
from guerdon import registry
from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample, Task

seeds = st.integers(0, 2**32 - 1)
PARAMETERS: dict[str, dict[str, object]] = {}
"""Values of parameters without a default, by name."""

every_select = pytest.mark.parametrize("piece", registry.pieces("select"), ids=lambda piece: piece.name)
every_keep = pytest.mark.parametrize("piece", registry.pieces("keep"), ids=lambda piece: piece.name)
GRAINS = pytest.mark.parametrize("grain", ["outcome", "step", "token"])


def bound(piece: registry.Piece, skip: int = 3) -> Callable:
    params = PARAMETERS.get(piece.name, {})
    own = list(inspect.signature(piece.fn).parameters.values())[0 if inspect.isclass(piece.fn) else skip :]
    missing = [p.name for p in own if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in params]
    assert not missing, f"{piece.kind} {piece.name!r} ({piece.where}) needs {missing}: give them values in PARAMETERS of this file."
    return piece.fn(**params) if inspect.isclass(piece.fn) else lambda *given: piece.fn(*given, **params)


@every_select
@given(count=st.integers(1, 9), n=st.integers(1, 25), seed=seeds)
def test_select_gives_n_of_the_tasks_and_the_same_for_the_same_generator(piece, count, n, seed):
    tasks = [Task(str(i), "p") for i in range(count)]
    select = bound(piece)
    drawn = select(tasks, n, np.random.default_rng(seed))
    assert len(drawn) == n
    assert all(any(task is other for other in tasks) for task in drawn)
    assert [t.id for t in drawn] == [t.id for t in select(tasks, n, np.random.default_rng(seed))]
    assert [t.id for t in tasks] == [str(i) for i in range(count)]


@every_select
def test_select_refuses_to_draw_from_nothing(piece):
    with pytest.raises(Refused, match="no tasks"):
        bound(piece)([], 2, np.random.default_rng(0))


@every_select
def test_a_selects_state_survives_json(piece):
    if not inspect.isclass(piece.fn):
        assert not hasattr(piece.fn, "state_dict")
        return
    tasks, first, second = [Task(str(i), "p") for i in range(7)], bound(piece), bound(piece)
    drawn = first(tasks, 3, np.random.default_rng(0))
    if hasattr(first, "observe"):
        first.observe([Sample(task, "x", group=g) for g, task in enumerate(drawn)], Rewards(Grain.of([0, 1, 0])), Context(), "train")
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [t.id for t in first(tasks, 9, np.random.default_rng(1))] == [t.id for t in second(tasks, 9, np.random.default_rng(1))]


def some(seed: int, grain: str) -> tuple[list[Sample], Rewards]:
    """0 to 15 samples in mixed order of groups; failed, abstained, equal and missing values."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 16))
    tasks = [Task(str(g), "p", "r") for g in range(5)]
    group = rng.integers(0, 5, n)
    stops = rng.choice(["end", "length", "stop"], n).tolist()
    token = {"ids": np.arange(3), "offsets": np.array([[0, 3], [3, 4], [4, 7]]), "written": np.ones(3, bool), "logprobs": np.full(3, -1.0)}
    spans = {"spans": {"step": [(0, 2), (2, 3)]}, "marks": {"step": [(0, 4), (4, 7)]}}
    samples = [Sample(tasks[g], "one\ntwo", np.ones(2), **token, **spans, group=int(g), stop=stops[i]) for i, g in enumerate(group)]
    shape = {"outcome": (n,), "step": (n, 2), "token": (n, 3)}[grain]
    state = rng.choice([0, 0, 0, 0, 1, 2], shape)
    return samples, Rewards(**{grain: Grain.of(rng.integers(0, 3, shape) / 3, state)})


def context() -> Context:
    return Context(rng=np.random.default_rng(0))


@every_keep
@GRAINS
@given(seed=seeds)
def test_keep_gives_rows_weights_and_pairs_of_what_it_was_given(piece, grain, seed):
    samples, rewards = some(seed, grain)
    before = copy.deepcopy(rewards)
    keep = bound(piece)
    kept = keep(samples, rewards, context())
    n = len(samples)
    assert kept.rows.dtype.kind == "i"
    assert kept.rows.ndim == 1
    assert len(set(kept.rows.tolist())) == len(kept.rows)
    assert all(0 <= i < n for i in kept.rows.tolist())
    assert kept.weights.shape == (n,)
    assert np.isfinite(kept.weights).all()
    assert (kept.weights >= 0).all()
    assert kept.pairs.shape == (len(kept.pairs), 2)
    for chosen, rejected in kept.pairs.tolist():
        assert {chosen, rejected} <= set(kept.rows.tolist())
        assert samples[chosen].group == samples[rejected].group
    again = keep(samples, rewards, context())
    for name in ("rows", "weights", "pairs"):
        np.testing.assert_array_equal(getattr(again, name), getattr(kept, name))
    for (name, g), (_, old) in zip(rewards.grains(), before.grains(), strict=True):
        np.testing.assert_array_equal(g.value, old.value, name)
        np.testing.assert_array_equal(g.state, old.state, name)


@every_keep
@given(seed=seeds)
def test_keep_asks_for_no_order_of_samples(piece, seed):
    samples, rewards = some(seed, "outcome")
    order = np.random.default_rng(seed).permutation(len(samples))
    kept = bound(piece)(samples, rewards, context())
    shuffled = bound(piece)([samples[i] for i in order], rewards.rows(order), context())
    assert sorted(order[shuffled.rows].tolist()) == sorted(kept.rows.tolist())
    np.testing.assert_array_equal(shuffled.weights, kept.weights[order])

"""Rewards and batches against hand-worked numbers and plain loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from guerdon.registry import Refused
from guerdon.samples import Batch, Grain, Part, Rewards, Sample, State, Task, Verdict, collate

S, A, F = State.SCORED, State.ABSTAINED, State.FAILED


def same(a: Grain | None, b: Grain | None) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a.value, b.value) and np.array_equal(a.state, b.state) and a.reason == b.reason


def equal(a: Rewards, b: Rewards) -> bool:
    return (
        all(same(getattr(a, name), getattr(b, name)) for name in ("outcome", "step", "token"))
        and a.parts.keys() == b.parts.keys()
        and all(
            equal(a.parts[name].rewards, b.parts[name].rewards) and a.parts[name].coefficient == b.parts[name].coefficient
            for name in a.parts
        )
        and a.evidence == b.evidence
    )


@st.composite
def grains(draw: st.DrawFn, n: int, width: int | None) -> Grain:
    shape = (n,) if width is None else (n, width)
    state = draw(npst.arrays(np.int8, shape, elements=st.sampled_from([0, 0, 0, 1, 2])))
    value = draw(npst.arrays(np.float64, shape, elements=st.floats(-2, 2), fill=st.nothing()))
    reason = {cell: f"why {cell}" for cell in np.ndindex(*shape) if draw(st.integers(0, 3)) == 0}
    return Grain.of(value, state, reason)


@st.composite
def rewards(draw: st.DrawFn, n: int | None = None, parts: bool = True) -> Rewards:
    n = draw(st.integers(1, 4)) if n is None else n
    return Rewards(
        outcome=draw(grains(n, None)),
        step=draw(grains(n, draw(st.integers(0, 3)))),
        parts={"part": Part(draw(rewards(n, False)), 0.5)} if parts else {},
        evidence={"votes": draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))},
    )


# Grain and Rewards


def test_a_grain_has_0_where_nothing_was_scored():
    grain = Grain.of([1.0, np.nan, np.inf], [S, A, F])
    assert grain.value.tolist() == [1.0, 0.0, 0.0]
    assert grain.scored.tolist() == [True, False, False]
    assert grain.failed.tolist() == [False, False, True]
    assert Grain.of([1, 2]).state.tolist() == [S, S]


def test_ragged_rows_are_padded_with_abstained():
    grain = Grain.ragged([[1.0, None, 3.0], [], [2.0]])
    assert grain.value.tolist() == [[1, 0, 3], [0, 0, 0], [2, 0, 0]]
    assert grain.state.tolist() == [[S, A, S], [A, A, A], [S, A, A]]
    assert len(Grain.ragged([]).value) == 0


def test_rows_of_a_grain_take_their_reasons_along():
    grain = Grain.of([[1, 2], [3, 4], [5, 6]], reason={(0, 1): "a", (2, 0): "b", (2, 1): "c"})
    found = grain.rows(np.array([2, 0, 2]))
    assert found.value.tolist() == [[5, 6], [1, 2], [5, 6]]
    assert found.reason == {(0, 0): "b", (0, 1): "c", (1, 1): "a", (2, 0): "b", (2, 1): "c"}
    assert found.why(0) == "b; c"
    assert found.why(1) == "a"
    assert Grain.of([1.0, 2.0], reason={(1,): "x"}).rows(np.array([1])).reason == {(0,): "x"}


def test_a_reason_is_said_once_and_in_order():
    grain = Grain.of(np.zeros((1, 12)), reason={(0, 10): "late", (0, 2): "early", (0, 11): "early"})
    assert grain.why(0) == "early; late"


def test_stacked_grains_have_the_widest_width():
    a = Grain.of([[1.0]], reason={(0, 0): "a"})
    b = Grain.of([[2.0, 3.0], [4.0, 5.0]], [[S, F], [S, S]], {(0, 1): "b"})
    found = Grain.stack([a, b])
    assert found.value.tolist() == [[1, 0], [2, 0], [4, 5]]
    assert found.state.tolist() == [[S, A], [S, F], [S, S]]
    assert found.reason == {(0, 0): "a", (1, 1): "b"}
    assert Grain.stack([Grain.of([1.0]), Grain.of([2.0, 3.0])]).value.tolist() == [1, 2, 3]


def test_rewards_have_a_grain_and_one_length():
    with pytest.raises(ValueError, match="at least one grain"):
        Rewards()
    with pytest.raises(ValueError, match="one length"):
        Rewards(outcome=Grain.of([1.0]), step=Grain.of(np.zeros((2, 1))))


def test_state_of_a_sample():
    """Rows: scored; abstained on all; scored with a failed step; only a step scored; failed and nothing else."""
    found = Rewards(
        outcome=Grain.of([1, 0, 1, 0, 0], [S, A, S, A, F]), step=Grain.of(np.ones((5, 2)), [[A, A], [A, A], [S, F], [S, A], [A, A]])
    )
    assert found.failed.tolist() == [False, False, True, False, True]
    assert found.alive.tolist() == [True, False, False, True, False]
    assert found.state.tolist() == [S, A, F, S, F]
    assert Rewards(step=Grain.of(np.zeros((2, 0)))).alive.tolist() == [False, False]


def test_hostile_is_found_in_parts_too():
    part = Rewards(outcome=Grain.of([0.0, 0.0, 0.0], reason={(1,): "hostile: 9 GB"}))
    found = Rewards(outcome=Grain.of([0.0, 0.0, 0.0], reason={(0,): "hostile: late", (2,): "not hostile"}), parts={"math": Part(part)})
    assert found.hostile.tolist() == [True, True, False]


def test_total():
    both = Rewards(outcome=Grain.of([1.0, 2.0]), step=Grain.of([[5.0], [6.0]]))
    assert both.total().tolist() == [1, 2]
    assert Rewards(step=Grain.of([[5.0, 1.0], [6.0, 2.0]], [[S, A], [S, S]])).total().tolist() == [5, 8]


@given(st.data())
def test_rows_then_stack_is_the_identity(data: st.DataObject):
    whole = data.draw(rewards())
    cut = data.draw(st.integers(0, len(whole)))
    parts = [whole.rows(range(cut)), whole.rows(np.arange(cut, len(whole)))]
    assert equal(Rewards.stack(parts), whole)
    assert equal(Rewards.stack([whole]), whole)
    order = data.draw(st.permutations(range(len(whole))))
    assert equal(whole.rows(order).rows(np.argsort(order)), whole)


@given(st.data())
def test_stack_then_rows_gives_back_the_pieces(data: st.DataObject):
    """Up to padding: a narrower piece comes back with abstained cells."""
    pieces = data.draw(st.lists(rewards(), min_size=1, max_size=3))
    whole, at = Rewards.stack(pieces), 0
    assert len(whole) == sum(map(len, pieces))
    for piece in pieces:
        found = whole.rows(range(at, at + len(piece)))
        at += len(piece)
        assert same(found.outcome, piece.outcome)
        assert found.step is not None
        assert piece.step is not None
        width = piece.step.value.shape[1]
        assert same(Grain(found.step.value[:, :width], found.step.state[:, :width], found.step.reason), piece.step)
        assert (found.step.state[:, width:] == A).all()
        assert found.evidence == piece.evidence
        assert np.array_equal(found.state, piece.state)
        assert np.array_equal(found.hostile, piece.hostile)


def test_a_mask_is_no_list_of_rows():
    with pytest.raises(ValueError, match="positions"):
        Rewards(outcome=Grain.of([1.0, 2.0])).rows(np.array([False, True]))


def test_unlike_rewards_are_not_stacked():
    with pytest.raises(ValueError, match="unlike"):
        Rewards.stack([Rewards(outcome=Grain.of([1.0])), Rewards(step=Grain.of([[1.0]]))])


def test_a_verdict_abstains_or_fails_with_a_reason():
    assert (Verdict.abstain("no answer").state, Verdict.abstain("no answer").value) == (A, None)
    assert (Verdict.fail("judge down").state, Verdict.fail("judge down").reason) == (F, "judge down")


# To tokens


def test_to_tokens_by_hand():
    """Row 0: steps 0 0 1 | pad; row 1: nothing, then step 0 on tokens 1 and 2, then one token outside; row 2 is empty."""
    step_of = np.array([[0, 0, 1, -1], [-1, 0, 0, -1], [-1, -1, -1, -1]])
    lengths = np.array([3, 4, 0])
    found = Rewards(outcome=Grain.of([10, 20, 30]), step=Grain.of([[1, 2], [3, 4], [5, 6]]), token=Grain.of(np.full((3, 3), 0.5)))
    assert found.to_tokens(step_of, lengths, "last").tolist() == [[0.5, 1.5, 12.5, 0], [0.5, 0.5, 3.5, 20], [0.5, 0.5, 0.5, 0]]
    assert found.to_tokens(step_of, lengths, "all").tolist() == [[11.5, 11.5, 12.5, 0], [20.5, 23.5, 23.5, 20], [0.5, 0.5, 0.5, 0]]


def test_a_step_without_tokens_or_without_reward_is_left_out():
    step_of = np.array([[0, 2, 5]])
    found = Rewards(step=Grain.of([[1.0, 2.0, 3.0]]))
    assert found.to_tokens(step_of, np.array([3])).tolist() == [[1, 3, 0]]
    assert Rewards(step=Grain.of(np.zeros((1, 0)))).to_tokens(step_of, np.array([3])).tolist() == [[0, 0, 0]]


def test_a_step_that_another_one_interrupts_is_paid_once():
    """Step 1 covers tokens 0 to 4, of which 1 and 2 belong to the earlier step 0."""
    found = Rewards(step=Grain.of([[7.0, 3.0]])).to_tokens(np.array([[1, 0, 0, 1, 1]]), np.array([5]), "last")
    assert found.tolist() == [[0, 0, 7, 0, 3]]


@given(st.data())
def test_to_tokens_equals_a_loop(data: st.DataObject):
    n, t, s = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5)), data.draw(st.integers(0, 3))
    found = Rewards(
        outcome=data.draw(st.none() | grains(n, None)),
        step=data.draw(grains(n, s)),
        token=data.draw(st.none() | grains(n, data.draw(st.integers(0, 6)))),
    )
    step_of = data.draw(npst.arrays(np.int64, (n, t), elements=st.integers(-1, 3), fill=st.nothing()))
    lengths = data.draw(npst.arrays(np.int64, n, elements=st.integers(0, t)))
    place: Any = data.draw(st.sampled_from(["all", "last"]))
    wanted = np.zeros((n, t))
    for i in range(n):
        for j in range(t):
            if found.token is not None and j < found.token.value.shape[1]:
                wanted[i, j] += found.token.value[i, j]
            if found.outcome is not None and (j == lengths[i] - 1 or (place == "all" and j < lengths[i])):
                wanted[i, j] += found.outcome.value[i]
            k = step_of[i, j]
            assert found.step is not None
            if 0 <= k < s and (place == "all" or k not in step_of[i, j + 1 :]):
                wanted[i, j] += found.step.value[i, k]
    np.testing.assert_array_equal(found.to_tokens(step_of, lengths, place), wanted)


# Collation


def sample(ids: list[int], group: int = 0, **more: Any) -> Sample:
    return Sample(Task("t", "p"), "", prompt_ids=np.array([9, 9]), ids=np.array(ids, dtype=np.int64), group=group, **more)


def test_collate_by_hand():
    samples = [
        sample(
            [5, 6, 7], group=40, logprobs=np.array([-1.0, -2.0, -3.0]), spans={"step": [(0, 2), (2, 3)]}, meta={"margin": 2, "name": "a"}
        ),
        sample([5, 8], group=7, written=np.array([True, False]), meta={"margin": 0.5, "name": "b"}),
        sample([5, 6], group=40, spans={"step": [(0, 2), (2, 2)]}, meta={"margin": 1, "name": "c", "only": 1.0}),
        sample([], group=7, meta={"margin": 0, "name": "d"}),
    ]
    batch = collate(samples, Rewards(outcome=Grain.of([1, 0, 0, 0], [S, S, F, A])))
    assert batch.ids.tolist() == [[5, 6, 7], [5, 8, 0], [5, 6, 0], [0, 0, 0]]
    assert batch.lengths.tolist() == [3, 2, 2, 0]
    assert batch.mask.tolist() == [[True, True, True], [True, False, False], [True, True, False], [False] * 3]
    assert batch.step_of.tolist() == [[0, 0, 1], [-1, -1, -1], [0, 0, -1], [-1] * 3]  # a step without tokens has none
    assert batch.group.tolist() == [0, 1, 0, 1]  # in order of first appearance
    assert batch.node_of.tolist() == [[0, 0, 1], [2, 2, -1], [0, 0, -1], [-1] * 3]
    assert batch.weights.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]]  # failed and abstained rows weigh nothing
    assert batch.alive.tolist() == [True, True, False, False]
    assert batch.outcome.tolist() == [1, 0, 0, 0]
    assert batch.advantages.abs().sum() == 0
    assert batch.unit.tolist() == [0, 1, 2, 3]
    assert batch.pairs.shape == (0, 2)
    assert [p.tolist() for p in batch.prompts] == [[9, 9]] * 4
    logprobs = batch.field("logprobs")
    assert logprobs[0].tolist() == [-1, -2, -3]
    assert math.isnan(logprobs[1, 0])  # not known
    assert logprobs[1, 1:].tolist() == [0, 0]  # a tool's token, padding
    assert set(batch.fields) == {"expert", "logprobs", "margin"}
    assert batch.field("margin").tolist() == [2, 0.5, 1, 0]
    assert batch.token_rewards.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert batch.weights.dtype == torch.float32
    assert collate(samples, batch.rewards, dtype=torch.float64).weights.dtype == torch.float64


def test_who_wrote_a_row_is_a_field():
    batch = collate([sample([1]), sample([1], source="expert"), sample([1], source="teacher")], Rewards(outcome=Grain.of([1.0, 1, 1])))
    assert batch.field("expert").tolist() == [0, 1, 1]


def test_a_column_of_meta_does_not_hide_a_field_of_the_batch():
    batch = collate([sample([1], logprobs=np.array([-0.5]), meta={"logprobs": 3.0})], Rewards(outcome=Grain.of([1.0])))
    assert batch.field("logprobs").tolist() == [[-0.5]]


def test_collate_of_nothing():
    none = collate([], Rewards(outcome=Grain.of(np.zeros(0))))
    assert (len(none), none.ids.shape, none.node_of.shape) == (0, (0, 1), (0, 1))
    empty = collate([sample([])], Rewards(outcome=Grain.of([2.0])))
    assert empty.ids.shape == empty.node_of.shape == (1, 1)
    assert not empty.mask.any()
    assert empty.token_rewards.tolist() == [[0]]


def test_what_cannot_be_collated():
    one = Rewards(outcome=Grain.of([1.0]))
    with pytest.raises(Refused, match=r"Sample 0 \(task 't'\) has text but no token ids"):
        collate([Sample(Task("t", "p"), "text")], one)
    with pytest.raises(ValueError, match="2 samples but rewards of 1"):
        collate([sample([1]), sample([2])], one)
    with pytest.raises(Refused, match=r"Sample 0 \(task 't'\): step 1 in `spans` covers tokens 1:3, but the sample has 2"):
        collate([sample([1, 2], spans={"step": [(0, 1), (1, 3)]})], one)
    with pytest.raises(Refused, match=r"Sample 0 .*: step 1 in `spans` begins at token 1, within the step before it, which ends at 2"):
        collate([sample([1, 2, 3], spans={"step": [(0, 2), (1, 3)]})], one)
    for name in ("logprobs", "written"):
        with pytest.raises(Refused, match=f"Sample 0 .* has 2 token ids but 3 entries of `{name}`"):
            collate([sample([1, 2], **{name: np.zeros(3)})], one)
    batch = collate([sample([1])], Rewards(step=Grain.of([[1.0]])))
    with pytest.raises(Refused, match="outcome"):
        _ = batch.outcome
    with pytest.raises(Refused, match="no field 'values'; it has: expert, logprobs"):
        batch.field("values")


# Rows of a batch


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[Sample], Rewards, Batch]:
    n = draw(st.integers(1, 6))
    samples = []
    for i in range(n):
        ids = draw(st.lists(st.integers(0, 3), max_size=5))
        cut = draw(st.integers(0, len(ids)))
        samples.append(
            sample(
                ids,
                group=draw(st.integers(0, 2)),
                logprobs=-np.arange(len(ids), dtype=np.float64),
                written=np.array(draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))), dtype=bool),
                spans={"step": [(0, cut), (cut, len(ids))]},
                meta={"margin": float(i)},
            )
        )
    found = draw(rewards(n))
    return samples, found, collate(samples, found)


@given(st.data())
def test_rows_of_a_batch_are_the_batch_of_the_rows(data: st.DataObject):
    samples, found, batch = data.draw(batches())
    index = data.draw(st.lists(st.integers(0, len(samples) - 1), min_size=1, max_size=6, unique=True))
    some = batch.rows(torch.tensor(index))
    again = collate([samples[i] for i in index], found.rows(index))
    for name in ("ids", "mask", "lengths", "step_of", "weights", "advantages", "alive", "outcome", "token_rewards"):
        assert torch.equal(getattr(some, name), getattr(again, name)), name
    assert equal(some.rewards, again.rewards)
    for name in ("logprobs", "margin"):
        assert torch.equal(some.field(name), again.field(name))
    assert some.unit.tolist() == index
    assert some.group.tolist() == batch.group[index].tolist()
    assert torch.equal(some.node_of, batch.node_of[index][:, : some.ids.shape[1]])
    assert len(some.prompts) == len(index)


def test_pairs_are_renumbered_and_broken_ones_left_out():
    batch = collate([sample([i]) for i in range(4)], Rewards(outcome=Grain.of(np.zeros(4))))
    batch.pairs = torch.tensor([[0, 2], [1, 3], [3, 0]])
    assert batch.rows(torch.tensor([3, 0, 2])).pairs.tolist() == [[1, 2], [0, 1]]
    none = batch.rows(torch.tensor([], dtype=torch.long))
    assert (len(none), none.pairs.shape, none.ids.shape) == (0, (0, 2), (0, 1))


def test_a_sample_cuts_its_spans_from_its_text():
    found = Sample(Task("t", "p"), "so 4, no 5", marks={"answer": [(3, 4), (9, 10)], "think": [(0, 2), (2, 3)], "step": [(0, 5), (5, 10)]})
    assert found.answer == "5"
    assert found.thinking == "so "
    assert found.steps == ["so 4,", " no 5"]
    assert Sample(Task("t", "p"), "").answer is None

"""Outcome and process models against a plain pass over each row alone: no neighbour, batch or padding moves a score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from guerdon.backends.tabular import tabular
from guerdon.reward_models import orm, prm
from guerdon.reward_models.heads import one_behind, values_after
from guerdon.rewards.likelihood import LONGEST
from guerdon.samples import HOSTILE, Context, Sample, State, Task, Verdict
from guerdon.scoring import Engine

TEXTS = [("1+2=", "3\n"), ("1+2=", "1+2\n3\n=3"), ("12-3+4=", "9+4\n13\n\n13"), ("7=", "7"), ("1+2=", "3\n0 0\n  1"), ("9-9=", "0\n-0")]


def outcomes(found: list[Any]) -> list[float]:
    assert all(isinstance(v, Verdict) and v.state == State.SCORED for v in found)
    return [v.value for v in found]


@pytest.fixture(scope="module")
def scored(characters: Any) -> tuple[Any, Any]:
    return characters(1, head="scalar")


def test_scores_are_those_of_each_row_alone(scored: Any, write: Any, head_values: Any):
    causal, model = scored
    samples = [write(model, *text) for text in TEXTS]
    by_hand = [head_values(causal, model, s.prompt_ids, s.ids) for s in samples]
    np.testing.assert_allclose(outcomes(orm.fn(samples, model)), [v[-1] for v in by_hand], atol=1e-9)
    for s, found, v in zip(samples, prm.fn(samples, model), by_hand, strict=True):
        ends = [max(t for t, (a, b) in enumerate(s.offsets) if a < end and b > a) for _, end in s.marks["step"]]
        if s.stop == "end":  # the end token belongs to the last step
            ends[-1] = len(s.ids) - 1
        np.testing.assert_allclose(found, v[ends], atol=1e-9)


def test_neither_batch_nor_order_nor_padding_side_matters(scored: Any, write: Any):
    _, model = scored
    samples = [write(model, *text) for text in TEXTS]
    whole = outcomes(orm.fn(samples, model))
    np.testing.assert_allclose([outcomes(orm.fn([s], model))[0] for s in samples], whole, atol=1e-9)
    np.testing.assert_allclose(outcomes(orm.fn(samples[::-1], model))[::-1], whole, atol=1e-9)
    np.testing.assert_allclose(outcomes(orm.fn(samples[:2], model)) + outcomes(orm.fn(samples[2:], model)), whole, atol=1e-9)
    model.tokens.tokenizer.padding_side = "left"
    np.testing.assert_allclose(outcomes(orm.fn(samples, model)), whole, atol=1e-9)
    np.testing.assert_allclose(outcomes(orm.fn(samples, model, sigmoid=True)), 1 / (1 + np.exp(-np.array(whole))), atol=1e-9)


def test_a_model_with_another_tokenizer_reads_the_text_in_its_own_tokens(pairs: Any, characters: Any, write: Any, head_values: Any):
    causal, model = pairs(2, head="scalar")
    policy = characters(3)[1]
    samples = [write(policy, *text) for text in TEXTS]
    alone = [Sample(s.task, s.text, marks=s.marks, stop=s.stop) for s in samples]  # as read from a file: text, no ids
    np.testing.assert_allclose(outcomes(orm.fn(samples, model)), outcomes(orm.fn(alone, model)), atol=1e-9)
    for s, outcome, steps in zip(samples, outcomes(orm.fn(samples, model)), prm.fn(samples, model), strict=True):
        mine = model.encode_answer(s.text)[:-1]  # a text in the middle of an answer has no end token
        v = head_values(causal, model, model.encode(s.task.prompt), mine)
        assert outcome == pytest.approx(v[-1], abs=1e-9)
        last = [(end + 1) // 2 - 1 for _, end in s.marks["step"]]  # the token of two characters that holds a step's last one
        for k, (found, t) in enumerate(zip(steps, last, strict=True)):
            if k and t == last[k - 1]:
                assert found is None  # its only token is the step's before
            else:
                assert found == pytest.approx(v[t], abs=1e-9)


def test_what_has_no_score(scored: Any, write: Any):
    _, model = scored
    nothing = write(model, "1=", "", end=False)
    assert orm.fn([nothing], model)[0].state == State.ABSTAINED
    assert prm.fn([nothing], model) == [[]]
    after_end = write(model, "1=", "")  # the end token alone is read
    assert orm.fn([after_end], model)[0].state == State.SCORED
    long = Sample(Task("t", "1="), "1" * (16 * LONGEST + 1))
    found = orm.fn([long, write(model, "7=", "7")], model)
    assert found[0].reason.startswith(HOSTILE)
    assert found[1].value == pytest.approx(outcomes(orm.fn([write(model, "7=", "7")], model))[0], abs=1e-9)


def test_through_the_engine_with_a_table():
    """A model named by the recipe, both grains side by side; a table's value after a row is the one that was written there."""
    model = tabular(vocab="ab\n", head="scalar")
    prompt, ids = model.encode("q"), np.array([0, 2, 1, 3])
    for t, value in enumerate([0.5, 1.5, -2.0, 4.0]):
        row = model._rows([np.concatenate([prompt, ids[: t + 1]]).astype("<u4").tobytes()])
        with torch.no_grad():
            model.tables["values"][row] = value
    assert values_after(model, [(prompt, ids)])[0].tolist() == [0.5, 1.5, -2.0, 4.0]
    offsets = model.decode(ids)[1]
    marks = {"step": [(0, 2), (2, 3)]}
    sample = Sample(
        Task("t", "q"), "a\nb", prompt, ids, offsets, np.ones(4, bool), stop="end", marks=marks, spans={"step": [(0, 2), (2, 4)]}
    )
    with Engine(Context(models={"judge": model}), workers=1) as engine:
        found = engine.score("orm(model='judge') + prm(model='judge')", [sample])
    assert found.outcome is not None
    assert found.step is not None
    assert found.outcome.value.tolist() == [4.0]
    assert found.step.value.tolist() == [[1.5, 4.0]]


def test_one_behind_adds_a_column_that_counts_nowhere(awkward: Any):
    batch = awkward(5, ("outcome", "step"))
    longer = one_behind(batch)
    t = batch.ids.shape[1]
    for name in ("ids", "mask", "step_of", "node_of", "advantages", "weights"):
        assert torch.equal(getattr(longer, name)[:, :t], getattr(batch, name)), name
    assert not longer.mask[:, t].any()
    assert not longer.weights[:, t].any()
    assert torch.equal(longer.lengths, batch.lengths + 1)
    assert all(x.shape[1] == t + 1 for x in longer.fields.values() if x.ndim > 1)

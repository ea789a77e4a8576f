"""Information gain, against numbers read off a table by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from guerdon.backends.tabular import tabular
from guerdon.envs.lookup import ANSWER, lookup, words
from guerdon.registry import Refused
from guerdon.rewards import belief
from guerdon.rewards.reference import FLOOR
from guerdon.rollouts import multi_turn
from guerdon.samples import Context, Sample, State, Task
from guerdon.scoring import Engine
from guerdon.spans import mark

KEYS = 5
ASK = f"{ANSWER} {{answer}}"


@pytest.fixture(scope="module")
def table():
    return tabular(vocab=words(KEYS), init=1.5, bias={"QUERY": 2.0, "ANSWER": 0.5, "<end>": -3.0}, seed=1)


@pytest.fixture(scope="module")
def samples(table):
    context = Context(rng=np.random.default_rng(0))
    return multi_turn(table, lookup(6, KEYS, 2), 4, context, tool="lookup", stop=(), turn_tokens=2, max_turns=4)


def score(model, reward, samples) -> Any:
    with Engine(Context(models={"policy": model}), workers=1) as engine:
        return engine.score(reward, list(samples))


def chance(model, sample: Any, steps: int, text: str) -> list[float]:
    """The probabilities of the answer's tokens after so many steps and the template, one by one."""
    end = sample.spans["step"][steps - 1][1] if steps else 0
    ids = [*sample.prompt_ids.tolist(), *sample.ids[:end].tolist(), model.ids[ANSWER]]
    out = []
    for word in text.split():
        logits = model.logits_at([np.array(ids)])[0].double().numpy()
        out.append(float(np.exp(logits - logits.max())[model.ids[word]] / np.exp(logits - logits.max()).sum()))
        ids.append(model.ids[word])
    return out


def test_each_turn_is_paid_what_it_added_and_the_last_is_left_to_the_outcome(table, samples):
    rewards = score(table, belief(template=ASK), samples)
    assert rewards.step is not None
    assert {len(s.steps) for s in samples} >= {1, 2, 3, 4}
    for i, s in enumerate(samples):
        b = [chance(table, s, t, s.task.reference)[0] for t in range(len(s.steps))]
        assert rewards.step.state[i, : len(b)].tolist() == [State.SCORED] * (len(b) - 1) + [State.ABSTAINED]
        np.testing.assert_allclose(rewards.step.value[i, : len(b) - 1], np.diff(b), atol=1e-9)
        assert rewards.step.value[i].sum() == pytest.approx(b[-1] - b[0], abs=1e-9)  # they telescope


def test_the_mean_is_over_the_answers_tokens_and_those_of_the_template_are_not_among_them(table, samples):
    s = next(s for s in samples if len(s.steps) == 2)
    s = Sample(Task("t", s.task.prompt, "k1 k3 k0"), s.text, s.prompt_ids, s.ids, s.offsets, s.written, spans=s.spans, marks=s.marks)
    logs = [np.log(chance(table, s, t, "k1 k3 k0")) for t in range(2)]
    for form, means in (("prob", [np.exp(x.mean()) for x in logs]), ("log_prob", [np.maximum(x, FLOOR).mean() for x in logs])):
        rewards = score(table, belief(template=ASK, form=form), [s])
        np.testing.assert_allclose(rewards.step.value[0], [means[1] - means[0], 0.0], atol=1e-9)


def test_of_several_right_answers_the_first_counts_or_the_most_believed(table, samples):
    s = next(s for s in samples if len(s.steps) == 3)
    s = Sample(
        Task("t", s.task.prompt, ["k1", "k2", "k3"]), s.text, s.prompt_ids, s.ids, s.offsets, s.written, spans=s.spans, marks=s.marks
    )
    all_of_them = [[chance(table, s, t, k)[0] for k in s.task.reference] for t in range(3)]
    for golds, pick in (("first", lambda x: x[0]), ("max", max)):
        rewards = score(table, belief(template=ASK, golds=golds), [s])
        np.testing.assert_allclose(rewards.step.value[0, :2], np.diff([pick(x) for x in all_of_them]), atol=1e-9)


def test_a_text_without_ids_is_scored_like_one_with_them(table, samples):
    s = next(s for s in samples if len(s.steps) == 3 and s.stop == "tool")
    plain = Sample(s.task, s.text, stop=s.stop)
    mark(plain)
    plain.marks["step"] = plain.spans["step"] = s.marks["step"]
    np.testing.assert_allclose(score(table, belief(template=ASK), [plain]).step.value, score(table, belief(template=ASK), [s]).step.value)


def test_rows_that_samples_share_are_scored_once(table, samples, monkeypatch):
    asked = []
    forward = table.forward
    monkeypatch.setattr(table, "forward", lambda batch, *more: asked.append(len(batch)) or forward(batch, *more))
    group = [s for s in samples if s.group == 0]
    score(table, belief(template=ASK), group)
    distinct = {s.ids[: s.spans["step"][t - 1][1] if t else 0].tobytes() for s in group for t in range(len(s.steps))}
    assert asked == [len(distinct)]
    assert len(distinct) < sum(len(s.steps) for s in group)


def test_a_belief_that_is_no_number_leaves_both_turns_beside_it_abstained(samples):
    model = tabular(vocab=words(KEYS))
    s = next(s for s in samples if len(s.steps) == 4)
    end = s.spans["step"][0][1]
    broken = np.concatenate([s.prompt_ids, s.ids[:end], [model.ids[ANSWER]]])
    model.set_logits(broken, [np.nan] * len(model.names))
    rewards = score(model, belief(template=ASK), [s])
    assert rewards.step.state[0].tolist() == [State.ABSTAINED, State.ABSTAINED, State.SCORED, State.ABSTAINED]
    assert not rewards.failed.any()


def test_what_cannot_be_scored_says_why(table, samples):
    s = samples[0]
    none = Sample(Task("t", "p"), s.text, s.prompt_ids, s.ids, s.offsets, s.written, spans=s.spans, marks=s.marks)
    foreign = Sample(Task("t", "p", "Paris"), s.text, s.prompt_ids, s.ids, s.offsets, s.written, spans=s.spans, marks=s.marks)
    rewards = score(table, belief(template=ASK), [none, foreign])
    assert rewards.failed.all()
    assert rewards.why(0) == "the task has no reference"
    assert "cannot write 'Paris'" in rewards.why(1)
    for params in ({"template": "so"}, {"template": "{answer} it is"}, {"form": "odds"}, {"golds": "last"}):
        with pytest.raises(Refused):
            score(table, belief(**params), [s])


def test_it_adds_to_an_outcome(table, samples):
    rewards = score(table, "lookup + belief(template='ANSWER {answer}')", samples)
    assert rewards.outcome is not None
    assert rewards.step is not None
    assert rewards.alive.all()

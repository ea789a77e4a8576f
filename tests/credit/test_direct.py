"""The gradient of E_z[f(log p(reference | prompt, z))] from the two terms, against finite differences over every thought z."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import guerdon.losses  # noqa: F401 - fills the registry
from guerdon.backends.base import Completion, LossCall, SamplingParams, Usage
from guerdon.backends.tabular import Tabular, tabular
from guerdon.credit import rloo, two_term
from guerdon.registry import Refused
from guerdon.rewards import parse
from guerdon.rollouts import with_reference
from guerdon.samples import Context, Sample, Task, collate
from guerdon.scoring import Engine

WORDS = ["<think>", "</think>", "one", "two", "six", "<answer>", "</answer>", "yes", "no"]
THOUGHTS = ["one", "two", "six"]
TASK = Task("t", "q", "no yes")
FREE = ["", *(f"<think> {z} </think> <answer>{more}" for z in THOUGHTS for more in ("", " no"))]
FREE[0] = "<think>"


class Scripted(Tabular):
    """Writes the thoughts that it is told to, and the answer `yes`."""

    script: tuple[str, ...] = ()

    def sample(self, prefixes, n, params: SamplingParams, want=()):
        done = []
        for thought in self.script:
            ids = self.encode_answer(f"<think> {thought} </think> <answer> yes </answer>")
            done.append(Completion(ids, np.zeros(len(ids)), "end", 0))
        return [done], Usage()


@pytest.fixture(scope="module")
def model() -> Scripted:
    """All but certain of the frame, random in the thought and in both tokens of the reference."""
    model = tabular(vocab=WORDS)
    model.__class__ = Scripted
    rng = np.random.default_rng(5)
    frame = ["<think>", "{}", "</think>", "<answer>"]
    for z in THOUGHTS:
        written = [z if word == "{}" else word for word in frame]
        for i, word in enumerate(written):
            if i != 1:
                model.set_logits(at(model, " ".join(written[:i])), [40.0 * (name == word) for name in model.names])
    for prefix in FREE:
        model.set_logits(at(model, prefix), rng.normal(size=len(model.names)))
    assert isinstance(model, Scripted)
    return model


def at(model, prefix: str) -> np.ndarray:
    return np.concatenate([model.encode("q"), model.encode(prefix)])


def chance(model, prefix: str, word: str) -> float:
    return float(model.logits_at([at(model, prefix)])[0].softmax(-1)[model.names.index(word)])


def likelihood(model, z: str) -> float:
    start = f"<think> {z} </think> <answer>"
    return chance(model, start, "no") * chance(model, f"{start} no", "yes")


def objective(model, f) -> float:
    """E over thoughts of THOUGHTS; a thought of any other word has none of the reference's terms."""
    return sum(chance(model, "<think>", z) * f(likelihood(model, z)) for z in THOUGHTS)


def differences(model, f, h: float = 1e-5) -> np.ndarray:
    """Of the objective, by every logit of the free prefixes, (prefixes, V)."""
    out = np.zeros((len(FREE), len(model.names)))
    for i, prefix in enumerate(FREE):
        logits = model.logits_at([at(model, prefix)])[0].numpy()
        for j in range(len(logits)):
            for sign in (1, -1):
                moved = logits.copy()
                moved[j] += sign * h
                model.set_logits(at(model, prefix), moved)
                out[i, j] += sign * objective(model, f) / (2 * h)
        model.set_logits(at(model, prefix), logits)
    return out


def estimate(model, reward: str, size: int, **params) -> np.ndarray:
    """The estimator's expectation: every group of `size` thoughts, weighted by its probability."""
    model.tables["logits"].grad = None
    with Engine(Context(models={"policy": model}), workers=1) as engine:
        for script in itertools.product(THOUGHTS, repeat=size):
            model.script = script
            samples = with_reference(model, [TASK], size, Context(rng=np.random.default_rng(0)), max_tokens=9)
            batch = collate(samples, engine.score(parse(reward), samples), dtype=torch.float64)
            batch.advantages = two_term(batch, **params)
            batch.weights = batch.weights * float(np.prod([chance(model, "<think>", z) for z in script])) / size
            model.forward_backward(batch, LossCall("policy_gradient"))
    found = model.tables["logits"].grad
    assert found is not None
    gradient = -found.numpy()
    return np.stack([gradient[model.index[at(model, prefix).astype("<u4").tobytes()]] for prefix in FREE])


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.mark.parametrize(
    ("reward", "f", "params"),
    [("log_prob", np.log, {}), ("prob", lambda p: p, {"weigh": "reward"}), ("log_prob", np.log, {"baseline": False})],
)
def test_the_two_terms_are_the_gradient_of_the_expectation(model, reward, f, params):
    """The groups are all that can be drawn: words that are no thought are made rare."""
    logits = model.logits_at([at(model, "<think>")])[0].numpy()
    model.set_logits(at(model, "<think>"), np.where([name in THOUGHTS for name in model.names], logits, -30.0))
    wanted = differences(model, f)
    assert relative(estimate(model, reward, 2, **params), wanted) < 1e-4
    assert relative(estimate(model, reward, 2, **(params | {"direct": 0.0})), wanted) > 0.1


def test_where_each_term_stands(model):
    model.script = ("one", "two")
    samples = with_reference(model, [TASK], 2, Context(rng=np.random.default_rng(0)), max_tokens=9)
    for sample, z in zip(samples, model.script, strict=True):
        assert sample.text == f"<think> {z} </think> <answer> no yes </answer>"
        assert sample.answer == "no yes"
        assert sample.source == "expert"
        assert sample.written is not None
        assert sample.logprobs is not None
        assert sample.written.tolist() == [True] * 6 + [False] * 2
        assert np.isnan(sample.logprobs).tolist() == [False] * 4 + [True] * 4
    with Engine(Context(models={"policy": model}), workers=1) as engine:
        batch = collate(samples, engine.score(parse("log_prob"), samples), dtype=torch.float64)
    r = batch.rewards.total()
    a = two_term(batch, direct=0.5)
    np.testing.assert_allclose(a[0], [r[0] - r[1]] * 4 + [0.5] * 2 + [0] * 2)
    np.testing.assert_allclose(two_term(batch, weigh="reward")[1], [r[1] - r[0]] * 4 + [r[1]] * 2 + [0] * 2)
    np.testing.assert_allclose(two_term(batch, baseline=False)[1], [r[1]] * 4 + [1] * 2 + [0] * 2)


def test_without_an_answer_or_a_reference_the_sample_stays(model):
    model.script = ("one",)
    [sample] = with_reference(model, [Task("t", "q")], 1, Context(rng=np.random.default_rng(0)))
    assert sample.answer == "yes"
    assert (sample.source, sample.meta) == ("policy", {"direct_from": 0, "direct_to": 0})


def test_without_reference_tokens_it_is_rloo(awkward):
    for seed in range(20):
        torch.testing.assert_close(two_term(awkward(seed)), rloo(awkward(seed)))


def test_a_weight_that_is_none_is_refused(awkward):
    with pytest.raises(Refused, match="weigh is one or reward"):
        two_term(awkward(0), weigh="two")  # pyright: ignore[reportArgumentType]


def test_a_tag_in_the_answers_token_is_kept():
    model = tabular(vocab=["<answer>", "<answer>yes", "<answer>no", "</answer>"])
    model.set_logits(model.encode("q"), [0, 40, 0, 0, 0])
    model.set_logits(np.concatenate([model.encode("q"), [1]]), [0, 0, 0, 40, 0])
    [sample] = with_reference(model, [Task("t", "q", "no")], 1, Context(rng=np.random.default_rng(0)), max_tokens=2)
    assert isinstance(sample, Sample)
    assert sample.text == "<answer>no </answer>"
    assert sample.ids is not None
    assert sample.ids.tolist() == [2, 3]


def test_jepo_without_a_baseline_is_the_gradient_of_the_bound(model):
    """Of E over pairs of thoughts of log((p + p') / 2), by the chances of the thoughts."""
    logits = model.logits_at([at(model, "<think>")])[0].numpy()
    rare = np.where([name in THOUGHTS for name in model.names], logits, -30.0)
    p = [likelihood(model, z) for z in THOUGHTS]

    def bound(logits: np.ndarray) -> float:
        model.set_logits(at(model, "<think>"), logits)
        q = [chance(model, "<think>", z) for z in THOUGHTS]
        return sum(q[i] * q[j] * np.log((p[i] + p[j]) / 2) for i in range(3) for j in range(3))

    steps = 1e-5 * np.eye(len(rare))
    wanted = [(bound(rare + step) - bound(rare - step)) / 2e-5 for step in steps]
    model.set_logits(at(model, "<think>"), rare)
    got = 2 * estimate(model, "jepo", 2, baseline=False, direct=0.0)[0]
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    model.set_logits(at(model, "<think>"), logits)

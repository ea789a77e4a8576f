"""Probes of frozen features: the features against a plain pass, the probe against the equations of its minimum, distances by loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from guerdon.backends.local import local
from guerdon.envs.tiny import tokenizer
from guerdon.evals.bench import probing
from guerdon.registry import Refused
from guerdon.samples import Sample, Task


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokens = tokenizer()
    shape: dict[str, Any] = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, initializer_range=0.3)
    ends: dict[str, Any] = dict(bos_token_id=None, eos_token_id=1, pad_token_id=1)  # the padding is the end token
    causal = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokens), max_position_embeddings=64, **ends, **shape)).double()
    return local((causal, tokens), trainable=False, dtype="float64", device="cpu")


def test_features_are_the_state_at_the_last_token_of_each_row_alone(model: Any) -> None:
    samples = [Sample(Task("t", prompt), text) for prompt, text in [("1+2=", "3"), ("12+3=", "1+2\n=3"), ("7=", "7"), ("1+2=", "4-1\n3")]]
    found = probing.features(model, samples, batch=3)
    for sample, row in zip(samples, found, strict=True):
        ids = np.concatenate([model.encode(sample.task.prompt), model.encode_answer(sample.text)[:-1]])
        with torch.no_grad():
            states = model.causal.model(torch.from_numpy(ids)[None]).last_hidden_state[0, -1]
        np.testing.assert_allclose(row, states.numpy(), atol=1e-9)
    np.testing.assert_allclose(probing.features(model, samples[::-1], batch=1)[::-1], found, atol=1e-9)


def test_a_model_without_hidden_states_is_refused(model: Any) -> None:
    class Closed:
        capabilities: frozenset[str] = frozenset()

    with pytest.raises(Refused, match="hidden states"):
        probing.features(Closed(), [Sample(Task("t", "1="), "1")])  # pyright: ignore
    empty = Sample(Task("t", "1="), "", model.encode("1="), np.zeros(0, dtype=np.int64), np.zeros((0, 2), dtype=np.int64))
    with pytest.raises(Refused, match="'t' is empty"):
        probing.features(model, [empty])


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_is_at_its_minimum(classes: int) -> None:
    """Mean (p - y) x + decay W = 0, by a loop over rows."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 4)), rng.integers(0, classes, 60)
    found = probing.probe(x, labels, decay=0.05)
    gradient = np.zeros((4, classes))
    for row, label in zip(x / found.scale, labels, strict=True):
        z = [sum(row[i] * found.weights[i, c] for i in range(4)) for c in range(classes)]
        p = np.exp(z) / np.exp(z).sum()
        for c in range(classes):
            gradient[:, c] += (p[c] - (label == c)) * row / 60
    np.testing.assert_allclose(gradient + 0.05 * found.weights, 0, atol=1e-4)


def test_probes_see_what_is_there_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 6))
    seen, unseen = (x[:, 0] > 0).astype(int), rng.integers(0, 2, 900)
    hard = np.digitize(x[:, 1], [-0.4, 0.4])
    train = {name: (x[:600], y[:600]) for name, y in (("seen", seen), ("unseen", unseen), ("hard", hard))}
    test = {name: (x[600:], y[600:]) for name, y in (("seen", seen), ("unseen", unseen), ("hard", hard))}
    found = probing.probed(train, test)
    assert found["seen"] > 0.97
    assert abs(found["unseen"] - 0.5) < 0.09
    assert found["hard"] > 0.6
    assert found["mean"] == pytest.approx((found["seen"] + found["unseen"] + found["hard"]) / 3)
    with pytest.raises(Refused, match="two classes"):
        probing.probe(x, np.zeros(900, dtype=int))
    with pytest.raises(Refused, match="two classes"):
        probing.probe(x, x[:, 0])


def test_distances_by_a_loop_and_the_share_that_is_kept() -> None:
    rng = np.random.default_rng(0)
    centres = {"a": [(0.0, 0.0), (6.0, 0.0)], "b": [(0.0, 40.0), (6.0, 40.0)]}
    rows = {name: (np.concatenate([rng.normal(c, 0.3, size=(50, 2)) for c in cs]), np.repeat([0, 1], 50)) for name, cs in centres.items()}
    found = probing.familiar(rows, clusters=1, quantile=0.8)
    for name, cs in centres.items():
        np.testing.assert_allclose(found.centroids[name], cs, atol=0.2)
    x = np.array([[0.0, 1.0], [6.0, 39.0], [3.0, 300.0]])
    assert found.leans_on(x) == ["a", "b", "b"]
    for row, d in zip(x, found.d_min(x), strict=True):
        want = min(np.sqrt(((row - c) ** 2).sum()) for cs in found.centroids.values() for c in cs)
        assert d == pytest.approx(want, abs=1e-9)
    assert not found.keep(x)[2]
    every = np.concatenate([part for part, _ in rows.values()])
    assert found.keep(every).mean() == pytest.approx(0.8, abs=0.01)
    assert probing.familiar(rows, clusters=200).threshold == 0  # each row is a centroid
    with pytest.raises(Refused, match="quantile"):
        probing.familiar(rows, quantile=0)

"""A net over named features: its numbers by hand, what it learns, its file, and the shape that reads it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from guerdon.losses import pair_mean
from guerdon.registry import Refused
from guerdon.reward_models import FeatureModel, bradley_terry, feature_model, fit_features
from guerdon.reward_models.heads import one_behind
from guerdon.rewards import parse, reward
from guerdon.samples import Grain, Rewards, Sample, Task, Verdict, collate
from guerdon.scoring import Engine

TWO = FeatureModel(["a", "b"], [(np.array([[1.0, -1.0], [0.0, 2.0]]), np.array([0.0, -1.0])), (np.array([[2.0, 3.0]]), np.array([0.5]))])


def test_values_by_hand_and_how_much_each_feature_moves_them():
    x = np.array([[0.3, 0.1], [1.0, 0.0]])
    expected = [2 * np.tanh(0.2) + 3 * np.tanh(-0.8) + 0.5, 2 * np.tanh(1.0) + 3 * np.tanh(-1.0) + 0.5]
    np.testing.assert_allclose(TWO(x), expected)
    plain = FeatureModel(["a", "b"], [(np.array([[2.0, -3.0]]), np.array([7.0]))])
    assert plain.sensitivity(x) == pytest.approx({"a": 2.0, "b": -3.0})


def test_a_linear_model_finds_the_minimum_of_the_registered_loss():
    rng = np.random.default_rng(0)
    x = rng.random((60, 2))
    pairs = rng.permutation(60).reshape(30, 2)
    likes = rng.random(30) < 1 / (1 + np.exp(-(x[pairs[:, 0]] - x[pairs[:, 1]]) @ [2.0, -1.0]))
    pairs = np.where(likes[:, None], pairs, pairs[:, ::-1])
    model = fit_features(["a", "b"], x, pairs, hidden=(), lr=0.1, epochs=400, batch=30)
    weight = torch.tensor(model.layers[0][0][0], requires_grad=True)
    samples = [Sample(Task(str(i), "p"), "", np.ones(1, dtype=int), np.ones(1, dtype=int)) for i in range(60)]
    batch = collate(samples, Rewards(Grain.of(np.zeros(60))), dtype=torch.float64)
    batch.pairs = torch.from_numpy(pairs)
    batch.weights = pair_mean(batch)
    values = torch.stack([torch.zeros(60, dtype=torch.float64), torch.from_numpy(x) @ weight], 1)
    gradient = torch.autograd.grad(bradley_terry({"values": values}, one_behind(batch))[0], weight)[0]
    assert float(gradient.abs().max()) < 1e-3


def test_a_net_learns_a_product_that_no_linear_model_can():
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (800, 3))
    worth = x[:, 0] * x[:, 1]
    pairs = np.arange(800).reshape(400, 2)
    pairs = np.where((worth[pairs[:, 0]] > worth[pairs[:, 1]])[:, None], pairs, pairs[:, ::-1])
    right = {}
    for name, hidden in (("net", (8, 8)), ("linear", ())):
        model = fit_features(["a", "b", "c"], x, pairs[:300], hidden=hidden, lr=0.03, epochs=80)
        r = model(x)
        right[name] = float((r[pairs[300:, 0]] > r[pairs[300:, 1]]).mean())
    assert right["net"] > 0.85
    assert right["linear"] < 0.65


def test_the_same_seed_gives_the_same_model_and_its_file_the_same_numbers(tmp_path):
    x, pairs = np.random.default_rng(0).random((8, 2)), np.arange(8).reshape(4, 2)
    models = [fit_features(["a", "b"], x, pairs, epochs=3, seed=4) for _ in range(2)]
    np.testing.assert_array_equal(models[0](x), models[1](x))
    models[0].save(tmp_path / "m.json")
    np.testing.assert_array_equal(FeatureModel.load(tmp_path / "m.json")(x), models[0](x))


def test_the_shape_reads_parts_and_columns_by_name_whatever_their_order(tmp_path):
    @reward(inline=True)
    def b(text: str) -> float | Verdict:
        return Verdict.abstain("empty") if not text else Verdict.fail("no judge") if text == "x" else len(text) / 10

    TWO.save(tmp_path / "m.json")
    samples = [Sample(Task("t", "q"), text, meta={"a": 0.3}) for text in ("y", "", "x")]
    expression = parse("b | feature_model(path='" + str(tmp_path / "m.json") + "')")
    out = Engine().score(expression, samples)
    assert out.outcome is not None
    assert out.outcome.state.tolist() == [0, 1, 2]
    np.testing.assert_allclose(out.outcome.value, [TWO(np.array([[0.3, 0.1]]))[0], 0, 0])
    assert "b: no judge" in out.why(2)
    del samples[0].meta["a"]
    with pytest.raises(Refused, match="'a' is no part of the reward and no numeric column"):
        Engine().score(expression, samples)


def test_what_cannot_be_used_is_refused(tmp_path):
    x = np.ones((2, 2))
    pair = np.array([[0, 1]])
    with pytest.raises(Refused, match="1 names, but features of shape"):
        fit_features(["a"], x, pair)
    with pytest.raises(Refused, match="'b' of row 1 is nan"):
        fit_features(["a", "b"], np.array([[0, 0], [0, np.nan]]), pair)
    with pytest.raises(Refused, match="no pairs"):
        fit_features(["a", "b"], x, np.zeros((0, 2)))
    with pytest.raises(Refused, match="2 features"):
        TWO(np.ones((2, 3)))
    (tmp_path / "m.json").write_text(json.dumps({"names": ["a"], "activation": "tanh", "layers": [[[[1.0, 2.0]], [0.0]]]}))
    with pytest.raises(Refused, match="do not lead from 1 features"):
        feature_model(str(tmp_path / "m.json"))
    with pytest.raises(Refused, match="is not a feature model"):
        feature_model(str(tmp_path / "none.json"))

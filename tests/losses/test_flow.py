"""Balance of trajectories against plain loops, and the distribution at which it is 0."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.backends.base import LossCall
from guerdon.backends.local import local
from guerdon.backends.tabular import tabular
from guerdon.losses import row_mean, trajectory_balance, vargrad
from guerdon.recipe import Use, check_params
from guerdon.registry import Refused
from guerdon.samples import Grain, Rewards, Sample, Task, collate

seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds, power=st.sampled_from([1.0, 2.0]))
def test_both_equal_the_loop(awkward, seed, power):
    batch = awkward(seed)
    batch.weights = row_mean(batch)
    out = {"logprobs": -torch.from_numpy(np.random.default_rng(seed).exponential(1.0, batch.ids.shape))}
    w = batch.weights.amax(1).tolist()
    d = []
    for i in range(len(batch)):
        said = sum(float(out["logprobs"][i, t]) for t in range(batch.ids.shape[1]) if float(batch.weights[i, t]))
        d.append(said - power * np.log(max(float(batch.outcome[i]), 0.1)))
    total = learned = 0.0
    for i in range(len(batch)):
        group = [j for j in range(len(batch)) if batch.group[j] == batch.group[i] and w[j]]
        if w[i]:
            total += w[i] * (d[i] - sum(w[j] * d[j] for j in group) / sum(w[j] for j in group)) ** 2
            learned += w[i] * (5.0 + 100.0 * 0.02 + d[i]) ** 2
    assert float(vargrad(out, batch, 0.1, power)[0]) == pytest.approx(total, rel=1e-9, abs=1e-9)
    own = trajectory_balance()
    own.moved.requires_grad_(False).add_(0.02)
    assert float(own(out, batch, 0.1, power, 5.0)[0]) == pytest.approx(learned, rel=1e-7, abs=1e-9)


def answers(rewards: list[float]):
    samples = [Sample(Task("t", "p"), "", np.array([1]), np.array([i, 3])) for i in range(len(rewards))]
    return collate(samples, Rewards(Grain.of(rewards)), dtype=torch.float64)


def test_nothing_is_left_to_learn_where_chances_are_proportional_to_rewards():
    batch = answers([1.0, 2.0, 5.0])
    share = torch.tensor([[1 / 8, 1.0], [2 / 8, 1.0], [5 / 8, 1.0]], dtype=torch.float64)
    assert float(vargrad({"logprobs": share.log()}, batch)[0]) == pytest.approx(0.0, abs=1e-20)
    own = trajectory_balance()
    assert float(own({"logprobs": share.log()}, batch, start=float(np.log(8)))[0].detach()) == pytest.approx(0.0, abs=1e-12)
    assert float(vargrad({"logprobs": share.log() / 2}, batch)[0]) > 0.01  # a mean over two tokens would not do


def test_rewards_of_zero_are_refused_by_name_unless_there_is_a_floor():
    batch = answers([1.0, 0.0])
    out = {"logprobs": torch.full((2, 2), -1.0, dtype=torch.float64)}
    for fn in (vargrad, trajectory_balance()):
        with pytest.raises(Refused, match=r"Sample 1 .* the reward 0.0; .* `floor`"):
            fn(out, batch)
        assert torch.isfinite(fn(out, batch, 0.001)[0])
    batch.weights[1] = 0
    assert float(vargrad(out, batch)[0]) == 0


def test_log_z_is_trained_by_local_and_refused_by_tabular():
    call = LossCall("trajectory_balance", {"pace": 10.0})
    table = tabular(vocab="abc")
    batch = answers([1.0, 2.0])
    with pytest.raises(Refused, match="parameters of its own, which the tabular backend does not train"):
        table.forward_backward(batch, call)

    from transformers import LlamaConfig, LlamaForCausalLM

    from guerdon.envs.tiny import tokenizer

    tokens = tokenizer()
    config = LlamaConfig(vocab_size=len(tokens), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    model = local((LlamaForCausalLM(config), tokens))
    before = model.forward_backward(answers([1.0, 2.0]), call)[0]["log_z"]
    model.optim_step(0.01)
    after = model.forward_backward(answers([1.0, 2.0]), call)[0]["log_z"]
    assert before == 0
    assert after == pytest.approx(2 * 0.1, rel=1e-3)  # a first step of Adam moves by the rate, times the pace; two rows of weight 1


def test_a_recipe_gives_a_loss_that_is_a_class_its_parameters():
    assert check_params("loss", Use.model_validate({"use": "trajectory_balance", "floor": 0.1, "pace": 10.0}), "loss") == []
    assert "has no parameter 'flor'" in check_params("loss", Use.model_validate({"use": "trajectory_balance", "flor": 0.1}), "loss")[0]


@pytest.mark.parametrize("learned", [False, True])
def test_both_forms_end_at_chances_proportional_to_rewards(learned):
    rewards = [0.001, 1.0, 2.0, 4.0, 1.0, 0.5]
    batch = answers(rewards)
    batch.weights = row_mean(batch)
    fn = trajectory_balance() if learned else vargrad
    logits = torch.zeros(len(rewards), dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits, *(fn.parameters() if isinstance(fn, trajectory_balance) else [])], 0.05)
    for _ in range(500):
        logprobs = torch.stack([logits.log_softmax(0), torch.zeros_like(logits)], 1)
        adam.zero_grad()
        (fn({"logprobs": logprobs}, batch, pace=1.0) if isinstance(fn, trajectory_balance) else fn({"logprobs": logprobs}, batch))[
            0
        ].backward()
        adam.step()
    wanted = np.array(rewards) / sum(rewards)
    assert np.abs(logits.detach().softmax(0).numpy() - wanted).sum() / 2 < 0.01
    if isinstance(fn, trajectory_balance):
        assert float(fn.moved.detach()) == pytest.approx(np.log(sum(rewards)), abs=0.01)

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("verl", reason="verl lives in the environment of `make test-integrations`")

from omegaconf import OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.reward import resolve_reward_manager_cls
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.config import ActorConfig

import guerdon as g
from guerdon.credit import credit, min_form
from guerdon.envs.tiny import tokenizer
from guerdon.integrations import verl as ours
from guerdon.integrations import verl_credit
from guerdon.integrations.common import sample_of
from guerdon.integrations.verl_credit import Finished
from guerdon.registry import Broke, Refused
from guerdon.samples import Grain, Rewards, Task, Verdict, collate

WORDS = tokenizer()
calls: list[str] = []


@g.reward(inline=True, name="verl_states")
def states(text: str) -> float | Verdict | None:
    return {"fail": Verdict.fail("grader down"), "none": None}.get(text, 0.5)


@g.reward(inline=True, name="verl_counted")
def counted(text: str) -> float:
    calls.append(text)
    return 1.0


@g.reward(name="verl_place")
def place(group: list) -> list[float]:
    order = sorted(range(len(group)), key=lambda i: group[i].text)
    return [float(order.index(i)) for i in range(len(group))]


@credit(needs=("values",), name="verl_values_credit")
def values_credit(batch):
    return batch.fields["values"]


def proto(rewards: list[list[float]], mask: list[list[int]], uid: list[str]) -> DataProto:
    return DataProto.from_dict(
        tensors={"token_level_rewards": torch.tensor(rewards), "response_mask": torch.tensor(mask), "responses": torch.tensor(mask)},
        non_tensors={"uid": np.array(uid, dtype=object)},
    )


def answers(texts: list[str], uid: list[str], prompt: str = "1+2+3=") -> DataProto:
    rows, p = [WORDS(text)["input_ids"] for text in texts], WORDS(prompt)["input_ids"]
    t = max(map(len, rows))
    attention = torch.tensor([[0, 0] + [1] * (len(p) + len(row)) + [0] * (t - len(row)) for row in rows])
    n = len(rows)
    return DataProto.from_dict(
        tensors={
            "prompts": torch.tensor([[0, 0, *p]] * n), "responses": torch.tensor([row + [0] * (t - len(row)) for row in rows]),
            "attention_mask": attention, "response_mask": attention[:, len(p) + 2 :],
        },
        non_tensors={
            "uid": np.array(uid, dtype=object), "raw_prompt": np.array([prompt] * n, dtype=object),
            "data_source": np.array(["sums"] * n, dtype=object), "reward_model": np.array([{"ground_truth": "6"}] * n, dtype=object),
            "extra_info": np.array([{"expression": "1+2+3"}] * n, dtype=object),
        },
    )  # fmt: skip


def manager(reward: str, **settings):
    config = OmegaConf.create({"reward": {"reward_kwargs": {"guerdon": {"reward": reward, **settings}}}})
    return get_reward_manager_cls("guerdon")(config=config, tokenizer=WORDS, compute_score=None)


def batch_of(texts: list[str], rewards: Rewards, groups: list[int]):
    made = [
        sample_of(Task("", "p"), "", "lines", ids=WORDS(x)["input_ids"], tokens=ours.Tokens(WORDS), group=k)
        for x, k in zip(texts, groups, strict=True)
    ]
    return collate(made, rewards)


def test_the_page_runs(run_page):
    page = run_page("verl")
    assert [s["reward_score"] for s in page["scored"]] == [1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "env",
    [{"VERL_USE_EXTERNAL_MODULES": "guerdon.integrations.verl", "VERL_USE_EXTERNAL_PLUGINS": "none"}, {}],
    ids=["variable", "entry point"],
)
def test_verl_loads_us_by_itself(env):
    code = (
        "import verl; from verl.trainer.ppo import core_algos as c; from verl.experimental.reward_loop.reward_manager import registry as r;"
        "print('guerdon_rloo' in c.ADV_ESTIMATOR_REGISTRY, 'guerdon_ppo_clip' in c.POLICY_LOSS_REGISTRY, 'guerdon' in r.REWARD_MANAGER)"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("VERL_")}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env={**clean, **env}, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["True"] * 3, done.stderr[-2000:]


# --- rewards ---------------------------------------------------------------------------------------------------------------------


def test_the_manager_scores_with_parts_state_and_reason():
    made = manager("gate(verl_states, arithmetic) + 0.5 * verl_states")
    data = answers(["3+3\nA: 6", "A: 7"], ["a", "a"])

    async def both():
        return await asyncio.gather(*(made.run_single(data[i : i + 1]) for i in range(2)))

    right, wrong = asyncio.run(both())
    assert (right["reward_score"], wrong["reward_score"]) == (1.25, 0.25)
    assert right["reward_extra_info"] == {
        "guerdon_state": "scored", "guerdon_reason": "", "guerdon/arithmetic": 1.0, "guerdon/verl_states": 0.5,
    }  # fmt: skip
    assert wrong["reward_extra_info"].keys() == right["reward_extra_info"].keys()


@pytest.mark.parametrize("text", ["fail", "none"])
def test_an_answer_without_a_verdict_is_never_0(text):
    data = answers([text], ["a"])
    with pytest.raises(Broke, match="failed: .*grader down" if text == "fail" else "abstained"):
        asyncio.run(manager("verl_states").run_single(data))
    marked = asyncio.run(manager("verl_states", unscored="mark").run_single(data))
    assert np.isnan(marked["reward_score"])
    assert marked["reward_extra_info"]["guerdon_state"] == ("failed" if text == "fail" else "abstained")


@pytest.mark.parametrize(
    ("reward", "settings", "says"),
    [
        ("verl_place", {}, "the reward 'verl_place' compares a whole group"),
        ("arithmetic | group_norm", {}, "the shape 'group_norm' sees a whole group"),
        ("arithmetic_steps", {}, "gives step rewards"),
        ("", {}, "No reward: add"),
        ("arithmetic", {"unscord": "drop"}, "did you mean 'unscored'"),
        ("arithmetic", {"unscored": "zero"}, "is drop or mark"),
    ],
)
def test_what_the_manager_cannot_do_is_refused(reward, settings, says):
    with pytest.raises(Refused, match=says):
        manager(reward, **settings)


def test_the_cache_is_shared_with_the_trainer(tmp_path):
    calls.clear()
    path = str(tmp_path / "verdicts.sqlite")
    asyncio.run(manager("verl_counted", cache=path).run_single(answers(["A: 6"], ["a"])))
    finished = Finished(ours.scorer_of({"reward": "verl_counted", "workers": 1, "cache": path}), "grpo", WORDS, samples=1)
    finished(answers(["A: 6"], ["a"]))
    assert calls == ["A: 6"]


# --- outcome credit --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ours.OUTCOME)
def test_estimators_see_nothing_that_they_would_need_more_of(name, awkward):
    """What the credit gives for a batch equals what it gives where ids, steps and tree are gone."""
    for seed in range(20):
        batch = awkward(seed, dtype=torch.float32)
        if not len(batch):
            continue
        whole = ours.find("credit", name).fn(batch)
        rewards = batch.rewards.outcome
        at_last = torch.zeros_like(batch.weights)
        last = (torch.arange(batch.ids.shape[1]) * batch.mask).amax(1)
        value = torch.from_numpy(np.where(batch.rewards.alive, rewards.value, np.nan)).float()
        at_last[torch.arange(len(batch)), last] = value
        uid = [f"u{i}" for i in batch.group.tolist()]
        data = proto(at_last.tolist(), batch.mask.int().tolist(), uid)
        compute_advantage(data, adv_estimator=f"guerdon_{name}", config=AlgoConfig(adv_estimator=f"guerdon_{name}"))
        torch.testing.assert_close(data.batch["advantages"], whole, atol=1e-5, rtol=1e-5)


def test_our_grpo_agrees_with_verls():
    rng = torch.Generator().manual_seed(0)
    mask = [[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]] * 4
    rewards = (torch.rand(16, 4, generator=rng) * torch.tensor(mask)).tolist()
    uid = list("aaaabbbbccccdddd")
    mine = compute_advantage(proto(rewards, mask, uid), adv_estimator="guerdon_grpo", config=AlgoConfig(adv_estimator="guerdon_grpo"))
    theirs = compute_advantage(proto(rewards, mask, uid), adv_estimator="grpo", config=AlgoConfig(adv_estimator="grpo"))
    torch.testing.assert_close(mine.batch["advantages"], theirs.batch["advantages"], atol=1e-4, rtol=1e-4)


def test_nan_rows_are_in_no_baseline():
    nan = float("nan")
    data = proto([[0.0, 1.0], [0.0, nan], [0.0, 0.0]], [[1, 1]] * 3, ["a"] * 3)
    compute_advantage(data, adv_estimator="guerdon_dr_grpo", config=AlgoConfig(adv_estimator="guerdon_dr_grpo"))
    assert data.batch["advantages"].tolist() == [[0.5, 0.5], [0.0, 0.0], [-0.5, -0.5]]


def test_gamma_is_verls_and_token_rewards_are_kept():
    rewards, mask = [[1.0, 2.0, 3.0], [0.5, 0.0, 0.0]], [[1, 1, 1], [1, 0, 0]]
    data = proto(rewards, mask, ["a", "b"])
    compute_advantage(data, adv_estimator="guerdon_reinforce_pp", config=AlgoConfig(adv_estimator="guerdon_reinforce_pp", gamma=0.5))
    to_go = np.array([1 + 1 + 0.75, 2 + 1.5, 3.0, 0.5])
    expected = (to_go - to_go.mean()) / (to_go.std(ddof=1) + 1e-8)
    np.testing.assert_allclose(data.batch["advantages"][torch.tensor(mask).bool()], expected, atol=1e-5)


def test_step_credit_is_no_estimator():
    with pytest.raises(Refused, match="reads more; use a trainer `guerdon_sync`"):
        ours.register_estimator("min_form")
    with pytest.raises(Refused, match="no `uid`"):
        core_algos.get_adv_estimator_fn("guerdon_grpo")(token_level_rewards=torch.zeros(1, 1), response_mask=torch.ones(1, 1))


# --- losses ----------------------------------------------------------------------------------------------------------------------


def actor(**changes) -> ActorConfig:
    return ActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, clip_ratio_c=1e6, **changes)


@pytest.mark.parametrize("mode", ["token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-sum-norm", "seq-mean-token-mean"])
@pytest.mark.parametrize("shared", [{}, {"dp_size": 2, "batch_num_tokens": 40, "global_batch_size": 9, "loss_scale_factor": 7}])
def test_our_clipped_loss_agrees_with_verls(mode, shared):
    torch.manual_seed(1)
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 0, 1, 1, 1]])
    old, advantages, weights = -torch.rand(3, 5), torch.randn(3, 5), torch.rand(3, 5)
    config = actor(clip_ratio_low=0.2, clip_ratio_high=0.28)
    config.global_batch_info.update(shared)
    values, gradients = [], []
    for name in ("vanilla", "guerdon_ppo_clip"):
        new = (old + 0.4 * torch.randn(3, 5, generator=torch.Generator().manual_seed(2))).requires_grad_()
        loss, metrics = core_algos.get_policy_loss_fn(name)(
            old_log_prob=old, log_prob=new, advantages=advantages, response_mask=mask.bool(), loss_agg_mode=mode, config=config,
            rollout_is_weights=weights,
        )  # fmt: skip
        loss.backward()
        values.append(loss.item())
        gradients.append(new.grad)
    assert values[0] == pytest.approx(values[1], abs=1e-5)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)
    assert 0 <= metrics["actor/guerdon_clip_fraction"] <= 1


@pytest.mark.parametrize("name", [piece.name for piece in ours.pieces("loss") if ours.on_tokens(piece.name)])
def test_losses_read_no_more_than_verl_shows(name, awkward):
    """Value and gradient of a batch equal those where ids, steps, tree, groups and rewards are gone."""
    piece, checked = ours.find("loss", name), 0
    for seed in range(10):
        batch = awkward(seed)
        live = batch.mask & (batch.weights != 0)
        if not bool(live.any()):
            continue
        new = (batch.fields["logprobs"].nan_to_num() - 0.3 * torch.rand(batch.ids.shape, dtype=torch.float64)).requires_grad_()
        whole, _ = piece.fn({"logprobs": new}, batch)
        [expected] = torch.autograd.grad(whole, new)
        nothing = Rewards(Grain.of(np.zeros(len(batch))))
        bare = ours.bare_batch(batch.mask, nothing, torch.zeros(len(batch), dtype=torch.long), {"logprobs": batch.fields["logprobs"]})
        bare = ours.replace(bare, weights=batch.weights, advantages=batch.advantages)
        value, _ = piece.fn({"logprobs": new}, bare)
        [gradient] = torch.autograd.grad(value, new)
        torch.testing.assert_close(value, whole)
        torch.testing.assert_close(gradient, expected)
        checked += 1
    assert checked > 5


def test_a_loss_with_parameters_of_its_own():
    loss = ours.register_loss({"use": "ppo_clip", "clip": 0.05}, "guerdon_tight")
    new, old = torch.tensor([[0.0, -1.0]]), torch.tensor([[-0.5, -1.0]])
    value, _ = loss(old, new, torch.ones(1, 2), torch.ones(1, 2), config=actor())
    assert value.item() == pytest.approx(-(min(np.exp(0.5), 1 + 0.2) + 1) / 2)  # clip_high of the actor stays
    assert core_algos.get_policy_loss_fn("guerdon_tight") is loss


@pytest.mark.parametrize("name", ["kl", "entropy_bonus", "sft"])
def test_losses_that_need_more_are_refused(name):
    with pytest.raises(Refused, match="needs more"):
        ours.register_loss(name)


# --- finished credit -------------------------------------------------------------------------------------------------------------

TEXTS = ["3+3\nA: 6", "3+3\nA: 7", "4+3\nA: 7", "A: 6"]


STEPS = {TEXTS[0]: [1.0, 1.0], TEXTS[1]: [1.0, 0.0], TEXTS[2]: [0.0, 0.0], TEXTS[3]: [0.0]}  # the last one skips a line


def by_hand(texts: list[str]) -> torch.Tensor:
    rewards = Rewards(outcome=Grain.of([float("A: 6" in x) for x in texts]), step=Grain.ragged([STEPS[x] for x in texts]))
    return min_form(batch_of(texts, rewards, [0] * len(texts)), temperature=0.1)


def test_finished_advantages_pass_through_compute_advantage():
    texts = [*TEXTS, *TEXTS[::-1]]
    data = answers(texts, ["a"] * 4 + ["b"] * 4)
    Finished(g.arithmetic + g.arithmetic_steps, {"use": "min_form", "temperature": 0.1}, WORDS, samples=4)(data)
    compute_advantage(data, adv_estimator="guerdon_given", config=AlgoConfig(adv_estimator="guerdon_given"))
    expected = torch.cat([by_hand(TEXTS), by_hand(TEXTS).flip(0)])
    assert expected.abs().sum() > 0
    torch.testing.assert_close(data.batch["advantages"], expected, atol=1e-6, rtol=0)


def test_rewards_of_groups_see_whole_groups_whatever_their_order():
    data = answers(["b", "z", "a", "y"], ["a", "b", "a", "b"])
    Finished(place, "dr_grpo", WORDS, samples=2)(data)
    assert data.batch["advantages"][:, 0].tolist() == [0.5, 0.5, -0.5, -0.5]


def test_part_of_a_group_is_refused():
    with pytest.raises(Refused, match="Group 'a' has 3 of 4 answers here"):
        Finished("arithmetic", "grpo", WORDS, samples=4)(answers(TEXTS[:3], ["a"] * 3))


def test_a_field_that_verl_has_not_computed_is_refused():
    data = answers(TEXTS, ["a"] * 4)
    finished = Finished("arithmetic", "verl_values_credit", WORDS, samples=4)
    with pytest.raises(Refused, match="no 'values'"):
        finished(data)
    data.batch["values"] = torch.rand(data.batch["responses"].shape)
    values, mask = data.batch["values"].clone(), data.batch["response_mask"]
    torch.testing.assert_close(finished(data).batch["advantages"], values * mask)


def fake_trainer(**algorithm):
    cls = get_trainer_cls("guerdon_sync")
    trainer = cls.__new__(cls)
    trainer.config = OmegaConf.create(
        {
            "algorithm": {
                "adv_estimator": "grpo", "use_kl_in_reward": False, "gamma": 1.0, "lam": 1.0, "norm_adv_by_std_in_grpo": True, **algorithm,
            },
            "actor_rollout_ref": {"rollout": {"n": 4}},
            "reward": {
                "reward_kwargs": {"guerdon": {"reward": "arithmetic + arithmetic_steps", "credit": {"use": "min_form", "temperature": 0.1}}}
            },
        }
    )  # fmt: skip
    trainer.tokenizer, trainer.global_steps, trainer.total_training_steps = WORDS, 1, 10
    return trainer


def stored(texts: list[str], uid: str) -> tuple[list[str], list[dict]]:
    keys, fields = [], []
    for i, text in enumerate(texts):
        ids = torch.tensor(WORDS(text)["input_ids"])
        keys.append(f"{uid}_{i}_0")
        scores = torch.zeros(len(ids))
        scores[-1] = float("A: 6" in text)
        fields.append(
            {
                "uid": uid, "prompts": torch.tensor(WORDS("1+2+3=")["input_ids"]), "responses": ids, "response_mask": torch.ones(len(ids)),
                "rm_scores": scores, "raw_prompt": "1+2+3=", "reward_model": {"ground_truth": "6"}, "data_source": "sums",
                "extra_info": {"expression": "1+2+3"},
            }
        )  # fmt: skip
    return keys, fields


@pytest.fixture(scope="module")
def queue():
    """verl's TransferQueue, the real one, in a Ray of this machine."""
    import ray
    import transfer_queue as tq

    ray.init(num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    tq.init()
    yield tq
    tq.close()
    ray.shutdown()


def test_the_trainer_puts_finished_advantages_in_place_of_verls(queue):
    keys, fields = stored(TEXTS, "q")
    order = [2, 0, 3, 1]
    padding = {**fields[0], "uid": "pad", "responses": torch.tensor([1]), "response_mask": torch.zeros(1), "rm_scores": torch.zeros(1)}
    keys, fields = [*(keys[i] for i in order), "pad_0_0"], [*(fields[i] for i in order), padding]
    tags = [{}] * 4 + [{"is_padding": True}]
    queue.kv_batch_put(keys=keys, partition_id="train", fields=list_of_dict_to_tensordict(fields), tags=tags)
    batch = queue.KVBatchMeta(keys=keys, tags=tags, partition_id="train")
    metrics: dict = {}
    fake_trainer()._compute_advantage(batch, metrics)
    found = queue.kv_batch_get(keys=keys, partition_id="train", select_fields=["advantages", "returns"])
    expected = by_hand(TEXTS)
    for i, row in zip(order, found["advantages"].unbind(), strict=False):
        torch.testing.assert_close(row, expected[i, : len(row)], atol=1e-6, rtol=0)
    assert found["advantages"].unbind()[4].tolist() == [0.0]
    assert metrics["guerdon/arithmetic"] == 0.5


def test_what_finished_credit_has_no_place_for_is_refused():
    batch = SimpleNamespace(keys=["a_0_0", "a_0_1"], tags=[{}, {}], partition_id="train")
    with pytest.raises(Refused, match="several outputs"):
        fake_trainer()._compute_advantage(batch, {})
    with pytest.raises(Refused, match="use_kl_in_reward"):
        fake_trainer(use_kl_in_reward=True)._compute_advantage(batch, {})


def test_every_trainer_of_verl_has_a_twin():
    for name in ("sync", "colocate_async", "separate_async"):
        twin = get_trainer_cls(f"guerdon_{name}")
        assert twin.__mro__[1:3] == (verl_credit.FinishedCredit, get_trainer_cls(name))


def test_the_pages_settings_are_read_from_verls_own_configuration():
    from hydra import compose, initialize_config_module

    overrides = [
        "reward.reward_manager.name=guerdon",
        '+reward.reward_kwargs.guerdon.reward="gate(format, math) + 0.2 * length(target=300).when(math > 0)"',
        "+reward.reward_kwargs.guerdon.credit={use: min_form, temperature: 0.1}",
        "trainer.v1.trainer_mode=guerdon_sync",
        "algorithm.adv_estimator=guerdon_grpo",
        "actor_rollout_ref.actor.policy_loss.loss_mode=guerdon_ppo_clip",
    ]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides)
    settings = ours.settings_of(config)
    assert settings["reward"] == "gate(format, math) + 0.2 * length(target=300).when(math > 0)"
    assert dict(settings["credit"]) == {"use": "min_form", "temperature": 0.1}
    assert settings["unscored"] == "drop"
    assert get_trainer_cls(config.trainer.v1.trainer_mode) is get_trainer_cls("guerdon_sync")
    assert resolve_reward_manager_cls(config) is ours.GuerdonRewardManager

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("trl", reason="trl lives in the environment of `make test-integrations`")

from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

import guerdon as g
from guerdon.credit import credit
from guerdon.envs import arithmetic, named_policy
from guerdon.integrations import trl as ours
from guerdon.integrations.trl import GuerdonGRPOTrainer, reward_funcs
from guerdon.registry import Refused
from guerdon.samples import Verdict

seen: dict = {}


@g.reward(inline=True, name="trl_letters")
def letters(text: str) -> float:
    return sum(map(ord, text)) / 1000


@g.reward(inline=True, name="trl_states")
def states(text: str) -> float | Verdict | None:
    return {"fail": Verdict.fail("grader down"), "none": None}.get(text, 1.0)


@g.reward(name="trl_place")
def place(group: list) -> list[float]:
    order = sorted(range(len(group)), key=lambda i: group[i].text)
    return [float(order.index(i)) for i in range(len(group))]


@g.reward(inline=True, name="trl_when", pure=False)
def when(text: str, progress) -> float:
    return progress.share


@g.reward(inline=True, name="trl_fields")
def fields(prompt, messages, meta) -> float:
    seen.update(prompt=prompt, messages=messages, meta=meta)
    return 1.0


@credit(needs=("logprobs", "entropy", "ref_logprobs"), name="trl_fields_credit")
def fields_credit(batch):
    seen["batch"] = batch
    return torch.zeros_like(batch.weights)


def call(expression, completions, columns=None, prompts=None, **options):
    n = len(completions)
    [fn] = reward_funcs(expression, **options)
    return fn(prompts=prompts or ["p"] * n, completions=completions, completion_ids=[[1]] * n, **(columns or {}))


def config(folder: Path, **changes) -> GRPOConfig:
    options = {
        "max_steps": 1, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 24, "temperature": 1.5,
        "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1,
    }  # fmt: skip
    return GRPOConfig(str(folder), **{**options, **changes})


def trainer(folder: Path, reward="arithmetic", credit="grpo", changes=None, **options) -> GuerdonGRPOTrainer:
    tasks = arithmetic(n=8, steps=[2, 3], low=1, high=9, ops="+-", within=[0, 20])
    data = Dataset.from_list([{"prompt": t.prompt, "reference": t.reference, **t.meta} for t in tasks])
    args = config(folder, **(changes or {}))
    return GuerdonGRPOTrainer(str(named_policy("tiny")), reward, credit, train_dataset=data, args=args, **options)


def loss_inputs(made: GuerdonGRPOTrainer) -> list[dict]:
    """What TRL's loss was given in each step of the training that this runs."""
    kept, loss = [], made._compute_loss

    def keep(model, inputs):
        kept.append({name: x.clone() for name, x in inputs.items() if torch.is_tensor(x)})
        return loss(model, inputs)

    made._compute_loss = keep
    made.train()
    return kept


def test_the_page_runs(run_page):
    assert len(run_page("trl")["seen"]) == 2


def test_an_expression_is_a_reward_function():
    assert call(g.gate(g.exact, letters) + 0.5 * g.exact, ["7", "8"], {"reference": ["7", "9"]}) == [0.5 + 0.055, 0.0]


def test_what_abstains_or_fails_is_none_with_its_reason():
    metrics, extra = {}, {}
    columns = {"log_metric": metrics.__setitem__, "log_extra": extra.__setitem__}
    assert call(states, ["fail", "none", "x"], columns) == [None, None, 1.0]
    assert "grader down" in extra["guerdon"][0]
    third = pytest.approx(1 / 3)
    assert metrics == {
        "guerdon/trl_states": 1.0, "guerdon/share failed": third, "guerdon/share abstained": third, "guerdon/share hostile": 0.0,
    }  # fmt: skip


def test_columns_are_meta_and_messages_are_kept():
    prompt = [{"role": "user", "content": "hi"}]
    answer = [{"role": "assistant", "content": "yes"}]
    assert call(fields, [answer], {"level": [3], "id": ["a"]}, prompts=[prompt]) == [1.0]
    assert seen["meta"] == {"level": 3}
    assert seen["messages"] == [*prompt, *answer]


def test_trainer_state_is_the_progress():
    assert call(when, ["x"], {"trainer_state": SimpleNamespace(global_step=3, max_steps=12)}) == [0.25]


def test_trls_own_trainer_takes_it(tmp_path):
    data = Dataset.from_list([{"prompt": "1+2=", "reference": "3"}] * 4 + [{"prompt": "2+2=", "reference": "4"}] * 4)
    made = GRPOTrainer(str(named_policy("tiny")), reward_funcs("arithmetic + 0.1 * trl_place"), config(tmp_path), data)
    made.train()
    assert made.reward_func_names == ["arithmetic + 0.1 * trl_place"]
    logged = made.state.log_history[0]
    assert logged["guerdon/trl_place"] == pytest.approx(1.5)  # of 0, 1, 2, 3 in each whole group
    assert logged["reward"] == pytest.approx(logged["guerdon/arithmetic"] + 0.15, abs=1e-5)
    assert logged["guerdon/share failed"] == 0


def test_a_reward_of_groups_sees_neighbours_of_one_prompt():
    texts = ["b", "a", "c", "z", "y"]
    assert call(place, texts, prompts=["p", "p", "p", "q", "q"]) == [1.0, 0.0, 2.0, 1.0, 0.0]
    assert call(place, ["b", "a", "z", "y"], generations=2) == [1.0, 0.0, 1.0, 0.0]
    with pytest.raises(Refused, match="no whole groups of 4"):
        call(place, texts, generations=4)


def test_a_group_split_over_two_processes_is_scored_whole(monkeypatch):
    """The first process, with the second one's rows as gathered."""
    [fn] = reward_funcs(place, generations=4)
    mine, theirs = ["d", "a"], ["c", "b"]
    apart = [ours.sample_of(ours.Task("", "p"), text, "lines") for text in theirs]
    monkeypatch.setattr(ours, "gather", lambda rows: ([*rows, *apart], slice(0, len(rows))))
    assert fn(prompts=["p"] * 2, completions=mine, completion_ids=[[]] * 2) == [3.0, 0.0]


def test_two_real_processes_that_share_a_group(tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    script = str(Path(__file__).with_name("two_ranks.py"))
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script, str(tmp_path)]
    done = subprocess.run(run, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    ranks = [json.loads((tmp_path / f"rank{r}.json").read_text()) for r in range(2)]
    assert [rank["places"] for rank in ranks] == [[3.0, 0.0], [2.0, 1.0]]
    for kind in ("whole", "apart"):
        samples = ranks[0][kind]["samples"]
        assert samples == ranks[1][kind]["samples"]
        assert [group for _, _, group in samples] == [0] * 4
        order = sorted(range(4), key=lambda i: (samples[i][1], i))
        rewards = [sum(map(ord, text)) / 1000 + (order.index(i) if kind == "whole" else 0) for i, (_, text, _) in enumerate(samples)]
        assert len(set(rewards)) > 1
        for rank, found in enumerate(ranks):
            expected = {tuple(samples[i][0]): rewards[i] - sum(rewards) / 4 for i in (2 * rank, 2 * rank + 1)}
            assert set(map(tuple, found[kind]["ids"])) == set(expected)
            for ids, advantages in zip(found[kind]["ids"], found[kind]["advantages"], strict=True):
                np.testing.assert_allclose(advantages, expected[tuple(ids)], atol=1e-5)


@pytest.mark.parametrize(
    ("expression", "options", "says"),
    [
        ("arithmetic_steps", {}, "takes one number an answer"),
        ("arithmetic | multiplier(threshold=0.5)", {}, "learns from training batches"),
        ("length", {}, "reads token ids"),
        ("exakt", {}, "did you mean 'exact'"),
    ],
)
def test_what_a_reward_function_cannot_do_is_refused(expression, options, says):
    with pytest.raises(Refused, match=says):
        reward_funcs(expression, **options)


def test_a_missing_reference_is_refused_with_the_columns_there():
    with pytest.raises(Refused, match=r"no column 'reference'.*solution"):
        call("exact", ["7"], {"solution": ["7"]})
    assert call("exact", ["7"], {"solution": ["7"]}, reference="solution") == [1.0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"credit": "gae"}, "needs the batch field 'values'"),
        ({"credit": "trl_fields_credit"}, "'ref_logprobs', which TRL cannot fill"),
        ({"credit": "min_from"}, "did you mean 'min_form'"),
        ({"credit": {"use": "grpo", "epz": 1}}, "no parameter 'epz'"),
        ({"reward_funcs": [len]}, "lift a function with"),
        ({"changes": {"reward_weights": [2.0]}}, "write the factors into it"),
        ({"changes": {"loss_type": "vespo"}}, "one advantage a sequence"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(tmp_path, options, says):
    with pytest.raises(Refused, match=says):
        trainer(tmp_path, **options)


def test_a_credit_that_would_ignore_the_steps_is_refused(tmp_path):
    with pytest.raises(Refused, match="would ignore the step rewards"):
        trainer(tmp_path, "arithmetic + arithmetic_steps", "grpo").train()


def test_rows_without_a_verdict_leave_the_loss_and_the_group(tmp_path):
    @g.reward(inline=True, name="trl_fails_some")
    def fails_some(text: str) -> float | Verdict:
        return Verdict.fail("down") if len(text) % 2 else len(text) / 10

    made = trainer(tmp_path, fails_some, "dr_grpo")
    [given] = loss_inputs(made)
    samples, rewards, _ = made.scored
    assert 0 < rewards.alive.sum() < len(samples)
    values = {tuple(s.ids): (len(s.text) / 10 if len(s.text) % 2 == 0 else None, s.group) for s in samples}
    tokens = 0
    for ids, mask, loss_mask, advantages in zip(
        given["completion_ids"], given["completion_mask"], given["tool_mask"], given["advantages"], strict=True
    ):
        row = tuple(ids[mask.bool()].tolist())
        value, group = values[row]
        others = [s for s in samples if s.group == group and values[tuple(s.ids)][0] is not None]
        expected = 0.0 if value is None else value - np.mean([values[tuple(s.ids)][0] for s in others])
        np.testing.assert_allclose(advantages[: len(row)], expected, atol=1e-5)
        assert (loss_mask * mask).sum() == (0 if value is None else len(row))
        tokens += 0 if value is None else len(row)
    assert given["num_items_in_batch"] == tokens


def test_logged_advantages_are_ours(tmp_path):
    made = trainer(tmp_path, letters, "dr_grpo")
    loss_inputs(made)
    r = np.array([sum(map(ord, s.text)) / 1000 for s in made.scored[0]])
    expected = r - r.reshape(-1, 4).mean(1).repeat(4)
    np.testing.assert_allclose(list(made._logs["advantages"]), expected, atol=1e-5)


def test_a_numeric_column_is_a_field(tmp_path):
    @credit(needs=("steps",), name="trl_column_credit")
    def column(batch):
        return batch.fields["steps"][:, None] * batch.mask

    made = trainer(tmp_path, letters, "trl_column_credit")
    [given] = loss_inputs(made)
    assert set(given["advantages"][:, 0].tolist()) <= {2.0, 3.0}
    assert [s.task.meta["steps"] for s in made.scored[0]] == made.batch.advantages[:, 0].tolist()


def test_fields_are_those_of_the_samples_tokens(tmp_path):
    made = trainer(tmp_path, letters, "trl_fields_credit", {"beta": 0.1})
    loss_inputs(made)
    batch = seen["batch"]
    with torch.no_grad():
        for i in range(len(batch)):
            prompt, n = batch.prompts[i], int(batch.lengths[i])
            ids = torch.cat([prompt, batch.ids[i, :n]])[None]
            logits = made.ref_model(ids).logits[0, len(prompt) - 1 : -1] / 1.5 if made.ref_model is not None else None
            assert logits is not None
            logps = logits.log_softmax(-1)
            expected = logps.gather(1, batch.ids[i, :n, None])[:, 0]
            for name in ("logprobs", "ref_logprobs"):  # before the first step the policy is the reference
                torch.testing.assert_close(batch.fields[name][i, :n], expected, atol=1e-4, rtol=0)
            torch.testing.assert_close(batch.fields["entropy"][i, :n], -(logps.exp() * logps).sum(-1), atol=1e-4, rtol=0)


def test_evaluation_has_groups_of_its_own_and_teaches_no_shape(tmp_path):
    tasks = arithmetic(n=3, steps=[2, 3], low=1, high=9, ops="+-", within=[0, 20])
    data = Dataset.from_list([{"prompt": t.prompt, "reference": t.reference} for t in tasks])
    changes = {"num_generations_eval": 2, "per_device_eval_batch_size": 6}
    made = trainer(tmp_path, "trl_letters | multiplier(threshold=0.5)", "dr_grpo", changes, eval_dataset=data)
    before = made.reward.scorer.state_dict()
    found = made.evaluate()
    assert [s.group for s in made.scored[0]] == [0, 0, 1, 1, 2, 2]
    assert made.reward.scorer.state_dict()["shapes"] == before["shapes"]
    assert found["eval_guerdon/trl_letters"] > 0


def test_conversations(tmp_path):
    words = AutoTokenizer.from_pretrained(str(named_policy("tiny")))
    words.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": "1+2="}], "level": 3}] * 8)
    made = GuerdonGRPOTrainer(
        str(named_policy("tiny")), fields + letters, "dr_grpo", train_dataset=data, args=config(tmp_path), processing_class=words
    )
    made.train()
    sample = made.scored[0][-1]
    assert seen["messages"] == [{"role": "user", "content": "1+2="}, {"role": "assistant", "content": sample.text}]
    assert seen["meta"] == {"level": 3}
    assert words(sample.text)["input_ids"] == [i for i in sample.ids.tolist() if i not in words.all_special_ids]
    assert sample.spans["step"]


@pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
def test_tokens_of_the_environment_get_no_advantage(tmp_path):
    """TRL's own `rollout_func`, whose `env_mask` is 0 where the environment wrote."""

    def rollout(prompts, host):
        tokenizer = host.processing_class
        texts = ["1+1\nA: 2", "2+2\nA: 4", "1+1\nA: 3", "5\nA: 5"]
        ids = [tokenizer(texts[i % 4])["input_ids"] for i in range(len(prompts))]
        return {
            "prompt_ids": [tokenizer(p)["input_ids"] for p in prompts],
            "completion_ids": ids,
            "logprobs": [[-0.5] * len(row) for row in ids],
            "env_mask": [[int(i >= 2) for i in range(len(row))] for row in ids],
        }

    made = trainer(tmp_path, letters, "dr_grpo", rollout_func=rollout)
    [given] = loss_inputs(made)
    assert (given["advantages"][:, :2] == 0).all()
    assert (given["advantages"][:, 2] != 0).all()
    assert made.scored[0][0].written.tolist()[:3] == [False, False, True]
    np.testing.assert_allclose(made.batch.fields["logprobs"][0, 2:4], -0.5)


def test_what_a_shape_learnt_is_in_the_checkpoint_and_back_on_resume(tmp_path):
    expression = "trl_letters | multiplier(threshold=0.5)"
    first = trainer(tmp_path, expression, "dr_grpo", {"max_steps": 2, "save_strategy": "steps", "save_steps": 1})
    first.train()
    state = json.loads((tmp_path / "checkpoint-1" / "guerdon.json").read_text())
    learnt = first.reward.scorer.state_dict()
    assert state["shapes"]
    assert state != learnt
    second = trainer(tmp_path, expression, "dr_grpo", {"max_steps": 2, "save_strategy": "no"})
    loads = second._load_optimizer_and_scheduler
    second._load_optimizer_and_scheduler = lambda folder: (loads(folder), seen.update(back=second.reward.scorer.state_dict()))
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert seen["back"] == state

"""Shares of imitation: schedules by hand, the learned one against finite differences and through the loop."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from guerdon.backends.base import LossCall
from guerdon.backends.tabular import CAPABILITIES, tabular
from guerdon.envs.core import env
from guerdon.losses import amft, chord_mu, fixed
from guerdon.registry import Refused
from guerdon.rewards import reward
from guerdon.samples import Context, Grain, Progress, Rewards, Sample, Task, collate
from guerdon.training.loop import backward_apart
from guerdon.training.run import train


def test_fixed_and_its_range():
    assert fixed(Progress(3, 10), 0.3) == 0.3
    for wrong in (
        lambda: fixed(Progress(0, 1), 1.1),
        lambda: chord_mu(Progress(0, 1), peak=-0.1),
        lambda: chord_mu(Progress(0, 1), valley=2),
    ):
        with pytest.raises(Refused, match="share of imitation"):
            wrong()


def test_chord_mu_by_hand():
    """Four steps up to 0.8, eight down to 0.1 by half a cosine, then 0.1."""
    found = [chord_mu(Progress(step, 20), 0.8, 0.1, 4, 8) for step in range(15)]
    down = [0.1 + 0.35 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    assert found == pytest.approx([0, 0.2, 0.4, 0.6, *down, 0.1, 0.1, 0.1])
    assert found[8] == pytest.approx(0.45)
    assert {chord_mu(Progress(step, 20)) for step in range(20)} == {0.1}


COUNTS = {"a": 20, "b": 50, "<end>": 30}
"""Of 100 answers of one token, those that a policy with these chances gives exactly."""
PAID = {"a": 1.0, "b": 0.0, "<end>": 0.25}


@pytest.mark.parametrize("state", range(5))
def test_the_slope_is_a_finite_difference_of_what_held_out_answers_earn(state: int, monkeypatch: pytest.MonkeyPatch):
    """U(theta') exactly, theta' = theta - lr ((1 - mu) g_RL + mu g_SFT), on a table of one row; the held-out answers enumerated."""
    model = tabular(vocab="ab")
    prompt = model.encode("?")
    start = np.log([COUNTS[name] / 100 for name in model.names])
    model.set_logits(prompt, start)
    task, rng, lr, mu = Task("train", "?"), np.random.default_rng(state), 1e-3, 0.3

    def sample(token: int, source: str = "policy", logprob: float = 0.0) -> Sample:
        return Sample(task, "", prompt, np.array([token]), logprobs=np.array([logprob]), source=source)

    rows = [sample(int(x)) for x in rng.integers(3, size=6)] + [sample(int(x), "expert") for x in rng.integers(3, size=3)]
    batch = collate(rows, Rewards(Grain.of(np.zeros(9))), dtype=torch.float64)
    batch.advantages = torch.from_numpy(rng.normal(size=(9, 1)))
    grad = lambda: cast(torch.Tensor, model.tables["logits"].grad)[0].clone()  # noqa: E731
    gradient = {}
    for call in (LossCall("policy_gradient", of="policy"), LossCall("sft", of="expert")):
        model.forward_backward(batch, call)
        gradient[call.of] = grad()
        model.tables["logits"].grad = None
    backward_apart(model, batch, [LossCall("policy_gradient", of="policy", times=1 - mu), LossCall("sft", of="expert", times=mu)], 1.0)
    torch.testing.assert_close(grad(), (1 - mu) * gradient["policy"] + mu * gradient["expert"])
    model.tables["logits"].grad = None

    def earned(share: float) -> float:
        logits = torch.from_numpy(start) - lr * ((1 - share) * gradient["policy"] + share * gradient["expert"])
        return float(logits.softmax(0) @ torch.tensor([PAID[name] for name in model.names], dtype=torch.float64))

    tokens = [model.names.index(name) for name, count in COUNTS.items() for _ in range(count)]
    monkeypatch.setattr(sys.modules["guerdon.losses.mix"], "parallel", lambda *_, **__: [sample(token) for token in tokens])
    learned = amft("held", mu=mu)
    context = Context(models={"policy": model}, rng=rng)
    context.score = lambda samples: Rewards(Grain.of([PAID[model.names[int(s.ids[0])]] for s in samples]))  # pyright: ignore
    cosine = learned.slope(context, batch)
    size = float((gradient["expert"] - gradient["policy"]).norm())
    slope = lr * cosine * math.sqrt(model.grad_dot("held_out", "held_out")) * size * 99 / 100  # the baseline leaves out the answer itself
    assert abs(cosine) <= 1
    assert slope == pytest.approx((earned(mu + 1e-3) - earned(mu - 1e-3)) / 2e-3, rel=0.01)


@reward(inline=True)
def says_a(text: str) -> float:
    return float(text.startswith("a"))


def recipe(**changes: Any) -> dict[str, Any]:
    return {
        "name": "mix", "seed": 3, "threads": 1, "models": {"policy": {"backend": "tabular", "vocab": "ab"}},
        "tasks": {"use": "taught"}, "reward": "says_a", "rollout": {"use": "mixed", "max_tokens": 3}, "credit": "grpo",
        "aggregate": "per_source", "loss": [{"use": "ppo_clip", "of": "policy"}, {"use": "sft", "of": "expert"}],
        "mix": {"use": "amft", "tasks": "held", "every": 2, "rate": 0.2, "entropy_rate": 0.01, "prompts": 2, "max_tokens": 3},
        "train": {"steps": 6, "prompts": 2, "samples": 6, "lr": 0.1, "checkpoint_every": 2}, **changes,
    }  # fmt: skip


@env
def taught() -> list[Task]:
    """Demonstrations that are wrong; held-out tasks are the same question, asked again."""
    return [Task(f"t{i}", "?" * (1 + i % 2), meta={"solution": "b"}) for i in range(4)]


@env
def held(trained: bool = False) -> list[Task]:
    return [Task("h", "?"), Task("t1" if trained else "h", "??")]


def numbers(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith(("seconds", "tokens_per_second", "time"))} for row in metrics]


def test_amft_learns_away_from_wrong_demonstrations_and_resumes_to_the_same_numbers(tmp_path: Path):
    whole = train(recipe(), folder=tmp_path / "whole").metrics
    mu = [row["mix/mu"] for row in whole if "mix/mu" in row]
    assert mu[0] == 0.5
    assert mu[-1] < 0.4
    assert [("mix/slope" in row) for row in whole if "mix/mu" in row] == [False, True] * 3
    assert all(row["mix/slope"] < 0 for row in whole if "mix/slope" in row)
    train(recipe(train={**recipe()["train"], "steps": 4}), folder=tmp_path / "cut")
    again = train(recipe(), resume=tmp_path / "cut").metrics
    assert numbers(again) == numbers(whole)


def test_keeping_gradients_apart_changes_no_step(tmp_path: Path):
    still = {**recipe()["mix"], "every": 1, "rate": 0.0, "entropy_rate": 0.0, "mu": 0.3}
    apart = train(recipe(mix=still), folder=tmp_path / "a").metrics
    plain = train(recipe(mix={"use": "fixed", "mu": 0.3}), folder=tmp_path / "b").metrics
    for name in ("loss", "grad_norm"):
        assert [row[name] for row in apart if name in row] == pytest.approx([row[name] for row in plain if name in row], rel=1e-9)
    assert len(apart) == len(plain) > 5


def test_what_amft_cannot_do_is_refused_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(Refused, match=r"'t1'.*held-out|held-out task 't1'"):
        train(recipe(mix={"use": "amft", "tasks": {"use": "held", "trained": True}}), folder=tmp_path / "a")
    with pytest.raises(Refused, match="no parameter 'train'"):
        train(recipe(mix={"use": "amft", "tasks": {"use": "held", "train": True}}), folder=tmp_path / "c")
    with pytest.raises(Refused, match="bounds"):
        amft("held", mu=0.99)
    with pytest.raises(Refused, match="held-out `tasks`"):
        amft(3)
    monkeypatch.setattr(sys.modules["guerdon.backends.tabular"], "CAPABILITIES", CAPABILITIES - {"grad_dot"})
    with pytest.raises(Refused, match=r"amft.*grad_dot"):
        train(recipe(), folder=tmp_path / "b")

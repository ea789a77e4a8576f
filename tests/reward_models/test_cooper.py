"""Cooper's verifier and the pairs that it learns from: the loss by hand, and which pairs there are."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from guerdon.backends.base import LossCall
from guerdon.backends.scripted import Scripted, completion
from guerdon.losses.aggregate import pair_mean
from guerdon.registry import Refused
from guerdon.reward_models import Learner, verified_pairs, verify_rm
from guerdon.reward_models.cooper import read
from guerdon.rewards import exact
from guerdon.samples import Context, Sample, State, Task
from guerdon.scoring import Engine
from guerdon.spans import mark


def make(text: str, group: int = 0, reference: str = "3") -> Sample:
    sample = Sample(Task(f"t{group}", "1+2=", reference), text, group=group, stop="end")
    mark(sample)
    return sample


@pytest.fixture
def model(characters: Any) -> Any:
    causal, handle = characters(1, head="scalar", trainable=True)
    torch.manual_seed(0)
    torch.nn.init.normal_(handle.head.weight)  # a new head says 0 of everything
    return causal, handle


class World:
    """A rule that is `exact`, and an assistant that writes these texts in turn."""

    def __init__(self, says: Any) -> None:
        self.assistant = Scripted(says)
        self.context = Context(models={"assistant": self.assistant}, rng=np.random.default_rng(0))
        self.engine = Engine(self.context, workers=1)
        self.context.score = partial(self.engine.score, exact + 0.0)  # a sum has parts

    def pairs(self, samples: list[Sample], model: Any, **how: Any) -> Any:
        return verified_pairs(samples, self.context.score(samples), model, self.context, rule="exact", **how)


def head(causal: Any, model: Any, head_values: Any, sample: Sample, text: str) -> float:
    prompt, ids = read(model, sample.task, text)
    return float(head_values(causal, model, prompt, ids)[-1])


def test_it_reads_question_reference_and_completion(model: Any, head_values: Any):
    causal, handle = model
    samples = [make("A: 3"), make("A: 3", reference="4"), make("  ")]
    found = verify_rm.fn(samples, [s.task.reference for s in samples], handle)
    z = np.array([head(causal, handle, head_values, s, s.text) for s in samples[:2]])
    np.testing.assert_allclose([v.value for v in found[:2]], 1 / (1 + np.exp(-z)), atol=1e-9)
    assert z[0] != z[1]  # the reference counts
    assert (found[2].value, found[2].state, found[2].reason) == (0.0, State.SCORED, "the completion is empty")
    assert [v.value for v in verify_rm.fn(samples[:2], ["3", "4"], handle, threshold=True)] == (z > 0).astype(float).tolist()


def test_the_loss_is_that_of_the_sure_sides(model: Any, head_values: Any):
    causal, handle = model
    world = World(lambda messages, rng: "so\nA: 9" if "second" in messages[-1]["content"] else "A: 8")
    samples = [make("A: 4"), make("first\nA: 3"), make("again\nA: 3"), make("second\nA: 3", 1), make("A: 5", 2)]
    batch = world.pairs(samples, handle)
    assert batch.pairs.tolist() == [[0, 1], [2, 3]]
    assert world.assistant.asked == 2  # group 2 has no answer that the rule accepts
    s = [
        head(causal, handle, head_values, samples[i], t) for i, t in ((1, "first\nA: 3"), (1, "A: 8"), (3, "second\nA: 3"), (3, "so\nA: 9"))
    ]
    by_hand = np.mean([np.log1p(np.exp(-(s[0] - s[1]))), np.log1p(np.exp(-(s[2] - s[3])))])
    learner = Learner("rm", handle, [LossCall("bradley_terry")], pair_mean, lr=1e-2, clip=None)
    first = learner.update(batch, world.context)
    assert first["rm/loss"] == pytest.approx(by_hand, abs=1e-6)
    assert learner.update(batch, world.context)["rm/loss"] < first["rm/loss"]


def test_a_rewriting_of_the_same_answer_is_asked_for_again(model: Any):
    said = iter(["A: 3", "  A: 3.", "A: 7"])
    world = World(lambda messages, rng: next(said))
    batch = world.pairs([make("A: 3")], model[1])
    assert model[1].decode(batch.ids[1, : int(batch.lengths[1])].numpy())[0].endswith("7")
    assert world.assistant.asked == 3


@pytest.mark.parametrize("says", ["A: 3", "", "<think>so", None, completion("A: 4", "length")])
def test_without_a_wrong_side_there_is_no_pair(model: Any, says: Any):
    world = World(lambda messages, rng: says)
    assert world.pairs([make("A: 3")], model[1]) is None
    assert world.assistant.asked == 3


def test_without_a_right_side_nobody_is_asked(model: Any):
    world = World(lambda messages, rng: "A: 1")
    assert world.pairs([make("A: 4"), make("no answer: <think>")], model[1]) is None
    assert world.assistant.asked == 0


def test_what_is_missing_is_named(model: Any):
    world = World(lambda messages, rng: "A: 1")
    rewards = world.context.score([make("A: 3")])
    with pytest.raises(Refused, match="the rule 'math' is no part"):
        verified_pairs([make("A: 3")], rewards, model[1], world.context, rule="math")
    with pytest.raises(Refused, match="'helper' is no model"):
        verified_pairs([make("A: 3")], rewards, model[1], world.context, rule="exact", assistant="helper")


def test_the_loop_teaches_it_from_its_own_lesson(tmp_path: Any):
    from guerdon.backends.base import backend
    from guerdon.registry import pieces
    from guerdon.training.run import train

    @backend(name="assistant_of_the_test")
    def opened(path: str | None = None, trainable: bool = False) -> Scripted:
        return Scripted(lambda messages, rng: "b")

    models = {
        "policy": {"backend": "tabular", "vocab": ["a", "b"]},
        "assistant": {"backend": "assistant_of_the_test"},
        "verify_rm": {
            "backend": "tabular", "vocab": ["a", "b"], "head": "scalar",
            "learn": {"loss": "bradley_terry", "lr": 0.1, "aggregate": "pair_mean", "on": {"use": "verified_pairs", "rule": "exact"}},
        },
    }  # fmt: skip
    assert "verified_pairs" in {piece.name for piece in pieces("lesson")}
    run = train(
        tasks=[Task("t", "ab", "a")], models=models, reward="verify_rm + 0 * exact", rollout={"use": "parallel", "max_tokens": 3}, seed=0,
        train={"steps": 3, "prompts": 1, "samples": 8, "lr": 0.1}, threads=1, folder=tmp_path / "run",
    )  # fmt: skip
    gaps = [row["verify_rm/reward_gap"] for row in run.metrics if "verify_rm/reward_gap" in row]
    assert len(gaps) == 2  # in one step no sample was right, and it took none
    assert gaps[-1] > gaps[0]

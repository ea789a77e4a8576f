"""What the adapters share needs none of their hosts, so this runs everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import guerdon as g
from guerdon.credit import credit
from guerdon.integrations.common import Credit, Scorer, Together, join, part_means, sample_of, spoken, unscored
from guerdon.registry import Refused
from guerdon.samples import Grain, Part, Progress, Rewards, Sample, Task, Verdict, collate


@g.reward(inline=True, name="common_states")
def states(text: str) -> float | Verdict | None:
    return {"fail": Verdict.fail("down"), "none": None, "seen": Verdict(1.0, evidence={"by": "me"})}.get(text, 0.5)


@credit(name="common_nan", grains=("outcome", "step", "token"))
def nan_credit(batch):
    return torch.where(batch.group[:, None] == 1, torch.nan, torch.zeros_like(batch.weights))


def samples(*texts: str) -> list[Sample]:
    return [sample_of(Task(str(i), "p", "2"), text, "lines") for i, text in enumerate(texts)]


def test_rewards_scored_apart_equal_those_scored_together():
    texts = ["seen", "x", "fail", "none", "A: 2"]
    scorer = Scorer("gate(common_states, exact) + 0.5 * common_states")
    whole = scorer.score(samples(*texts))
    apart = join([scorer.score(samples(text)) for text in texts])
    for name, part in [("", Part(whole)), *whole.parts.items()]:
        other = apart if not name else apart.parts[name].rewards
        np.testing.assert_array_equal(part.rewards.state, other.state)
        np.testing.assert_array_equal(part.rewards.total(), other.total())
        assert [part.rewards.why(i) for i in range(5)] == [other.why(i) for i in range(5)]
    assert apart.parts["exact"].coefficient == whole.parts["exact"].coefficient
    assert apart.evidence == whole.evidence


def test_means_of_parts_and_shares():
    found = part_means(Scorer("common_states").score(samples("seen", "x", "fail", "none")))
    assert found == {"common_states": 0.75, "share failed": 0.25, "share abstained": 0.25, "share hostile": 0.0}


def test_hooks_are_called_around_training_batches_only():
    scorer = Scorer("common_states | multiplier(threshold=0.9)")
    assert scorer.whole
    before = scorer.state_dict()
    scorer.train(samples("x", "x"), Progress(0, 10), on="eval")
    assert scorer.state_dict()["shapes"] == before["shapes"]
    scorer.train(samples("x", "x"), Progress(0, 10))
    after = scorer.state_dict()
    other = Scorer("common_states | multiplier(threshold=0.9)")
    other.load_state_dict(after)
    assert other.state_dict() == after


def test_single_samples_are_scored_together_and_errors_come_back():
    together = Together(Scorer("common_states"))
    futures = [together.submit(s) for s in samples("x", "fail", "none")]
    found = [future.result(timeout=30) for future in futures]
    assert found[0].outcome.value.tolist() == [0.5]
    assert unscored(found[0]) is None
    assert unscored(found[1]) == "failed: down"
    assert unscored(found[2]).startswith("abstained")
    together.scorer.score = lambda *_: (_ for _ in ()).throw(Refused("no"))
    with pytest.raises(Refused, match="no"):
        together.submit(samples("x")[0]).result(timeout=30)


def test_messages_are_spoken():
    assert spoken("a") == "a"
    assert spoken([{"role": "assistant", "content": "a"}, {"role": "tool", "content": [{"type": "text", "text": "b"}]}]) == "a\nb"
    assert spoken([{"role": "assistant", "content": None}]) == ""


def test_a_credit_is_refused_before_it_can_be_wrong():
    rows = [Sample(Task("", "p"), "", np.array([1]), np.array([1, 2]), group=k) for k in (0, 0, 5)]
    batch = collate(rows, Rewards(Grain.of([1.0, 0.0, 0.0])))
    with pytest.raises(Refused, match="gave sample 2 an advantage that is not a finite number"):
        Credit("common_nan", "TRL", ())(batch)
    with pytest.raises(Refused, match="would ignore the step rewards"):
        Credit("grpo", "TRL", ()).check_grains(Rewards(step=Grain.ragged([[1.0]])))
    with pytest.raises(Refused, match="needs the batch field 'values', which verl cannot fill; it fills logprobs"):
        Credit("gae", "verl", ("logprobs",))
    np.testing.assert_allclose(Credit({"use": "dr_grpo"}, "TRL", ())(batch)[:, 0], [0.5, -0.5, 0.0])

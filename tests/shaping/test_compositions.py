"""Methods that are a composition of registered pieces: reward ensembles, Posterior-GRPO, sums of log-sigmoids."""

from __future__ import annotations

import math

import numpy as np
import pytest

import guerdon.shaping  # noqa: F401  fills the registry
from guerdon.credit import grpo
from guerdon.rewards import reward
from guerdon.rewards.expr import Pipe
from guerdon.samples import Context, Sample, State, Task, collate
from guerdon.scoring import Engine

MEMBERS = np.array([[10.0, -2.0, 0.5], [11.0, -1.0, 0.1], [10.2, -3.0, 0.9]])
"""Three answers as three members see them; each member has an offset of its own."""
OFFSETS = [10.0, -2.0, 0.4]


def member(j):
    def value(sample) -> float:
        return MEMBERS[int(sample.text), j]

    return reward(name=f"member_{'abc'[j]}", inline=True)(value)


for j in range(3):
    member(j)


def ensemble(text):
    """The values of the three answers, the reference's mean reward being each member's offset."""
    engine = Engine(Context(models={"reference": object()}))
    root = engine.check(text)
    for node in root.walk():
        if isinstance(node, Pipe) and node.shape.name in ("centred", "log_sigmoid"):
            node.shape.fn.load_state_dict({"known": {Task("t", "q").key: [OFFSETS["abc".index(str(node.source)[-1])]]}})
    return engine.score(root, [Sample(Task("t", "q"), str(i)) for i in range(3)]).total()


ALL = "member_a | centred, member_b | centred, member_c | centred"
CENTRED = MEMBERS - OFFSETS


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"min({ALL})", CENTRED.min(1)),
        (f"mean({ALL})", CENTRED.mean(1)),
        (f"median({ALL})", np.median(CENTRED, axis=1)),
        (f"mean({ALL}) - 0.5 * std({ALL})", CENTRED.mean(1) - 0.5 * CENTRED.std(1)),
    ],
)
def test_ensembles_of_centred_members(text, wanted):
    np.testing.assert_allclose(ensemble(text), wanted, atol=1e-12)


def test_members_that_are_not_centred_leave_the_lowest_offset_in_charge():
    np.testing.assert_array_equal(ensemble("min(member_a, member_b, member_c)"), MEMBERS[:, 1])


def test_log_sigmoids_add_to_the_log_probability_of_good_in_all():
    low = np.array(OFFSETS[:2]) + 1.0364333894937896 * 1e-5  # the 85th percentile of one answer
    p = 1 / (1 + np.exp(-(MEMBERS[:, :2] - low)))
    np.testing.assert_allclose(ensemble("(member_a | log_sigmoid) + (member_b | log_sigmoid)"), np.log(p.prod(1)), atol=1e-9)


@reward(inline=True)
def posterior_form(text):
    return float(text != "mangled")


@reward(inline=True)
def posterior_tests(text):
    return float(text.startswith("pass"))


@reward(inline=True)
def posterior_quality(text):
    return None if text == "mangled" else float(text.split()[1])


POSTERIOR = "posterior_form + posterior_tests + posterior_tests * posterior_quality"


def test_posterior_grpo_counts_the_process_only_after_success():
    texts = ["pass 0.8", "pass 0.1", "fail 0.9", "mangled"]
    samples = [Sample(Task("t", "q"), text, np.array([1]), np.array([2]), logprobs=np.zeros(1)) for text in texts]
    out = Engine().score(POSTERIOR, samples)
    assert out.total().tolist() == pytest.approx([2.8, 2.1, 1.0, 0.0])
    assert out.state.tolist() == [State.SCORED] * 4  # no quality to judge: the product is left out of the sum
    batch = collate(samples[:2], out.rows([0, 1]))
    assert grpo(batch)[:, 0].tolist() == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)], rel=1e-5)
    plain = Engine().score("posterior_form + posterior_tests", samples[:2])
    assert not grpo(collate(samples[:2], plain)).any()

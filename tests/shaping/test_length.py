"""Length rewards against numbers worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from guerdon.registry import Refused
from guerdon.rewards import parse
from guerdon.samples import Context, Grain, Progress, Rewards, Sample, State, Task
from guerdon.shaping import cosine_length, hbpo, kimi_length, laser, laser_d, top_lambda, z_length
from guerdon.shaping.length import band, repeats, sizes


def batch(*groups):
    """Groups of (right, length) as samples with tokens, and their 0/1 rewards."""
    samples = [
        Sample(Task(f"t{g}", "q"), "x" * length, ids=np.arange(length), group=g) for g, group in enumerate(groups) for _, length in group
    ]
    return samples, Rewards(Grain.of([float(right) for group in groups for right, _ in group]))


def shaped(call, samples, rewards, step=0, total=0):
    return call.fn(rewards, samples, Context(progress=Progress(step, total))).outcome.value.tolist()


@pytest.mark.parametrize(
    ("form", "expected"),
    [("reward", [1.5, 1.5, 1.0, -0.5]), ("penalty", [1.0, 1.0, 0.5, -0.5]), ("hybrid", [1.5, 1.5, 0.5, -0.5])],
)
def test_laser_pays_right_answers_within_the_target(form, expected):
    samples, rewards = batch([(1, 3), (1, 4), (1, 5), (0, 2)])
    assert shaped(laser(4, form=form), samples, rewards) == expected


def test_laser_keeps_the_values_of_the_reward_where_it_is_told_to():
    samples, _ = batch([(1, 3), (0, 3)])
    rewards = Rewards(Grain.of([0.8, 0.3]))
    assert shaped(laser(4, bonus=0.25, wrong=None), samples, rewards) == [1.05, 0.3]


def test_a_value_above_a_half_is_right_and_lengths_are_those_that_the_policy_wrote():
    samples, _ = batch([(1, 6), (1, 6)])
    samples[0].written = np.array([False, False, False, True, True, True])
    assert sizes(samples).tolist() == [3, 6]
    assert shaped(laser(4), samples, Rewards(Grain.of([0.51, 0.5]))) == pytest.approx([1.01, -0.5])


def test_without_tokens_a_sample_abstains_unless_characters_are_counted():
    samples = [Sample(Task("t", "q"), "abc"), Sample(Task("t", "q"), "abcdef")]
    for call in (laser(4), kimi_length(), z_length(), top_lambda(), cosine_length(), laser_d(), hbpo()):
        out = call.fn(Rewards(Grain.of([1.0, 1.0])), samples, Context())
        assert (out.outcome.state == State.ABSTAINED).all()
        assert "no tokens" in out.why(0)
    assert shaped(laser(4, unit="characters"), samples, Rewards(Grain.of([1.0, 1.0]))) == [1.5, 1.0]
    with pytest.raises(Refused, match="unit"):
        laser(4, unit="words").fn(Rewards(Grain.of([1.0, 1.0])), samples, Context())


def test_bands_of_difficulty_at_their_edges():
    assert [band(right, 6) for right in range(7)] == ["low", "low", "medium", "medium", "high", "high", "high"]
    assert [band(right, 8) for right in (2, 3, 5, 6)] == ["low", "medium", "medium", "high"]


def test_targets_are_the_shortest_length_with_one_right_answer_expected():
    """n = 8: the high band needs 1/5 of its answers within the target, the medium one 1/2, the low one all."""
    d = laser_d(target=99, lower=2, step=2, upper=20).fn
    high = [(1, 3), (1, 6), (1, 7), (1, 9), (0, 15)]  # 1/5 within 4
    medium = [(1, 5), (0, 6), (1, 12), (0, 13)]  # 2/4 within 6
    low = [(0, 11), (0, 14), (0, 17)]  # all within 18
    d.observe(*batch(high, medium, low), Context(), on="train")
    assert d.state_dict()["targets"] == {"low": 18.0, "medium": 6.0, "high": 4.0}
    samples, rewards = batch([(1, 4), (1, 5), (1, 9)], [(1, 6), (0, 5)], [(1, 18), (0, 20), (0, 20), (0, 20)])
    assert shaped(_with(d), samples, rewards) == [1.5, 1.0, 1.0, 1.5, -0.5, 1.5, -0.5, -0.5, -0.5]


class _with:
    """A bound shape in the place of a call."""

    def __init__(self, fn):
        self.fn = fn


def test_a_band_without_answers_or_beyond_the_grid_has_no_limit():
    d = laser_d(target=5, lower=2, step=2, upper=8).fn
    d.observe(*batch([(0, 4), (0, 9)]), Context())
    assert d.state_dict()["targets"] == {"low": None, "medium": None, "high": None}
    samples, rewards = batch([(1, 10**4)])
    assert shaped(_with(d), samples, rewards) == [1.5]


def test_targets_follow_the_last_batches_of_the_monitor_and_survive_json():
    d = laser_d(target=5, lower=1, step=1, upper=30, monitor="eval", window=2).fn
    d.observe(*batch([(1, 9)]), Context(), on="train")
    assert d.state_dict()["targets"]["high"] == 5
    for length in (20, 10, 8):
        d.observe(*batch([(1, length)] * 2), Context(), on="eval")
    assert d.state_dict()["targets"]["high"] == 8
    assert len(d.state_dict()["seen"]) == 2
    again = laser_d(monitor="eval").fn
    again.load_state_dict(json.loads(json.dumps(d.state_dict())))
    assert again.state_dict() == d.state_dict()


def test_targets_ascend_with_difficulty_where_lengths_do():
    rng = np.random.default_rng(0)
    for _ in range(20):
        d = laser_d(lower=1, step=1, upper=100).fn
        bands = ((7, 5), (4, 15), (1, 30))  # right answers of 8, and the least length
        groups = [[(int(i < right), int(rng.integers(low, low + 20))) for i in range(8)] for right, low in bands]
        d.observe(*batch(*groups), Context())
        found = [np.inf if t is None else t for t in (d.state_dict()["targets"][name] for name in ("high", "medium", "low"))]
        assert found == sorted(found)


def test_laser_de_pays_long_wrong_answers_that_do_not_loop_and_never_above_zero():
    d = laser_d(target=6, explore=True)
    samples, rewards = batch([(0, 6), (0, 30), (0, 30), (0, 30), (0, 30)])
    samples[2].ids = np.tile([1, 2, 3, 4, 5], 6)
    value = shaped(d, samples, rewards)
    assert value == [-0.5, 0.0, -0.5, 0.0, 0.0]


def test_repeats_wants_three_times_within_a_third():
    assert repeats([7] * 12)
    assert repeats([*range(30), *[1, 2, 3, 4] * 3])
    assert not repeats(list(range(100)))
    spread_out = [x for i in range(3) for x in (*range(100 * i + 10, 100 * i + 60), 1, 2, 3, 4)]
    assert not repeats(spread_out)
    assert not repeats([])
    assert not repeats("abcabc")


def test_top_lambda_by_hand():
    """Of 5 groups the one that is always right is punished: lengths 2, 4, 6, z = +-sqrt(3/2); the others keep 0 or 1."""
    easy = [(1, 2), (1, 4), (1, 6)]
    others = [[(1, 9), (0, 1), (0, 1)], [(0, 3), (0, 3), (0, 3)], [(1, 5), (1, 7), (0, 2)], [(1, 5), (0, 5), (0, 5)]]
    samples, rewards = batch(others[0], easy, *others[1:])
    z = math.sqrt(1.5)
    expected = [1 - 0.6 / (1 + math.exp(z)), 0.7, 1 - 0.6 / (1 + math.exp(-z))]
    assert shaped(top_lambda(), samples, rewards) == pytest.approx([1, 0, 0, *expected, 0, 0, 0, 1, 1, 0, 1, 0, 0], abs=1e-5)


def test_top_lambda_at_its_edges():
    samples, rewards = batch([(1, 5), (0, 9)], [(0, 2), (0, 3)])
    assert shaped(top_lambda(share=1.0, alpha=0.4), samples, rewards) == pytest.approx([0.8, 0, 0, 0])  # one right answer: sigmoid(0)
    samples, rewards = batch([(0, 5), (0, 9)])
    assert shaped(top_lambda(), samples, rewards) == [0, 0]
    groups = [[(1, 2), (1, 4)]] * 40
    samples, rewards = batch(*groups)
    chosen = [np.flatnonzero(np.array(shaped(top_lambda(), samples, rewards, step=s)).reshape(40, 2)[:, 0] < 1).tolist() for s in range(3)]
    assert [len(c) for c in chosen] == [8, 8, 8]  # ceil(0.2 * 40): ties are drawn anew each step
    assert chosen[0] != chosen[1] != chosen[2]
    with pytest.raises(Refused, match="share is above 0"):
        shaped(top_lambda(share=0), samples, rewards)


def test_z_length_by_hand():
    samples, rewards = batch([(1, 2), (1, 4), (0, 9)], [(1, 7)])
    expected = [1 - 0.4 / (1 + math.e), 1 - 0.4 / (1 + math.exp(-1)), 0, 0.8]
    assert shaped(z_length(), samples, rewards) == pytest.approx(expected, abs=1e-5)


def test_kimi_length_by_hand_and_after_its_warm_up():
    """Lengths 10 to 20: lam = 0.5, 0.25, -0.5; wrong answers get no bonus."""
    samples, rewards = batch([(1, 10), (0, 10), (1, 12), (0, 14), (1, 20), (0, 20)], [(1, 3), (0, 3)])
    expected = [1.5, 0, 1.3, 0, 0.5, -0.5, 1, 0]
    assert shaped(kimi_length(weight=1.0), samples, rewards) == pytest.approx(expected)
    plain = rewards.outcome.value.tolist()
    for begin, step, on in ((0.5, 4, False), (0.5, 5, True), (3, 2, False), (3, 3, True)):
        assert (shaped(kimi_length(1.0, begin), samples, rewards, step=step, total=10) != plain) == on
    assert shaped(kimi_length(1.0, 0.5), samples, rewards) == pytest.approx(expected)


def test_unscored_answers_are_in_no_extreme():
    samples, rewards = batch([(1, 10), (1, 20), (1, 1000)])
    rewards.outcome.state[2] = State.FAILED
    assert shaped(kimi_length(weight=1.0), samples, rewards) == [1.5, 0.5, 0]


def test_cosine_length_by_hand():
    samples, rewards = batch([(1, 0), (1, 50), (1, 100), (0, 0), (0, 50), (0, 99), (0, 150)])
    value = shaped(cosine_length(limit=100), samples, rewards)
    assert value[:5] == pytest.approx([2, 1.5, -10, -10, -5])
    assert value[5] == pytest.approx(-10 * 0.5 * (1 + math.cos(0.99 * math.pi)))
    assert value[6] == -10
    with pytest.raises(Refused, match="1 or more"):
        shaped(cosine_length(limit=0), samples, rewards)


def test_the_reward_of_a_budget():
    def value(length, budget, right=1):
        samples, rewards = batch([(right, length)])
        samples[0].meta = {} if budget is None else {"budget": budget}
        return shaped(hbpo(), samples, rewards)[0]

    assert value(200, 512) == pytest.approx(4 * math.cos(math.pi / 16))
    assert value(3000, 512) == pytest.approx(4 * math.cos(3000 * math.pi / 8192) - 2488 / 4096)
    assert value(512, 512) == pytest.approx(value(513, 512), abs=0.01)  # continuous at the budget
    assert value(300, 512) > value(300, 2560)
    assert value(3000, 512) < value(3000, 2560)
    assert value(4097, 2560) == value(100, 512, right=0) == 0
    assert value(2048, None) == pytest.approx(4 * math.cos(math.pi / 4))
    for wrong in (0, True, "many"):
        with pytest.raises(Refused, match="budget"):
            value(10, wrong)


def test_they_read_as_text():
    for text in ("math | laser(target=4096)", "math | laser_d(explore=True)", "math | kimi_length(begin=0.3, weight=0.4)", "math | hbpo"):
        assert "math |" in str(parse(text))

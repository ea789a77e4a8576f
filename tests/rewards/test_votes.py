"""Agreement in the place of a reference: who votes for whom, ties, and what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from guerdon.rewards import co_reward, majority
from guerdon.rewards.votes import vote
from guerdon.samples import Rewards, Sample, State, Task
from guerdon.scoring import Engine
from guerdon.spans import mark


def made(task: Task, answers: Sequence[str | None], group: int) -> list[Sample]:
    samples = [Sample(task, f"<answer>{a}</answer>" if a is not None else "<answer>", group=group, stop="end") for a in answers]
    for sample in samples:
        mark(sample)
    return samples


def phrased(link: str | None, prompt: str) -> Task:
    return Task(prompt, prompt, meta={} if link is None else {"link": link})


def score(reward, samples: list[Sample]) -> Rewards:
    with Engine(workers=1) as engine:
        return engine.score(reward, samples)


def test_each_side_is_the_others_label():
    one, two = made(phrased("q", "a"), ["3", "3", "4"], 0), made(phrased("q", "b"), ["4", " 4 ", "3"], 1)
    found = score(co_reward, [*one, *two])
    assert found.total().tolist() == [0, 0, 1, 0, 0, 1]  # side a is told 4, side b is told 3
    assert found.evidence["label"] == ["4"] * 3 + ["3"] * 3
    assert found.evidence["share"] == [2 / 3] * 6
    own = score(majority, [*one, *two])
    assert own.total().tolist() == [1, 1, 0, 1, 1, 0]


def test_three_phrasings_are_judged_by_the_other_two_together():
    sides = [made(phrased("q", p), answers, g) for g, (p, answers) in enumerate({"a": ["1"], "b": ["2", "2"], "c": ["1", "3"]}.items())]
    found = score(co_reward, [s for side in sides for s in side])
    assert found.evidence["label"][0] == "2"  # of 2 2 1 3
    assert found.evidence["label"][1:3] == ["1", "1"]  # of 1 1 3
    assert found.evidence["label"][3] == "2"  # of 1 2 2


def test_the_same_phrasing_drawn_twice_is_one_side():
    a, b = phrased("q", "a"), phrased("q", "b")
    found = score(co_reward, [*made(a, ["1", "1"], 0), *made(b, ["2"], 1), *made(a, ["1"], 2), *made(b, ["2"], 3)])
    assert found.total().tolist() == [0] * 5
    assert found.evidence["label"] == ["2", "2", "1", "2", "1"]


def test_links_do_not_vote_for_one_another():
    rows = [(("p", "a"), ["1"]), (("q", "c"), ["2"]), (("p", "b"), ["1"]), (("q", "d"), ["2"])]
    found = score(co_reward, [s for g, (task, answers) in enumerate(rows) for s in made(phrased(*task), answers, g)])
    assert found.total().tolist() == [1, 1, 1, 1]


def test_who_has_no_partner_abstains_by_name():
    found = score(co_reward, [*made(phrased("lone", "a"), ["1"], 0), *made(phrased(None, "b"), ["1"], 1)])
    assert found.state.tolist() == [State.ABSTAINED] * 2
    assert "'lone'" in found.why(0)
    assert "select: linked" in found.why(0)
    assert "no `link`" in found.why(1)


def test_empty_answers_neither_vote_nor_win():
    one, two = made(phrased("q", "a"), [None, " ", "7"], 0), made(phrased("q", "b"), [None, None, " "], 1)
    found = score(co_reward, [*one, *two])
    assert found.total().tolist() == [0] * 6
    assert "nobody" in found.why(2)
    assert found.evidence["label"] == [""] * 3 + ["7"] * 3
    assert score(majority, one).total().tolist() == [0, 0, 1]


def test_a_link_in_a_files_row_counts_too():
    rows = [Sample(Task("", ""), "<answer>5</answer>", group=g, meta={"link": 3}) for g in (0, 1)]
    for row in rows:
        mark(row)
    assert score(co_reward, rows).total().tolist() == [1, 1]


@given(answers=st.lists(st.sampled_from(["", "1", "2", "3", "4"]), max_size=12), question=st.text(max_size=3), seed=st.integers(0, 99))
def test_the_vote_is_a_most_common_answer_whatever_the_order(answers, question, seed):
    label, share = vote(answers, question)
    counts = Counter(a for a in answers if a)
    assert (label in counts and counts[label] == max(counts.values())) if counts else label == ""
    assert share == (counts[label] / sum(counts.values()) if counts else 0.0)
    assert vote(np.random.default_rng(seed).permutation(np.array(answers, dtype=object)).tolist(), question) == (label, share)


def test_ties_have_no_leaning():
    first = sum(vote(["1", "2"], f"question {i}")[0] == "1" for i in range(1000))
    assert 437 <= first <= 563  # four standard deviations

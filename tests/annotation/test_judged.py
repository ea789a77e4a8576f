"""Labels of judges: read strictly, word by word against the reply; consensus against a filter by hand."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from guerdon.annotation import consensus, judged, monte_carlo, spare
from guerdon.annotation.core import confidence
from guerdon.backends.scripted import Scripted
from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample, Task
from guerdon.scoring.cache import Cache
from guerdon.search import Budget

SHOWN = re.compile(r"<<<(\w+) (\w+)\n(.*?)\n\1 \2>>>", re.DOTALL)


def texts(messages):
    return {name: text for name, _, text in SHOWN.findall(messages[-1]["content"])}


def judge_of(reply, **models):
    """A context whose judge says `reply`, or what a function of the quoted texts and a generator says; it counts what it is asked."""
    asked = []

    def says(messages, rng):
        asked.append(texts(messages))
        return reply(asked[-1], rng) if callable(reply) else reply

    context = Context(models={"judge": Scripted(says), **models})
    context.score = lambda samples: Rewards(Grain.of([float(s.text.endswith("A: 1")) for s in samples]))
    return context, asked


def two(text="g\nb\nA: 0", reference="1"):
    return Sample(Task("t", "chain=", reference), text)


def words(*said):
    return json.dumps({"verdicts": list(said)})


def test_a_judge_says_what_it_says_of_each_step() -> None:
    context, asked = judge_of("Step 2 is off.\n" + words("right", "wrong", "wrong"))
    labels = judged([two()], context)
    assert labels.value.tolist() == [[1, 0, 0]]
    assert labels.count.tolist() == [[1, 1, 1]]
    assert labels.cost.calls == 1
    assert labels.cost.tokens == len("Step 2 is off.\n" + words("right", "wrong", "wrong"))
    assert asked == [{"request": "chain=", "step_1": "g", "step_2": "b", "step_3": "A: 0"}]
    judged([two()], context, compare=True)
    assert asked[1]["reference"] == "1"


def test_votes_are_shares_and_unread_ones_do_not_count() -> None:
    replies = [words("right", "right", "wrong"), words("right", "wrong", "wrong"), "nothing", words("right", "wrong", "wrong")]
    context, _ = judge_of(lambda shown, rng: replies.pop())
    labels = judged([two()], context, votes=4)
    assert labels.value[0].tolist() == pytest.approx([1, 1 / 3, 0])
    assert labels.count.tolist() == [[3, 3, 3]]
    assert labels.confidence[0, 1] == pytest.approx(confidence(1, 3))
    assert labels.first_wrong(at=0.49).tolist() == [1]


@pytest.mark.parametrize(
    "reply", ["right", words("right", "wrong"), words("right", "wrong", "maybe"), '{"verdicts": ["right", "wrong", "wrong"], "x": 1}', None]
)
def test_what_cannot_be_read_is_no_label(reply) -> None:
    context, _ = judge_of(reply)
    labels = judged([two()], context)
    assert np.isnan(labels.value).all()
    assert all(text.startswith("no label: the judge") for text in labels.text[0])


def records(*rows):
    return json.dumps([{"step": i, "explanation": f"why {i}", "reference_steps": [1], "label": label} for i, label in rows])


def test_spare_reads_records_as_the_authors_do() -> None:
    reply = records((1, "CORRECT"), (2, "CORRECT"), (2, "INCORRECT"), (3, "correct"), (9, "CORRECT"))
    context, asked = judge_of(reply)
    sample = Sample(Task("t", "q", "ref line\nA: 1", {}), "one\ntwo\nthree\nfour\nA: 1")
    labels = spare([sample], context)
    # the last of two records counts, a word in lower case is no CORRECT, step 4 was skipped, the last step is the outcome
    assert labels.value.tolist() == [[1, 0, 0, 0, 1]]
    assert labels.count.tolist() == [[1, 1, 1, 0, 1]]
    assert labels.confidence[0].tolist() == pytest.approx([confidence(1, 1), confidence(0, 1), confidence(0, 1), 0, 1])
    assert labels.text == [["why 1", "why 2", "why 3", "", ""]]
    assert asked[0] | {} == {
        "request": "q", "reference_1": "ref line", "reference_2": "A: 1",
        "step_1": "one", "step_2": "two", "step_3": "three", "step_4": "four", "step_5": "A: 1",
    }  # fmt: skip
    assert spare([sample], context, missed="outcome").value.tolist() == [[1, 0, 0, 1, 1]]
    wrong = Sample(sample.task, sample.text.replace("A: 1", "A: 0"))
    assert spare([wrong], judge_of(records((5, "CORRECT")))[0]).value.tolist() == [[0, 0, 0, 0, 0]]
    assert spare([sample], judge_of("[]")[0]).value.tolist() == [[0, 0, 0, 0, 1]]
    assert spare([sample], judge_of('["step 1", {"step": "1", "label": "CORRECT"}]')[0]).value.tolist() == [[0, 0, 0, 0, 1]]


def test_spare_takes_the_solution_of_the_task_before_its_reference() -> None:
    context, asked = judge_of(records((1, "CORRECT")))
    samples = [
        Sample(Task("t", "q", "r", {"solution": ["a", "b\nc"]}), "x"),
        Sample(Task("t", "q", "r"), "x", meta={"worked": "d\ne"}),
        Sample(Task("t", "q"), "x"),
    ]
    labels = spare(samples, context, solution="worked")
    assert [row.get("reference_1") for row in asked] == ["r", "d"]
    assert labels.text[2] == ["no label: the task has no 'worked' and no reference"]
    spare(samples[:1], context)
    assert (asked[2]["reference_1"], asked[2]["reference_2"]) == ("a", "b\nc")


@pytest.mark.parametrize("reply", ["none", "{}", '[{"step": 1, "label": "CORRECT"},]', None])
def test_spare_mends_no_json(reply) -> None:
    labels = spare([two()], judge_of(reply)[0])
    assert np.isnan(labels.value).all()
    assert labels.text[0][0].startswith("no label: the judge")


@pytest.mark.parametrize("method", [judged, spare])
def test_a_judge_is_asked_once_and_within_the_budget(method, tmp_path) -> None:
    def reply(shown, rng):
        return records((1, "CORRECT")) if method is spare else words("right", "right", "wrong")

    samples = [two(f"{i}\nb\nA: 0") for i in (0, 1, 0, 2)]
    context, asked = judge_of(reply)
    journal = Cache(tmp_path / "j")
    limit = {"budget": Budget(calls=2), "journal": journal}
    first = method(samples, context, **limit)
    assert (first.spent, len(asked)) == (True, 2)
    assert first.text[3] == ["no label: the budget was spent"] * 3
    assert np.isnan(first.value[3]).all()
    assert first.value[0].tolist() == first.value[2].tolist()
    again = method(samples, context, journal=journal)
    assert len(asked) == 3
    assert not again.spent
    assert not np.isnan(again.value).any()
    assert method(samples, judge_of(reply)[0]).value.tolist() == again.value.tolist()


def test_consensus_keeps_what_both_see(world, answer) -> None:
    lines = ["ggbggg", "gggggg", "gbgggg", "gggggg", "gggbgg"]
    samples = [answer(text, f"{i}=", i) for i, text in enumerate(lines)]
    theirs = [2, -1, 3, 0, 3]
    context = world(slip=0.0)

    def reply(shown, rng):
        first = theirs[int(shown["request"][:-1])]
        return words(*(["right"] * 7 if first < 0 else ["right"] * first + ["wrong"] * (7 - first)))

    context.models["judge"] = judge_of(reply)[0].models["judge"]
    labels = consensus(samples, context, k=4)
    assert labels.first_wrong().tolist() == [2, -1, -1, -1, 3]
    nan = np.nan
    expected = [[1, 1, 0] + [nan] * 4, [1] * 7, [nan] * 7, [nan] * 7, [1, 1, 1, 0] + [nan] * 3]
    assert np.array_equal(labels.value, np.array(expected), equal_nan=True)
    assert labels.text[0][3] == "no label: behind the first wrong step"
    assert labels.text[2][0] == "no label: Monte Carlo says step 2 is wrong, the judge step 4 is wrong"
    assert labels.text[3][0] == "no label: Monte Carlo says no step is wrong, the judge step 1 is wrong"
    plain = monte_carlo(samples, world(slip=0.0), k=4)
    assert labels.cost.rollouts == plain.cost.rollouts
    assert labels.cost.calls == plain.cost.calls + 5
    context.models["judge"] = judge_of("?")[0].models["judge"]
    silent = consensus(samples, context, k=4)
    assert np.isnan(silent.value).all()
    assert silent.text[1][0].startswith("no label: the judge's answer cannot be read")


def test_misuse_is_refused() -> None:
    context, _ = judge_of("")
    for method in (judged, spare):
        with pytest.raises(Refused, match="the model 'critic'; give it with --model critic=PATH"):
            method([two()], context, model="critic")
        with pytest.raises(Refused, match=r"Sample 0 .* no text, so no steps"):
            method([two(" ")], context)
    with pytest.raises(Refused, match="votes, max_tokens"):
        judged([two()], context, votes=0)
    with pytest.raises(Refused, match="'incorrect' or takes the 'outcome'"):
        spare([two()], context, missed="right")  # type: ignore[arg-type]

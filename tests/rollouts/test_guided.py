"""Help at the beginning of an answer and in the middle of one: whose token is whose, and what learns from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.backends.tabular import tabular
from guerdon.registry import Refused
from guerdon.rollouts import corrected, guided, interventions
from guerdon.rollouts.interventions import first_wrong, leaks
from guerdon.samples import Context, Grain, Rewards, State, Task, collate

VOCAB = "abcdwxyz\n?"
LINES = ["a", "b", "c", "d"]
TASK = Task("t", "p", "d", {"solution": LINES})


def model(**rows: str):
    """A table that writes these characters after a prefix, all but surely; keys are prefixes with / for a line break."""
    policy = tabular(vocab=VOCAB)
    for prefix, character in rows.items():
        write(policy, "p", prefix.strip("_").replace("I", "\n"), character)
    return policy


def write(policy, prompt: str, prefix: str, character: str) -> None:
    ids = np.concatenate([policy.encode(prompt), policy.encode(prefix)])
    policy.set_logits(ids, [60.0 * (name == character) for name in policy.names])


def context_of(policy, **more) -> Context:
    return Context(models={"policy": policy}, rng=np.random.default_rng(0), score=score, **more)


def score(samples) -> Rewards:
    """A line is right where it is that of the solution; the answer where the last line is."""
    steps = [[float(step.strip() == right) for step, right in zip(s.steps, LINES, strict=False)] for s in samples]
    return Rewards(Grain.of([float(s.text.strip().split("\n")[-1] == "d") for s in samples]), Grain.ragged(steps))


# --- a guide before the answer


def test_subgroups_have_their_share_of_the_demonstration():
    policy = tabular(vocab=VOCAB, bias={"<end>": 1.0})
    context = context_of(policy)
    samples = guided(policy, [TASK], 6, context, share=(0.0, 0.5, 1.0), max_tokens=3)
    whole = "\n".join(LINES)
    for s, size in zip(samples, [0, 0, 3, 3, 7, 7], strict=True):
        assert s.text.startswith(whole[:size])
        assert s.written.tolist() == [False] * size + [True] * (len(s.ids) - size)
        assert np.isnan(s.logprobs[:size]).all()
        assert np.isfinite(s.logprobs[size:]).all()
        assert s.spans["guide"] == s.marks["guide"] == ([(0, size)] if size else [])
        assert s.meta["guide_tokens"] == size
        assert 1 <= s.written.sum() <= 3
        assert s.source == "policy"
    batch = collate(samples, Rewards(Grain.of(np.zeros(6))))
    assert batch.fields["guide_tokens"].tolist() == [0, 0, 3, 3, 7, 7]
    scored = policy.forward(batch)[0]["logprobs"].numpy()
    for i, s in enumerate(samples):
        np.testing.assert_allclose(scored[i, : len(s.ids)][s.written], s.logprobs[s.written], atol=1e-9)


def test_a_hint_stands_in_its_template_and_the_policy_sees_it():
    policy = model(_bbI="c", _bbIc="<end>")
    [s] = guided(policy, [Task("t", "p", meta={"help": "bb"})], 1, context_of(policy), hint="{hint}\n", column="help")
    assert s.text == "bb\nc"
    assert s.cut("guide") == ["bb\n"]
    assert s.written.tolist() == [False, False, False, True, True]


def test_a_teacher_writes_the_hint():
    policy, teacher = model(_xyI="c", _xyIc="<end>"), tabular(vocab=VOCAB)
    for prefix, character in (("", "x"), ("x", "y"), ("xy", "<end>")):
        write(teacher, "p: a\nb\nc\nd", prefix, character)
    context = context_of(policy)
    context.models["wise"] = teacher
    [s] = guided(policy, [TASK], 1, context, hint="{hint}\n", teacher="wise", teacher_prompt="{prompt}: {solution}")
    assert s.text == "xy\nc"
    with pytest.raises(Refused, match="did you mean 'wise'"):
        guided(policy, [TASK], 1, context, hint="{hint}", teacher="wize")


def test_what_cannot_guide_is_refused():
    policy = model()
    for params, why in (
        ({"share": ()}, "one or more shares"),
        ({"share": (0.5, 1.5)}, "from 0 to 1"),
        ({"hint": "help"}, r"must say \{hint\}"),
        ({"teacher": "policy"}, "say where it goes"),
        ({"column": "solved"}, "no column 'solved'"),
    ):
        with pytest.raises(Refused, match=why):
            guided(policy, [TASK], 2, context_of(policy), **params)


# --- the first wrong step


def test_the_first_step_scored_at_0_or_below_is_the_wrong_one():
    grain = Grain.ragged([[1, 0, 0], [1, 1, 1], [-1], [], [None, 0], [1, 0]])
    grain.state[5, 0] = State.FAILED
    assert first_wrong(Rewards(step=grain)) == [1, None, 0, None, 1, None]
    with pytest.raises(Refused, match="must score steps"):
        first_wrong(Rewards(Grain.of([1.0])))


def test_the_first_wrong_step_is_replaced_and_the_policy_goes_on():
    policy = model(_="a", _a="\n", _aI="x", _aIx="\n", _aIxI="y", _aIxIy="<end>", _aIb="\n", _aIbI="c", _aIbIc="<end>")
    context = context_of(policy)
    [s] = corrected(policy, [TASK], 1, context)
    assert s.text == "a\nb\nc"
    assert s.cut("guide") == ["b\n"]
    assert s.written.tolist() == [True, True, False, False, True, True]
    assert s.meta["guide_tokens"] == 2
    assert np.isnan(s.logprobs).tolist() == [False, False, True, True, False, False]
    assert (s.source, s.stop) == ("policy", "end")


def test_what_is_right_or_has_no_step_to_offer_stays_as_it_was_drawn():
    for rows, text in (
        ({"_": "d", "_d": "<end>"}, "d"),  # right in the end
        ({"_": "a", "_a": "<end>"}, "a"),  # wrong, without a wrong step
    ):
        policy = model(**rows)
        [s] = corrected(policy, [TASK], 1, context_of(policy))
        assert (s.text, s.meta["guide_tokens"], s.spans["guide"]) == (text, 0, [])
        assert s.written.all()
    policy = model(_="x", _x="<end>")
    [s] = corrected(policy, [Task("t", "p", "d")], 1, context_of(policy))
    assert s.text == "x"


def test_a_token_across_the_border_is_not_kept_with_the_prefix():
    """`\\nx` is one token: the wrong step's first character must not be what the new step follows."""
    policy = tabular(vocab=["a", "\nx", "\n", "b", "<pad>"])
    policy.separator = ""
    encode = policy.encode
    policy.encode = lambda prompt: (
        np.array([{"a": 0, "\n": 2, "b": 3}[c] for c in prompt]) if set(prompt) <= set("a\nb") else encode(prompt)
    )
    policy.encode_answer = lambda text: np.append(policy.encode(text), policy.end)
    for ids, token in (([], 0), ([0], 1), ([0, 1], policy.end), ([0, 2, 3], policy.end)):
        policy.set_logits(np.concatenate([encode("p"), np.array(ids, dtype=np.int64)]), [60.0 * (i == token) for i in range(6)])
    [s] = corrected(policy, [TASK], 1, context_of(policy))
    assert s.text == "a\nb"
    assert s.ids.tolist() == [0, 2, 3, policy.end]
    assert s.written.tolist() == [True, False, False, True]


# --- interventions


ROWS = dict(_="a", _a="\n", _aI="x", _aIx="\n", _aIxI="y", _aIxIy="<end>", _aIb="\n", _aIbI="c", _aIbIc="\n", _aIbIcI="d", _aIbIcId="<end>")
GOOD = {**ROWS}
BAD = {**ROWS, "_aIbIcId": "w"}


def intervene(rows, step: str | None = "b", task: Task = TASK, **params: Any):
    policy = model(**rows)
    if step is not None:
        for prefix, character in (("", step), (step, "<end>")):
            write(policy, "p|a\n|x\n", prefix, character)
        params |= {"teacher": "policy", "prompt": "{prompt}|{before}|{wrong}"}
    context = context_of(policy)
    [s] = interventions(policy, [task], 1, context, tries=2, max_tokens=12, **params)
    return s


@pytest.mark.parametrize("step", ["b", None])
def test_an_intervention_is_the_right_steps_and_the_new_one_and_nothing_after_it(step):
    s = intervene(GOOD, step) if step else intervene(GOOD, step, teacher=None)
    assert s.text == "a\nb\n"
    assert s.ids.tolist() == [VOCAB.index(c) for c in "a\nb\n"]
    assert s.written.all()
    assert (s.source, s.stop, s.meta["intervened"]) == ("teacher", "stop", 1)
    batch = collate([s], Rewards(Grain.of([0.0])))
    assert batch.fields["expert"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("rows", "step", "task", "why"),
    [
        (BAD, "b", TASK, "no continuation is right"),
        (GOOD, "d", TASK, "the step tells the answer"),
        (GOOD, "x", TASK, "the same step again"),
        (GOOD, "\n", TASK, "no step"),
    ],
)
def test_what_does_not_help_is_no_intervention(rows, step, task, why):
    s = intervene(rows, step, task)
    assert (s.text, s.source, s.meta["intervened"]) == ("a\nx\ny", "policy", 0), why


def test_without_tries_nothing_is_filtered():
    policy = model(**BAD)
    [s] = interventions(policy, [TASK], 1, context_of(policy), teacher=None, tries=0)
    assert s.meta["intervened"] == 1


def test_a_wrong_first_step_is_replaced_alone():
    for rows, text in (({"_x": "<end>"}, "a"), ({"_x": "\n", "_xI": "y", "_xIy": "<end>"}, "a\n")):
        policy = model(_="x", _a="\n", _aI="d", _aId="<end>", **rows)
        [s] = interventions(policy, [TASK], 1, context_of(policy), teacher=None, tries=1)
        assert (s.text, s.source, s.spans["step"]) == (text, "teacher", [(0, len(text))])


def test_a_run_that_scores_no_steps_or_no_outcomes_is_refused():
    policy = model(**GOOD)
    context = context_of(policy)
    context.score = lambda samples: Rewards(step=score(samples).step)
    with pytest.raises(Refused, match="must score outcomes too"):
        interventions(policy, [TASK], 1, context, teacher=None)
    context.score = None
    with pytest.raises(Refused, match="needs the run's reward"):
        corrected(policy, [TASK], 1, context)
    with pytest.raises(Refused, match="no model of the run"):
        interventions(policy, [TASK], 1, context_of(policy), teacher="polisy")


@pytest.mark.parametrize(
    ("step", "answer", "told"),
    [
        ("so x = 14", "14", True),
        ("so x = 140", "14", False),
        ("so x = 1.4", "14", False),
        ("A: 14.", "14", True),
        ("it is 1,000.0 then", "1000", True),
        (r"hence \boxed{\frac{1}{2}}", "0.5", True),
        (r"hence $\dfrac{1}{2}$", r"\frac12", True),
        ("half of it, 1/2", r"\boxed{\frac{2}{4}}", True),
        ("17-3", "3", True),
        ("17-3", "-3", True),
        ("x14y", "14", False),
        ("the capital is Paris", "paris", True),
        ("Parisian cafes", "Paris", False),
        ("new  York, then", "New York", True),
        ("York, new", "New York", False),
        ("anything", "", False),
        ("1/0 and 3", "1/0", True),
    ],
)
def test_a_step_that_tells_the_answer_is_found_in_any_writing(step, answer, told):
    assert leaks(step, answer) is told


@given(st.text(max_size=200), st.text(max_size=50))
def test_no_text_makes_the_guard_raise(step, answer):
    assert leaks(step, answer) in (True, False)


def test_long_runs_of_digits_cost_the_guard_nothing():
    assert not leaks("1" * 200_000 + ",".join("1" * 100_000), "14")

"""The math reward: a table of cases (`math_cases.jsonl`: kind, group, answer, reference), and what holds for all inputs."""

import json
import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.rewards.math import fast, judge, judge_many
from guerdon.rewards.math_read import LONGEST, read
from guerdon.rewards.math_same import same
from guerdon.samples import State, Verdict
from guerdon.workers import Pool

CASES = [json.loads(line) for line in (Path(__file__).parent / "math_cases.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def pool():
    with Pool(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def told(pool):
    pairs = [(case["answer"], case["reference"]) for case in CASES]
    verdicts = judge_many(pairs, deadline=30, pool=pool)
    return {pair: verdict for pair, verdict in zip(pairs, verdicts, strict=True)}


@pytest.mark.parametrize("group", sorted({(case["kind"], case["group"]) for case in CASES}), ids="-".join)
def test_the_table(told, group):
    wrong = []
    for case in CASES:
        verdict = told[case["answer"], case["reference"]]
        if (case["kind"], case["group"]) == group and (verdict.state, verdict.value) != (State.SCORED, float(case["kind"] == "equal")):
            wrong.append((case["answer"], case["reference"], verdict))
    assert wrong == []


def test_every_reason_names_the_path_that_decided(told):
    assert all(verdict.reason.split(":")[0] in ("fast", "slow") for verdict in told.values())
    assert told["42", "42"].reason == "fast: equal"
    assert told["(x+1)^2", "x^2+2x+1"].reason == "slow: equal"


# Regressions, named after where the mistake was seen.


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("1/2004!", "1/2006!"),
        ("2^{-99}", "2^{-98}"),
        ("1 - 1/e", "1 + 1/e"),
        ("1−1/e", "1+1/e"),
        ("$3x−y+13=0$", "$3x+4y+14=0$"),
        ("(1,2)", "\\{1,2\\}"),
        ("It is not 42.", "42"),
        ("n=2,3,4", "n=2,3"),
        ("12:00", "1:00"),
        ("2021", "\\pm 2021"),
    ],
)
def test_math_verify_wrong_accepts(pool, answer, reference):
    for text in (answer, f"\\boxed{{{answer}}}", f"The answer is {answer}."):
        assert judge_many([(text, reference)], 30, pool)[0].value == 0.0


@pytest.mark.parametrize("forms", [("10\\%", "0.1"), ("\\frac{1}{3}", "0.333333")])
def test_math_verify_wrong_rejects(forms):
    assert judge(*forms).value == judge(*reversed(forms)).value == 1.0


# The contract.


def test_a_missing_or_empty_reference_is_failed():
    assert judge("42", None) == Verdict.fail("the task has no reference")
    assert judge("42", " ").state == State.FAILED


@pytest.mark.parametrize(
    ("reference", "answer"), [(42, "42"), (-3, "A: -3"), (0.5, "1/2"), (1e-7, "0.0000001"), ([1, 2], "[1, 2]"), (True, "true")]
)
def test_references_that_are_not_text(reference, answer):
    assert judge(answer, reference).value == 1.0


def test_equal_pairs_are_compared_once_and_order_is_kept(pool):
    pairs = [("\\boxed{(x+1)^2}", "x^2+2x+1"), ("7", "7"), ("\\boxed{(x+1)^2}", "x^2+2x+1"), ("\\boxed{(x+2)^2}", "x^2+2x+1")]
    assert [v.value for v in judge_many(pairs, 30, pool)] == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{9^{9^{9^9}}}",
        "\\boxed{\\sum_{k=1}^{1000000000} \\sin(k^2)}",
        "\\boxed{(10^{10})! + x}",
        "\\boxed{" + "(" * 300 + "x" + ")" * 300 + "}",
    ],
)
def test_what_hangs_the_parser_is_hostile_and_the_others_go_on(pool, text):
    judge_many([("\\boxed{x+x}", "2x")], 30, pool)
    begun = time.monotonic()
    hung, *rest = judge_many([(text, "42"), ("42", "42"), ("\\boxed{43}", "42")], 1.0, pool)
    assert time.monotonic() - begun < 3  # the benchmark holds the sharper bound
    assert hung.value == 0.0
    assert hung.state == State.SCORED
    assert hung.reason.startswith(("hostile", "slow"))
    assert [v.value for v in rest] == [1.0, 0.0]


def test_from_a_thread_that_is_not_the_main_one():
    out = []
    thread = threading.Thread(target=lambda: out.append(judge("\\boxed{\\sqrt{12}}", "2\\sqrt{3}", 30)))
    thread.start()
    thread.join(60)
    assert out == [Verdict(1.0, "slow: equal")]


# For all inputs.


@given(
    text=st.text(
        st.sampled_from("\\{}()[]$^_=+-*/!,.:;0123456789abxfrctn sqboed\0\ud800é½−") | st.characters(exclude_categories=[]), max_size=60
    )
)
@settings(max_examples=500)
def test_the_fast_path_never_raises_and_every_value_equals_itself_or_is_unknown(text):
    fast(text, "42")
    fast("42", text or "x")
    fast(f"\\boxed{{{text}}}", "42")
    value = read(text)
    assert same(value, value) in (True, None)


COMMANDS = (
    r"\frac{ \sqrt{ \pm \pmod \mp \text{ \left( \right) \begin{pmatrix} \end{pmatrix} \\ & \{ \} ( ) [ ] { } , and or = x= \in "
    r"^ _ ! 9 12.5 1,000 $ \boxed{ \( ** : % cm \overline{"
)


@given(tokens=st.lists(st.sampled_from(COMMANDS.split(" ")), max_size=60))
@settings(max_examples=500, deadline=1000)
def test_the_fast_path_is_quick_whatever_the_formula(tokens):
    """\\pmod was once taken for \\pm, and read twice at every depth."""
    for text in ("".join(tokens), " ".join(tokens), tokens[0] * 400 if tokens else ""):
        fast(text, "42")
        fast(f"\\boxed{{{text}}}", "42")
        fast(f"The answer is {text}", "(1, 2)")


fractions = st.fractions(-1000, 1000, max_denominator=60)


def written(value: Fraction, form: int) -> str:
    p, q = value.numerator, value.denominator
    whole, rest = divmod(abs(value), 1)
    mixed = f"{'-' if value < 0 else ''}{whole} {rest.numerator}/{rest.denominator}" if whole and rest else f"{p}/{q}"
    return [f"{p}/{q}", f"\\frac{{{p}}}{{{q}}}", f"\\dfrac{{{-7 * p}}}{{{-7 * q}}}", mixed, f"${3 * p}/{3 * q}$", f"{p} \\div {q}"][form]


@given(a=fractions, b=fractions, i=st.integers(0, 5), j=st.integers(0, 5))
@settings(max_examples=300)
def test_fractions_are_equal_just_when_their_values_are(a, b, i, j):
    assert same(read(written(a, i)), read(written(b, j))) is (a == b)
    assert same(read(written(a, i)), read(written(a, j))) is True


@given(cents=st.integers(-(10**9), 10**9), other=st.integers(-(10**9), 10**9))
def test_decimals_are_equal_just_when_their_values_are(cents, other):
    for a in (f"{cents / 100:.2f}", f"{cents / 100:,.2f}", f"{cents / 100:.3f}", f"{cents}e-2", f"${cents / 100:,.2f}"):
        assert same(read(a), read(f"{cents / 100:.2f}")) is True
        assert same(read(a), read(f"{other / 100:.2f}")) is (cents == other)


@given(value=fractions.filter(lambda q: (10**12 * q).denominator != 1), places=st.integers(1, 9))
def test_a_decimal_equals_a_fraction_that_it_rounds_with_six_digits_or_more(value, places):
    text = f"{float(value):.{places}f}"
    digits = len(text.replace("-", "").replace(".", "").lstrip("0"))
    assert same(read(text), read(f"{value.numerator}/{value.denominator}")) is (digits >= 6)


@given(answer=st.sampled_from([c for c in CASES if c["kind"] == "equal"]), wrap=st.integers(0, 4))
def test_how_an_answer_is_wrapped_changes_nothing(answer, wrap):
    """A right plain answer stays right in a box, a tag, behind `A:`, after thinking, and with white space around it."""
    text = answer["answer"]
    verdict = fast(text, answer["reference"])
    if answer["group"] in ("prose", "references", "choices", "completions") or not isinstance(verdict, Verdict):
        return
    wrapped = [
        f"\\boxed{{{text}}}",
        f"<answer>{text}</answer>",
        f"A: {text}",
        f"<think>7 or 8</think>\n\\boxed{{{text}}}",
        f"\n {text} \n",
    ][wrap]
    assert fast(wrapped, answer["reference"]).value == 1.0  # type: ignore[union-attr]


def test_long_answers_equal_only_long_references():
    digits = "7" * (LONGEST + 1)
    assert judge(digits, "7").reason == "fast: the answer is too long"
    assert judge("\\boxed{" + digits + "}", digits).value == 1.0
    assert judge("\\boxed{" + digits + "}", digits[:-1] + "8").value == 0.0

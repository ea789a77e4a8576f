"""Judges of pairs that reason before they tell: RM-R1 and Think-RM. What they are asked, how they are read, what trains them.

As rewards of a policy they give win rates in a group and the evidence `verdicts`, as `preferred` does. To train such a judge, `lessons`
makes tasks of labelled pairs, each pair in both orders; `rm_r1_verdict`, or `think_rm_format + think_rm_accuracy`, is the reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.judge import CRITERIA, compared, conversation, request
from guerdon.samples import Prompt, Sample, Task, Verdict
from guerdon.spans import thinking

WINDOW = 80
"""Characters at the end of a judgment in which RM-R1's verdict is looked for."""
SIDES = {"A": "<answer>[[A]]</answer>", "B": "<answer>[[B]]</answer>"}
STRENGTHS = ("-3", "-2", "-1", "1", "2", "3")
"""Think-RM's verdicts: below 0 the first answer is better. There is no tie."""

RUBRICS = (
    "Two answers to one request are shown. Decide which is better; neither the order in which they stand nor their length counts. First "
    "say what kind of request it is. <type>Reasoning</type>: mathematics, programs, knowledge, anything with several steps. Then solve it "
    "yourself within <solution> and </solution>, and hold both answers against your own. <type>Chat</type>: anything else. Then write the "
    "criteria that count for this request, with weights that add up to 100, within <rubric> and </rubric>, and among them, within "
    "<justify> and </justify>, why these. Either way go on with the comparison within <eval> and </eval>; what you quote of the answers "
    "stands in <quote_A> or <quote_B>, what you sum up of them in <summary_A> or <summary_B>."
)
COMPARE = "Two answers to one request are shown. Compare them; neither the order in which they stand nor their length counts."
BARE = f"The last line is {SIDES['A']} where answer A is better and {SIDES['B']} where answer B is, with nothing behind it."
THREE = (
    "Think within <think> and </think>, for as long as it takes, then give your reasons in short within <rationale> and </rationale> and "
    "your verdict within <answer> and </answer>, with nothing behind it: "
)
SCALE = (
    "-3, -2 or -1 where answer A is far better, better or slightly better, 1, 2 or 3 where answer B is slightly better, better or far "
    "better."
)
LETTERS = "A where answer A is better, B where answer B is."
Judge = Literal["rm_r1", "rm_r1 thinking", "think_rm", "think_rm binary"]
ASKED: dict[str, tuple[str, str]] = {
    "rm_r1": (RUBRICS, BARE),
    "rm_r1 thinking": (COMPARE, BARE),
    "think_rm": (f"{COMPARE} What counts: {CRITERIA}", THREE + SCALE),
    "think_rm binary": (f"{COMPARE} What counts: {CRITERIA}", THREE + LETTERS),
}
"""What is to be done, and the form of the verdict."""


def _check(votes: int = 1, max_tokens: int = 1, references: int | None = None, **_: Any) -> None:
    if votes < 1 or max_tokens < 1 or (references is not None and references < 1):
        raise Refused(f"A judge takes votes, max_tokens and references of 1 or more, not {votes}, {max_tokens} and {references}.")


@reward(check=_check)
def rm_r1(
    group: list[Sample], model: Any = "judge", rubrics: bool = True, votes: int = 1, both: bool = True, references: int | None = None,
    max_tokens: int = 8192,
) -> list[Verdict]:  # fmt: skip
    """The win rate of each answer in its group by a judge that solves the task, or writes criteria for it, before it compares.

    rubrics False: for models that think by themselves, which are asked for the verdict alone. The verdict is A or B, read from the last 80
    characters, where one of the two tags must stand and the other not; there is no tie. The rest as of `preferred`: both orders, votes,
    evidence `verdicts`. Source: arXiv:2505.02387; the wording and the fences are ours.
    """
    return compared(group, model, *ASKED["rm_r1" if rubrics else "rm_r1 thinking"], read_side, votes, both, references, max_tokens)


@reward(check=_check)
def think_rm(
    group: list[Sample], model: Any = "judge", binary: bool = False, votes: int = 1, both: bool = True, references: int | None = None,
    max_tokens: int = 16384,
) -> list[Verdict]:  # fmt: skip
    """The win rate of each answer in its group by a judge that thinks at length and then says by how much one of two is better, 1 to 3.

    binary: A or B alone. The strengths stand in the evidence `verdicts`, above 0 where the one shown first is better (Think-RM says that
    with a minus), for the credit `pairwise`. The rest as of `preferred`. Source: arXiv:2505.16265; the wording is ours, the form is read
    whole where the released code takes the last number of the last answer tag, and a verdict that cannot be read is left out, where it is a
    tie.
    """
    return compared(group, model, *ASKED["think_rm binary" if binary else "think_rm"], read_strength, votes, both, references, max_tokens)


def side(text: str) -> str | None:
    """A or B: RM-R1's verdict in the last 80 characters, blanks at the end aside; None where there is none, or both."""
    end = text.rstrip()[-WINDOW:]
    found = [name for name, tag in SIDES.items() if tag in end]
    return found[0] if len(found) == 1 else None


def read_side(text: str) -> float | None:
    return {"A": 1.0, "B": -1.0, None: None}[side(text)]


_TAGS = ("<rationale>", "</rationale>", "<answer>", "</answer>")


def read_strength(text: str) -> float | None:
    """By how much A is better, of what follows the thinking: a rationale and an answer, each tag once, with nothing around them."""
    said = _answered(text)
    if said in SIDES:
        return 1.0 if said == "A" else -1.0
    return -float(said) if said in STRENGTHS else None


def _answered(text: str) -> str | None:
    """What the answer tag holds, where the text is a rationale and an answer in their tags, each tag once; None for another text."""
    text = text.strip()
    if any(text.count(tag) != 1 for tag in _TAGS) or not (text.startswith(_TAGS[0]) and text.endswith(_TAGS[3])):
        return None
    _, closed, rest = text.partition(_TAGS[1])
    rest = rest.lstrip()
    return rest[len(_TAGS[2]) : -len(_TAGS[3])].strip() if closed and rest.startswith(_TAGS[2]) else None


# What trains such judges


@reward(inline=True, wrong=-1.0)
def rm_r1_verdict(text: str, reference: Any) -> Verdict:
    """+1 where the last 80 characters hold the right verdict's tag and not the other one, else -1: wrong, both, or none.

    The reference is A or B (or model_a, model_b); with another, such as a tie, it abstains. Blanks at the end of the text do not count (the
    released code counts them). Source: arXiv:2505.02387, rm_r1/verl/utils/reward_score/lm_as_judge.py.
    """
    right = {"model_a": "A", "model_b": "B"}.get(str(reference), str(reference))
    if right not in SIDES:
        return Verdict.abstain("the task's reference is no verdict, A or B")
    said = side(text)
    return Verdict(1.0 if said == right else -1.0, "" if said else f"no verdict, or two, in the last {WINDOW} characters")


@reward(inline=True)
def think_rm_format(text: str) -> Verdict:
    """1 where the whole text is a thought, a rationale and an answer in their tags, each tag once and in this order; else 0.

    The opening `<think>` may be missing, for templates that write it themselves. Source: arXiv:2505.16265, VERL/verl/utils/reward_score/
    binary_genrm.py, which takes tags within tags.
    """
    return Verdict(float(_whole(text) is not None))


@reward(inline=True)
def think_rm_accuracy(text: str, reference: Any) -> Verdict:
    """1 for the right verdict, 0.5 for another strength of the same sign, else 0. The reference is A or B, or -3 to 3 without 0.

    The verdict is all that stands in the answer tag, which stands once behind the thinking and ends the text; with a reference that is none
    it abstains. The released judges of A or B learn by `think_rm_format + think_rm_accuracy`, those of strengths by `think_rm_accuracy`.
    Source: arXiv:2505.16265, VERL/verl/utils/reward_score; it searches the tag for a letter or a number, so that -13 says 3.
    """
    right = str(reference).strip().removeprefix("+")
    if right not in (*SIDES, *STRENGTHS):
        return Verdict.abstain("the task's reference is no verdict: A, B, or -3 to 3 without 0")
    said = _last(text)
    if said is None:
        return Verdict(0.0, "no answer tag, or several, or text behind it")
    if said == right:
        return Verdict(1.0)
    same = said in STRENGTHS and right in STRENGTHS and (said[0] == "-") == (right[0] == "-")
    return Verdict(0.5 if same else 0.0)


def _whole(text: str) -> str | None:
    """What the answer tag of a text of the full form holds; None for another."""
    before, closed, after = text.strip().removeprefix("<think>").partition("</think>")
    tags = ("<think>", "</think>", *_TAGS)
    return _answered(after) if closed and not any(tag in before for tag in tags) and not any(tag in after for tag in tags[:2]) else None


def _last(text: str) -> str | None:
    after = text[thinking(text)[1] :].strip()
    if after.count("<answer>") != 1 or after.count("</answer>") != 1 or not after.endswith("</answer>"):
        return None
    start = after.find("<answer>")
    return after[start + len("<answer>") : -len("</answer>")].strip()


def lessons(id: str, prompt: Prompt, better: str, worse: str, judge: Judge = "rm_r1", strength: int = 1) -> list[Task]:
    """The two tasks, one in each order, that teach a judge a labelled pair: its conversation, and the right verdict as reference.

    strength: by how much `better` is better, 1 to 3, for `think_rm`. Both orders, or a judge wins by its place in them. Raises Refused for
    sides that are equal and for a strength that Think-RM's scale has not.
    """
    if better == worse:
        raise Refused(f"The pair {id!r} has two equal answers: leave it out, there is no verdict on it.")
    if strength not in (1, 2, 3):
        raise Refused(f"The pair {id!r} has the strength {strength}; it is 1, 2 or 3.")
    labels: Sequence[str] = (str(-strength), str(strength)) if judge == "think_rm" else ("A", "B")
    orders = ((better, worse), (worse, better))
    return [
        Task(f"{id}/{label}", list(conversation(*ASKED[judge], request=request(prompt), answer_A=a, answer_B=b)), label)
        for (a, b), label in zip(orders, labels, strict=True)
    ]

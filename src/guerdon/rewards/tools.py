"""ToolRL: the form of an answer with tool calls, and how right the calls are. Source: arXiv:2504.13958, github.com/qiancheng0/ToolRL.

What differs from the authors' code: gold and predicted calls are matched by the best assignment instead of greedily in order, so that no
order of calls changes the reward; every `<tool_call>` block is read, not the first alone; a key twice in an object, NaN and JSON of more
than 64 levels are no parsable call; `true` is not 1; "strict" compares names and keys without their order; `arguments` is read as
`parameters`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.reading import strict_json
from guerdon.samples import Verdict

MOST = 100
"""Calls in one answer that are read; more are not parsable."""
Matching = Literal["fine", "strict", "intermediate", "coarse"]
Call = dict[str, Any]

_THINK, _CALLS, _REPLY = r"<think>.*?</think>", r"\n<tool_call>\n.*?\n</tool_call>", r"\n<response>.*?</response>"
_FORMS = {(calls, reply): re.compile(_THINK + _CALLS * calls + _REPLY * reply, re.S) for calls in (False, True) for reply in (False, True)}


@reward(wrong=-3.0)
def toolrl(text: str, reference: Any, matching: Matching = "fine", scale: float = 3.0, think_words: int = 0) -> Verdict:
    """R = tool_format + tool_correct(matching, scale), in [-scale, 1 + scale]; with think_words > 0 (512 in the paper's ablation, where it
    hurt) also min(1, words of the thinking / think_words). Schedules of the two parts are written as expressions of the parts."""
    form, right = tool_format.fn(text, reference), tool_correct.fn(text, reference, matching, scale)
    long = min(1.0, len(_thought(text).split()) / think_words) if think_words else 0.0
    return Verdict(form.value + right.value + long, "; ".join(filter(None, (form.reason, right.reason))))


@reward
def tool_format(text: str, reference: Any) -> Verdict:
    """1 where the text has exactly the blocks of the reference, in order, else 0: `<think>..</think>`, then on lines of their own
    `<tool_call>` (its calls between line breaks) and `<response>`, each of these two at most once.

    The reference is a text with these blocks, or a list of calls (`{"name": ..., "parameters": {...}}`, a mapping or JSON text): think and
    tool_call, or think alone where it is empty. A text without blocks stands for an answer without calls.
    """
    gold, reply = _gold(reference)
    counts = [(text.count(f"<{tag}>"), text.count(f"</{tag}>")) for tag, wanted in (("tool_call", gold), ("response", reply)) if wanted]
    if any(count != (1, 1) for count in counts):
        return Verdict(0.0, "a block is missing, or stands more than once")
    found = _FORMS[bool(gold), reply].fullmatch(text.removesuffix("\n"))
    return Verdict(float(found is not None), "" if found else "not the blocks of the reference")


@reward(wrong=-3.0)
def tool_correct(text: str, reference: Any, matching: Matching = "fine", scale: float = 3.0) -> Verdict:
    """How right the calls P of the text are against the calls G of the reference, from -scale to scale.

    fine:          scale * (2 S / S_max - 1);  S = r_name + sum over pairs (r_param + r_value),  S_max = 1 + |G| + sum_G |parameters|
                   r_name: Jaccard of the multisets of names;  r_param: Jaccard of a pair's parameter keys;  r_value: keys of equal value.
                   Pairs have equal names; they are the one-to-one assignment with the largest sum (Hungarian).
    strict:        the same, but both Jaccards are 1 where the sets are equal, else 0.
    intermediate:  a pair adds 1 where the calls are equal, else 0;  S_max = 1 + |G|.
    coarse:        scale where the calls are equal, in their order, else -scale.
    No parsable `<tool_call>`: -scale. A reference without calls: 0, whatever the text calls (as in the authors' code).
    Each line of a block is one JSON object `{"name": text, "parameters": object}`. A hostile text has -3, whatever the scale. Raises
    Refused for a reference whose calls are none.
    """
    if matching not in ("fine", "strict", "intermediate", "coarse"):
        raise Refused(f"`matching` of toolrl is fine, strict, intermediate or coarse, not {matching!r}.")
    gold, _ = _gold(reference)
    if not gold:
        return Verdict(0.0, "the reference has no call")
    try:
        calls = _calls(text)
    except ValueError as error:
        return Verdict(-scale, str(error))
    if [_key(call) for call in gold] == [_key(call) for call in calls]:
        return Verdict(scale)
    return Verdict(scale * (2 * _share(gold, calls, matching) - 1))


def _share(gold: Sequence[Call], calls: Sequence[Call], matching: Matching) -> float:
    """S / S_max, in 0..1."""
    if matching == "coarse":
        return 0.0
    exact = matching == "intermediate"
    jaccard = _equal if matching == "strict" else _jaccard
    score = jaccard(Counter(call["name"] for call in gold), Counter(call["name"] for call in calls))
    gains = np.zeros((len(gold), len(calls)))
    for i, a in enumerate(gold):
        for j, b in enumerate(calls):
            if a["name"] == b["name"]:
                gains[i, j] = float(_key(a) == _key(b)) if exact else _gain(a["parameters"], b["parameters"], jaccard)
    if gains.any():
        from scipy.optimize import linear_sum_assignment

        score += float(gains[linear_sum_assignment(gains, maximize=True)].sum())
    return score / (1 + len(gold) + (0 if exact else sum(len(call["parameters"]) for call in gold)))


def _gain(a: Mapping[str, Any], b: Mapping[str, Any], jaccard: Any) -> float:
    return jaccard(Counter(a.keys()), Counter(b.keys())) + sum(key in b and _key(value) == _key(b[key]) for key, value in a.items())


def _jaccard(a: Counter[str], b: Counter[str]) -> float:
    return (a & b).total() / (a | b).total() if a or b else 1.0


def _equal(a: Counter[str], b: Counter[str]) -> float:
    return float(a == b)


def _key(value: Any) -> str:
    """Equal for equal JSON: the order of keys does not count, 1 and 1.0 are one number, true is none."""
    return json.dumps(_floats(value), sort_keys=True)


def _floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _floats(x) for key, x in value.items()}
    if isinstance(value, list):
        return [_floats(x) for x in value]
    whole = isinstance(value, float) and value.is_integer()
    return int(value) if whole else value


def _thought(text: str) -> str:
    return text.split("<think>")[-1].split("</think>")[0] if "<think>" in text and "</think>" in text else ""


def _calls(text: str) -> list[Call]:
    """The calls of every block. Raises ValueError with the reason where there is none, or a line is no call."""
    blocks = [part.partition("</tool_call>") for part in text.split("<tool_call>")[1:]]
    lines = [line for block, closed, _ in blocks if closed for line in block.strip().split("\n")]
    if not lines:
        raise ValueError("no <tool_call> block")
    if len(lines) > MOST:
        raise ValueError(f"more than {MOST} calls")
    return [_call(strict_json(line)) for line in lines]


def _call(value: Any) -> Call:
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        parameters = value.get("parameters", value.get("arguments"))
        if isinstance(parameters, Mapping):
            return {"name": value["name"], "parameters": dict(parameters)}
    raise ValueError("a call is not {name: text, parameters: object}")


def _gold(reference: Any) -> tuple[list[Call], bool]:
    """The reference's calls, and whether it has a `<response>`. Raises Refused for calls that are none."""
    try:
        if isinstance(reference, str) and reference.lstrip()[:1] in ("[", "{"):
            reference = strict_json(reference)
        if isinstance(reference, str):
            return _calls(reference) if "<tool_call>" in reference else [], "<response>" in reference
        several = [reference] if isinstance(reference, Mapping) else reference
        return [_call(call) for call in several] if isinstance(several, (list, tuple)) else [], False
    except ValueError as error:
        raise Refused(f"The reference holds no tool calls that can be read: {error}.") from None

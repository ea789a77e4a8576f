"""What several rewards need to read an answer: the text that is meant as the answer, strict JSON, references, optional packages."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from guerdon.registry import Refused
from guerdon.spans import thinking

DEEPEST = 64
"""Levels of lists and objects in JSON that a reward reads; Python's own stack is not far behind."""
DIGITS = 300
"""Digits of a number in JSON; a float holds 308."""
_FENCE = re.compile(r"```[\w-]{0,20}[^\S\n]{0,20}\n")


def extra(module: str, group: str = "text") -> Any:
    """The module of an optional package. Raises Refused, naming the extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise Refused(f"This reward needs the package {module.partition('.')[0]!r}: pip install 'guerdon[{group}]'.") from None


def packages(*modules: str, group: str = "text") -> Callable[..., None]:
    """A check for `@reward(check=...)`: raises Refused where an optional package is missing."""

    def check(**params: Any) -> None:
        for module in modules:
            if importlib.util.find_spec(module) is None:
                extra(module, group)

    return check


def said(text: str) -> str | None:
    """The whole text meant as the answer, over several lines: the inside of the last `<answer>` tag, else all that follows the thinking.

    None where nothing follows the thinking, or a think or answer tag is open at the end. Linear in the length of the text.
    """
    after = thinking(text)[1]
    start = text.rfind("<answer>", after)
    if start < 0:
        return text[after:] or None
    close = text.find("</answer>", start)
    return text[start + len("<answer>") : close] if close >= 0 else None


def unfenced(text: str) -> str:
    """Without white space and one code fence around it."""
    text = text.strip()
    fence = _FENCE.match(text)
    return text[fence.end() : -3].strip() if fence and text.endswith("```") else text


def strict_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError with the reason, also for what Python's reader lets pass or cannot hold: NaN and
    Infinity, a key that stands twice in one object, numbers of more than `DIGITS` digits, more than `DEEPEST` levels."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_whole, parse_float=_decimal)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ValueError(f"JSON of more than {DEEPEST} levels") from None
    level, depth = [value], 0
    while level := [v for v in level if isinstance(v, (list, dict))]:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"JSON of more than {DEEPEST} levels")
        level = [x for v in level for x in (v if isinstance(v, list) else v.values())]
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {key[:50]!r} stands twice in one JSON object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of more than {DIGITS} digits")
    return int(digits)


def _decimal(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number that is too large")
    return number


def references(reference: Any) -> list[str]:
    """One text, several as a list, or SQuAD's `{"text": [...]}`, as a list of texts. Raises Refused for anything else, and for none."""
    if isinstance(reference, Mapping):
        reference = reference.get("text")
    several = list(reference) if isinstance(reference, (list, tuple)) else [reference]
    if not several or not all(isinstance(x, (str, int, float)) for x in several):
        raise Refused(f"The reference must be a text or a list of texts, not {str(reference)[:80]!r}.")
    return [str(x) for x in several]

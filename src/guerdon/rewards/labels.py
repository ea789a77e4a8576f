"""CLS-RL: a class name as the answer. Source: arXiv:2503.16188, github.com/minglllli/CLS-RL."""

from __future__ import annotations

from typing import Any, Literal

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.samples import Verdict


@reward(inline=True)
def class_name(text: str, reference: Any, style: Literal["tagged", "bare"] = "tagged") -> Verdict:
    """1 where the text names the class of the reference, else 0.

    tagged (CLS-RL): the first `<answer>` tag's inside, or without a tag the whole text, equals the class, white space at the ends and case
    aside; its full reward is `class_name + format`.
    bare (No-Thinking-CLS-RL): the whole text equals the class, case and white space included.
    The reference is a class name, or a text with it in an `<answer>` tag. Differs from the authors' code, which first asks math-verify
    whether the two are equal as formulas: numbers inside names ("Boeing 737-300") make that accept wrong classes, so it is left out. Their
    format term is a little looser than `format`: empty tags and tags inside tags pass it.
    """
    if style not in ("tagged", "bare"):
        raise Refused(f"`style` of class_name is 'tagged' or 'bare', not {style!r}.")
    name = _inside(str(reference)).strip()
    if style == "bare":
        return Verdict(float(text == name))
    return Verdict(float(_inside(text).strip().lower() == name.lower()))


def _inside(text: str) -> str:
    """The inside of the first `<answer>` tag where it is closed and holds no line break, else the text itself."""
    start = text.find("<answer>")
    end = text.find("</answer>", start + len("<answer>")) if start >= 0 else -1
    found = text[start + len("<answer>") : end]
    return found if end >= 0 and "\n" not in found else text

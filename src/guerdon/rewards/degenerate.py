"""Rewards against degenerate text: repetition, and the wrong language."""

from __future__ import annotations

import itertools
import re
from functools import cache
from typing import Any, Literal

from guerdon.registry import Refused, nearest
from guerdon.rewards.core import reward
from guerdon.rewards.reading import extra, packages
from guerdon.samples import Verdict

LONGEST = 1_000_000
"""Characters at the end of a text in which repetition is looked for: loops stand at the end."""
PIECE, PIECES = 300, 50
"""Characters that are told a language together, and how many such pieces of a text are looked at, evenly spread."""
LETTERS = 30
"""A piece with fewer letters tells no language."""
_NOT_PROSE = re.compile(r"```[^`]*+(?:`(?!``)[^`]*+)*+(?:```)?|\\[A-Za-z]++|<[^<>]{0,40}>|https?://\S++")


@reward(inline=True)
def repetition(text: str, n: int = 3, unit: Literal["words", "characters"] = "words") -> Verdict:
    """1 - share of n-grams that stood before in the text = different n-grams / all n-grams ("distinct-n"): 1 where nothing repeats, towards
    0 in a loop, 1 for fewer than n words. Words are separated by white space, in lower case; unit "characters" is for scripts without
    spaces. Only the last million characters are looked at. Raises Refused for n below 1. Source: distinct-n, arXiv:1510.03055."""
    if not isinstance(n, int) or n < 1 or unit not in ("words", "characters"):
        raise Refused(f"repetition takes n of 1 or more and unit 'words' or 'characters', not n={n!r}, unit={unit!r}.")
    tail = text[-LONGEST:].lower()
    words = tail.split() if unit == "words" else tail
    total = len(words) - n + 1
    if total < 1:
        return Verdict(1.0)
    different = len(set(zip(*(itertools.islice(words, i, None) for i in range(n)), strict=False)))
    return Verdict(different / total)


@reward(inline=True, check=packages("py3langid"))
def language(text: str, code: str = "en") -> Verdict:
    """The share of the text, by letters, that is in the language `code` (ISO 639-1): 1 if all of it is, 0 if none.

    Code blocks, tags, LaTeX commands and addresses aside, the text is cut into pieces of 300 characters, and py3langid tells the language
    of each (of a longer text 50, evenly spread). A text without a piece of 30 letters abstains: too short to tell. Close languages (da, no)
    are easily taken for each other. Raises Refused for a code that py3langid does not know, and without the extra `text`.
    """
    identifier = _identifier()
    if code not in identifier.labels:
        raise Refused(f"The reward language knows no code {code!r}{nearest(code, identifier.labels)}")
    prose = " ".join(_NOT_PROSE.sub(" ", text).split())
    starts = range(0, len(prose), PIECE)
    if len(starts) > PIECES:
        starts = [starts[i * len(starts) // PIECES] for i in range(PIECES)]
    letters = {True: 0, False: 0}
    for piece in (prose[start : start + PIECE] for start in starts):
        count = sum(map(str.isalpha, piece))
        if count >= LETTERS:
            letters[identifier.classify(piece)[0] == code] += count
    told = sum(letters.values())
    return Verdict(letters[True] / told) if told else Verdict.abstain(f"no {LETTERS} letters of prose to tell a language by")


@cache
def _identifier() -> Any:
    langid = extra("py3langid.langid")
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)

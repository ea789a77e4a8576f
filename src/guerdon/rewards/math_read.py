"""Plain answers without sympy: from strings to exact values.

`read` understands numbers (1,234.5  -3  1e3  50%  1 1/2  \\frac{1}{2}  2^{10}  5!  $18  18 dollars  3 \\text{ cm}^2), clock times, ratios,
assignments (x = 3), tuples, sets, intervals, lists and matrices of these, and words; the rest is a formula. It takes time linear in
the text, whose length and size of numbers are bounded first. `math_same` compares two values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache

from guerdon.rewards.math_arithmetic import DEEPEST, Arithmetic, Unreadable

LONGEST = 2_000
"""Characters of an answer that is read; a longer one equals nothing but itself."""


@dataclass(frozen=True)
class Number:
    """value: exact, percent sign and unit aside. digits: significant digits of one decimal literal; 0 for what is written exactly."""

    value: Fraction
    digits: int = 0
    unit: str = ""
    """Its canonical name; "%" for per cent; "" for none."""


@dataclass(frozen=True)
class Clock:
    """hour, minute, and "am", "pm" or ""."""

    hour: int
    minute: int
    half: str


@dataclass(frozen=True)
class Ratio:
    parts: tuple[Fraction, ...]


@dataclass(frozen=True)
class Assigned:
    """name = value; text: the whole."""

    name: str
    value: Value
    text: str


@dataclass(frozen=True)
class Many:
    """Several values. bracket: "()", "[]", "[)", "(]", "{}" (a set), "" (bare, with commas, and, or)."""

    items: tuple[Value, ...]
    bracket: str
    text: str = field(default="", compare=False)


@dataclass(frozen=True)
class Words:
    text: str


@dataclass(frozen=True)
class Formula:
    """What only the slow path can read, in tidied LaTeX."""

    text: str


Value = Number | Clock | Ratio | Assigned | Many | Words | Formula

# --- tidying ---------------------------------------------------------------------------------------------------------------------

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": "*", "·": "*", "⋅": "*", "∙": "*", "÷": "/", "⁄": "/", "∕": "/",
        "π": "\\pi ", "√": "\\sqrt ", "∞": "\\infty ", "²": "^2", "³": "^3", "½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3",
        "⅔": " 2/3", 
        "°": " degrees ", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "，": ",", "：": ":", "（": "(", "）": ")", "≈": "\\approx ",
        "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "“": '"', "”": '"', "‘": "'",
        "’": "'", "…": "...", "％": "%",
    }
)  # fmt: skip
_DROPPED = re.compile(r"(?<!\\)\\(?:left|right|displaystyle|textstyle|limits|!|big[lr]?|Big[lr]?)(?![A-Za-z])")
_SPACED = re.compile(r"(?<!\\)\\(?:quad|qquad|[,;: ])|~")
_THOUSANDS = re.compile(r"(?<=\d)\\[,!](?=\d{3}(?!\d))")
_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|textrm|mbox|mathit|emph|operatorname|bf|rm|bm|boldsymbol)\s*\{([^{}]*)\}")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree|\\deg(?![a-z])")
_BARE_FRACTION = re.compile(r"\\frac\s*(\d|\{[^{}]*\})\s*(\d|\{[^{}]*\})")
_SPACE = re.compile(r"\s+")
_WRAPPED = (("$$", "$$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("__", "__"), ("$", "$"), ("`", "`"), ('"', '"'), ("*", "*"))


def tidy(text: str) -> str:
    """One spelling of what looks the same: delimiters, spacing commands, text commands and Unicode symbols are resolved."""
    text = text.strip()
    if not text.isascii():
        text = text.translate(_UNICODE).strip()
    for _ in range(6):
        before = text
        for opened, closed in _WRAPPED:
            if len(text) > len(opened) + len(closed) and text.startswith(opened) and text.endswith(closed):
                inside = text[len(opened) : -len(closed)]
                if opened not in inside and closed not in inside:
                    text = inside.strip()
        for command in ("\\boxed{", "\\fbox{"):
            if text.startswith(command) and _closing(text, len(command) - 1) == len(text) - 1:
                text = text[len(command) : -1].strip()
        while len(text) > 1 and text[-1] in ".;,:" and not text.endswith(("\\,", "\\;", "\\:")):
            text = text[:-1].rstrip()
        if text == before:
            break
    if "{,}" in text:
        text = text.replace("{,}", ",")
    if "\\" in text or "~" in text:
        text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\cfrac", "\\frac")
        text = _SPACED.sub(" ", _THOUSANDS.sub("", _DROPPED.sub("", text)))
        for _ in range(3):
            text, n = _TEXT.subn(r" \1 ", text)
            if not n:
                break
        text = _DEGREES.sub(" degrees ", text)
        text = text.replace("\\%", "%").replace("\\$", "$").replace("\\cdot", "*").replace("\\times", "*")
        text = text.replace("\\div", "/").replace("\\lbrace", "\\{").replace("\\rbrace", "\\}")
        text = text.replace("\\leq", "\\le").replace("\\geq", "\\ge").replace("\\varnothing", "\\emptyset")
        text = _BARE_FRACTION.sub(lambda m: "\\frac" + "".join(p if p[0] == "{" else "{" + p + "}" for p in m.groups()), text)
    return _SPACE.sub(" ", text).strip()


def _closing(text: str, start: int) -> int:
    """Index of the brace that closes the one at `start`; -1 for none."""
    depth = 0
    for found in re.finditer(r"\\[\s\S]|[{}]", text[start:]):
        if found[0] in "{}":
            depth += 1 if found[0] == "{" else -1
            if depth == 0:
                return start + found.start()
    return -1


# --- numbers ---------------------------------------------------------------------------------------------------------------------

_CURRENCY = {
    "$": "dollar", "US$": "dollar", "USD": "dollar", "€": "euro", "EUR": "euro", "£": "pound sterling", "GBP": "pound sterling", "¥": "yen",
    "₹": "rupee", "Rs": "rupee", "Rs.": "rupee", "₽": "ruble", "₩": "won", "₪": "shekel",
}  # fmt: skip
_PREFIX = re.compile(r"(?P<sign>-?)\s*(?P<currency>US\$|[$€£¥₹₽₩₪]|USD|EUR|GBP|Rs\.?)\s*(?=[-.\d])")
_SCALE = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
UNITS: dict[str, tuple[str, Fraction]] = {}
for _base, _units in {
    "meter": "m meter metre 1; km kilometer kilometre 1000; cm centimeter centimetre 1/100; mm millimeter millimetre 1/1000; "
    "inch in inches 127/5000; foot ft feet 381/1250; yard yd 1143/1250; mile mi 201168/125",
    "gram": "g gram gramme 1; kg kilogram kilo 1000; mg milligram 1/1000; pound lb lbs 45359237/100000; ounce oz 45359237/1600000; "
    "ton tonne 1000000",
    "second": "s sec second 1; minute min mins 60; hour h hr hrs 3600; day 86400; week 604800",
    "liter": "l L liter litre 1; ml mL milliliter millilitre cc 1/1000",
    "degree": "degree deg 1",
    "dollar": "dollar buck 1; cent 1/100",
    "euro": "euro 1", "pound sterling": "quid 1", "yen": "yen 1", "rupee": "rupee 1",
    "radian": "radian rad 1", "%": "% percent percentage pct 1",
}.items():  # fmt: skip
    for _entry in _units.split("; "):
        *_spelt, _factor = _entry.split()
        for _name in _spelt:
            UNITS[_name] = (_base, Fraction(_factor))
_UNIT = re.compile(r"(?:%|[A-Za-z]+\.?)(?:[ -][A-Za-z]+\.?)*(?:\s?\^?\s?\{?[23]\}?)?(?:\s?(?:/|per)\s?[A-Za-z]+(?:\s?\^?\s?\{?[23]\}?)?)?")
_NOT_UNITS = frozenset(
    "pi e i sqrt sin cos tan sec csc cot log ln exp mod inf infty oo and or to not nor but choose over squared cubed plus minus times "  # noqa: SIM905
    "divided by if for when where is are was equals maybe perhaps possibly probably unless however wait actually "
    "x y z n k a b c d r t u v w p q".split()
)  # fmt: skip
_POWER = re.compile(r"\^?\{?[23]\}?$")
_VARIABLES = frozenset("abcdknpqtuvwxyz")


def _variables(word: str, glued: bool) -> bool:
    """Whether letters behind a number are factors of it, not its unit: 2x^3, 6xy, 5a/b, 2m^3; 2 m^3 are two cubic metres."""
    bases = [base for part in word.split("/") if (base := _POWER.sub("", part))]
    if len(bases) == 1 and len(bases[0]) == 1 and bases[0] in UNITS and bases[0] != "%":
        return glued
    letters = _VARIABLES if glued else frozenset("abcxyz")
    unknown = [base for base in bases if base not in UNITS and base.islower()]
    return any(len(base) == 1 or (len(base) <= 3 and letters.issuperset(base)) for base in unknown)


def _number(text: str) -> Number | None:
    """A number with its unit, or None. `text` is tidied."""
    currency = ""
    prefix = _PREFIX.match(text)
    if prefix:
        currency = _CURRENCY[prefix["currency"]]
        text = prefix["sign"] + text[prefix.end() :]
    arithmetic = Arithmetic(text)
    try:
        value = arithmetic.sum()
    except Unreadable:
        return None
    literal = arithmetic.literals[0] if len(arithmetic.literals) == 1 and not arithmetic.operations else ""
    digits = len(literal.replace(",", "").replace(".", "").lstrip("0")) if "." in literal and "e" not in literal.lower() else 0
    rest = text[arithmetic.at :]
    if not rest.strip():
        return Number(value, digits, currency)
    unit = rest.strip()
    for suffix, name in _CURRENCY.items():
        if unit == suffix and not currency:
            return Number(value, digits, name)
    if not _UNIT.fullmatch(unit) or (arithmetic.operations and not rest[0].isspace() and unit[0] != "%"):
        return None
    words = unit.split()
    if words[0] in _SCALE:
        value, words = value * _SCALE[words[0]], words[1:]
        if words and words[0] == "of":
            words = words[1:]
    if not words:
        return Number(value, 0, currency)
    if any(word.lower() in _NOT_UNITS for word in words) or (len(words[0]) == 1 and words[0] not in UNITS):
        return None
    if any(_variables(word, not rest[0].isspace()) for word in words):
        return None
    name = " ".join(words)
    if currency:  # $18 per day, 18 USD: what follows the currency says no more than the question does
        return Number(value, digits, currency)
    return Number(value, digits, _unit_name(name))


def _unit_name(name: str) -> str:
    """Singular, lower case (units with a table keep their dimension by name); a dot at the end of an abbreviation is dropped."""
    name = name.rstrip(".")
    for spelling in (name, name.lower(), name.lower().removesuffix("s")):
        if spelling in UNITS:
            return "%" if UNITS[spelling][0] == "%" else spelling
    return name.lower().removesuffix("s")


# --- other values ----------------------------------------------------------------------------------------------------------------

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?:\s*([ap])\.?\s?m\.?)?|(\d{1,2})\s*([ap])\.?\s?m\.?", re.I)
_SIGNS = re.compile(r"\\(?:pm|mp)(?![A-Za-z])")
_EITHER = ({"\\pm": "+", "\\mp": "-"}, {"\\pm": "-", "\\mp": "+"})
_REPEATING = re.compile(r"(-?)(\d{0,20})\.(\d{0,20})\\(?:overline|bar)\s*\{(\d{1,20})\}")
_TIME_SPAN = re.compile(r"\d{1,2}:\d{2}:\d{2}(?:\.\d+)?")
_RATIO = re.compile(r"-?\d{1,12}(?:\.\d{1,12})?(?:\s*:\s*\d{1,12}(?:\.\d{1,12})?)+")
_ASSIGNED = re.compile(r"(?P<name>[A-Za-z](?:_\{?\w{1,8}\}?)?(?:\([A-Za-z]\))?|\\[A-Za-z]{2,10})\s*=\s*(?P<value>[^=<>]+)")
_IN = re.compile(r"[A-Za-z]\s*\\in\s*(?=[\[({\\])|\([a-z](?:,\s?[a-z])+\)\s*=\s*(?=\()")
_WORDS = re.compile(r"[(]?[A-Za-z][A-Za-z' -]*[)]?")
_MATRIX = re.compile(r"\\begin\{([bpvBV]?matrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end\{\1\}", re.S)
_AND = re.compile(r",?\s+(?:and|or)\s+|;|,?\s*\\(?:lor|vee|land|wedge)(?![A-Za-z])")
_CONNECTED = re.compile(r"\s(?:and|or)\s|;|\\(?:lor|vee|land|wedge)")
_CHOICE = re.compile(r"\(([A-Za-z])\)|([A-Z])[).:]?")
_NEEDLESS = re.compile(r"(?<![A-Za-z0-9.])\s|\s(?![A-Za-z0-9.])")
_ARTICLE = re.compile(r"^(?:the|a|an)\s+(?=\w{2})")


@lru_cache(maxsize=1 << 14)
def read(text: str) -> Value:
    """The value of a text; a `Formula` where it is none of the plain kinds."""
    return _read(tidy(text[: LONGEST + 1]), 0)


def _read(text: str, depth: int) -> Value:
    if not text or len(text) > LONGEST or depth > DEEPEST:
        return Formula(text)
    number = _number(text) if text[0] in "-+.$€£¥₹₽₩₪\\({s" or text[0].isdigit() or text[:2] in ("US", "EU", "GB", "Rs") else None
    if number is not None:
        return number
    repeating = _REPEATING.fullmatch(text)
    if repeating:
        sign, whole, first, again = repeating.groups()
        value = Fraction(f"{whole or 0}.{first or 0}") + Fraction(int(again), 10 ** len(first) * (10 ** len(again) - 1))
        return Number(-value if sign else value)
    if _TIME_SPAN.fullmatch(text):
        return Words(text.lstrip("0:"))
    clock = _CLOCK.fullmatch(text)
    if clock and int(clock[1] or clock[4]) <= 24 and int(clock[2] or 0) < 60:
        return Clock(int(clock[1] or clock[4]), int(clock[2] or 0), (clock[3] or clock[5] or "").lower())
    if _RATIO.fullmatch(text):
        return Ratio(tuple(Fraction(part.strip()) for part in text.split(":")))
    if inside := _IN.match(text):  # x \in [1, 2), (x, y) = (1, 2)
        return _read(text[inside.end() :], depth + 1)
    if "=" in text and ("," not in text or any(c in text for c in "([{")):
        assigned = _ASSIGNED.fullmatch(text)
        if assigned and not _CONNECTED.search(text):
            return Assigned(assigned["name"].replace(" ", ""), _read(assigned["value"].strip(), depth + 1), text)
    if text in ("\\emptyset", "∅"):
        return Many((), "{}", "\\emptyset")
    if "," not in text and _SIGNS.search(text):
        return Many(tuple(_read(_SIGNS.sub(lambda m, s=s: s[m[0]], text), depth + 1) for s in _EITHER), "", text)
    many = _many(text, depth)
    if many is not None:
        return replace(many, text=text)
    choice = _CHOICE.fullmatch(text)
    if choice:
        return Words((choice[1] or choice[2]).lower())
    if _WORDS.fullmatch(text) and not (len(text) == 1 and text.islower()):
        return Words(words(text))
    return Formula(text)


def words(text: str) -> str:
    """Lower case, without an article, brackets and punctuation around it."""
    return _ARTICLE.sub("", _SPACE.sub(" ", text).strip(" ()'\".,;:!*_").lower())


def _many(text: str, depth: int) -> Many | None:
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", matrix[2]) if row.strip()]
        cells = [Many(tuple(_read(cell.strip(), depth + 1) for cell in row.split("&")), "[]") for row in rows]
        return Many(tuple(cells), "[]") if cells else None
    opened, inside, closed = "", text, ""
    for left in ("\\{", "{", "(", "["):
        if text.startswith(left):
            right = next((r for r in ("\\}", "}", ")", "]") if text.endswith(r)), "")
            if not right or _first_close(text, len(left)) != len(text) - len(right):
                return None if left != "(" and left != "[" else _bare(text, depth)
            opened, inside, closed = left[-1], text[len(left) : -len(right)].strip(), right[-1]
            break
    if not opened:
        return _bare(text, depth)
    pair = opened + closed
    if pair not in ("()", "[]", "[)", "(]", "{}"):
        return None
    if not inside:
        return Many((), pair)
    parts = _split(inside, bracketed=True)
    if len(parts) == 1 and pair == "()":
        value = _read(inside, depth + 1)
        return None if isinstance(value, (Formula, Words)) else Many((value,), "()")
    if len(parts) == 1 and (pair != "[]" and (pair != "{}" or left == "{") and depth == 0 and not _number(inside)):
        return None
    return Many(tuple(_read(part, depth + 1) for part in parts), pair)


def _bare(text: str, depth: int) -> Many | None:
    if "," not in text and not _CONNECTED.search(text):
        return None
    parts = _split(text, bracketed=False)
    if len(parts) < 2 or not all(parts):
        return None
    items = tuple(_read(part, depth + 1) for part in parts)
    return None if all(isinstance(item, Words) and " " in item.text for item in items) else Many(items, "")


def _first_close(text: str, start: int) -> int:
    """Where the bracket before `start` is closed, any bracket closing any: [1, 2) is an interval."""
    depth = 1
    for found in re.finditer(r"\\[{}]|[()\[\]{}]", text[start:]):
        depth += 1 if found[0][-1] in "([{" else -1
        if depth == 0:
            return start + found.start()
    return -1


def _split(text: str, bracketed: bool) -> list[str]:
    """At commas, semicolons, `and` and `or` outside brackets. Outside brackets 1,234 is one number."""
    if not bracketed:
        text = re.sub(r"(?<![\d,])\d{1,3}(?:,\d{3})+(?![\d,])", lambda m: m[0].replace(",", ""), text)
    text = _AND.sub(",", text)
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        if c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "," and depth <= 0:
            parts.append(text[start:i].strip(" '\""))
            start = i + 1
    parts.append(text[start:].strip(" '\""))
    return parts


def squeezed(text: str) -> str:
    """Without the white space that LaTeX does not need: the text of a formula for comparison letter by letter. 1 0 is not 10."""
    return _NEEDLESS.sub("", text.replace("**", "^")).rstrip(".")

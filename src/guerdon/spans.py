"""Where the steps, the thinking, the turns and the final answer of a text stand. Run once, when a sample is made or read.

Everything here is linear in the length of the text, whatever the text is. Spans are half-open (start, end). A splitter cuts the whole text
into consecutive pieces, so that every token has a step; line breaks belong to the piece before them, other blanks between two pieces to
the one behind, as most tokenizers write a word with the blank before it; a blank text has no pieces.

The final answer is looked for after the thinking, by the first of these conventions that is met:
`<answer>...</answer>`, `\\boxed{...}`, a line `#### ...` (GSM8K), `A: ...` or `... answer is ...` or `Answer: ...`, else the last line
that is not blank. An unfinished text (a think tag, answer tag or box that is open at its end) has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from guerdon.registry import Refused, nearest
from guerdon.samples import Sample, Span

MOST = 10_000
"""Pieces a text is cut into at most; the last one takes the rest. Step rewards are dense arrays (n, s)."""

REACH = 200_000
"""Characters at the end of a text in which its final answer is looked for."""

# Each pattern starts where the one before cannot (a look-behind), so that long runs of one character are scanned once.
_SENTENCE = re.compile(r"(?<![.!?])[.!?]++[\"')\]*]*+(?=\s)|\n")
_BLANK = re.compile(r"\n[^\S\n]*+\n")
_CONNECTIVE = re.compile(
    r"\b(?:But wait|Wait|Hmm+|Alternatively|However|Actually|On second thought|Another (?:way|approach)|Let me (?:check|verify|try))\b"
)
_TURN = re.compile(r"<\|(?:im_end|eot_id|end)\|>|</(?:tool_response|information|observation|result|output)>")


def lines(text: str) -> list[Span]:
    """One piece a line that is not blank."""
    return _cut(text, (found.end() for found in re.finditer("\n", text)))


def sentences(text: str) -> list[Span]:
    """One piece a sentence or line: it ends with . ! or ? and white space (3.5 does not end one), or with its line."""
    return _cut(text, (found.end() for found in _SENTENCE.finditer(text)))


def thoughts(text: str) -> list[Span]:
    """Paragraphs, cut again where a sentence begins with a word of reconsidering: Wait, Hmm, Alternatively, However ..."""
    cuts = [found.end() for found in _BLANK.finditer(text)]
    for found in _CONNECTIVE.finditer(text):
        before = text[max(0, found.start() - 2) : found.start()]
        if before.endswith("\n") or (before[-1:].isspace() and before[:1] in ".!?\n"):
            cuts.append(found.start() - before.endswith(" "))
    return _cut(text, sorted(cuts))


def turns(text: str) -> list[Span]:
    """One piece a turn: up to an end-of-turn token of a chat template, or the closing tag of a tool's output."""
    return _cut(text, (found.end() for found in _TURN.finditer(text)))


SPLITTERS = {"lines": lines, "thoughts": thoughts, "sentences": sentences, "turns": turns}
Split = Literal["lines", "thoughts", "sentences", "turns"]


def _cut(text: str, cuts: Iterable[int]) -> list[Span]:
    """The pieces between the cuts; a blank one joins the piece before it, or the first one where there is none."""
    spans: list[Span] = []
    start = seen = 0  # the piece that is growing starts at `start`; text[start:seen] is known to be blank
    for cut in (*(cuts), len(text)):
        if cut <= seen:
            continue
        if text[seen:cut].isspace():
            if spans:
                spans[-1] = (spans[-1][0], cut)
                start = cut
        elif len(spans) == MOST:
            spans[-1] = (spans[-1][0], len(text))
            return spans
        else:
            spans.append((start, cut))
            start = cut
        seen = cut
    return spans


# --- thinking and the final answer -----------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """A place that states a final answer. `kind`: the convention it follows."""

    start: int
    end: int
    kind: Literal["tag", "boxed", "hashes", "phrase", "line"]


_BOX = re.compile(r"\\(?:boxed|fbox)\s*+(?:\{|(?<=\s)(?P<bare>[^\s{}$\\]++))|\\[\s\S]|[{}]")
_HASHES = re.compile(r"^####[^\S\n]*+(?=[^\s#])", re.M)
# The letter before is checked by hand: a pattern that begins with plain letters is found ten times as fast.
_A = re.compile(r"A[*_]{0,3}:")
_PHRASE = re.compile(
    r"nswers?(?:[*_]{0,3}[^\S\n](?:to|of|for|in)\b[^.:=\n]{0,100}?)?[*_}]{0,4}"
    r"(?:[^\S\n]{0,4}[:=]|[^\S\n]{1,4}(?i:is|are|equals|(?:would|will|should|must) be)\b(?:[^\S\n]{0,4}:)?)"
)
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)|[.](?=[*_]{1,3}(?:\s|$))")
_TRIM = " \t\r\n*_"


def thinking(text: str) -> tuple[list[Span], int]:
    """The insides of `<think>...</think>`, and where the text after the last one begins; len(text) where a tag is still open.

    A text that begins inside the thinking (the prompt opened the tag) has its first span from 0.
    """
    if "think>" not in text:
        return [], 0
    spans: list[Span] = []
    start, after = None, 0
    for tag in re.finditer(r"</?think>", text):
        if tag[0] == "<think>":
            start = tag.end() if start is None else start
        elif start is not None or not spans:
            spans.append((start or 0, tag.start()))
            start, after = None, tag.end()
        else:
            after = tag.end()
    if start is not None:
        return [*spans, (start, len(text))], len(text)
    return spans, after


def answers(text: str) -> list[Answer]:
    """Every place after the thinking that states a final answer, in the order of the text; [] for an unfinished text.

    What stands inside an answer tag is searched again (`<answer>\\boxed{7}</answer>` states 7). The last line is offered only where no
    other convention is met. Only the last `REACH` characters are searched.
    """
    begin = max(thinking(text)[1], len(text) - REACH)
    found: list[Answer] = []
    at = text.find("<answer>", begin)
    while at >= 0:
        close = text.find("</answer>", at)
        if close < 0:
            return []
        found += _stated(text, begin, at) or ()
        found.append(_inner_answer(text, at + len("<answer>"), close))
        begin = close + len("</answer>")
        at = text.find("<answer>", begin)
    stated = _stated(text, begin, len(text))
    if stated is None:
        return []
    return found + stated or _last_line(text, begin)


def answer(text: str) -> Span | None:
    """The final answer: the last place of the strongest convention that is met, or None."""
    found = answers(text)
    for kind in ("tag", "boxed", "hashes", "phrase", "line"):
        for place in reversed(found):
            if place.kind == kind:
                return place.start, place.end
    return None


def _inner_answer(text: str, start: int, end: int) -> Answer:
    inside = _stated(text, start, end) or []
    best = next((a for kind in ("boxed", "hashes", "phrase") for a in reversed(inside) if a.kind == kind), None)
    return Answer(*(_trimmed(text, start, end) if best is None else best[:2]), "tag")


def _stated(text: str, start: int, end: int) -> list[Answer] | None:
    """Boxes, #### lines and phrases in text[start:end], in order; None where a box is open at its end."""
    found: list[Answer] = []
    first = min((i for i in (text.find("\\boxed", start, end), text.find("\\fbox", start, end)) if i >= 0), default=-1)
    if first >= 0:
        boxes = _boxes(text, first, end)
        if boxes is None:
            return None
        found += boxes
    if text.find("####", start, end) >= 0:
        for mark in _HASHES.finditer(text, start, end):
            stop = text.find("\n", mark.end(), end)
            stop = end if stop < 0 else stop
            if text[stop - 1] != ":" and any(c.isdigit() for c in text[mark.end() : min(stop, mark.end() + 200)]):
                found.append(Answer(*_trimmed(text, mark.end(), stop), "hashes"))
    inside = 0
    for mark in _phrases(text, start, end):
        if mark.start() >= inside:
            span = _phrase_end(text, mark, end)
            inside = span[1]
            if span[0] < span[1]:
                found.append(Answer(*span, "phrase"))
    return sorted(found)


def _phrases(text: str, start: int, end: int) -> list[re.Match[str]]:
    """`A:` at the beginning of a line, and `answer is`, `Answer:`, `ANSWER =` anywhere."""
    found = []
    for mark in _A.finditer(text, start, end):
        line = text[max(start, mark.start() - 12) : mark.start()]
        if not line[line.rfind("\n") + 1 :].strip(" \t>*_"):
            found.append(mark)
    if text.find("NSWER", start, end) >= 0:
        text = text.replace("ANSWER", "Answer")
    found += [mark for mark in _PHRASE.finditer(text, start, end) if text[mark.start() - 1 : mark.start()] in ("a", "A")]
    return sorted(found, key=re.Match.start) if len(found) > 1 else found


def _phrase_end(text: str, mark: re.Match[str], end: int) -> Span:
    """From behind the mark, on this line or the next that is not blank, to the end of the sentence or of the display formula."""
    start = mark.end()
    while start < end and text[start] in _TRIM + ":":
        start += 1
    for opened, closed in (("$$", "$$"), ("\\[", "\\]")):
        if text.startswith(opened, start):
            stop = text.find(closed, start + 2, end)
            if stop > 0:
                return start, stop + 2
    if mark[0].endswith((":", "=")):
        stop = text.find("\n", start, end)
    else:
        sentence = _SENTENCE_END.search(text, start, end)
        stop = sentence.start() if sentence else -1
    return _trimmed(text, start, end if stop < 0 else stop)


def _boxes(text: str, start: int, end: int) -> list[Answer] | None:
    """Insides of the outermost closed boxes from `start` on; None where the last box is open. One pass with a stack of open braces."""
    found: list[Answer] = []
    stack: list[int] = []  # where the inside begins, negative for a plain brace
    for token in _BOX.finditer(text, start, end):
        if token["bare"]:
            found.append(Answer(*token.span("bare"), "boxed"))
        elif token[0] == "{":
            stack.append(-1)
        elif token[0] == "}":
            begin = stack.pop() if stack else -1
            if begin >= 0:
                while found and found[-1].start >= begin:
                    found.pop()
                found.append(Answer(*_trimmed(text, begin, token.start()), "boxed"))
        elif token[0].endswith("{") and len(token[0]) > 2:
            stack.append(token.end())
    open_box = max((begin for begin in stack if begin >= 0), default=-1)
    return None if open_box >= 0 and not any(a.start >= open_box for a in found) else found


def _last_line(text: str, start: int) -> list[Answer]:
    stop = len(text)
    while stop > start and text[stop - 1].isspace():
        stop -= 1
    begin, stop = _trimmed(text, max(start, text.rfind("\n", start, stop) + 1), stop)
    return [Answer(begin, stop, "line")] if begin < stop else []


def _trimmed(text: str, start: int, end: int) -> Span:
    """Without white space and markdown emphasis at both ends, and without a full stop at the end."""
    while start < end and text[start] in _TRIM:
        start += 1
    while start < end and (text[end - 1] in _TRIM or (text[end - 1] == "." and end - start > 1)):
        end -= 1
    return start, end


# --- into the sample -------------------------------------------------------------------------------------------------------------


def to_tokens(spans: Sequence[Span], offsets: np.ndarray) -> list[Span]:
    """Character spans, ordered and disjoint, as token spans through `offsets (t, 2)`.

    A token is in the first span that it shares a character with: one on a border belongs to the earlier span. A token without characters
    (an end-of-text token; some tokenizers give it (0, 0)) stands with the character before it. A span without tokens is (i, i).
    """
    offsets = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    ends = np.maximum.accumulate(offsets[:, 1]) if len(offsets) else offsets[:, 1]
    starts = np.maximum.accumulate(offsets[:, 0]) if len(offsets) else offsets[:, 0]
    starts = np.where(starts >= ends, np.maximum(ends - 1, 0), starts)
    ends = np.maximum(ends, starts + 1)
    out: list[Span] = []
    taken = 0
    for start, end in spans:
        first = max(int(np.searchsorted(ends, start, "right")), taken)
        taken = max(int(np.searchsorted(starts, end, "left")), first) if end > start else first
        out.append((first, taken))
    return out


def mark(sample: Sample, split: Split = "lines") -> None:
    """Fill `sample.marks` (characters) and `sample.spans` (tokens where there are ids, else the same characters).

    step: the pieces of `split`.  think: the insides of the think tags.  answer: the final answer; a text that was cut off (`stop` is length
    or error) has one only where something closes it.  turn: runs of tokens that the model wrote, else the pieces of `turns`.
    """
    splitter = SPLITTERS.get(split)
    if splitter is None:
        raise Refused(f"There is no splitter {split!r}{nearest(split, SPLITTERS)}")
    text = sample.text
    marks: dict[str, list[Span]] = {"step": splitter(text)}
    thought, _ = thinking(text)
    if thought:
        marks["think"] = thought
    final = answer(text)
    if final is not None and not (sample.stop in ("length", "error") and final[1] == len(text)):
        marks["answer"] = [final]
    if sample.ids is None:
        marks["turn"] = turns(text)
        sample.marks, sample.spans = marks, {name: list(found) for name, found in marks.items()}
        return
    if sample.offsets is None or len(sample.offsets) != len(sample.ids):
        have = "no offsets" if sample.offsets is None else f"{len(sample.offsets)} offsets"
        raise Refused(f"A sample of task {sample.task.id!r} has {len(sample.ids)} token ids but {have}; give one (start, end) a token.")
    spans = {name: to_tokens(found, sample.offsets) for name, found in marks.items()}
    if sample.written is None:
        marks["turn"] = turns(text)
        spans["turn"] = to_tokens(marks["turn"], sample.offsets)
    else:
        edges = np.flatnonzero(np.diff(np.r_[0, np.asarray(sample.written, dtype=np.int8), 0]))
        spans["turn"] = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
        marks["turn"] = [(int(sample.offsets[a, 0]), int(sample.offsets[b - 1, 1])) for a, b in spans["turn"]]
    sample.marks, sample.spans = marks, spans

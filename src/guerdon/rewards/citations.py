"""Evidence of a search agent: which single facts of a question its answer states, cites sources for, and joins up to the answer.

Where sources come from: the tool messages of the sample, or its `meta.replies` (texts of tools in a conversation that is one text), and
`meta.sources` of task or sample, a mapping of addresses to texts. A tool's text is JSON, an object or a list of objects with `url` or
`id`, or plain text with a line `URL Source: ADDRESS`, several results each opened by `[n] Title:`. What has no address is no source: it
may only repeat the query.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guerdon.rewards.core import reward
from guerdon.rewards.judge import GUARD, Message, Said, ask, attack, quoted, read_json
from guerdon.rewards.nuggets import asked, unanswered
from guerdon.rewards.reading import strict_json
from guerdon.samples import Sample, Verdict
from guerdon.spans import thinking

ANSWER = "E0"
"""The placeholder of the entity that answers the question."""
REACH = 20_000
"""Characters of one source that the judge is shown."""
_HOLE = re.compile(r"<(E\d{1,4})>")

_NAMES = """The answer below was given to a question. In the statements below the entities that the question hides are written <E0>, what it
asks for, <E1> and so on.

{texts}

Which name or value does the answer itself give each of them? Do not infer or guess: null where it does not say so plainly. Reason first if
you like; then write one JSON object with the keys {names}, each a text or null, as the last thing."""
_FACTS = """Is each statement below fully supported by the sources below, by their text alone?

{texts}

Reason first if you like, naming the passage; then write one JSON object with the keys {names}, each true or false, as the last thing."""
_NAMED = {"type": "object", "additionalProperties": {"type": ["string", "null"], "maxLength": 1000}}
_JUDGED = {"type": "object", "additionalProperties": {"type": "boolean"}}


@reward(batch=True)
def carr(
    sample: list[Sample], model: Any = "judge", connected: bool = True, most: int = 20, votes: int = 1, max_tokens: int = 2048
) -> list[Verdict]:
    """The share of the task's rubrics that the answer states, supports by what it cites, and joins to what it answers.

    `meta.rubrics`: single statements with placeholders <E0>, <E1> ..., E0 the answer. The judge names each placeholder from the answer, or
    null; a rubric with a null is 0. The others, filled in, are judged by the contents of the first `most` cited sources alone, 20,000
    characters of each (see the module). connected: a supported rubric counts only where a chain of supported rubrics that share entities
    leads from E0 to it. r = sum_k reached_k / K over all K rubrics. Two conversations an answer, none for one that cites no known source
    (0). The answer is the last message of the policy behind its thinking, up to the line `## References`; a citation is `[n](ADDRESS)` or
    `[ADDRESS]`. No rubrics: abstained. A judge that fails, or names other keys, is failed. Several votes: the most frequent name, the
    majority on a statement. Evidence `carr`: names, supported, reached. For right answers alone: the shape `c_grpo`.
    Source: arXiv:2601.06021 (CaRR), its released code, which gives 0 where the judge fails and where there are no rubrics.
    """
    out = [_case(model, s, most) for s in sample]
    live = [x for x in out if isinstance(x, _Case)]
    for case, said in zip(live, ask(model, [x.naming() for x in live], _named, votes=votes, max_tokens=max_tokens), strict=True):
        case.name(said)
    live = [x for x in live if x.verdict is None]
    facts = ask(model, [x.judging() for x in live], lambda text: read_json(text, _JUDGED), votes=votes, max_tokens=max_tokens)
    for case, said in zip(live, facts, strict=True):
        case.judge(said, connected)
    return [x if isinstance(x, Verdict) else x.verdict or Verdict.fail("not judged") for x in out]


def reached(entities: Sequence[Collection[str]], supported: Sequence[bool], start: str = ANSWER) -> list[bool]:
    """Which rubrics a chain of supported rubrics that share entities leads to from `start`. entities: those of each rubric."""
    known, out, growing = {start}, [False] * len(entities), True
    while growing:
        growing = False
        for i, names in enumerate(entities):
            if supported[i] and not out[i] and known.intersection(names):
                known.update(names)
                out[i] = growing = True
    return out


def _named(text: str) -> dict[str, str | None] | None:
    """Names as the judge gave them; a name that is the word null leaves open which of the two was meant."""
    value = read_json(text, _NAMED)
    unclear = value is None or any(x is not None and x.strip().lower() in ("", "null", "none") for x in value.values())
    return None if unclear else value


@dataclass
class _Case:
    """One answer that is judged."""

    question: str
    response: str
    rubrics: list[str]
    cited: str
    names: dict[str, str | None]
    verdict: Verdict | None = None

    def naming(self) -> list[Message]:
        texts = quoted(question=self.question, statements="\n".join(self.rubrics), answer=self.response)
        return _conversation(_NAMES, texts, self.names)

    def name(self, said: Said[dict[str, str | None]]) -> None:
        fits = [names for names in said.values if set(names) == set(self.names)]
        if not fits:
            self.verdict = unanswered(said) if not said.values else Verdict.fail("the judge named other entities than it was asked for")
            return
        self.names = {key: Counter(names[key] for names in fits).most_common(1)[0][0] for key in self.names}
        if not self.filled():
            self._score([], [False] * len(self.rubrics))

    def filled(self) -> dict[int, str]:
        """The rubrics whose entities are all named, filled in; a name that holds a placeholder is not filled in again."""
        whole = {i: _HOLE.findall(text) for i, text in enumerate(self.rubrics)}
        return {
            i: _HOLE.sub(lambda hole: str(self.names[hole[1]]), self.rubrics[i])
            for i, names in whole.items()
            if all(self.names[name] is not None for name in names)
        }

    def judging(self) -> list[Message]:
        statements = {f"S{i + 1}": text for i, text in self.filled().items()}
        texts = quoted(statements="\n".join(f"{key}. {text}" for key, text in statements.items()), sources=self.cited)
        return _conversation(_FACTS, texts, statements)

    def judge(self, said: Said[dict[str, bool]], connected: bool) -> None:
        keys = {f"S{i + 1}": i for i in self.filled()}
        fits = [verdicts for verdicts in said.values if set(verdicts) == set(keys)]
        if not fits:
            self.verdict = unanswered(said) if not said.values else Verdict.fail("the judge judged other statements than it was asked for")
            return
        supported = [False] * len(self.rubrics)
        for key, i in keys.items():
            supported[i] = 2 * sum(verdicts[key] for verdicts in fits) > len(fits)
        self._score(supported, reached([_HOLE.findall(text) for text in self.rubrics], supported) if connected else supported)

    def _score(self, supported: list[bool], scores: list[bool]) -> None:
        self.verdict = Verdict(
            sum(scores) / len(scores), evidence={"carr": {"names": self.names, "supported": supported, "reached": scores}}
        )


def _conversation(task: str, texts: str, keys: Mapping[str, Any]) -> list[Message]:
    return [{"role": "system", "content": GUARD}, {"role": "user", "content": task.format(texts=texts, names=", ".join(keys))}]


def _case(model: Any, sample: Sample, most: int) -> _Case | Verdict:
    """What the judge is asked, or the verdict that needs no judge."""
    rubrics = {**sample.task.meta, **sample.meta}.get("rubrics") or []
    if not isinstance(rubrics, (list, tuple)) or not all(isinstance(x, str) for x in rubrics):
        return Verdict.fail("meta.rubrics of the task is not a list of texts")
    if not rubrics:
        return Verdict.abstain("the task has no rubrics")
    names = dict.fromkeys(_HOLE.findall("\n".join(rubrics)))
    if ANSWER not in names:
        return Verdict.fail(f"no rubric of the task has the placeholder <{ANSWER}>, which stands for the answer")
    response = final(sample)
    if why := attack(model, response):
        return Verdict(0.0, why)
    known = sources(sample)
    found = [address for address in citations(response, known)][:most]
    if not found:
        return Verdict(0.0, "no citation of a known source" if response else "no answer found")
    cited = "\n\n".join(f"Source {i}: {address}\n{known[address][:REACH]}" for i, address in enumerate(found, 1))
    return _Case(asked(sample.task.prompt), response, list(rubrics), cited, names)


def final(sample: Sample) -> str:
    """The last message of the policy, or the last turn of a conversation that is one text, behind its thinking, up to `## References`."""
    messages = talk(sample)
    if messages:
        text = messages[-1].get("content") if messages[-1].get("role") == "assistant" else ""
        text = text if isinstance(text, str) else ""
    else:
        text = (sample.cut("turn") or [sample.text])[-1]
    text = text[thinking(text)[1] :]
    return text.rpartition("## References")[0].strip() if "## References" in text else text.strip()


def talk(sample: Sample) -> list[Mapping[str, Any]]:
    """The messages of the sample, or of a file's column `messages`."""
    given = sample.messages or {**sample.task.meta, **sample.meta}.get("messages") or []
    return [m for m in given if isinstance(m, Mapping)]


_CITED = re.compile(r"\[([^\[\]\n]{1,300})\](?:\(((?:[^()\s]|\([^()\s]*\))+)\))?")


def citations(text: str, known: Collection[str]) -> list[str]:
    """The known addresses that a text cites, as `[n](ADDRESS)`, `[ADDRESS]` or `[ADDRESS, ADDRESS]`, in order, each once."""
    out = []
    for found in _CITED.finditer(text):
        out += [found[2].removeprefix("view-source:")] if found[2] else [x.strip() for x in re.split("[,;]", found[1])]
    return [address for address in dict.fromkeys(out) if address in known]


_RESULT = re.compile(r"^(?=\[\d+\] Title:)", re.MULTILINE)
_ADDRESS = re.compile(r"^(?:\[\d+\] )?URL Source:[^\S\n]*(\S+)", re.MULTILINE)  # in a line of its own: a query may be repeated within one


def sources(sample: Sample) -> dict[str, str]:
    """Address -> all that tools have shown of it, in order, nothing twice."""
    meta = {**sample.task.meta, **sample.meta}
    texts = [m.get("content") for m in talk(sample) if m.get("role") == "tool"] + list(meta.get("replies") or ())
    pairs = [(str(address), str(text)) for address, text in (meta.get("sources") or {}).items()]
    for text in texts:
        pairs += _read(text) if isinstance(text, str) else []
    shown: dict[str, dict[str, None]] = {}
    for address, text in pairs:
        shown.setdefault(address, {})[text.strip()] = None
    return {address: "\n\n".join(parts) for address, parts in shown.items()}


def _read(text: str) -> Iterator[tuple[str, str]]:
    """(address, content) of each result in a tool's text."""
    try:
        value = strict_json(text)
    except ValueError:
        for piece in _RESULT.split(text):
            if found := _ADDRESS.search(piece):
                yield found[1], piece
        return
    for entry in value if isinstance(value, list) else [value]:
        address = (entry.get("url") or entry.get("id")) if isinstance(entry, Mapping) else None
        if isinstance(address, (str, int)):
            yield str(address), "\n".join(x for key, x in entry.items() if key not in ("url", "id") and isinstance(x, str))

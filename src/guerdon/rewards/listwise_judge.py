"""A judge that scores a whole group at once under a principle in words, and what trains one: RewardAnything."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from guerdon.rewards.core import reward
from guerdon.rewards.judge import GUARD, Message, ask, attack, quoted, read_json
from guerdon.rewards.principles import DEFAULT
from guerdon.rewards.reading import strict_json, unfenced
from guerdon.samples import Prompt, Sample, Verdict
from guerdon.spans import thinking

LEAST, MOST = 1, 5
RANKING = "best-to-worst"
HOW = (
    "You are given a principle, a prompt and responses to it. Score each response by how well it keeps to the principle, which goes before "
    "any taste of your own: 5 keeps to it fully and is excellent, 4 strongly with small limits, 3 in the main, 2 in part with gaps that "
    "matter, 1 poorly or against it. Use the whole scale where they differ. Think briefly within <think> and </think>, then answer with "
    f'one JSON object alone: {{"scores": {{name: 1 to 5, ...}}, "{RANKING}": [names, those of equal score told apart too]}}'
)


@dataclass(frozen=True)
class Listed:
    """Scores by name, and the names from best to worst."""

    scores: dict[str, float]
    ranking: list[str]


def conversation(principle: str, prompt: Prompt, texts: Mapping[str, str]) -> list[Message]:
    """The judge's conversation about the texts, by masked name."""
    asked = prompt if isinstance(prompt, str) else "\n\n".join(f"{m['role']}: {m['content']}" for m in prompt)
    user = f"Principle: {principle}\n\n{quoted(prompt=asked, **texts)}"
    return [{"role": "system", "content": f"{GUARD}\n\n{HOW}"}, {"role": "user", "content": user}]


def read_scores(text: str, names: Sequence[str]) -> Listed | None:
    """A judge's answer that scores and ranks exactly these names, each once; None for any other."""
    names = list(names)
    score = {"type": "integer", "minimum": LEAST, "maximum": MOST}
    schema = {
        "type": "object",
        "properties": {
            "scores": {"type": "object", "properties": dict.fromkeys(names, score), "required": names, "additionalProperties": False},
            RANKING: {"type": "array", "items": {"enum": names}, "minItems": len(names), "maxItems": len(names), "uniqueItems": True},
        },
        "required": ["scores", RANKING],
        "additionalProperties": False,
    }
    value = read_json(text, schema)
    return None if value is None else Listed({name: float(value["scores"][name]) for name in names}, value[RANKING])


@reward(wrong=float(LEAST))
def rewardanything(
    group: list[Sample], model: Any = "judge", principle: str = DEFAULT, orders: int = 1, max_tokens: int = 2048
) -> list[Verdict]:
    """The score, 1 to 5, that a judge gives each answer of the group, all shown in one call under a principle.

    The principle is `meta.principle` of the task, else the parameter. Answers are called model-1, model-2, ... in an order drawn by a
    generator of its own, seeded by what is judged: the same group in any order of its samples is shown the same way, another group
    otherwise (the released code seeds the global generator with 42 in every call, so that an answer's place never varies). Equal
    answers are shown once. orders: so many orders are asked and averaged, which takes out a leaning to a place. Evidence `listwise`: the
    place in the ranking (1 is best, mean of the orders), and the share of pairs in which ranking and scores agree. An answer that attacks
    the judge's template is hostile and is shown to nobody. Source: arXiv:2506.03637; the wording, the fences and the strict reading are
    ours: every name must be scored and ranked once, or the call is not read, and a group without a readable call is failed.
    """
    whys = [attack(model, s.text) for s in group]
    texts = sorted({s.text for s, why in zip(group, whys, strict=True) if why is None})
    if not texts:
        return [Verdict(float(LEAST), why or "") for why in whys]
    task = group[0].task
    principle = str({**task.meta, **group[0].meta}.get("principle", principle))
    shuffles = [_shuffle(order, principle, task.prompt, texts) for order in range(max(1, orders))]
    names = [f"model-{i + 1}" for i in range(len(texts))]
    asked = [conversation(principle, task.prompt, {name: texts[i] for name, i in zip(names, order, strict=True)}) for order in shuffles]
    said = ask(model, asked, partial(read_scores, names=names), max_tokens=max_tokens)
    if not any(s.values for s in said):
        return [Verdict(float(LEAST), why) if why else said[0].verdict(float(LEAST)) for why in whys]
    seen: dict[str, list[tuple[float, int, float]]] = {text: [] for text in texts}
    for order, listed in ((order, s.values[0]) for order, s in zip(shuffles, said, strict=True) if s.values):
        agree = consistency(listed.scores, listed.ranking)
        for name, i in zip(names, order, strict=True):
            seen[texts[i]].append((listed.scores[name], listed.ranking.index(name) + 1, agree))
    return [Verdict(float(LEAST), why) if why else _verdict(seen[s.text]) for s, why in zip(group, whys, strict=True)]


def _shuffle(order: int, principle: str, prompt: Prompt, texts: Sequence[str]) -> list[int]:
    content = repr((order, principle, prompt, texts)).encode("utf-8", "surrogatepass")
    seed = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
    return np.random.default_rng(seed).permutation(len(texts)).tolist()


def _verdict(seen: Sequence[tuple[float, int, float]]) -> Verdict:
    score, place, agree = np.mean(seen, axis=0).tolist()
    return Verdict(score, evidence={"listwise": {"place": place, "agree": agree}})


def consistency(scores: Mapping[str, Any], ranking: Sequence[Any]) -> float:
    """The share of pairs of the ranking, both scored, in which the one ranked better is not scored lower; 0 without a pair. (The released
    code calls a function of that purpose that it does not define.)"""
    ranked = [float(scores[name]) for name in dict.fromkeys(map(str, ranking)) if name in scores and _number(scores[name])]
    pairs = list(itertools.combinations(ranked, 2))
    return sum(a >= b for a, b in pairs) / len(pairs) if pairs else 0.0


# --- what trains such a judge ------------------------------------------------------------------------------------------------------


@reward
def listwise_accuracy(text: str, reference: Any) -> Verdict:
    """1 - sum of penalties / sum of w over the pairs of the reference's scores g, w = 1 + |g_a - g_b|, p the scores that the text states.

    Penalty w where p orders the pair against g, w / 2 where p ties what g tells apart, 0 otherwise; w too where p lacks either name, so
    that naming only the two one is sure of pays nothing. (The released code leaves such pairs out, and gives 1 for fewer than two names.)
    The reference is {name: score} or {"scores": {...}}, or JSON text of it; without one, or with fewer than two names, it abstains. The
    text is read as by `listwise_format`. To train a judge: 0.2 * listwise_format + 0.8 * listwise_accuracy, a mix that is assumed.
    Source: github.com/zhuohaoyu/RewardAnything, rewardanything/processing.py.
    """
    gold = table(reference)
    if len(gold) < 2:
        return Verdict.abstain("the task has no table of scores of two or more answers")
    value, _ = stated(text)
    if value is None:
        return Verdict(0.0, "no JSON object stated")
    scores = value.get("scores")
    return Verdict(pair_reversal(scores if isinstance(scores, dict) else {}, gold))


def pair_reversal(scores: Mapping[str, Any], gold: Mapping[str, float]) -> float:
    """The accuracy of scores against the gold, in [0, 1]: see `listwise_accuracy`."""
    penalty = total = 0.0
    for a, b in itertools.combinations(gold, 2):
        g = gold[a] - gold[b]
        w = 1 + abs(g)
        total += w
        if not (_number(scores.get(a)) and _number(scores.get(b))):
            penalty += w
            continue
        p = scores[a] - scores[b]
        penalty += w if p * g < 0 else w / 2 if p == 0 and g != 0 else 0.0
    return max(0.0, 1 - penalty / total) if total else 0.0


@reward
def listwise_format(text: str, reference: Any) -> Verdict:
    """How far the text has the form of a listwise verdict, 0 to 1, a sum of

    0.15 both think tags (0.05 for one of them), 0.05 a thought of more than 50 characters, 0.20 a JSON object after the thinking (0.15
    where other text stands around it), 0.10 the key `scores`, 0.10 the key `best-to-worst`, 0.20 x share of the reference's names that are
    scored, 0.20 x `consistency`. Abstains as `listwise_accuracy` does. Source: as there; JSON is read strictly, where the released code
    mends quotes, commas and one misspelt key first.
    """
    gold = table(reference)
    if len(gold) < 2:
        return Verdict.abstain("the task has no table of scores of two or more answers")
    opened, closed = "<think>" in text, "</think>" in text
    total = 0.15 if opened and closed else 0.05 if opened or closed else 0.0
    spans, _ = thinking(text)
    total += 0.05 if opened and closed and spans and len(text[slice(*spans[0])].strip()) > 50 else 0.0
    value, whole = stated(text)
    if not value:
        return Verdict(total, "no JSON object stated")
    scores, ranking = value.get("scores"), value.get(RANKING)
    total += (0.20 if whole else 0.15) + 0.10 * ("scores" in value) + 0.10 * (RANKING in value)
    if isinstance(scores, dict):
        total += 0.20 * len(gold.keys() & scores.keys()) / len(gold)
        total += 0.20 * consistency(scores, ranking) if isinstance(ranking, list) else 0.0
    return Verdict(min(1.0, total))


def stated(text: str) -> tuple[dict[str, Any] | None, bool]:
    """The JSON object after the thinking, and whether it stands alone there (a code fence aside); (None, False) where there is none."""
    after = unfenced(text[thinking(text)[1] :])
    inner = after[after.find("{") : after.rfind("}") + 1]
    for body in (after, inner):
        try:
            value = strict_json(body)
        except ValueError:
            continue
        if isinstance(value, dict):
            return value, body == after
    return None, False


def table(reference: Any) -> dict[str, float]:
    """The scores that a reference holds; {} where it is no table of them."""
    if isinstance(reference, str):
        try:
            reference = strict_json(reference)
        except ValueError:
            return {}
    if isinstance(reference, Mapping) and isinstance(reference.get("scores"), Mapping):
        reference = reference["scores"]
    if not isinstance(reference, Mapping) or not all(map(_number, reference.values())):
        return {}
    return {str(name): float(score) for name, score in reference.items()}


def _number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)


def ranking_quality(listed: Listed, gold: Mapping[str, float]) -> dict[str, float]:
    """Against consensus scores: `pairwise`, the share of pairs that the gold tells apart and the verdict orders likewise, equal scores told
    apart by the ranking; `tau`, Kendall's tau over these pairs; `top`, whether the first is one of the gold's best. NaN without a pair."""
    place = {name: (-listed.scores[name], listed.ranking.index(name)) for name in gold}
    pairs = [(a, b) for a, b in itertools.permutations(gold, 2) if gold[a] > gold[b]]
    right = sum(place[a] < place[b] for a, b in pairs) / len(pairs) if pairs else math.nan
    first = min(place, key=lambda name: place[name])
    return {"pairwise": right, "tau": 2 * right - 1, "top": float(gold[first] == max(gold.values()))}

"""KnowRL: refusals that pay less than right answers, and facts that soften wrong ones.

A thought has four places, for a true statement, an invented one or none; then comes one of four options or a refusal. The prompt says what
the policy remembers, which is right in 90 of 100 known questions and in 25 of 100 unknown ones, so that nothing can be learnt by heart. At
first it states what is true as often as what it invents, says what it remembers, and hardly ever refuses. The judge grades by equal words;
the judge of entailment looks statements up in a list, and errs in one of ten. The policy is a softmax table (`_states`).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from _judged import shown
from _states import States, learn

from guerdon.backends.base import backend
from guerdon.backends.scripted import Scripted
from guerdon.backends.tabular import CAPABILITIES
from guerdon.rewards import reward
from guerdon.samples import Task

CLAIM = (
    "with facts the share of invented statements is at most 0.6 times that with refusals alone; with either, at most 15 % of the answers "
    "to unknown questions are wrong, where right answers alone leave 60 % or more; on known questions all are within 0.03 (means over "
    "seeds)"
)
BASELINE = "2 * format - 1 + graded(refused=-1): right answers alone, and beside it graded: with refusals"
METHOD = "2 * format - 1 + graded + fact_share(gamma=4).when(graded < 0); without its key term, facts: the same without fact_share"
SEEDS = (0, 1, 2)
RIGHT, REFUSAL = "2 * format - 1 + graded(refused=-1)", "2 * format - 1 + graded"
FULL = f"{REFUSAL} + fact_share(gamma=4, nli_model='nli').when(graded < 0)"
WATCH = " + 0 * know_invented + 0 * know_wrong + 0 * know_right"
STEPS, PLACES = 100, 4
TRUE, INVENTED, NONE = ([f"{kind}{i}" for i in range(PLACES)] for kind in ("fact", "myth", "hm"))
OPTIONS, REFUSE = ["o0", "o1", "o2", "o3"], "dunno"
VOCAB = ["<think>", "</think>", "<answer>", "</answer>", *TRUE, *INVENTED, *NONE, *OPTIONS, REFUSE, "known", "unknown"]


def tasks(seed: int, n: int = 128) -> list[Task]:
    rng, found = np.random.default_rng((seed, 7)), []
    for i in range(n):
        kind = "known" if i % 2 else "unknown"
        right = rng.choice(OPTIONS)
        other = rng.choice([o for o in OPTIONS if o != right])
        remembered = right if rng.random() < (0.9 if kind == "known" else 0.25) else other
        found.append(Task(str(i), f"{kind} {remembered} ?", str(right), {"title": f"page {i}", "kind": kind}))
    return found


@reward(inline=True)
def know_invented(thinking: str) -> float | None:
    """The share of statements that are invented."""
    said = thinking.split()
    n = sum(word in TRUE or word in INVENTED for word in said)
    return sum(word in INVENTED for word in said) / n if n else None


@reward(inline=True)
def know_wrong(answer: str | None, reference: str, meta: dict[str, Any]) -> float | None:
    """Of unknown questions: whether the answer is wrong, and no refusal."""
    return float(answer not in (reference, REFUSE)) if meta["kind"] == "unknown" else None


@reward(inline=True)
def know_right(answer: str | None, reference: str, meta: dict[str, Any]) -> float | None:
    return float(answer == reference) if meta["kind"] == "known" else None


def says(messages: Any, rng: np.random.Generator) -> str:
    texts = shown(messages)
    if "accepted" in texts:
        answer = texts["answer"].strip()
        return "NOT_ATTEMPTED" if answer == REFUSE else "CORRECT" if answer == texts["accepted"] else "INCORRECT"
    if "text" in texts:
        return json.dumps([word for word in texts["text"].split() if word not in NONE])
    return "ENTAILMENT" if (texts["statement"] in texts["passage"].split()) != (rng.random() < 0.1) else "NEUTRAL"


@backend(capabilities=())
def know_judge(path: str | None = None, trainable: bool = False) -> Scripted:
    return Scripted(says)


@backend(capabilities=())
def know_base(path: str | None = None, trainable: bool = False) -> Any:
    """The service `retrieve`: one passage a query, of its page, with all that is true."""
    return lambda queries, k: [[" ".join([*query.split()[:2], *TRUE])] for query in queries]


@backend(capabilities=CAPABILITIES)
def know_policy(path: str | None = None, trainable: bool = True) -> States:
    """Rows: of each place of the thought and of the frame, the same for all questions; of the answer, by what the prompt says."""
    ids = {word: i for i, word in enumerate(VOCAB)}
    frame = [["<think>"], *([TRUE[i], INVENTED[i], NONE[i]] for i in range(PLACES)), ["</think>"], ["<answer>"], None, ["</answer>"]]

    def rows(prompt: tuple[int, ...], written: tuple[int, ...]) -> list[tuple[int, ...]]:
        at = len(written)
        return [(at, *(token for token in prompt if token < len(VOCAB)))] if at < len(frame) and frame[at] is None else [(at,)]

    def start(row: tuple[int, ...]) -> np.ndarray:
        logits = np.full(len(VOCAB) + 1, -15.0)
        allowed = frame[row[0]] if row[0] < len(frame) else []
        if allowed is None:
            logits[[ids[o] for o in OPTIONS]], logits[ids[REFUSE]], logits[row[-1]] = 0.0, -1.0, 3.0
        else:
            logits[[ids[word] for word in allowed] or [-1]] = 0.0
        return logits

    return States(VOCAB, rows, start, path)


def ending(expression: str, seed: int) -> dict[str, float]:
    rows = learn(
        "know_policy", tasks(seed), seed, reward=expression + WATCH, credit="dr_grpo", rollout={"use": "parallel", "max_tokens": 12},
        models={"judge": {"backend": "know_judge"}, "nli": {"backend": "know_judge"}, "retrieve": {"backend": "know_base"}},
        train={"steps": STEPS, "prompts": 8, "samples": 10},
    )  # fmt: skip
    names = {"invented": "reward/know_invented", "wrong, unknown": "reward/know_wrong", "right, known": "reward/know_right"}
    return {name: round(float(np.mean([row[key] for row in rows[-15:] if key in row])), 4) for name, key in names.items()}


def measure(variant: str, seed: int) -> dict[str, Any]:
    if variant == "baseline":
        right, refusal = ending(RIGHT, seed), ending(REFUSAL, seed)
        return {"value": refusal["invented"], "right": right, "refusal": refusal}
    found = ending(FULL if variant == "method" else REFUSAL, seed + (0 if variant == "method" else 100))
    return {"value": found["invented"], **found}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    def mean(found: list[Any], key: str) -> float:
        return float(np.mean([x[key] for x in found]))

    right, refusal = [b["right"] for b in baseline], [b["refusal"] for b in baseline]
    known = [mean(arm, "right, known") for arm in (right, refusal, method)]
    return (
        mean(method, "invented") <= 0.6 * mean(refusal, "invented")
        and max(mean(method, "wrong, unknown"), mean(refusal, "wrong, unknown")) <= 0.15
        and mean(right, "wrong, unknown") >= 0.6
        and max(known) - min(known) <= 0.03
    )

"""CaRR and C-GRPO: a search agent that is paid for the answer alone takes the shortcut; one that is paid for a joined chain checks it.

A question of three hops, Ada - a prize - a town - its lake. At each hop the agent looks up the true fact and cites it, cites a true but
needless fact about another prize or town, or goes on. Each true lookup is long: with it, one in ten runs out of context and has no answer.
Who has looked up all three is right; others guess by a shortcut that is right in 90 of 100 questions, and in 10 of 100 where it fails.
The judge reads names and statements from the texts that `carr` shows it. The policy is a softmax table (`_states`).
"""

from __future__ import annotations

import json
import re
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
    "at the end more than 80 % of the hops are looked up with C-GRPO and fewer than 40 % with the outcome alone, and where the shortcut "
    "fails C-GRPO is right more often by 0.15 or more (every seed)"
)
BASELINE = "the outcome alone, GRPO"
METHOD = "hop_right | c_grpo(carr), GRPO; without its key term, the chain to the answer: carr(connected=False)"
SEEDS = (0, 1, 2)
REWARDS = {"baseline": "hop_right", "method": "hop_right | c_grpo(carr)", "ablated": "hop_right | c_grpo(carr(connected=False))"}
STEPS, RUNS_OUT = 80, 0.1
RUBRICS = ["<E0> won <E1>", "<E1> is held in <E2>", "<E2> lies by a lake"]
SOURCES = {"t1": "Ada won Prix", "t2": "Prix is held in Bern", "t3": "Bern lies by a lake",
           "n1": "Cup is famous", "n2": "Cup is held in Rome", "n3": "Rome lies by a lake"}  # fmt: skip
HOPS = [["E1=Prix[t1]", "E1=Cup[n1]", "no1"], ["E2=Bern[t2]", "E2=Rome[n2]", "no2"], ["lake[t3]", "lake[n3]", "no3"], ["E0=Ada"]]


def tasks(shortcut: float, n: int = 4) -> list[Task]:
    return [Task(f"{shortcut}/{i}", "Who?", meta={"rubrics": RUBRICS, "sources": SOURCES, "shortcut": shortcut}) for i in range(n)]


def looked_up(text: str) -> int:
    return len(re.findall(r"\[t\d\]", text))


@reward(inline=True)
def hop_right(text: str, meta: dict[str, Any], rng: np.random.Generator) -> float:
    n = looked_up(text)
    return float(rng.random() < (1 - RUNS_OUT) ** n * (1.0 if n == 3 else meta["shortcut"]))


@reward(inline=True)
def hop_share(text: str) -> float:
    """The share of hops whose true fact was looked up."""
    return looked_up(text) / 3


def says(messages: Any, rng: np.random.Generator) -> str:
    texts = shown(messages)
    if "answer" in texts:
        named = dict(re.findall(r"(E\d)=(\w+)", texts["answer"]))
        return json.dumps({f"E{i}": named.get(f"E{i}") for i in range(3)})
    lines = [line.split(". ", 1) for line in texts["statements"].splitlines()]
    return json.dumps({key: fact in texts["sources"].splitlines() for key, fact in lines})


@backend(capabilities=())
def hop_judge(path: str | None = None, trainable: bool = False) -> Scripted:
    return Scripted(says)


@backend(capabilities=CAPABILITIES)
def hop_agent(path: str | None = None, trainable: bool = True) -> States:
    vocab = [word for hop in HOPS for word in hop]

    def start(row: tuple[int, ...]) -> np.ndarray:
        """Even chances among the words of the hop that is next, then the end."""
        allowed = HOPS[len(row) - 1] if len(row) <= len(HOPS) else []
        return np.array([0.0 if word in allowed else -15.0 for word in vocab] + [-15.0 if allowed else 0.0])

    return States(vocab, lambda prompt, written: [(0, *written)], start, path)


def measure(variant: str, seed: int) -> dict[str, Any]:
    rows = learn(
        "hop_agent", tasks(0.9), seed, models={"judge": {"backend": "hop_judge"}}, reward=REWARDS[variant], correct="hop_right",
        rollout={"use": "parallel", "max_tokens": 5}, train={"steps": STEPS, "lr": 0.2},
        eval={"tasks": tasks(0.1), "every": STEPS, "samples": 128, "temperature": 1.0, "gold": "hop_share", "keep_best": False},
    )  # fmt: skip
    last = next(row for row in reversed(rows) if "eval/gold" in row)
    train = float(np.mean([row["pass@1"] for row in rows[-10:]]))
    return {"value": last["eval/gold"], "right where the shortcut fails": last["eval/pass@1"], "right in training": round(train, 4)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    key = "right where the shortcut fails"
    return all(m["value"] > 0.8 and b["value"] < 0.4 and m[key] >= b[key] + 0.15 for b, m in zip(baseline, method, strict=True))

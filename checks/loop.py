"""LOOP in an app with state: rollouts are used twice, and nothing but the leave-one-out mean is taken off.

The app (a tool) wants one call with the right argument, which only its docs tell; the four tests of a rollout are: the docs were read, the
call went through, none failed, and it was handed in after that. The policy (`_states`) sees the app's last reply and how many turns it had.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from _states import States, learn, reached

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES
from guerdon.envs.tools import Reply, Turn, tool
from guerdon.rewards import reward
from guerdon.samples import Task

CLAIM = (
    "70% of rollouts pass all four tests after at most 0.7 times the rollouts of RLOO (every seed), and the docs, read first in fewer than "
    "20% of rollouts at the start, are read first in more than 70% at the end"
)
BASELINE = "rloo on policy: one pass, no clipping, all rows"
METHOD = "rloo, advantage_filter, ppo_clip 0.1 a token, 2 passes of 4 minibatches; without its key term, the reuse: one pass, one minibatch"
SEEDS = (0, 1, 2)
ARGUMENTS = ["call0", "call1", "call2", "call3"]
WORDS = ["docs", *ARGUMENTS, "submit", "needs0", "needs1", "needs2", "needs3", "ok", "error"]
SAID = len(ARGUMENTS) + 2
"""The words that the policy may write; the others are the app's."""
TURNS, STEPS = 4, 60


@tool(inline=True)
def app(text: str, task: Task, history: Sequence[Turn]) -> Reply:
    word = text.strip()
    if word == "submit":
        return Reply("ok", done=True)
    if word == "docs":
        return Reply(f"needs{task.reference}")
    return Reply("ok" if word == f"call{task.reference}" else "error")


def tests(text: str) -> list[bool]:
    words = text.split()
    through = "ok" in words and words[words.index("ok") - 1] != "submit"
    return ["docs" in words, through, "error" not in words, through and words[-2:] == ["submit", "ok"]]


@reward(inline=True)
def tests_passed(text: str) -> float:
    return float(np.mean(tests(text)))


@reward(inline=True)
def all_tests(text: str) -> float:
    return float(all(tests(text)))


@reward(inline=True)
def docs_first(text: str) -> float:
    return float(text.split()[:1] == ["docs"])


@backend(capabilities=CAPABILITIES)
def app_agent(path: str | None = None, trainable: bool = True) -> States:
    """Calls and hands in more readily than it reads docs: in about one rollout of eight it reads them first."""
    start = np.array([-0.4] + [0.0] * (SAID - 1) + [-30.0] * (len(WORDS) + 1 - SAID))
    return States(WORDS, lambda prompt, written: [(len(written), *written[-1:])], lambda row: start, path)


def measure(variant: str, seed: int) -> dict[str, Any]:
    tasks = [Task(str(i), "app:", str(i % 4)) for i in range(10)]
    reuse = {"passes": 2, "minibatches": 4} if variant == "method" else {}
    own = {} if variant == "baseline" else {"keep": "advantage_filter", "loss": {"use": "ppo_clip", "clip": 1 - 1 / 1.1, "clip_high": 0.1}}
    rows = learn(
        "app_agent", tasks, seed, reward="tests_passed + 0 * docs_first", correct="all_tests", credit="rloo", aggregate="sequence_mean",
        rollout={"use": "multi_turn", "tool": "app", "stop": [], "turn_tokens": 1, "max_turns": TURNS},
        train={"steps": STEPS, "samples": 6, "lr": 0.05, **reuse}, **{"loss": "policy_gradient", **own},
    )  # fmt: skip
    docs = [row["reward/docs_first"] for row in rows]
    found = {"docs at first": np.mean(docs[:2]), "docs": np.mean(docs[-10:]), "solved": np.mean([row["pass@1"] for row in rows[-10:]])}
    return {"value": reached([row["pass@1"] for row in rows], 0.7)} | {name: round(float(x), 4) for name, x in found.items()}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    faster = all(m["value"] <= 0.7 * b["value"] for b, m in zip(baseline, method, strict=True))
    return faster and all(m["docs at first"] < 0.2 and m["docs"] > 0.7 for m in method)

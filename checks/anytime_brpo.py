"""BRPO: a thought that may be cut at any time does the work first.

Twelve letters of thought, `w` work and `i` idle; an answer is right once three pieces of work are done. Thoughts are cut after 4 and 8.
The policy sees how long it has thought and how much work is done.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _tree_world import learn, writer

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES, Tabular
from guerdon.credit import anytime_brpo
from guerdon.rewards import parse
from guerdon.rewards.core import reward
from guerdon.rollouts import serial_exits
from guerdon.samples import Context, Task, collate
from guerdon.scoring import Engine

CLAIM = (
    "after 60 updates the mean accuracy at the two budgets is at least 0.05 above that of dr_grpo on whole thoughts, and at the end of the "
    "thought at most 0.02 lower; at first, Ret - baseline varies less in the last two segments than Ret - V2 (every seed)"
)
BASELINE = "8 whole thoughts with dr_grpo"
METHOD = "the same 8 thoughts, cut at both budgets, with anytime_brpo; without its key term, the budgets: all weight on the whole thought"
SEEDS = (0, 1, 2)
BUDGETS, MOST, NEED, THOUGHTS = (4, 8), 12, 3, 8
CUT = {"at": list(BUDGETS), "inducer": "!", "think_end": ".", "answer_tokens": 2, "max_tokens": MOST + 3}


@reward(inline=True)
def worked(text: str) -> float:
    return float(text.count("w") >= NEED and text.endswith("y"))


@reward(inline=True)
def early(text: str) -> float:
    """What the answers at the two budgets would be, on average."""
    return sum(text[:b].count("w") >= NEED for b in BUDGETS) / len(BUDGETS)


def state(written: str) -> str:
    thought = written.rstrip("!.y")
    return f"{len(thought)} {min(thought.count('w'), NEED)} {written[len(thought) :]}"


def chances(_: str, state: str) -> dict[str, float]:
    done, _, rest = state.split(" ")
    if rest:
        return {"<end>": 1.0} if rest.endswith("y") else {"y": 1.0}
    return {".": 1.0} if int(done) >= MOST else {"w": 0.3, "i": 0.7}


@backend(capabilities=CAPABILITIES)
def worker_at_any_time(path: str | None = None, trainable: bool = True) -> Tabular:
    return writer("wi.!y", chances, path, trainable, state)


def variances(prior: list[float], seed: int) -> float:
    """var(A) / var(Ret - V2) in the last two segments, of the starting policy's thoughts."""
    model, size = worker_at_any_time(), len(BUDGETS) + 1
    context = Context(models={"policy": model}, rng=np.random.default_rng(seed))
    samples = serial_exits(model, [Task("0", "0")] * 128, THOUGHTS * size, context, **CUT)
    with Engine(context, workers=1) as engine:
        batch = collate(samples, engine.score(parse("worked"), samples))
    p = np.array(prior) / sum(prior)
    a = anytime_brpo(batch, prior)[size - 1 :: size, [b - 1 for b in (*BUDGETS, MOST)]].numpy()
    r = batch.outcome.numpy().reshape(-1, THOUGHTS, size)
    ret = (p * r)[..., ::-1].cumsum(-1)[..., ::-1]
    plain = (ret - ret.mean(1, keepdims=True)).reshape(-1, size)
    return float(a[:, 1:].var() / plain[:, 1:].var())


def measure(variant: str, seed: int) -> dict[str, Any]:
    prior = [0.0, 0.0, 1.0] if variant == "ablated" else [1.0, 1.0, 1.0]
    tasks = [Task(str(i), str(i)) for i in range(4)]
    ours = {
        "credit": {"use": "anytime_brpo", "prior": prior}, "rollout": {"use": "serial_exits", **CUT}, "aggregate": "per_node",
        "train": {"steps": 60, "samples": THOUGHTS * 3},
    }  # fmt: skip
    plain = {"credit": "dr_grpo", "rollout": {"use": "parallel", "max_tokens": MOST + 3}, "train": {"steps": 60, "samples": THOUGHTS}}
    rows = learn(
        "worker_at_any_time", tasks, "worked", seed, eval={"gold": "early", "max_tokens": MOST + 3},
        **(plain if variant == "baseline" else ours),
    )  # fmt: skip
    first, last = ([row for row in rows if "eval/gold" in row][i] for i in (0, -1))
    found = {"value": last["eval/gold"], "at first": first["eval/gold"], "whole": last["eval/pass@1"]}
    return found if variant == "baseline" else found | {"variance": variances(prior, seed)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    pairs = list(zip(baseline, method, strict=True))
    return all(m["value"] >= b["value"] + 0.05 and m["whole"] >= b["whole"] - 0.02 and m["variance"] < 1 for b, m in pairs)

"""Flow of reasoning: every solution is found, as often as it is worth, where reward maximisation keeps one.

A tree of depth 4 with 3 actions on `tabular`: 81 answers, 9 of them worth 1, 2 or 4, the others 0.001. 120 updates of 32 answers, all
sampled from the policy.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.backends.exact import exact
from guerdon.rewards import reward
from guerdon.samples import Sample, Task

CLAIM = (
    "after 120 updates the total variation between the policy and reward / sum of rewards is below 0.1 and all 9 solutions are among 200 "
    "samples, every seed; REINFORCE with the same samples finds at most 4 and is above 0.4 away"
)
BASELINE = "REINFORCE with the group's mean as baseline (policy_gradient, dr_grpo)"
METHOD = "vargrad(floor=0.001); without its key term, the reward: power=0"
SEEDS = (0, 1, 2)
DEPTH, ACTIONS, REST = 4, "abc", 0.001
POLICY: list[Any] = []


def worth(seed: int) -> dict[str, float]:
    """Nine solutions, by their text."""
    rng = np.random.default_rng((seed, 3))
    found = rng.choice(len(ACTIONS) ** DEPTH, 9, replace=False)
    texts = ["".join(ACTIONS[k // 3**i % 3] for i in range(DEPTH)) for k in found.tolist()]
    return dict(zip(texts, [1.0, 2.0, 4.0] * 3, strict=True))


@reward(inline=True)
def flow_solution(samples: list[Sample], policy: Any, seed: int = 0) -> list[float]:
    POLICY[:] = [policy]
    known = worth(seed)
    return [known.get(s.text, REST) for s in samples]


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.training.run import train

    terms: dict[str, Any] = {"loss": {"use": "vargrad", "power": float(variant == "method")}, "credit": None}
    if variant == "baseline":
        terms = {"loss": "policy_gradient", "credit": "dr_grpo"}
    with tempfile.TemporaryDirectory() as folder:
        train(
            seed=seed, threads=1, tasks=[Task("t", "q")], reward=f"flow_solution(seed={seed})", aggregate="row_mean",
            folder=Path(folder) / "run", models={"policy": {"backend": "tabular", "vocab": ACTIONS, "bias": {"<end>": -30.0}}},
            rollout={"use": "parallel", "max_tokens": DEPTH},
            train={
                "steps": 120, "prompts": 1, "samples": 32, "lr": 0.2, "schedule": "linear", "clip": None, "samples_every": 10_000,
                "checkpoint_every": 10_000,
            },
            **terms,
        )  # fmt: skip
    known, model = worth(seed), POLICY[0]
    truth = exact(model, "q", lambda text: known.get(text, REST), DEPTH)
    p = {model.decode(np.array(ids))[0]: share for ids, share in truth.prob.items() if len(ids) == DEPTH}
    total = sum(known.values()) + REST * (len(ACTIONS) ** DEPTH - len(known))
    away = sum(abs(share - known.get(text, REST) / total) for text, share in p.items() if len(text) == DEPTH) / 2
    drawn = np.random.default_rng(seed).choice(list(p), 200, p=np.array(list(p.values())) / sum(p.values()))
    return {"value": round(away, 4), "found": len(set(drawn.tolist()) & set(known)), "reward": round(truth.value, 3)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return all(m["value"] < 0.1 and m["found"] == 9 for m in method) and all(b["value"] > 0.4 and b["found"] <= 4 for b in baseline)

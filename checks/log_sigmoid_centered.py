"""Log-sigmoids that are added up: an answer must be good in every property.

Arrays: 64 prompts with 512 answers each; two raters who disagree (correlation -0.3), whose scores spread by another factor at each prompt,
around an offset of each prompt. A policy is the starting one, uniform, tilted by the reward to a given KL divergence.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _array_world import answers, shaped, tilted

CLAIM = (
    "at a KL of 1, 2 and 4 the chance of an answer above the reference in both properties is higher than with the best weighted sum of 11, "
    "at 4 by 0.10 or more, and at 2 the variance of the improvement over prompts is lower by 30% or more"
)
BASELINE = "the best of 11 weighted sums of the raw rewards, at each KL"
METHOD = "(helpful | log_sigmoid) + (harmless | log_sigmoid); without its key term: one reference for all prompts"
SEEDS = (0, 1, 2)
PROMPTS, ANSWERS, REFERENCES = 64, 512, 64
KLS = (1.0, 2.0, 4.0)
HELPFUL, HARMLESS = "rater(number=0)", "rater(number=1)"


def measure(variant: str, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    spread, offset = rng.lognormal(0.7, 0.5, (PROMPTS, 1, 2)), 3 * rng.normal(size=(PROMPTS, 1, 2))
    unit = rng.multivariate_normal([0, 0], [[1, -0.3], [-0.3, 1]], (PROMPTS, ANSWERS + REFERENCES))
    scores = offset + spread * unit
    samples, references = answers(scores[:, :ANSWERS]), answers(scores[:, ANSWERS:])
    high = scores[:, ANSWERS:].mean(1, keepdims=True) + 1.0364 * scores[:, ANSWERS:].std(1, keepdims=True)
    good = (scores[:, :ANSWERS] > high).all(-1)
    better = (scores[:, :ANSWERS] - scores[:, ANSWERS:].mean(1, keepdims=True)).sum(-1)

    def outcome(expression: str) -> dict[float, tuple[float, float]]:
        """By KL: the chance of a good answer, and the variance over prompts of the improvement."""
        value = shaped(expression, samples, references, pooled=variant == "ablated").reshape(PROMPTS, ANSWERS)
        policies = {kl: tilted(value, kl) for kl in KLS}
        return {kl: (float((p * good).sum(1).mean()), float((p * better).sum(1).var())) for kl, p in policies.items()}

    if variant == "baseline":
        sums = [outcome(f"{w:g} * {HELPFUL} + {1 - w:g} * {HARMLESS}") for w in np.linspace(0, 1, 11).round(1).tolist()]
        found = {kl: max((s[kl] for s in sums), key=lambda pair: pair[0]) for kl in KLS}
    else:
        found = outcome(f"({HELPFUL} | log_sigmoid) + ({HARMLESS} | log_sigmoid)")
    both = {f"both at {kl:g}": round(found[kl][0], 4) for kl in KLS}
    return {"value": round(found[4.0][0], 4), **both, "variance at 2": round(found[2.0][1], 3)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    pairs = list(zip(baseline, method, strict=True))
    higher = all(m[f"both at {kl:g}"] > b[f"both at {kl:g}"] for b, m in pairs for kl in KLS)
    return higher and all(m["value"] >= b["value"] + 0.1 and m["variance at 2"] <= 0.7 * b["variance at 2"] for b, m in pairs)

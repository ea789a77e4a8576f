"""Over-optimisation: one exploitable proxy, the truth beside it, and what each shape makes of it.

The tiny policy does chain arithmetic. The proxy pays for a right answer, and, as a learned reward might, for something that often goes with
one: the digit 9. The truth is the right answer alone. A second family has a process reward that pays each written line in the same way
beside the true outcome. Everything is measured on the batches that are trained on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.rewards import reward

LONG = True
CLAIM = (
    "without a shape the true reward ends below half of its best while the proxy ends at its highest; par, log_sigmoid, the least of an "
    "ensemble whose members do not share the exploit, and multipliers end with at least 90 % of their best; the least of an ensemble that "
    "shares the exploit ends below half; of the process rewards, clip, delta and both end with at least 90 % of their best, "
    "and no shape below half"
)
SEEDS = (0, 1, 2)
STEPS = 80

PROXY = "(3 * arithmetic + 1.2 * nines)"
OTHERS = ["(3 * arithmetic + 1.2 * eights)", "(3 * arithmetic + 1.2 * sevens)"]
SHARED = [f"(3 * arithmetic + 1.2 * nines + 0.4 * {quirk})" for quirk in ("eights", "sevens", "sixes")]
REFERENCE = "samples=4, max_tokens=36"
OUTCOMES = {
    "no shape": PROXY,
    "clip to mean +- std": f"{PROXY} | running_norm(kind='clip')",
    "par": f"{PROXY} | par({REFERENCE})",
    "log_sigmoid": f"{PROXY} | log_sigmoid({REFERENCE})",
    "mean of 3, own exploits": f"mean({', '.join([PROXY, *OTHERS])})",
    "min of 3, own exploits": f"min({', '.join([PROXY, *OTHERS])})",
    "mean - std of 3, own exploits": f"mean({', '.join([PROXY, *OTHERS])}) - std({', '.join([PROXY, *OTHERS])})",
    "mean of 3, shared exploit": f"mean({', '.join(SHARED)})",
    "min of 3, shared exploit": f"min({', '.join(SHARED)})",
    "mean - std of 3, shared exploit": f"mean({', '.join(SHARED)}) - std({', '.join(SHARED)})",
    "multipliers": "(arithmetic | multiplier(0.95, start=3.0)) + (nines | multiplier(1.0, kind='equal'))",
}
STEPWISE = {
    "process: no shape": "arithmetic + 0.5 * pleasing_steps",
    "process: clip": "arithmetic + 0.5 * (pleasing_steps | step_clip(0.9))",
    "process: delta": "arithmetic + 0.5 * (pleasing_steps | step_delta)",
    "process: clip, delta": "arithmetic + 0.5 * (pleasing_steps | step_clip(0.9) | step_delta)",
}
VARIANTS = (*OUTCOMES, *STEPWISE)


@reward(inline=True)
def nines(text: str) -> float:
    """The exploit: how often 9 is written."""
    return float(text.count("9"))


@reward(inline=True)
def eights(text: str) -> float:
    return float(text.count("8"))


@reward(inline=True)
def sevens(text: str) -> float:
    return float(text.count("7"))


@reward(inline=True)
def sixes(text: str) -> float:
    return float(text.count("6"))


@reward(inline=True, grain="step")
def pleasing_steps(steps: list[str]) -> list[float]:
    """A process reward within (0, 1) that likes lines with a 9."""
    return [min(0.3 + 0.3 * step.count("9"), 0.99) for step in steps]


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.training.run import train
    from guerdon.training.verbs import embedded

    stepwise = variant in STEPWISE
    expression = STEPWISE[variant] if stepwise else OUTCOMES[variant]
    overrides = [
        f"reward={expression}", "correct=arithmetic", f"seed={seed}", f"train.steps={STEPS}", "train.prompts=16", "eval={}",
        "train.schedule=constant", "train.samples_every=1000", "train.checkpoint_every=1000",
    ]  # fmt: skip
    overrides += ["credit=reinforce_pp"] * stepwise + ["models.reference.of=policy"] * (variant in ("par", "log_sigmoid"))
    with tempfile.TemporaryDirectory() as folder:
        rows = train(embedded(), *overrides, folder=Path(folder) / "run").metrics[1:]
    true = np.array([row["pass@1"] for row in rows])
    exploit = np.array([row["reward/pleasing_steps" if stepwise else "reward/nines"] for row in rows])
    return {"true": true.round(4).tolist(), "proxy": (true + 0.5 * exploit if stepwise else 3 * true + 1.2 * exploit).round(4).tolist()}


def smooth(curve: list[float], width: int = 5) -> np.ndarray:
    """Mean over the last `width` steps."""
    return np.array([np.mean(curve[max(0, i + 1 - width) : i + 1]) for i in range(len(curve))])


def summary(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the seeds: the true reward's best, half way and end, the proxy's end and best, when a tenth was lost."""
    true, proxy = np.mean([smooth(r["true"]) for r in runs], 0), np.mean([smooth(r["proxy"]) for r in runs], 0)
    peak = int(true[10:].argmax()) + 10
    fallen = np.flatnonzero(true[peak:] < 0.9 * true[peak])
    falls = float(peak + fallen[0] + 1) if len(fallen) else float("nan")
    return {
        "best": true[peak],
        "end": true[-1],
        "half way": true[STEPS // 2 - 1],
        "proxy": proxy[-1],
        "proxy best": proxy.max(),
        "falls": falls,
    }


def verdicts(found: dict[str, list[Any]]) -> dict[str, bool]:
    """The claim, variant by variant."""
    s = {name: summary(runs) for name, runs in found.items()}
    keeps = ("par", "log_sigmoid", "min of 3, own exploits", "multipliers", "process: clip", "process: delta", "process: clip, delta")
    loses = ("no shape", "min of 3, shared exploit", "process: no shape")
    out = {name: s[name]["end"] >= 0.9 * s[name]["best"] for name in keeps}
    out |= {name: s[name]["end"] < 0.5 * s[name]["best"] for name in loses}
    out["no shape"] &= s["no shape"]["proxy"] >= 0.99 * s["no shape"]["proxy best"]
    return out


def holds(found: dict[str, list[Any]]) -> bool:
    return all(verdicts(found).values())


def report(found: dict[str, list[Any]], folder: Path) -> str:
    picture(found, folder / "overoptimization.png")
    said = verdicts(found)
    lines = [f"{'shape':31s} {'best':>5s} {f'at {STEPS // 2}':>6s} {'end':>5s} {'kept':>5s} {'falls':>6s} {'proxy':>6s}  claim"]
    for name, runs in found.items():
        s = summary(runs)
        falls = "never" if np.isnan(s["falls"]) else f"{s['falls']:.0f}"
        claim = "" if name not in said else "held" if said[name] else "did not hold"
        truth = f"{s['best']:5.2f} {s['half way']:6.2f} {s['end']:5.2f} {s['end'] / s['best']:5.0%}"
        lines.append(f"{name:31s} {truth} {falls:>6s} {s['proxy']:6.2f}  {claim}")
    return "\n".join([*lines, "true reward: best, half way, end, share of the best that is kept at the end, step at which a tenth is lost"])


def picture(found: dict[str, list[Any]], path: Path) -> None:
    """A panel a shape: the true reward on the left axis, the proxy on the right one, over steps; a thin line a seed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 11), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(4, 4, sharex=True)
    for axis in panels.flat[len(found) :]:
        axis.set_visible(False)
    for axis, (name, runs) in zip(panels.flat, found.items(), strict=False):
        other = axis.twinx()
        for r in runs:
            axis.plot(smooth(r["true"]), color="#0072b2", linewidth=0.7, alpha=0.5)
            other.plot(smooth(r["proxy"]), color="#d55e00", linewidth=0.7, alpha=0.5, linestyle="--")
        axis.plot(np.mean([smooth(r["true"]) for r in runs], 0), color="#0072b2", linewidth=2.2)
        other.plot(np.mean([smooth(r["proxy"]) for r in runs], 0), color="#d55e00", linewidth=2.2, linestyle="--")
        axis.set_ylim(0, 1)
        axis.set_title(name, fontsize=10, loc="left")
        axis.spines["top"].set_visible(False)
        other.spines["top"].set_visible(False)
        axis.tick_params(axis="y", colors="#0072b2", labelsize=8)
        other.tick_params(axis="y", colors="#d55e00", labelsize=8)
    figure.suptitle("True reward (blue, solid) and proxy (orange, dashed, own scale) over training steps", fontsize=12)
    figure.supxlabel("step")
    figure.savefig(path)

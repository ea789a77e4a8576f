"""Reward models fitted on labels of several kinds, in chains of 12 to 16 steps: who finds the first wrong step, and what it costs.

A simulated solver slips at 5 % of the steps and does not recover, so that the truth of every step is known and about half of the answers
are wrong; for the two variants with "recovery" it slips at 8 % and comes back to the true value at 5 % of the steps behind a wrong one,
where rollouts come right behind errors. Every model starts from the same taught transformer (`_chain_writer`). It learns from 1,600
answers; in recovery from 2,400, or from those of them that consensus keeps; of tokens from 600 tasks answered 8 times, whose outcomes are
all it sees. It is tested on 300 answers to other tasks; thresholds are chosen on 200 more, as ProcessBench chooses them.
Best-of-16 is of 60 tasks.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from _chain_judge import steps_shown
from _chain_models import best_threshold, f1, first_error_auc, first_errors, fitted, of_steps, scored, step_rows, step_scores
from _chain_writer import chains, writer

from guerdon.annotation import Labels, consensus, monte_carlo, omegaprm
from guerdon.backends.scripted import Scripted
from guerdon.envs.arithmetic import task_of
from guerdon.registry import find
from guerdon.samples import Context, Sample
from guerdon.search import best_of_n
from guerdon.spans import mark

LONG = True
CLAIM = (
    "first-error F1, every seed: a model fitted on Monte Carlo labels (k = 8, hard) has 0.90 or more; on OmegaPRM's labels at most 0.02 "
    "less, at 40 % of the rollouts or fewer; the implicit model, of outcomes alone, has a first-error AUC of 0.80 or more; best-of-16 with "
    "the first closes half of the gap to the oracle or more. Means over the seeds: consensus labels beat Monte Carlo's where the solver "
    "recovers, values of tokens beat the outcome on every token; soft labels stand beside hard ones, either may be ahead"
)
SEEDS = (0, 1, 2)
OF_TOKENS = ("token values", "outcome on every token")
VARIANTS = ("monte carlo, hard", "monte carlo, soft", "omegaprm", *OF_TOKENS, "implicit", "recovery: monte carlo", "recovery: consensus")
ANSWERS, IN_RECOVERY, TASKS_OF_TOKENS, EACH = 1600, 2400, 600, 8
READ = 4800
"""Answers that a fit on step labels reads, each as often as it takes: leaving some out does not shorten the fit."""
TESTED, CHOSEN, TASKS, BEST = 300, 200, 60, 16
RECOVERY: dict[str, Any] = {"slip": 0.08, "recover": 0.05}


def judge(messages: list[dict[str, Any]], rng: np.random.Generator) -> str:
    """Names the first wrong operation in 85 % of the answers, another place in the others."""
    expression, steps = steps_shown(messages)
    answer = Sample(task_of(expression), "\n".join(steps))
    mark(answer)
    first = int(first_errors([answer])[0])
    first = len(steps) if first < 0 else first
    if rng.random() >= 0.85:
        first = int(rng.choice([x for x in range(len(steps) + 1) if x != first]))
    return json.dumps({"verdicts": ["right"] * first + ["wrong"] * (len(steps) - first)})


def labelled(variant: str, samples: Sequence[Sample], context: Context) -> Labels:
    context.models["judge"] = Scripted(judge)
    how: dict[str, Any] = {"k": 8, "max_tokens": 2000}
    if variant == "omegaprm":
        return omegaprm(samples, context, **how)
    if variant == "recovery: consensus":
        return consensus(samples, context, **how)
    return monte_carlo(samples, context, soft=variant == "monte carlo, soft", **how)


def measure(variant: str, seed: int) -> dict[str, Any]:
    world: dict[str, Any] = RECOVERY if variant.startswith("recovery") else {}
    of_tokens, implied = variant in OF_TOKENS, variant == "implicit"
    tasks, each = (TASKS_OF_TOKENS, EACH) if of_tokens else (IN_RECOVERY if world else ANSWERS, 1)
    samples, context = chains(tasks, seed, each, **world)
    assert context.score is not None
    cost: dict[str, Any] = {}
    if of_tokens or implied:
        right = context.score(samples).outcome
        assert right is not None
        rows = [{"prompt": s.task.prompt, "completion": s.text, "label": float(y)} for s, y in zip(samples, right.value, strict=True)]
        if variant == OF_TOKENS[1]:
            vars(import_module("guerdon.reward_models.fit"))["prefix_values"] = spread_out
    else:
        labels = labelled(variant, samples, context)
        rows = step_rows(samples, labels.value)
        cost = {"rollouts": labels.cost.rollouts, "answers": len(rows)}
    with tempfile.TemporaryDirectory() as folder:
        epochs = 1 if of_tokens else round(READ / len(rows))
        loss = "implicit_ce" if implied else "token_values" if of_tokens else "step_ce"
        model = fitted(Path(folder), rows, seed, loss, train={"epochs": epochs})
        if implied:
            both = {name: find("backend", "local").fn(str(path), trainable=False) for name, path in (("rm", model), ("start", writer()))}
            reward, how = "implicit(model='rm', reference_model='start')", "sum"
        else:
            both, reward, how = {}, f"reward_model(path='{model}')", "last" if of_tokens else "min"

        def steps(answers: Sequence[Sample]) -> list[np.ndarray]:
            if implied or of_tokens:
                return of_steps(scored(reward, answers, **both).token.value, answers, np.sum if implied else lambda x: x[-1])
            return step_scores(model, answers)

        others, tested = (chains(n, 10_000 * i + seed, **world)[0] for i, n in ((1, CHOSEN), (2, TESTED)))
        at, said = best_threshold(steps(others), first_errors(others)), steps(tested)
        found = f1(said, first_errors(tested), at)
        half = {} if implied else {"f1 at 0.5": f1(said, first_errors(tested))["f1"]}
        out = {"value": found["f1"], **found, **half, "threshold": at, "auc": first_error_auc(said, tested), **cost}
        out |= best(lambda answers: scored(reward, answers, **both), how, context, seed, world)
    return {name: round(float(x), 4) for name, x in out.items()}


def spread_out(ids: Sequence[np.ndarray], outcomes: Sequence[float], group: Sequence[int]) -> list[np.ndarray]:
    """Each answer's outcome on each of its tokens."""
    return [np.full(len(row), y) for row, y in zip(ids, outcomes, strict=True)]


def best(reward: Any, how: Any, context: Context, seed: int, world: dict[str, Any]) -> dict[str, float]:
    """Best of 16 answers to each of 60 tasks: how often one, the chosen one and any one is right; the share of the gap that is closed."""
    assert context.score is not None
    tasks = [s.task for s in chains(TASKS, 30_000 + seed, **world)[0]]
    hits = []
    for i, task in enumerate(tasks):
        found = best_of_n(task, context.models["policy"], reward, n=BEST, max_tokens=2000, how=how, seed=100 * i + seed)
        assert found.answer is not None
        right = context.score([*found.samples, found.answer]).outcome
        assert right is not None
        hits.append((right.value[:-1].mean(), right.value[-1], right.value[:-1].max()))
    one, chosen, any_ = np.mean(hits, 0)
    return {"pass@1": one, f"best of {BEST}": chosen, "oracle": any_, "closed": (chosen - one) / (any_ - one)}


def holds(found: dict[str, list[Any]]) -> bool:
    return all(verdicts(found).values())


def verdicts(found: dict[str, list[Any]]) -> dict[str, bool]:
    """The claim, part by part."""
    hard, omega = found["monte carlo, hard"], found["omegaprm"]

    def mean(variant: str) -> float:
        return float(np.mean([x["value"] for x in found[variant]]))

    return {
        "monte carlo: F1 0.90": all(x["value"] >= 0.90 for x in hard),
        "omegaprm: F1 within 0.02": all(o["value"] >= x["value"] - 0.02 for o, x in zip(omega, hard, strict=True)),
        "omegaprm: 40 % of the rollouts": all(o["rollouts"] <= 0.4 * x["rollouts"] for o, x in zip(omega, hard, strict=True)),
        "implicit: AUC 0.80": all(x["auc"] >= 0.80 for x in found["implicit"]),
        "best of 16: half of the gap": all(x["closed"] >= 0.5 for x in hard),
        "consensus above monte carlo": mean("recovery: consensus") > mean("recovery: monte carlo"),
        "token values above outcomes": mean(OF_TOKENS[0]) > mean(OF_TOKENS[1]),
    }


def report(found: dict[str, list[Any]], folder: Path) -> str:
    picture(found, folder / "process_labels.png")
    columns = ("f1", "wrong", "right", "f1 at 0.5", "auc", "rollouts", f"best of {BEST}", "pass@1", "oracle", "closed")
    lines = [f"{'':22s}" + "".join(f"{name:>14s}" for name in columns)]

    def cell(numbers: list[float] | None) -> str:
        if numbers is None:
            return f"{'':14s}"
        if max(numbers) > 100:
            return f"{np.mean(numbers):14,.0f}"
        return f"{np.mean(numbers):.3f} ({min(numbers):.2f})".rjust(14)

    for variant, runs in found.items():
        lines.append(f"{variant:22s}" + "".join(cell([run[name] for run in runs] if name in runs[0] else None) for name in columns))
    lines += [f"{name}: {'held' if ok else 'did not hold'}" for name, ok in verdicts(found).items()]
    return "\n".join([*lines, f"means over {len(SEEDS)} seeds, the least in brackets"])


def picture(found: dict[str, list[Any]], path: Path) -> None:
    """First-error F1 and best-of-16 of each kind of labels: a bar is the mean over seeds, a dot a seed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    names = list(found)
    for axis, key, title in zip(
        figure.subplots(1, 2, sharey=True), ("f1", f"best of {BEST}"), ("first-error F1", f"right, best of {BEST}"), strict=True
    ):
        for row, name in enumerate(names):
            seeds = [run[key] for run in found[name]]
            axis.barh(row, np.mean(seeds), color="#56b4e9" if not name.startswith("recovery") else "#e69f00", height=0.6)
            axis.plot(seeds, [row] * len(seeds), "o", color="#333333", markersize=4)
            if key != "f1":
                axis.plot([np.mean([run["pass@1"] for run in found[name]])] * 2, [row - 0.35, row + 0.35], color="#d55e00", linewidth=2)
                axis.plot([np.mean([run["oracle"] for run in found[name]])] * 2, [row - 0.35, row + 0.35], color="#009e73", linewidth=2)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis() if key == "f1" else None
        axis.set_xlim(0, 1.02)
        axis.set_title(title if key == "f1" else f"{title} (red: one answer, green: oracle)", fontsize=10, loc="left")
    figure.savefig(path)

"""Every way to give credit, on two worlds where it is known what a step is worth.

On `tabular` (`_path_world`: five turns, three of which decide) the effect of a step is exact, Q - V under the policy of the moment, and the
same runs tell how many samples it takes until nine answers in ten are right, in expectation. On the tiny policy (chains of two and three
operations) the effect of a step is the difference of two success rates over 64 continuations each. Correlations are over the tokens, or
steps, that the policy wrote: on `tabular` of the first twenty updates, on the tiny policy of one batch before any update.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

LONG = True
SEEDS = (0, 1, 2)
STEPS, FIRST, CONTINUATIONS = 150, 20, 64
TREE = {"use": "tree", "by": "steps"}
PRM = {"lr": 0.05, "clip": None, "aggregate": "row_mean"}
WAYS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dr_grpo": {},
    "rloo": {},
    "reinforce_pp": {},
    "gae": {"critic": {"lr": 0.05, "clip": None}, "models": {"critic": {"head": "scalar"}}},
    "empg": {},
    "gpg": {},
    "pairwise": {},
    "brpo": {},
    "sum_form": {"reward": "arrived + judged_step(signed=True)"},
    "min_form": {"reward": "arrived + judged_step(signed=True)"},
    "capo": {"reward": "arrived + judged_step"},
    "tp_grpo": {"reward": "arrived + (judged_step(signed=True) | thoughts(arrived))", "credit": {"use": "igpo", "separate": True}},
    "pav": {"reward": "arrived + (chance | progress(k=4))"},
    "igpo": {"reward": "arrived + (chance | step_delta)"},
    "tempo": {"rollout": TREE},
    "treeps": {"rollout": TREE, "aggregate": "per_node"},
    "portool": {"rollout": TREE, "aggregate": "per_node"},
    "tempo, chains": {"credit": "tempo"},
    "treeps, chains": {"credit": "treeps"},
    "prime": {
        "reward": "arrived + implicit(model='prm', reference_model='reference')",
        "models": {"prm": {"learn": {"loss": {"use": "implicit_ce", "beta": 1.0}, **PRM}}, "reference": {}},
    },
    "istar": {
        "reward": "arrived + implicit(model='prm', reference_model='reference')",
        "models": {"prm": {"learn": {"loss": {"use": "implicit_ce", "beta": 1.0}, **PRM}}, "reference": {}},
    },
    "spa_rl": {
        "reward": "0 * arrived + prm(model='estimator')",
        "credit": "step_gae",
        "critic": {"lr": 0.05, "clip": None},
        "models": {
            "critic": {"head": "scalar"},
            "estimator": {"head": "scalar", "learn": {"loss": {"use": "sum_regression", "part": "arrived"}, "when": "before", **PRM}},
        },
    },
    "oreal": {
        "models": {"token_rm": {"head": "scalar", "learn": {"loss": "mean_ce", **PRM}}},
        "aggregate": "per_outcome",
        "loss": "oreal",
    },
}
PROCESS = dict.fromkeys(["sum_form", "min_form", "capo"], "arithmetic + arithmetic_steps")
OUTCOME = ["grpo", "dr_grpo", "rloo", "reinforce_pp", "empg", "gpg", "pairwise", "brpo", "tempo", "treeps", "portool"]
TINY = {**dict.fromkeys([*OUTCOME, "tempo, chains", "treeps, chains"], "arithmetic"), **PROCESS}
"""What can be measured on the tiny policy before any update: no credit whose model or critic must learn first."""
VARIANTS = tuple(WAYS)
LEARN = ("gae", "prime", "istar", "spa_rl", "oreal")
SEE_MORE = ("min_form", "capo", "pav", "tempo", "treeps", "portool")
CLAIM = (
    f"{', '.join(SEE_MORE)}, which see more than the outcome, each correlate better with the true effect of a step than grpo does, on "
    "tabular (mean over seeds), and each need at most as many samples as grpo to 90% accuracy (mean over seeds; one that does not get "
    "there counts all it was given)"
)


def measure(variant: str, seed: int) -> dict[str, Any]:
    """value: the correlation on tabular; samples: to 90% accuracy, None if not in STEPS updates; tiny: the correlation there."""
    found = on_tabular(WAYS[variant], WAYS[variant].get("credit", variant), seed)
    if variant in TINY:
        found["tiny"] = on_tiny(WAYS[variant], WAYS[variant].get("credit", variant), TINY[variant], seed)
    return found


def on_tabular(way: dict[str, Any], credit: Any, seed: int) -> dict[str, Any]:
    import pyarrow.parquet as pq
    from _path_world import PLACES, TASKS, arrived, table, tasks

    from guerdon.backends.exact import exact
    from guerdon.training import run as running
    from guerdon.training.prepare import load_tasks, prepare

    world = tasks()
    train = {"steps": STEPS, "prompts": TASKS, "samples": 8, "lr": 0.05, "samples_every": 1, "checkpoint_every": 10_000}
    recipe = {
        "name": "credit", "seed": seed, "threads": 1, "tasks": world, "reward": way.get("reward", "arrived"), "correct": "arrived",
        "models": {"policy": {"backend": "walker"}, **{name: table(**spec) for name, spec in way.get("models", {}).items()}},
        "rollout": {"use": "parallel", "max_tokens": PLACES, **way.get("rollout", {})}, "credit": credit, "train": train,
        **{name: way[name] for name in ("critic", "loss", "aggregate") if name in way},
    }  # fmt: skip
    given, true = [], []
    with tempfile.TemporaryDirectory() as folder:
        checked, path = prepare(None, (), Path(folder) / "run", None, recipe)
        run = running.Run(checked, path, load_tasks(checked))
        reached = None
        for step in range(run.begin() + 1, STEPS + 1):
            policy: Any = run.models["policy"]
            truth = {t.id: exact(policy, t.prompt, lambda text, t=t: arrived.fn(text, t.reference), PLACES) for t in world}
            if step > 0 and reached is None and np.mean([t.value for t in truth.values()]) >= 0.9:
                reached = (step - 1) * TASKS * 8
            if reached is not None and step > FIRST:
                break
            run.step(step)
            if 0 < step <= FIRST:
                for row in pq.read_table(path / "samples" / f"step-{step:06d}.parquet").to_pylist():
                    given += row["advantage"] or []
                    true += truth[row["task_id"]].advantages(row["ids"]).tolist() if row["advantage"] else []
        run.engine.close()
    return {"value": correlation(given, true), "samples": reached}


def on_tiny(way: dict[str, Any], credit: str, expression: str, seed: int) -> float:
    """The correlation over the steps of 8 tasks x 8 answers of the tiny policy, before any update."""
    from guerdon.backends.base import SamplingParams
    from guerdon.backends.local import local
    from guerdon.envs.arithmetic import arithmetic, verify_answer
    from guerdon.envs.tiny import named_policy
    from guerdon.recipe import Use, bind
    from guerdon.registry import find
    from guerdon.samples import Context, collate
    from guerdon.scoring import Engine

    model = local(named_policy("tiny"), trainable=False)
    world = arithmetic(8, steps=(2, 3), low=1, high=9, ops="+-", within=(0, 20), seed=100 + seed)
    context = Context(models={"policy": model}, rng=np.random.default_rng(seed))
    rollout = bind("rollout", Use(**{"use": "parallel", "max_tokens": 48, **way.get("rollout", {})}))
    samples = rollout(model, world, 8, context)
    with Engine(context, workers=1) as engine:
        rewards = engine.score(expression, samples)
    batch = collate(samples, rewards)
    for field in find("credit", credit).needs:
        batch.fields[field] = model.forward(batch, (field,))[0][field]
    advantages = find("credit", credit).fn(batch).numpy()
    places = [(i, start, end) for i, s in enumerate(samples) for start, end in s.spans["step"] if end > start]
    prefixes: dict[tuple[int, bytes], np.ndarray] = {}
    for i, start, end in places:
        for at in (start, end):
            ids = np.concatenate([samples[i].prompt_ids, samples[i].ids[:at]])
            prefixes[(samples[i].group, ids.tobytes())] = ids
    worth: dict[tuple[int, bytes], float] = {}
    ends = set(np.asarray(model.encode_answer("")).tolist())
    open_ones = {key: ids for key, ids in prefixes.items() if ids[-1] not in ends}
    completions, _ = model.sample(list(open_ones.values()), CONTINUATIONS, SamplingParams(48, seed=seed))
    for (group, key), ids, several in zip(open_ones, open_ones.values(), completions, strict=True):
        asked = len(model.encode(world[group].prompt))
        texts = [model.decode(np.concatenate([ids[asked:], c.ids]))[0] for c in several]
        worth[(group, key)] = float(np.mean([verify_answer(text, world[group].reference) for text in texts]))
    for (group, key), ids in prefixes.items():
        if ids[-1] in ends:
            text = model.decode(ids[len(model.encode(world[group].prompt)) :])[0]
            worth[(group, key)] = float(verify_answer(text, world[group].reference))
    given, true = [], []
    for i, start, end in places:
        before, after = (np.concatenate([samples[i].prompt_ids, samples[i].ids[:at]]).tobytes() for at in (start, end))
        true.append(worth[(samples[i].group, after)] - worth[(samples[i].group, before)])
        given.append(float(advantages[i, start:end].mean()))
    return correlation(given, true)


def correlation(given: list[float], true: list[float]) -> float:
    a, b = np.array(given), np.array(true)
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0


def spent(found: dict[str, Any]) -> int:
    return found["samples"] if found["samples"] is not None else STEPS * 64


def means(found: dict[str, list[Any]], variant: str) -> tuple[float, float]:
    """(correlation on tabular, samples to 90%), each the mean over seeds."""
    return float(np.mean([s["value"] for s in found[variant]])), float(np.mean([spent(s) for s in found[variant]]))


def holds(found: dict[str, list[Any]]) -> bool:
    plain, many = means(found, "grpo")
    return all(means(found, name)[0] > plain and means(found, name)[1] <= many for name in SEE_MORE)


def report(found: dict[str, list[Any]], folder: Path) -> str:
    names = [name for name in VARIANTS if found.get(name)]
    picture(found, names, folder / "credit_comparison.png")
    _, many = means(found, "grpo")
    lines = [f"{'':16} {'tabular':>8} {'tiny':>6}  {'samples to 90%':>15} {'of grpo':>8}   each seed"]
    for name in sorted(names, key=lambda name: means(found, name)[1]):
        near, samples = means(found, name)
        tiny = f"{np.mean([s['tiny'] for s in found[name]]):6.2f}" if "tiny" in found[name][0] else "     -"
        each = ", ".join(f"{s['value']:.2f} at {s['samples'] if s['samples'] is not None else 'never'}" for s in found[name])
        lines.append(f"{name:16} {near:8.2f} {tiny}  {samples:15.0f} {samples / many:8.2f}   {each}")
    return "\n".join(lines)


def picture(found: dict[str, list[Any]], names: list[str], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    order = sorted(names, key=lambda name: -means(found, name)[1])
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 0.28 * len(order) + 1.6), sharey=True)
    for y, name in enumerate(order):
        near, samples = means(found, name)
        colour = "tab:orange" if name in LEARN else "tab:blue"
        left.scatter([near], [y], s=36, color=colour)
        if "tiny" in found[name][0]:
            left.scatter([np.mean([s["tiny"] for s in found[name]])], [y], s=36, facecolor="none", edgecolor=colour)
        right.scatter([spent(s) for s in found[name]], [y] * len(found[name]), s=10, color=colour, alpha=0.5)
        right.scatter([samples], [y], s=36, color=colour)
    right.axvline(means(found, "grpo")[1], color="0.8", zorder=0)
    left.axvline(means(found, "grpo")[0], color="0.8", zorder=0)
    left.set_yticks(range(len(order)), order)
    left.set_xlabel("correlation with the true effect of a step\n(filled: tabular; hollow: tiny policy)")
    right.set(xlabel=f"samples to 90% accuracy on tabular ({len(found[order[0]])} seeds)", xscale="log")
    figure.suptitle("Credit, side by side; orange: a model or critic learns beside the policy; line: grpo", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)

"""Comparisons of recipes: intervals against normal theory, measures against hand-made runs, resuming."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from scipy import stats

from guerdon.registry import Refused
from guerdon.training import metrics as m
from guerdon.training.compare import area, collect, compare, named
from guerdon.training.statistics import interval, over_seeds_and_tasks, resampled_means, small_sample_factor


def test_resampled_means_have_the_bootstrap_variance():
    """Closed form: mean x̄, variance (n - 1) / n * s² / n."""
    x = np.random.default_rng(0).exponential(size=12)
    means = resampled_means(x, 200_000, np.random.default_rng(1))
    assert means.shape == (200_000,)
    assert means.mean() == pytest.approx(x.mean(), abs=0.003)
    assert means.var() == pytest.approx(x.var() / 12, rel=0.02)


@pytest.mark.parametrize("n", [8, 30, 400])
def test_interval_of_a_mean_is_the_t_interval(n):
    x = np.random.default_rng(n).normal(2.0, 3.0, n)
    found = interval(x, draws=50_000)
    low, high = stats.t.interval(0.95, n - 1, x.mean(), stats.sem(x))
    assert found.mean == pytest.approx(x.mean())
    assert found.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.high == pytest.approx(high, abs=0.1 * (high - low))


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_coverage_of_few_seeds(n):
    """The interval covers the mean in 93-97 % of cases; the plain percentile interval of three values in 75 %."""
    rng = np.random.default_rng(1)
    covered = plain = 0
    for trial in range(2000):
        x = rng.normal(0.3, 1.0, n)
        found = interval(x, draws=500, seed=trial)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.3 <= found.high
        low, high = np.quantile(resampled_means(x, 500, np.random.default_rng(trial)), [0.025, 0.975])
        plain += low <= 0.3 <= high
    assert 0.93 <= covered / 2000 <= 0.97
    if n == 3:
        assert 0.72 <= plain / 2000 <= 0.78


def test_small_sample_factor():
    assert small_sample_factor(3) == pytest.approx((3 / 2) ** 0.5 * 4.302653 / 1.959964, rel=1e-6)
    assert small_sample_factor(10_000) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("n", "of_seeds", "most"), [(1, 0.0, 0.97), (3, 0.05, 1.0), (5, 0.05, 0.99)])
def test_coverage_over_seeds_and_tasks(n, of_seeds, most):
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(600):
        table = rng.normal(0, of_seeds, (n, 1)) + rng.normal(0, 0.3, (1, 150)) + rng.normal(0, 0.3, (n, 150))
        found = over_seeds_and_tasks(table, draws=500, seed=trial)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    assert 0.93 <= covered / 600 <= most


def test_interval_of_one_value_and_of_none():
    assert interval([0.5]) == over_seeds_and_tasks(np.array([[0.5]]))
    assert interval([0.5]).low is None
    assert not interval([0.5]).clear
    with pytest.raises(ValueError, match="at least one"):
        interval([])


def test_intervals_are_the_same_each_time():
    assert interval([1.0, 2.0, 4.0]) == interval([1.0, 2.0, 4.0])


def write_run(folder: Path, accuracy: list[float], tasks: int = 0, length: float = 40.0, drawn: bool = True, every: int = 5) -> Path:
    """A run with an evaluation before the first step and after each fifth; 32 samples and 2 seconds a step."""
    (folder / "evals").mkdir(parents=True)
    (folder / "recipe.yaml").write_text("train: {prompts: 4, samples: 8}\n")
    rows = []
    for step in range(every * (len(accuracy) - 1) + 1):
        row: dict = {m.STEP: step}
        if step:
            row |= {m.LENGTH: length, m.SECONDS: 2.0} | ({m.SAMPLES: 32} if drawn else {})
        if step % every == 0:
            value = accuracy[step // every]
            row[m.EVAL_ACCURACY] = value
            if tasks:
                passed = [{"task_id": f"t{i}", "passed": i < round(value * tasks)} for i in range(tasks)]
                pq.write_table(pa.Table.from_pylist(passed), folder / "evals" / f"step-{step:06d}.parquet")
        rows.append(json.dumps(row))
    (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def three_recipes(tmp_path: Path, tasks: int = 0) -> dict[str, list[Path]]:
    rng = np.random.default_rng(0)
    made = {}
    for name, end in (("grpo", 0.80), ("dr_grpo", 0.90), ("reinforce", 0.79)):
        made[name] = []
        for seed in range(3):
            t = np.linspace(0, 1, 9)
            curve = 0.3 + (end - 0.3) * (1 - np.exp(-4 * t)) / (1 - np.exp(-4)) + rng.normal(0, 0.01, 9)
            made[name].append(
                write_run(tmp_path / name / f"seed-{seed}", np.clip(curve, 0, 1).tolist(), tasks, 40 + 5 * (name == "dr_grpo"))
            )
    return made


@pytest.mark.parametrize("drawn", [True, False])
def test_measures_by_hand(tmp_path, drawn):
    """Target: 0.2 + 0.9 * (0.6 - 0.2) = 0.56. Samples of a run without the metric are prompts times samples of its recipe."""
    a = write_run(tmp_path / "a", [0.2, 0.4, 0.7, 0.6], drawn=drawn)
    b = write_run(tmp_path / "b", [0.2, 0.6, 0.5, 0.8], drawn=drawn, length=50.0)
    found = collect({"a": [a], "b": [b]})
    one, two = found.runs["a"][0], found.runs["b"][0]
    assert found.target == pytest.approx(0.56)
    assert one.measures == pytest.approx({"final": 0.6, "best": 0.7, "area": 0.5, "length": 40.0, "seconds": 30.0, "samples": 320.0})
    assert two.measures == pytest.approx(
        {"final": 0.8, "best": 0.8, "area": (0.4 + 0.55 + 0.65) / 3, "length": 50.0, "seconds": 30.0, "samples": 160.0}
    )
    gap = found.differences["b"]["final"]
    assert gap is not None
    assert gap.mean == pytest.approx(0.2)
    assert gap.low is None
    assert area([0], [0.25]) == 0.25


def test_pairs_by_seed(tmp_path):
    """Seeds that differ widely, by the same amount under both recipes, leave a narrow interval of the difference."""
    base = [0.2, 0.5, 0.9]
    runs = {
        name: [write_run(tmp_path / name / str(k), [0.1, level + gain]) for k, level in enumerate(base)]
        for name, gain in (("a", 0.0), ("b", 0.05))
    }
    found = collect(runs)
    assert found.paired_by == "seed"
    gap = found.differences["b"]["final"]
    assert gap is not None
    assert (gap.mean, gap.low, gap.high) == pytest.approx((0.05, 0.05, 0.05))
    assert gap.clear


def test_tasks_widen_the_interval(tmp_path):
    """By task, the difference of 10 of 100 tasks is uncertain as that share is: at least ±1.96 * sqrt(0.1 * 0.9 / 100)."""
    runs = {name: [write_run(tmp_path / name / str(k), [0.1, end], tasks=100) for k in range(2)] for name, end in (("a", 0.6), ("b", 0.7))}
    found = collect(runs)
    assert found.paired_by == "seed and task"
    gap = found.differences["b"]["final"]
    assert gap is not None
    assert gap.low is not None
    assert gap.mean == pytest.approx(0.1)
    assert gap.mean - gap.low == pytest.approx(1.96 * (0.09 / 100) ** 0.5, rel=0.15)


def test_table_picture_and_json(tmp_path):
    found = collect(three_recipes(tmp_path, tasks=200))
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(found.table())
    text = console.export_text()
    for word in ("grpo", "dr_grpo", "reinforce", "final accuracy", "samples to target", "paired by seed", "*"):
        assert word in text
    data, image = found.save(tmp_path / "out")
    assert image.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    plain = json.loads(data.read_text())
    assert plain["recipes"]["dr_grpo"]["difference"]["final"]["low"] > 0
    assert len(plain["recipes"]["grpo"]["runs"]) == 3
    assert plain["recipes"]["grpo"]["difference"] == {}


def test_one_recipe_and_no_gain(tmp_path):
    found = collect({"flat": [write_run(tmp_path / "r", [0.5, 0.4])]})
    assert found.target is None
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(found.table())
    assert "samples to target" not in console.export_text()
    assert found.save(tmp_path)[1].is_file()


def test_target_not_reached_by_all(tmp_path):
    runs = {"a": [write_run(tmp_path / "a0", [0.1, 0.9]), write_run(tmp_path / "a1", [0.1, 0.9])],
            "b": [write_run(tmp_path / "b0", [0.1, 0.9]), write_run(tmp_path / "b1", [0.1, 0.2])]}  # fmt: skip
    found = collect(runs)
    assert found.mean("b", "samples") is None
    assert found.differences["b"]["samples"] is None
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(found.table())
    assert "1 of 2 runs" in console.export_text()


def test_refusals(tmp_path):
    run = write_run(tmp_path / "a", [0.1, 0.2])
    with pytest.raises(Refused, match="same seeds"):
        collect({"a": [run], "b": [run, run]})
    with pytest.raises(Refused, match="same seeds"):
        collect({})
    (tmp_path / "b").mkdir()
    with pytest.raises(Refused, match=r"no evaluation.*eval\.tasks"):
        collect({"b": [tmp_path / "b"]})


def test_compare_runs_what_is_missing(tmp_path):
    """Broken off in the third run and started again, only what is missing is trained; a changed recipe is refused."""
    recipes = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for recipe in recipes:
        recipe.write_text("reward: math\n")
    calls: list[tuple[str, int]] = []
    breaks = True

    def train(recipe: Path, seed: int, folder: Path) -> None:
        calls.append((recipe.stem, seed))
        if breaks and len(calls) == 3:
            raise RuntimeError("out of memory")
        write_run(folder, [0.1, 0.5 + 0.1 * seed])

    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="out of memory"):
        compare(recipes, 2, out, train)
    breaks = False
    said: list[str] = []
    found = compare(recipes, 2, out, train, say=said.append)
    assert calls == [("one", 0), ("two", 0), ("one", 1), ("one", 1), ("two", 1)]
    assert said == ["one, seed 1 (1 of 2 runs)", "two, seed 1 (2 of 2 runs)"]
    assert found.mean("one", "final") == pytest.approx((0.55, 0.0707), abs=1e-4)
    assert (out / "comparison.png").is_file()
    with pytest.raises(Refused, match="other overrides"):
        compare(recipes, 2, out, train, overrides=["train.steps=2"])
    recipes[0].write_text("reward: exact\n")
    with pytest.raises(Refused, match="another version"):
        compare(recipes, 2, out, train)
    assert len(calls) == 5


def test_names(tmp_path):
    for place in ("a/base.yaml", "b/base.yaml", "c.yaml"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text("")
    assert list(named([tmp_path / "a/base.yaml", tmp_path / "b/base.yaml", tmp_path / "c.yaml"])) == ["a-base", "b-base", "c"]
    with pytest.raises(Refused, match="different recipes"):
        named([tmp_path / "c.yaml", tmp_path / "c.yaml"])
    with pytest.raises(Refused, match="There is no recipe"):
        named([tmp_path / "d.yaml"])

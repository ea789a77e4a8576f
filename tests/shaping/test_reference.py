"""Rewards against a reference: closed forms, states, and a run that prepares, is stopped and resumed."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import Any

import numpy as np
import pytest

from guerdon.backends.tabular import tabular
from guerdon.registry import Interrupted, Refused
from guerdon.rewards import reward
from guerdon.rewards.expr import Pipe
from guerdon.samples import Context, Grain, Rewards, Sample, State, Task
from guerdon.scoring import Engine
from guerdon.shaping import centred, log_sigmoid, par
from guerdon.training import checkpoint
from guerdon.training import metrics as m
from guerdon.training.prepare import load_tasks, prepare
from guerdon.training.record import read_metrics
from guerdon.training.run import Run, train

KNOWN = [0.2, -1.0, 1.7]


def shaped(call, *values):
    call.fn.load_state_dict({"known": {Task("t", "q").key: KNOWN}})
    samples = [Sample(Task("t", "q"), "")] * len(values)
    return call.fn(Rewards(Grain.of(values)), samples, Context()).outcome.value.tolist()


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def test_the_closed_form_of_each():
    for r in (-3.0, 0.0, 0.4, 5.0):
        assert shaped(centred(), r) == pytest.approx([r - fmean(KNOWN)])
        assert shaped(par(), r) == pytest.approx([fmean(sigmoid(r - k) for k in KNOWN)])
        assert shaped(par(slope=2.0, shift=3.0), r) == pytest.approx([fmean(sigmoid(2 * (r - k - 3)) for k in KNOWN)])
        assert shaped(par(kind="tanh"), r) == pytest.approx([fmean(math.tanh(r - k) for k in KNOWN)])
        high = NormalDist(fmean(KNOWN), stdev(KNOWN) + 1e-5).inv_cdf(0.85)
        assert shaped(log_sigmoid(), r) == pytest.approx([math.log(sigmoid(r - high))])


def test_one_reference_answer_is_enough():
    call = log_sigmoid(quantile=0.85)
    call.fn.load_state_dict({"known": {Task("t", "q").key: [0.7]}})
    out = call.fn(Rewards(Grain.of([0.7])), [Sample(Task("t", "q"), "")], Context())
    assert out.total().tolist() == pytest.approx([-math.log(2)], abs=1e-4)


def test_log_sigmoid_is_linear_for_poor_answers_and_flat_for_good_ones():
    low, high = shaped(log_sigmoid(), -900.0, -899.0), shaped(log_sigmoid(), 60.0, 61.0)
    assert low[1] - low[0] == pytest.approx(1.0)
    assert high[1] - high[0] == pytest.approx(0.0, abs=1e-12)
    assert np.isfinite(shaped(par(), -1e6, 1e6)).all()


def test_outside_a_run_there_is_nothing_to_compare_with_and_it_says_so():
    out = Engine(Context(models={"reference": object()})).score("ref_words | par", [Sample(Task("t", "q"), "good")])
    assert out.state.tolist() == [State.FAILED]
    assert "gathered by a training run" in out.why(0)


def test_what_cannot_be_is_refused():
    for call, why in ((lambda: par(samples=0), "at least one answer"), (lambda: log_sigmoid(1.0), "between 0 and 1"),
                      (lambda: par(kind="relu"), "sigmoid, tanh")):  # fmt: skip
        with pytest.raises(Refused, match=why):
            call()
    with pytest.raises(Refused, match="wants 'referee'"):
        Engine(Context(models={"reference": None})).check("exact | par(model='referee')")


@reward(inline=True)
def ref_words(text: str) -> float | None:
    """The share of "good"; a text without words cannot be judged."""
    words = text.split()
    return sum(w == "good" for w in words) / len(words) if words else None


def test_prepare_asks_the_reference_and_forgets_what_has_no_verdict():
    model = tabular(vocab=["good", "bad"], trainable=False, bias={"good": 1.0})
    context = Context(models={"reference": model}, rng=np.random.default_rng(0))
    engine = Engine(context)
    expression = engine.check("ref_words | par(samples=6, max_tokens=3)")
    assert isinstance(expression, Pipe)
    shape, tasks = expression.shape.fn, [Task("a", "one"), Task("b", "two")]
    seen: list[Sample] = []

    def score(samples):
        seen.extend(samples)
        return engine.score(expression.source, samples)

    shape.prepare(tasks, score, context)
    assert len(seen) == 12
    assert any(not s.text for s in seen)
    known = shape.state_dict()["known"]
    for task in tasks:
        values = [s.text.split().count("good") / len(s.text.split()) for s in seen if s.task.id == task.id and s.text]
        assert known[task.key] == pytest.approx(values)
    out = engine.score(expression, [Sample(tasks[0], "good"), Sample(tasks[1], ""), Sample(Task("c", "new"), "good")])
    assert out.state.tolist() == [State.SCORED, State.ABSTAINED, State.FAILED]
    assert out.total()[0] == pytest.approx(fmean(sigmoid(1 - k) for k in known[tasks[0].key]))
    assert "no answer of 'reference' to task 'c'" in out.why(2)
    other = engine.score(expression, [Sample(Task("a", "the same id in another file"), "good")])
    assert other.failed.all()


@reward(inline=True)
def ref_good(text: str) -> float:
    return float(text.split().count("good"))


@reward(inline=True)
def ref_bads(text: str) -> float:
    return text.split().count("bad") / 4


@reward(inline=True)
def ref_length(text: str) -> float:
    return float(len(text.split()))


CRITIC = {"backend": "tabular", "vocab": ["good", "bad"], "head": "scalar"}
RECIPE: dict[str, Any] = {
    "threads": 1,
    "models": {
        "policy": {"backend": "tabular", "vocab": ["good", "bad"]},
        "reference": {"of": "policy"},
        **{f"critic/{part}": CRITIC for part in ("ref_words", "ref_bads", "kl")},
    },
    "tasks": [Task(str(i), f"task {i}") for i in range(8)],
    "reward": "(ref_good | par(samples=3, max_tokens=4)) + (ref_words | multiplier(threshold=0.9))"
    " + (ref_bads | multiplier(threshold=0.05, kind='equal', lr=0.5)) + 0.1 * (ref_length | running_norm)",
    "correct": "ref_words",
    "rollout": {"use": "parallel", "max_tokens": 4},
    "kl": {"coefficient": 0.05},
    "credit": "constrained",
    "critic": {"lr": 0.05},
    "train": {"steps": 8, "prompts": 2, "samples": 4, "lr": 0.01, "checkpoint_every": 3},
}  # fmt: skip


class Impatient:
    def on_start(self, recipe: Any, folder: Any, step: int, total: int) -> None: ...
    def on_event(self, step: int, kind: str, text: str) -> None: ...
    def on_end(self) -> None: ...
    def on_step(self, values: Any) -> None:
        if values[m.STEP] == 5:
            raise KeyboardInterrupt


def state_of(folder: Path) -> bytes:
    last = checkpoint.latest(folder / "checkpoints")
    assert last is not None
    return (last / "state.json").read_bytes()


def test_a_stopped_run_with_references_multipliers_and_statistics_ends_with_the_same_numbers(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    whole = train(RECIPE, folder=a)
    with pytest.raises(Interrupted):
        train(RECIPE, folder=b, trackers=[Impatient()])
    train(resume=b)
    ours, theirs = ([{k: v for k, v in row.items() if not m.is_clock(k)} for row in read_metrics(f)] for f in (a, b))
    assert ours == theirs
    assert state_of(a) == state_of(b)
    assert b'"known":{"' in state_of(a)
    assert all(row[m.FAILED] == 0 for row in whole.metrics[1:])  # every task was prepared before it was scored
    held = [row["multiplier/ref_words"] for row in whole.metrics[1:]]
    assert held == sorted(held)  # the mean stays below 0.9
    assert held[0] > 0.5
    assert whole.last("multiplier/ref_bads") < 0  # and that of the other part above 0.05


COUNTER = itertools.count()


@reward(inline=True, pure=False)
def ref_fickle(text: str) -> float:
    """A judge who never says the same twice: only what was written down comes back."""
    return float(next(COUNTER))


def test_scores_of_the_reference_are_read_back_after_a_stop(tmp_path: Path) -> None:
    recipe = {key: value for key, value in RECIPE.items() if key not in ("kl", "credit", "critic")}
    recipe |= {"reward": "ref_fickle | par(samples=3, max_tokens=4)", "models": {k: RECIPE["models"][k] for k in ("policy", "reference")}}
    recipe["train"] = {**RECIPE["train"], "checkpoint_every": 100}

    def known(**where: Any) -> dict[str, list[float]]:
        spec, path = prepare(None if "resume" in where else recipe, **where)
        run = Run(spec, path, load_tasks(spec), [Impatient()])
        with pytest.raises(Interrupted):
            run.go()
        return run.stages[0].state_dict()["pieces"]["shape/0/par"]["known"]

    first = known(folder=tmp_path / "run")
    assert len(first) == 8
    assert known(resume=tmp_path / "run") == first

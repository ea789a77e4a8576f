"""What every registered annotator keeps to: cells that go together, given answers first and in order, the same call twice."""

from __future__ import annotations

import json

import numpy as np
import pytest

from guerdon import registry
from guerdon.annotation import Labels
from guerdon.backends.scripted import Scripted
from guerdon.rewards import reward

PARAMETERS = {"grounded": {"tool": "not_b", "rounds": 0}}
"""What a piece cannot do without here."""


@reward(inline=True, grain="step", name="not_b")
def not_b(steps: list[str]) -> list[float]:
    return [float(step.strip() != "b") for step in steps]


def says(messages, rng):
    """A judge that talks every way: verdicts for most answers, nothing for some."""
    n = messages[-1]["content"].count("<<<step_")
    records = [{"step": i, "explanation": "so", "reference_steps": [1], "label": "CORRECT"} for i in range(1, n)]
    if rng.random() < 0.3:
        return "no idea"
    if "reference solution" in messages[0]["content"]:
        return json.dumps(records)
    return json.dumps({"verdicts": [str(rng.choice(["right", "wrong"])) for _ in range(n)]})


@pytest.mark.parametrize("name", registry.names("annotator"))
def test_contract(name, world, answer) -> None:
    fn = registry.find("annotator", name).fn
    rng = np.random.default_rng(0)
    samples = [answer("".join(rng.choice(["g", "g", "b"], rng.integers(0, 7))), f"{i % 5}=", i % 5) for i in range(14)]

    def call(given):
        context = world(slip=0.2, fails=["g\ng\ng\ng\ng\ng"])
        context.models["judge"] = Scripted(says)
        return fn(given, context, **PARAMETERS.get(name, {}))

    labels = call(samples)
    assert isinstance(labels, Labels)
    assert [s.text for s in labels.samples[: len(samples)]] == [s.text for s in samples]
    n, s = labels.value.shape
    assert n == len(labels.samples) == len(labels.text)
    assert labels.count.shape == labels.confidence.shape == (n, s)
    known = ~np.isnan(labels.value)
    assert ((labels.value[known] >= 0) & (labels.value[known] <= 1)).all()
    assert ((labels.confidence[known] >= 0) & (labels.confidence[known] <= 1)).all()
    assert np.isnan(labels.confidence[~known]).all()
    assert (labels.count[~known] == 0).all()
    for i, sample in enumerate(labels.samples):
        assert len(labels.text[i]) == len(sample.steps) > 0
        assert not known[i, len(sample.steps) :].any()
        for t, text in enumerate(labels.text[i]):
            assert known[i, t] or text.startswith("no label: "), (i, t, text)
    again = call(samples)
    assert np.array_equal(labels.value, again.value, equal_nan=True)
    assert labels.text == again.text
    assert labels.cost == again.cost
    assert len(call([]).samples) == 0

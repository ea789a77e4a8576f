"""An ensemble of fitted members: by seed and by body, put together in an expression, against the members scored one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import guerdon.shaping  # noqa: F401  fills the registry
import guerdon.training.fit as fits
from guerdon.reward_models import fitted
from guerdon.rewards.expr import Pipe
from guerdon.samples import Context, Sample, Task
from guerdon.scoring import Engine

NAMES = ("a", "b", "c")
TEXTS = ["3", "5", "8", "31"]


@pytest.fixture(scope="module")
def members(characters: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders a and b of one body and two seeds, c of another body."""
    path = tmp_path_factory.mktemp("ensemble")
    for body in (3, 4):
        _, model = characters(body)
        model.causal.save_pretrained(path / f"body{body}")
        model.tokens.tokenizer.save_pretrained(path / f"body{body}")
    pairs = [{"prompt": f"{x}+2=", "chosen": str(x + 2), "rejected": str(x + 3)} for x in range(1, 13)]
    (path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    for name, body, seed in zip(NAMES, (3, 3, 4), (1, 2, 1), strict=True):
        recipe = {"model": {"path": str(path / f"body{body}")}, "data": str(path / "pairs.jsonl"), "loss": "bradley_terry"}
        fits.fit({**recipe, "seed": seed, "train": {"epochs": 2, "batch": 4, "lr": 3e-3}}, folder=path / name)
    return path


def samples() -> list[Sample]:
    return [Sample(Task(str(x), f"{x}+2="), text, group=x, stop="end") for x in (1, 5) for text in TEXTS]


def alone(path: Path, some: list[Sample]) -> np.ndarray:
    """(n, members) what each says by itself."""
    out = []
    for name in NAMES:
        card, model = fits.folders.read(path / name), fits.local(path / name, trainable=False)
        out.append([v.value for v in fitted.score(model, card, some)])  # type: ignore[union-attr]
    return np.array(out, dtype=float).T


def each(path: Path, shape: str) -> str:
    return ", ".join(f"reward_model(path='{path / name}'){shape}" for name in NAMES)


def test_members_differ_by_seed_and_by_body(members: Path):
    r = alone(members, samples())
    assert all(np.abs(r[:, i] - r[:, j]).max() > 1e-3 for i in range(3) for j in range(i))


def test_in_files_members_are_measured_within_their_groups(members: Path):
    some = samples()
    r = alone(members, some).reshape(2, len(TEXTS), 3)
    z = r - r.mean(1, keepdims=True)
    apart = each(members, " | group_norm(scale=False)")
    with Engine(workers=1) as engine:
        for text, wanted in (
            (f"min({apart})", z.min(-1)),
            (f"mean({apart}) - 0.5 * std({apart})", z.mean(-1) - 0.5 * z.std(-1)),
            (f"std({apart})", z.std(-1)),
        ):
            np.testing.assert_allclose(engine.score(text, some).total(), wanted.ravel(), atol=1e-4)


def test_in_runs_they_are_centred_on_the_reference(members: Path):
    """`prepare` as the loop calls it, then the expression."""
    some = samples()
    reference = fits.local(str(members / "body3"), trainable=False)
    context = Context(models={"reference": reference}, rng=np.random.default_rng(0))
    with Engine(context, workers=1) as engine:
        root = engine.check(f"min({each(members, ' | centred(samples=3, max_tokens=4)')})")
        seen: list[list[Sample]] = []
        for node in root.walk():
            if isinstance(node, Pipe):

                def score(answers: Any, source: Any = node.source) -> Any:
                    seen.append(list(answers))
                    return engine.score(source, list(answers))

                node.shape.fn.prepare([some[0].task, some[4].task], score, context)
        found = engine.score(root, some).total()
    assert len(seen) == 3
    r = alone(members, some)
    for j, answers in enumerate(seen):
        of = alone(members, answers)[:, j]
        for task in (some[0].task, some[4].task):
            mean = np.mean([value for value, s in zip(of, answers, strict=True) if s.task.key == task.key])
            r[[i for i, s in enumerate(some) if s.task.key == task.key], j] -= mean
    np.testing.assert_allclose(found, r.min(1), atol=1e-4)

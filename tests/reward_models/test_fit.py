"""`guerdon fit` from end to end on a small transformer: both drivers, resuming, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

import guerdon.training.fit as fits
from guerdon.registry import Broke, Interrupted, Refused
from guerdon.reward_models import Learner
from guerdon.reward_models.fit import batch_of, batches, tokenise
from guerdon.rewards.parse import parse
from guerdon.samples import Context, Sample, Task
from guerdon.scoring import Engine
from guerdon.spans import mark
from guerdon.training.fit_recipe import read

SUMS = [(a, b) for a in range(1, 8) for b in range(1, 4)]


@pytest.fixture(scope="module")
def body(characters: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model's folder in float64."""
    path = tmp_path_factory.mktemp("body") / "model"
    _, model = characters(3)
    model.causal.save_pretrained(path)
    model.tokens.tokenizer.save_pretrained(path)
    return str(path)


def rows(kind: str) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for a, b in SUMS:
        prompt, right, wrong = f"{a}+{b}=", str(a + b), str(a + b + 1)
        if kind == "pairs":
            out.append({"prompt": prompt, "chosen": right, "rejected": wrong + "\n" * (a % 2), "margin": a % 3})
        if kind == "outcomes":
            out += [{"prompt": prompt, "completion": right, "label": 1}, {"prompt": prompt, "completion": wrong, "label": a % 2}]
        if kind == "steps":
            out.append({"prompt": prompt, "steps": [f"{a}+{b}\n", wrong if a % 2 else right, "0"], "labels": [1, 1 - a % 2, None]})
        if kind == "classes":
            out.append({"prompt": prompt, "steps": [f"{a}+{b}\n", wrong if a % 2 else right], "labels": [b % 3 - 1, -1 if a % 2 else 1]})
        if kind == "levels":
            out.append({"prompt": prompt, "completion": right, "label": 1 + a % 5})
    return out


CASES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "bradley_terry": ("pairs", {"loss": {"use": "bradley_terry", "margin": 0.2}}, AutoModelForSequenceClassification),
    "two layers": ("pairs", {"loss": "bradley_terry", "head": "two_layer"}, AutoModel),
    "outcome_ce": ("outcomes", {"loss": "outcome_ce"}, AutoModelForSequenceClassification),
    "outcome_mse": ("outcomes", {"loss": "outcome_mse"}, AutoModelForSequenceClassification),
    "outcome_classes": ("outcomes", {"loss": "outcome_classes"}, AutoModelForSequenceClassification),
    "ordinal": ("levels", {"loss": "ordinal"}, AutoModelForSequenceClassification),
    "step_ce": ("steps", {"loss": "step_ce"}, AutoModelForTokenClassification),
    "step_classes": ("classes", {"loss": "step_classes"}, AutoModelForTokenClassification),
    "token_values": ("outcomes", {"loss": "token_values"}, AutoModelForTokenClassification),
    "implicit_ce": ("outcomes", {"loss": {"use": "implicit_ce", "beta": 0.5}}, AutoModelForCausalLM),
    "dpo": ("pairs", {"loss": {"use": "dpo", "beta": 0.5}}, AutoModelForCausalLM),
    "nca": ("pairs", {"loss": {"use": "nca", "beta": 0.5}}, AutoModelForCausalLM),
    "a frozen body": ("outcomes", {"loss": "outcome_ce", "body": "frozen"}, AutoModelForSequenceClassification),
    "frozen, of steps": ("steps", {"loss": "step_ce", "body": "frozen", "head": "two_layer"}, AutoModel),
}
every = pytest.mark.parametrize("name", CASES)


def recipe(folder: Path, body: str, name: str, dtype: str = "float64", **train: Any) -> dict[str, Any]:
    kind, more, _ = CASES[name]
    path = folder / f"{kind}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(kind)))
    settings = {"epochs": 2, "batch": 6, "lr": 3e-3, "checkpoint_every": 2, **train}
    return {"model": {"path": body, "dtype": dtype, "micro_tokens": 256}, "data": str(path), "train": settings, "seed": 1, **more}


def losses(curve: list[dict[str, float]]) -> list[float]:
    return [row["loss"] for row in curve]


@every
def test_the_loop_s_driver_has_the_same_curve(tmp_path: Path, body: str, name: str):
    data = recipe(tmp_path, body, name)
    found = fits.fit(data, folder=tmp_path / "fit")
    spec = read(data)
    model = fits.open_model(spec)
    units = tokenise(model, fits.load(spec)[0].examples, 100)[0]
    fits.fill(model, spec, units)
    learner = Learner("rm", model, [spec.call], spec.weights, lr=3e-3, clip=1.0)
    curve = [learner.update(batch_of(some, model.dtype), Context())["rm/loss"] for some in batches(units, 6, 2, 1)]
    np.testing.assert_allclose(losses(found.curve), curve, rtol=0, atol=1e-8)
    assert len(curve) > 4
    assert np.mean(curve[-2:]) < np.mean(curve[:2])


@every
def test_killed_fits_go_on_to_the_same_numbers(tmp_path: Path, body: str, name: str, monkeypatch: pytest.MonkeyPatch):
    data = recipe(tmp_path, body, name)
    whole = fits.fit(data, folder=tmp_path / "whole")
    step = fits.Fitter.training_step

    def dies(self: Any, *given: Any, **more: Any) -> Any:
        if self.state.global_step == 3:
            raise Broke("killed")
        return step(self, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(fits.Fitter, "training_step", dies)
        with pytest.raises(Broke):
            fits.fit(data, folder=tmp_path / "again")
    with pytest.raises(Refused, match="its fit is not finished"):
        parse(f"reward_model(path='{tmp_path / 'again'}')")
    again = fits.fit(resume=tmp_path / "again")
    assert again.curve == whole.curve
    for file in [*(tmp_path / "whole").glob("*.safetensors")]:
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name
    with pytest.raises(Refused, match="is finished"):
        fits.fit(resume=tmp_path / "again")


def test_an_interrupted_fit_says_how_it_goes_on(tmp_path: Path, body: str, monkeypatch: pytest.MonkeyPatch):
    def stops(self: Any, *given: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(fits.Fitter, "training_step", stops)
    with pytest.raises(Interrupted, match=f"Interrupted; `guerdon fit --resume {tmp_path / 'fit'}` goes on"):
        fits.fit(recipe(tmp_path, body, "outcome_ce"), folder=tmp_path / "fit")


TEXTS = ["3", "1+2\n3\n4", "1+2\n\n9", "0"]


def samples() -> list[Sample]:
    out = [
        Sample(Task(str(i), prompt), text, group=i % 2) for i, (prompt, text) in enumerate(zip(["1+2=", "7-3="] * 2, TEXTS, strict=True))
    ]
    for sample in out:
        mark(sample)
    return out


def scored(expression: str, some: list[Sample]) -> Any:
    with Engine(workers=1) as engine:
        found = engine.score(expression, some)
    grain = found.outcome or found.step or found.token
    assert not found.failed.any(), found.why(0)
    assert grain is not None
    return grain.value


@every
@pytest.mark.parametrize(("dtype", "within"), [("float64", 1e-9), ("float32", 1e-4)])
def test_scores_hang_on_nothing_beside_the_answer(tmp_path: Path, body: str, name: str, dtype: str, within: float):
    """Alone, in any order, among others, and by transformers with padding on either side: the same scores."""
    fits.fit(recipe(tmp_path, body, name, dtype), folder=tmp_path / "fit")
    card = fits.folders.read(tmp_path / "fit")
    model = fits.local(tmp_path / "fit", trainable=False, dtype=dtype)  # type: ignore[arg-type]
    reference = None if card.head else fits.local(body, trainable=False, dtype=dtype)  # type: ignore[arg-type]
    from guerdon.reward_models import fitted

    some = samples()

    def scores(given: list[Sample]) -> list[list[float]]:
        out = fitted.score(model, card, given, probability=False, reference=reference)
        return [[v.value] if not isinstance(v, list) else [x for x in v if x is not None] for v in out]  # type: ignore[list-item]

    whole = scores(some)
    for a, b in zip(whole, [scores([s])[0] for s in some], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=within)
    for a, b in zip(whole, scores(some[::-1])[::-1], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=within)
    for a, b in zip(whole, scores(some + some)[len(some) :], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=within)
    assert np.ptp([x for row in whole for x in row]) > 100 * within
    kind = CASES[name][2]
    tokens = AutoTokenizer.from_pretrained(tmp_path / "fit")
    theirs, before = (kind.from_pretrained(p, dtype=getattr(torch, dtype)) for p in (tmp_path / "fit", body))
    ids = [tokens(str(s.task.prompt))["input_ids"] + tokens(s.text)["input_ids"] for s in some]
    for side in ("left", "right"):
        tokens.padding_side = side
        padded = tokens.pad({"input_ids": ids}, return_tensors="pt")
        with torch.no_grad():
            out, mask = theirs(**padded), padded["attention_mask"].bool()
            if kind is AutoModelForCausalLM:
                gained = out.logits.double().log_softmax(-1) - before(**padded).logits.double().log_softmax(-1)
            elif kind is not AutoModelForSequenceClassification:
                values = (model.head(out.last_hidden_state) if kind is AutoModel else out.logits).double()  # type: ignore[attr-defined]
        for i, (row, s) in enumerate(zip(whole, some, strict=True)):
            start = len(str(s.task.prompt))  # a token a character
            if kind is AutoModelForSequenceClassification:
                found = out.logits[i, None].double()
            elif kind is AutoModelForCausalLM:
                answer = torch.tensor(ids[i][start:])
                found = 0.5 * gained[i][mask[i]][start - 1 : -1].gather(1, answer[:, None]).sum(0, keepdim=True)
            else:
                ends = {"outcome": [-1], "step": [end - 1 for _, end in s.marks["step"]], "token": list(range(len(s.text)))}[card.grain]
                found = values[i][mask[i]][start:][ends]
            mine = fitted.readable(found.numpy(), card, False) if card.classes else found[:, 0].numpy()
            atol = 2e-5 if dtype == "float64" else within  # transformers computes the norms in float32
            np.testing.assert_allclose(row, mine, rtol=0, atol=atol)


def test_a_fitted_model_is_a_reward(tmp_path: Path, body: str):
    fits.fit(recipe(tmp_path, body, "step_ce"), folder=tmp_path / "steps")
    path, some = tmp_path / "steps", samples()
    each = scored(f"reward_model(path='{path}')", some)
    assert each.shape == (4, 3)
    counts = [len(s.marks["step"]) for s in some]
    rows = [row[:k] for row, k in zip(each, counts, strict=True)]
    assert all(0 < x < 1 for row in rows for x in row)
    for how, put in {"min": min, "product": np.prod, "last": lambda r: r[-1], "mean": np.mean}.items():
        np.testing.assert_allclose(scored(f"reward_model(path='{path}', aggregate='{how}')", some), [put(r) for r in rows], atol=1e-12)
    logits = scored(f"reward_model(path='{path}', probability=False)", some)
    t = fits.folders.read(path).temperature
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[0, 0] / t)), each[0, 0], atol=1e-12)
    assert scored(f"0.5 * reward_model(path='{path}', aggregate='min') + 1", some).shape == (4,)  # an outcome: it adds up with others
    fits.fit(recipe(tmp_path, body, "outcome_ce"), folder=tmp_path / "whole")
    with pytest.raises(Refused, match="nothing to put together"):
        parse(f"reward_model(path='{tmp_path / 'whole'}', aggregate='min')")
    with pytest.raises(Refused, match="is no folder of a fitted reward model"):
        parse(f"reward_model(path='{tmp_path}')")


@pytest.mark.parametrize("name", ["implicit_ce", "dpo", "nca"])
def test_without_a_head_it_is_measured_and_scores_by_its_log_ratio(tmp_path: Path, body: str, name: str, token_logprobs: Any):
    """Against plain passes of both models over one row at a time: the held-out figures and the reward."""
    found = fits.fit({**recipe(tmp_path, body, name), "held_out": 0.3}, folder=tmp_path / "fit")
    now, before = (AutoModelForCausalLM.from_pretrained(p, dtype=torch.float64) for p in (tmp_path / "fit", body))
    tokens = AutoTokenizer.from_pretrained(tmp_path / "fit")

    def ratio(prompt: str, text: str) -> float:
        rows = [np.array(tokens(x)["input_ids"]) for x in (prompt, text)]
        return 0.5 * float(sum((token_logprobs(now, *rows) - token_logprobs(before, *rows)).tolist()))

    spec = read({**recipe(tmp_path, body, name), "held_out": 0.3})
    held = fits.load(spec)[1].examples
    each = [[ratio(str(e.prompt), a.text) for a in e.answers] for e in held]
    right = [row[i] > row[j] for e, row in zip(held, each, strict=True) for i, j in e.pairs]
    if name == "implicit_ce":
        right = [(row[0] > 0) == (e.answers[0].outcome == 1) for e, row in zip(held, each, strict=True)]
    assert found.held_out["n"] == len(right) > 5
    assert found.held_out["accuracy"] == pytest.approx(np.mean(right))
    assert 0 <= found.held_out["calibration_error_at_temperature"] <= 1
    assert "- calibration error:" in (tmp_path / "fit" / "README.md").read_text()
    some = samples()
    values = scored(f"reward_model(path='{tmp_path / 'fit'}', probability=False)", some)
    np.testing.assert_allclose(values, [ratio(str(s.task.prompt), s.text) for s in some], atol=1e-4)
    if name == "implicit_ce":
        likely = scored(f"reward_model(path='{tmp_path / 'fit'}')", some)
        np.testing.assert_allclose(likely, 1 / (1 + np.exp(-values / found.held_out["temperature"])), atol=1e-6)


def test_the_folder_says_what_it_is(tmp_path: Path, body: str):
    (tmp_path / "bad.jsonl").write_text(
        '{"prompt": "1+1=", "chosen": "2", "rejected": "2"}\n{"prompt": "1+1=", "chosen": "2", "rejected": "3"}\n'
    )
    data = recipe(tmp_path, body, "bradley_terry")
    found = fits.fit({**data, "data": [data["data"], str(tmp_path / "bad.jsonl")], "held_out": 0.3}, folder=tmp_path / "fit")
    assert found.held_out["n"] == 6
    assert [str(r) for r in found.rejected] == [f"{tmp_path}/bad.jsonl, row 1: `rejected` is equal to `chosen`"]
    text = (tmp_path / "fit" / "README.md").read_text()
    for part in ("bad.jsonl`, read as pairs", "16 examples learnt, 6 held out, 1 rows left out", "seed 1", "accuracy:", "temperature:"):
        assert part in text, part
    fits.folders.add_section(tmp_path / "fit", "Bench", "ProcessBench F1 0.5")
    after = (tmp_path / "fit" / "README.md").read_text()
    assert "## Bench\n\nProcessBench F1 0.5\n\n## Audit\n\nNot measured yet." in after
    assert after.startswith(text[: text.index("## Bench")])
    assert not (tmp_path / "fit" / "checkpoints").exists()


def test_what_is_refused(tmp_path: Path, body: str, characters: Any, pairs: Any):
    data = recipe(tmp_path, body, "bradley_terry")
    for change, why in {
        "loss=bradley_tery": "did you mean 'bradley_terry'",
        "loss=ppo_clip": "is no loss of a reward model",
        "train.epoch=2": "did you mean 'epochs'",
        "data=nowhere.jsonl": "there is no file nowhere.jsonl",
        "head=classes": "reads a head 'scalar', not 'classes'",
        "loss=step_ce": "this loss learns labelled steps",
        "held_out=1.5": "a share is at least 0 and below 1",
    }.items():
        with pytest.raises(Refused, match=why):
            fits.fit(data, change, folder=tmp_path / "fit")
    other = tmp_path / "other"
    pairs(2)[1].tokens.tokenizer.save_pretrained(other)
    for model in (data["model"], body):  # a bare path takes fields too
        with pytest.raises(Refused, match="it is the tokenizer of another model"):
            fits.fit({**data, "model": model}, f"model.tokenizer={other}", folder=tmp_path / "fit")
    assert not (tmp_path / "fit").exists()
    fits.fit(data, folder=tmp_path / "fit")
    with pytest.raises(Refused, match="already holds a fit"):
        fits.fit(data, folder=tmp_path / "fit")
    swapped = json.loads((tmp_path / "fit" / "fitted.json").read_text()) | {"tokenizer": "0"}
    (tmp_path / "fit" / "fitted.json").write_text(json.dumps(swapped))
    with pytest.raises(Refused, match="is not the one this reward model was fitted with"):
        fits.local(tmp_path / "fit")


GRAINS = ["outcome_ce", "two layers", "step_ce", "step_classes", "token_values", "implicit_ce"]


@pytest.mark.parametrize("name", GRAINS)
def test_a_wrong_pad_token_is_refused(tmp_path: Path, body: str, name: str):
    fits.fit(recipe(tmp_path, body, name, epochs=1), folder=tmp_path / "fit")
    config = json.loads((tmp_path / "fit" / "config.json").read_text()) | {"pad_token_id": 5}
    (tmp_path / "fit" / "config.json").write_text(json.dumps(config))
    with pytest.raises(Refused, match=r"has the pad token 5 in its .* and 0 in its tokenizer"):
        fits.local(tmp_path / "fit")


@pytest.mark.parametrize("name", GRAINS)
def test_a_truncated_answer_is_told_with_its_row(tmp_path: Path, body: str, name: str):
    """What stands before the cut has the scores that it has alone; steps and tokens behind it have none."""
    fits.fit(recipe(tmp_path, body, name, epochs=1), folder=tmp_path / "fit")
    grain = fits.folders.read(tmp_path / "fit").grain
    short, long = (Sample(Task("t7", "1+2="), "1+2=3\n" * n) for n in (10, 12))  # the model has 64 positions: 4 and 60
    for sample in (short, long):
        mark(sample)
    from guerdon.rewards import core

    fn = core.get("reward_model").fn
    with pytest.warns(UserWarning, match=r"Sample 1 \(task 't7'\) is truncated: 76 tokens, the model reads 64"):
        [whole, cut] = fn([short, long], path=str(tmp_path / "fit"))
    if grain == "outcome":
        assert (whole.reason, cut.reason) == ("", "truncated: 76 tokens, cut to 64")
        assert cut.value == pytest.approx(whole.value, abs=1e-5)
    else:
        scored = [x for x in cut if x is not None]
        assert len(scored) == len(whole) == (10 if grain == "step" else 60)
        np.testing.assert_allclose(scored, whole, atol=1e-5)
        assert cut[: len(scored)] == scored


def test_a_body_without_words_is_not_asked_for_them(tmp_path: Path, body: str):
    fits.fit(recipe(tmp_path, body, "outcome_ce"), folder=tmp_path / "fit")
    model = fits.local(tmp_path / "fit", trainable=False)
    units, _ = tokenise(model, fits.load(read(recipe(tmp_path, body, "outcome_ce")))[0].examples[:1], 64)
    with pytest.raises(Refused, match="without the layer that gives 'logprobs', which this call needs"):
        model.forward(batch_of(units), ("logprobs",))
    with pytest.raises(Refused, match="which sampling needs"):
        model.sample([np.array([1])], 1, None)  # type: ignore[arg-type]


def test_long_rows_are_cut_with_a_warning(tmp_path: Path, body: str):
    with pytest.warns(UserWarning, match=r"pairs.jsonl, row 1: .* tokens, cut to 4"):
        found = fits.fit(recipe(tmp_path, body, "bradley_terry", max_tokens=4), folder=tmp_path / "fit")
    assert "outcomes" not in found.warnings
    long = Sample(Task("t7", "1+2="), "1" * 80)  # the model has 64 positions
    mark(long)
    from guerdon.rewards import core

    with pytest.warns(UserWarning, match=r"Sample 1 \(task 't7'\) is truncated: 84 tokens, the model reads 64"):
        got = core.get("reward_model").fn([samples()[0], long], path=str(tmp_path / "fit"))
    assert got[0].reason == ""
    assert got[1].reason == "truncated: 84 tokens, cut to 64"


def test_the_verb_from_end_to_end(tmp_path: Path, body: str, capsys: pytest.CaptureFixture[str]):
    """`guerdon fit`, then `guerdon score` with what it wrote, by its path and as a model of its own name."""
    import yaml
    from typer.testing import CliRunner

    from guerdon.cli import app

    data = recipe(tmp_path, body, "outcome_ce")
    with (tmp_path / "outcomes.jsonl").open("a") as file:
        file.write('{"prompt": "1+1=", "completion": "2", "label": 7}\n')
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(data))
    run = CliRunner().invoke
    found = run(app, ["fit", str(tmp_path / "fit.yaml"), "held_out=0.2", "--out", str(tmp_path / "fit")])
    assert found.exit_code == 1, found.output  # a row was left out
    assert (tmp_path / "fit" / "rejected.jsonl").read_text().count("outside its range: 0 to 1") == 1
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps({"prompt": "1+2=", "completion": text}) + "\n" for text in TEXTS))
    by_path = ["--reward", f"reward_model(path='{tmp_path / 'fit'}', probability=False)", "--out", str(tmp_path / "a.jsonl")]
    by_name = ["--reward", "orm(model='rm')", "--model", f"rm={tmp_path / 'fit'}", "--out", str(tmp_path / "b.jsonl")]
    values = []
    for how, out in ((by_path, "a.jsonl"), (by_name, "b.jsonl")):
        assert run(app, ["score", str(answers), *how]).exit_code == 0
        values.append([json.loads(line)["reward"] for line in (tmp_path / out).read_text().splitlines()])
    np.testing.assert_allclose(values[0], values[1], atol=1e-6)
    assert np.ptp(values[0]) > 0


def test_in_a_recipe(tmp_path: Path, body: str):
    """`reward: {use: reward_model, path: ...}` trains a policy, and a folder that is not there is refused when the recipe is read."""
    from guerdon.training.run import train

    fits.fit(recipe(tmp_path, body, "bradley_terry"), folder=tmp_path / "fit")
    (tmp_path / "tasks.jsonl").write_text('{"prompt": "1+2=", "reference": "3"}\n{"prompt": "7-3=", "reference": "4"}\n')
    data = {
        "models": {"policy": {"path": body}},
        "tasks": str(tmp_path / "tasks.jsonl"),
        "reward": {"use": "reward_model", "path": str(tmp_path / "fit")},
        "correct": "exact",
        "rollout": {"use": "parallel", "max_tokens": 6},
        "train": {"steps": 1, "prompts": 2, "samples": 4, "max_refills": 0},
        "workers": 1,
    }
    found = train(data, folder=tmp_path / "run")
    assert len(found.metrics) >= 1
    with pytest.raises(Refused, match="is no folder of a fitted reward model"):
        train({**data, "reward": {"use": "reward_model", "path": str(tmp_path)}}, folder=tmp_path / "other")

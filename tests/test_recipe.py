"""Recipes are refused as a whole, in sentences that name the field and the nearest right word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import guerdon as g
from guerdon import recipe

GOOD: dict[str, Any] = {"models": {"policy": {"path": "tiny"}}, "tasks": {"use": "arithmetic", "n": 10}, "reward": "exact"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rewrd": "exact"}, "no field 'rewrd'; did you mean 'reward'?"),
        ({"train": {"stps": 3}}, "no field 'train.stps'; did you mean 'steps'?"),
        ({"reward": "exakt"}, "did you mean 'exact'?"),
        ({"reward": "length(targt=3)"}, "no parameter 'targt'; did you mean 'target'?"),
        ({"credit": "grop"}, "no credit 'grop'; did you mean 'grpo'?"),
        ({"loss": {"use": "ppo_clip", "clipp": 1}}, "no parameter 'clipp'; did you mean 'clip'?"),
        ({"loss": {"use": "ppo_clip", "clip": "wide"}}, "ppo_clip.clip = 'wide'"),
        ({"aggregate": "constant"}, "needs the parameter 'tokens'"),
        ({"credit": "gae"}, "needs the field 'values', which a critic fills"),
        ({"loss": ["ppo_clip", "kl"]}, "add models: {reference: {of: policy}}"),
        ({"models": {"policy": {"path": "tiny"}, "reference": {"of": "polcy"}}}, "did you mean 'policy'?"),
        ({"models": {}}, "no `policy`"),
        ({"models": {"policy": {"path": "tiny", "backend": "locl"}}}, "no backend 'locl'; did you mean 'local'?"),
        ({"tasks": None}, "tasks: missing"),
        ({"tasks": {"use": "arithmetik", "n": 3}}, "did you mean 'arithmetic'?"),
        ({"train": {"steps": "many"}}, "train.steps"),
        (
            {"kl": {"coefficient": 0.1}, "models": {"policy": {"path": "tiny"}, "reference": {"of": "policy"}}},
            "would ignore a token reward",
        ),
        ({"eval": {"gold": "nothing_such"}}, "eval.gold"),
        ({"plugins": ["no_such_module_anywhere"]}, "cannot be imported"),
        ({"stages": [{"loss": "sftt"}]}, "did you mean 'sft'?"),
    ],
)
def test_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(g.Refused) as caught:
        recipe.read({**GOOD, **changes})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_reach_every_field() -> None:
    read = recipe.read(GOOD, ["train.steps=7", "credit=rloo"])
    assert read.train.steps == 7
    assert read.credit is not None
    assert read.credit.use == "rloo"
    assert recipe.read({**GOOD, "credit": "grpo"}, ["credit.eps=0.1"]).plain()["credit"] == {"use": "grpo", "eps": 0.1}
    with pytest.raises(g.Refused, match="write key=value"):
        recipe.read(GOOD, ["train.steps"])


def test_a_service_that_no_model_provides_is_refused_by_name() -> None:
    @g.reward(name="asks_a_judge")
    def asks_a_judge(text: str, judge: Any) -> float:
        return judge(text)

    with pytest.raises(g.Refused, match="needs the service 'judge'"):
        recipe.read({**GOOD, "reward": "asks_a_judge"})


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(g.Refused, match="no recipe file"):
        recipe.read(tmp_path / "nothing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("reward: [")
    with pytest.raises(g.Refused, match="is not YAML"):
        recipe.read(broken)
    broken.write_text("- a list")
    with pytest.raises(g.Refused, match="must hold a mapping"):
        recipe.read(broken)


def test_stages_lay_over_the_recipe() -> None:
    read = recipe.read({**GOOD, "train": {"steps": 5, "lr": 0.1}, "stages": [{"loss": "sft", "credit": None}, {"train": {"steps": 9}}]})
    first, second = read.staged()
    assert ([use.use for use in first.loss], first.credit, first.train.steps) == (["sft"], None, 5)
    assert ([use.use for use in second.loss], second.train.steps, second.train.lr) == (["ppo_clip"], 9, 0.1)


def test_a_capability_that_the_backend_lacks_is_refused_before_the_start(tmp_path: Path) -> None:
    from guerdon.losses import loss

    @loss(name="wants_hidden_states", needs=("hidden",))
    def wants_hidden_states(out: Any, batch: Any) -> Any:
        return out["hidden"].sum(), {}

    tabular = {"models": {"policy": {"backend": "tabular"}}, "loss": "wants_hidden_states"}
    with pytest.raises(g.Refused, match="'wants_hidden_states' needs the capability 'hidden', which the backend of 'policy' lacks"):
        g.train({**GOOD, **tabular}, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(g.Refused, match="empty"):
        g.train({**GOOD, "models": {"policy": {"path": str(tmp_path / "empty")}}}, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()

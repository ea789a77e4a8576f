"""The code of README and docs runs, each page from top to bottom in one session; the recipes are readable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from guerdon import recipe, registry
from guerdon.training import fit_recipe

ROOT = Path(__file__).parents[1]
HOSTS = ("trl", "verl", "verifiers", "openrlhf")
"""Pages whose code needs these packages; tests/integrations runs it."""
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.stem not in HOSTS)]
BLOCK = re.compile(r"^```(python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text()) if kind == language]


OTHERS = ("trl", "verl", "verifiers", "openrlhf")
"""Trainers whose pages run in an environment of their own: `make test-integrations`."""


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python") and p.stem not in OTHERS], ids=lambda p: p.name)
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session: dict[str, object] = {"__name__": f"docs_{page.stem}"}
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), session)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "yaml")], ids=lambda p: p.name)
def test_yaml_of_a_page_is_a_recipe(page: Path, tmp_path: Path) -> None:
    (tmp_path / "my_rewards.py").write_text("")
    for text in blocks(page, "yaml"):
        data = yaml.safe_load(text.replace("my_rewards.py", str(tmp_path / "my_rewards.py")))
        assert of_fit(data, tmp_path) if "model" in data else recipe.read(data).staged()


def of_fit(data: dict[str, object], folder: Path) -> object:
    """A recipe of a fit, read with a file in the place of its data."""
    (folder / "data.jsonl").write_text("{}\n")
    return fit_recipe.read({**data, "data": str(folder / "data.jsonl")})


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_recipes_are_accepted(path: Path, tmp_path: Path) -> None:
    data = yaml.safe_load(path.read_text())
    if "model" in data:
        assert of_fit(data, tmp_path)
        return
    recipe.read({"tasks": "problems.jsonl", **data})


@pytest.mark.parametrize(
    "kind",
    [
        "env",
        "rollout",
        "reward",
        "shape",
        "select",
        "keep",
        "credit",
        "aggregate",
        "loss",
        "mix",
        "backend",
        "search",
        "annotator",
        "lesson",
    ],
)
def test_every_piece_has_its_place_in_the_reference(kind: str) -> None:
    page = (ROOT / "docs" / "reference" / "pieces.md").read_text()
    missing = [p.name for p in registry.pieces(kind) if p.where.startswith("guerdon.") and f"`{p.name}`" not in page]
    assert not missing, f"docs/reference/pieces.md leaves out {missing}"
